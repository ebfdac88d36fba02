"""The files in the run folder: options, environment, state, and log. Every file is written
atomically.
"""

import csv
import io
import logging
import os.path
from pathlib import Path
from typing import Any

import torch

from sasv.checkpoints.containers import torch_bytes
from sasv.core.errors import CheckpointError, MissingExtra, SasvError
from sasv.core.files import read_json, write_bytes, write_json, write_text
from sasv.core.options import Options, current_names, defaults_of, values_of
from sasv.tables import Utterances, load_utterances
from sasv.tables.content import Content, compare, content_of, rows_digest
from sasv.tables.table import text_digest
from sasv.training.provenance import environment
from sasv.weights import resolve

logger = logging.getLogger("sasv")

CHANGEABLE = {
    "out",
    "num_workers",
    "loader_timeout",
    "device",
    "epochs",
    "save_minutes",
    "allow_changed",
    "tensorboard",
}
"""Options that may change when a run is resumed."""

INPUTS = ("utterances", "dev_utterances", "dev_enrolments", "dev_trials", "init", "noises", "rirs")
"""Options that name files or folders, which are compared by content and not by path."""

REMEDY = "restore it, or remove it and resume from the last state with --allow-changed"

OTHER_ROWS = "the training table has other rows: table_sha256 was {}, now {}"


class RunFolder:
    """The folder of a run.

    Args:
        path: the folder.
        options: all options of the run, which are recorded and compared with those of an earlier
            run.
        utterances: the training rows.
        processes: number of processes that train together.
        allow_changed: whether a run may be resumed although options have changed.

    Attributes:
        state: file of the training state.
        notes: differences from the earlier run that do not prevent resuming.
    """

    def __init__(
        self,
        path: Path,
        options: Options,
        utterances: Utterances,
        processes: int,
        allow_changed: bool = False,
    ):
        self.path = path
        self.kind = type(options)
        self.values = values_of(options)
        self.utterances = utterances
        self.processes = processes
        self.allow_changed = allow_changed
        self.state = self.path / "state.pt"
        self.notes: list[str] = []

    def load(self) -> dict[str, Any] | None:
        """Return the state of an earlier run here, None if there is none.

        Raises:
            CheckpointError: the state is damaged.
        """
        if not self.state.exists():
            return None
        try:
            return torch.load(self.state, map_location="cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(
                f"{self.state}: damaged training state ({error}); remove it to start again"
            ) from error

    def changed(self) -> list[str]:
        """Return the differences of options, inputs and number of processes from the earlier run.

        An option that the earlier version did not have counts as having its default there. Inputs
        are compared by content.

        Raises:
            SasvError: the record of the earlier run is broken.
        """
        self.notes = []
        old = current_names(self.kind, self._read("options.json"))
        if not old:
            return ["its options.json is missing"]
        facts = self._read("environment.json").get("facts", {})
        if not isinstance(facts, dict) or not isinstance(facts.get("inputs") or {}, dict):
            raise SasvError(
                f"{self.path / 'environment.json'}: invalid (its facts are not an object); {REMEDY}"
            )
        defaults = defaults_of(self.kind)
        found = []
        for name, now in self.values.items():
            before = old.get(name, defaults.get(name))
            if name in INPUTS:
                found += self._input_changes(name, before, now, old, facts)
            elif name not in CHANGEABLE and before != now:
                found.append(f"{name} was {before!r}, now {now!r}")
        if facts.get("processes", self.processes) != self.processes:
            found.append(f"processes was {facts['processes']!r}, now {self.processes!r}")
        return found

    def _input_changes(
        self, name: str, before: Any, now: Any, old: dict[str, Any], facts: dict[str, Any]
    ) -> list[str]:
        """Return how a file or folder that an option names differs from that of the earlier run."""
        if not now or not before:
            return [f"{name} was {before!r}, now {now!r}"] if before != now else []
        kept: Content = (facts.get("inputs") or {}).get(name) or {"path": str(before)}
        if name == "utterances":
            return self._table_changes(kept, old, facts)
        if name == "init":
            kept = kept if "sha256" in kept else {"path": _weights(before)}
            now = _weights(now)
        found = compare(kept, now)
        if found == "changed":
            return [
                f"{name} was {before!r}, now {now!r}" if before != now else f"{name}: {now} changed"
            ]
        if found == "unknown":
            self.notes.append(
                f"{name} was {before}, which no longer exists; {now} is assumed to be the same"
            )
        return []

    def _table_changes(
        self, kept: Content, old: dict[str, Any], facts: dict[str, Any]
    ) -> list[str]:
        """Return the differences of the training table, except for the folders of its audio.

        Older versions recorded a digest of the whole table file (``table_sha256``) instead of one
        of the rows.
        """
        rows = rows_digest(self.utterances)
        if "rows" in kept:
            return [] if kept["rows"] == rows else [OTHER_ROWS.format(kept["rows"], rows)]
        path = str(old.get("utterances", ""))
        whole = facts.get("table_sha256")
        table = self.values["utterances"]
        now = text_digest(table)
        if whole is None:
            self.notes.append(
                f"there is no record of whether training began with the table {table}"
            )
            return []
        if whole == now:
            return []
        if Path(path).is_file() and text_digest(path) == whole:
            before = load_utterances(path, str(old.get("where", "")))
            if not self.values["spoof_pairs"]:
                before = before.take(~before.spoofed)
            if rows_digest(before) == rows:
                return []
        return [OTHER_ROWS.format(whole, now)]

    def check(self) -> bool:
        """Return whether anything has changed compared with the earlier run.

        Raises:
            SasvError: something has changed, and --allow-changed was not given.
        """
        changed = "; ".join(self.changed())
        if changed and not self.allow_changed:
            raise SasvError(
                f"{self.path}: contains a run with other options ({changed}); choose another "
                "--out, remove the folder, or resume from its last state with --allow-changed"
            )
        return bool(changed)

    def describe(self) -> None:
        """Write ``options.json``, which ``sasv train`` accepts as a configuration, and
        ``environment.json``; log the notes.
        """
        for note in self.notes:
            logger.info(note)
        table = os.path.abspath(self.values["utterances"])
        inputs = {"utterances": {"path": table, "rows": rows_digest(self.utterances)}}
        for name in INPUTS[1:]:
            path = self.values[name]
            content = content_of(_weights(path) if name == "init" else path) if path else None
            if content is not None:
                inputs[name] = content
        facts = {"inputs": inputs, "processes": self.processes}
        write_json(self.path / "options.json", self.values | {"allow_changed": False})
        write_json(self.path / "environment.json", environment() | {"facts": facts})

    def save(self, state: dict[str, Any], history: list[dict[str, Any]]) -> None:
        """Write the log and then the state, so that a run that is interrupted in between writes
        both again.
        """
        text = io.StringIO()
        names = list(dict.fromkeys(name for entry in history for name in entry))
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        write_text(self.path / "metrics.csv", text.getvalue())
        write_bytes(self.state, torch_bytes(state | {"history": history}))

    def _read(self, name: str) -> dict[str, Any]:
        """Return a JSON object of the earlier run, empty if there is none. Raises SasvError if it
        is broken.
        """
        path = self.path / name
        if not path.exists():
            return {}
        value: dict[str, Any] = read_json(path, remedy=REMEDY)
        return value


def _weights(name: str) -> str:
    """Return the file of a checkpoint that is given by path or by name; if there is none on this
    machine, return the name itself.
    """
    try:
        return str(resolve(name))
    except CheckpointError:
        return name


class Board:
    """Writes TensorBoard files, if requested.

    Args:
        folder: folder for the event files; "" writes none.
        step: the next step; values of an earlier run from this step on are hidden.
    """

    def __init__(self, folder: str | Path, step: int):
        self.writer: Any = None
        if not folder:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra("tensorboard", "tensorboard", "--tensorboard") from error
        self.writer = SummaryWriter(str(folder), purge_step=step)

    def add(self, step: int, values: dict[str, Any], group: str) -> None:
        """Write numbers under ``group/name``; other values are left out."""
        if self.writer is None:
            return
        for name, value in values.items():
            if isinstance(value, int | float):
                self.writer.add_scalar(f"{group}/{name}", value, step)
        self.writer.flush()
