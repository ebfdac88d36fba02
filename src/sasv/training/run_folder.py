"""What a run keeps in its folder: options, environment, state, log. Every file is written whole or not at all."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import torch

from sasv.checkpoints.containers import torch_bytes
from sasv.core.errors import CheckpointError, MissingExtra, SasvError
from sasv.core.files import write_bytes, write_json, write_text
from sasv.training.options import TrainOptions
from sasv.training.provenance import environment

FREE = {"out", "workers", "device", "epochs", "save_minutes", "allow_changed", "tensorboard"}
"""Options that may change when a run goes on."""


class RunFolder:
    """The folder of a run.

    Args:
        options: of the run.
        facts: what a run must also agree on to go on: digest of the training table, number of processes.
    """

    def __init__(self, options: TrainOptions, facts: dict[str, Any]):
        self.path = Path(options.out)
        self.options, self.facts = options, facts
        self.state = self.path / "state.pt"

    def load(self) -> dict[str, Any] | None:
        """Return the state of an earlier run here, None where there is none.

        Raises:
            CheckpointError: the state is broken.
        """
        if not self.state.exists():
            return None
        try:
            return torch.load(self.state, map_location="cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(f"{self.state}: broken training state ({error}); remove it to begin anew") from error

    def changed(self) -> list[str]:
        """Return how the options and facts differ from those of the earlier run."""
        old = self._read("options.json") | self._read("environment.json").get("facts", {})
        new = json.loads(json.dumps(vars(self.options))) | self.facts
        return [
            f"{name} was {old.get(name)!r}, now {new[name]!r}"
            for name in new
            if name not in FREE and old.get(name) != new[name]
        ]

    def check(self) -> bool:
        """Return whether something changed that was allowed to.

        Raises:
            SasvError: something changed, and --allow-changed was not given.
        """
        changed = "; ".join(self.changed())
        if changed and not self.options.allow_changed:
            raise SasvError(
                f"{self.path}: holds a run with other options ({changed}); choose another --out, remove it, or go on "
                "from its last state with --allow-changed"
            )
        return bool(changed)

    def describe(self) -> None:
        """Write ``options.json`` (a file that ``sasv train`` takes) and ``environment.json``."""
        write_json(self.path / "options.json", vars(self.options) | {"allow_changed": False})
        write_json(self.path / "environment.json", environment() | {"facts": self.facts})

    def save(self, state: dict[str, Any], history: list[dict[str, Any]]) -> None:
        """Write the state and the log."""
        write_bytes(self.state, torch_bytes(state | {"history": history}))
        text = io.StringIO()
        names = list(dict.fromkeys(name for entry in history for name in entry))
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        write_text(self.path / "metrics.csv", text.getvalue())

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path / name
        return json.loads(path.read_text()) if path.exists() else {}


class Board:
    """TensorBoard, where it is wanted.

    Args:
        folder: for its event files; "" for none.
        step: the first step to come; what an earlier run wrote from there on is hidden.
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
        """Write numbers under ``group/name``; what is no number is left out."""
        if self.writer is None:
            return
        for name, value in values.items():
            if isinstance(value, int | float):
                self.writer.add_scalar(f"{group}/{name}", value, step)
        self.writer.flush()
