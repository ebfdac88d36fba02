"""Utterance tables: audio files, their speakers, and further information about them."""

import os
from functools import cached_property
from pathlib import Path

import numpy as np

from sasv.audio.channels import AUTO, is_channel
from sasv.core.files import system_path
from sasv.storage.locations import joined, relative
from sasv.tables.labels import NONE, UTTERANCE_LABELS
from sasv.tables.table import Table
from sasv.tables.view import TableView, check_filled, check_known, check_unique


class Utterances(TableView):
    """Audio files, with the columns utterance, path, speaker, and optionally label, attack,
    seconds, and others.

    Relative paths are relative to the folder of the table.
    """

    def __init__(self, table: Table):
        super().__init__(table)
        table.require("utterance", "path", "speaker")
        check_unique(table, "utterance")
        check_filled(table, "path", "speaker")
        if "label" in table.columns:
            check_known(table, "label", UTTERANCE_LABELS)

    @cached_property
    def ids(self) -> list[str]:
        """Name of the utterance in each row."""
        return self.table.texts("utterance")

    @cached_property
    def rows(self) -> dict[str, int]:
        """Utterance name -> row."""
        return {name: row for row, name in enumerate(self.ids)}

    def path(self, row: int) -> str:
        """Return the path of the audio file of a row."""
        return system_path(joined(self.folder, self.table.text("path", row)))

    @property
    def paths(self) -> list[str]:
        """Return the paths of the audio files of all rows."""
        return [system_path(joined(self.folder, path)) for path in self.table.texts("path")]

    @cached_property
    def folder(self) -> str:
        """Folder to which relative paths are relative."""
        return os.path.dirname(self.table.name)

    def save(self, path: str | Path) -> None:
        """Write the table atomically as TSV. Relative paths are rewritten so that they still refer
        to the same files.
        """
        folder = os.path.abspath(os.path.dirname(path))
        if folder == os.path.abspath(self.folder):
            self.table.save(path)
            return
        moved = []
        for written, found in zip(self.table.texts("path"), self.paths):
            if Path(written).is_absolute():
                moved.append(written)
            else:
                moved.append(relative(found, folder))
        self.table.with_column("path", moved).save(path)

    @cached_property
    def speakers(self) -> tuple[np.ndarray, list[str]]:
        """Index of the speaker of each row, (rows,), and the names of the speakers."""
        return self.table.codes("speaker")

    @cached_property
    def spoofed(self) -> np.ndarray:
        """Whether each row is spoofed, bool (rows,); all False if the table has no label column."""
        if "label" not in self.table.columns:
            return np.zeros(len(self), bool)
        codes, names = self.table.codes("label")
        return np.array([name == "spoof" for name in names], bool)[codes]

    @cached_property
    def seconds(self) -> np.ndarray | None:
        """Length of each utterance in seconds, (rows,), or None if the table has no such column."""
        if "seconds" not in self.table.columns:
            return None
        values = self.table.numbers("seconds")
        if len(values) and values.min() < 0:
            raise self.table.bad_cell("seconds", int(values.argmin()), "is negative")
        return values

    @cached_property
    def channels(self) -> tuple[np.ndarray, list[str]]:
        """Index of the channel of each row, (rows,), and the channels; ``auto`` if the column or
        the cell is missing.
        """
        if "channel" not in self.table.columns:
            return np.zeros(len(self), np.int32), [AUTO]
        codes, names = self.table.codes("channel")
        for code, name in enumerate(names):
            if name != NONE and not is_channel(name):
                row = int(np.flatnonzero(codes == code)[0])
                raise self.table.bad_cell(
                    "channel", row, "is unknown; use auto, mean, loudest, or a number from 0 on"
                )
        return codes, [AUTO if name == NONE else name for name in names]

    def channel(self, row: int) -> str:
        """Return the channel of the recording that a row uses: auto, mean, loudest, or a number."""
        codes, names = self.channels
        return names[codes[row]]

    def take(self, rows: np.ndarray) -> "Utterances":
        """Return the rows given by a mask or by indices."""
        return Utterances(self.table.take(rows))

    def where(self, condition: str) -> "Utterances":
        """Return the rows that satisfy a condition (see Table.where)."""
        return Utterances(self.table.where(condition)) if condition else self


def load_utterances(path: str | Path, where: str = "") -> Utterances:
    """Read and validate an utterance table; ``where`` selects rows (see Table.where)."""
    return Utterances(Table.load(path)).where(where)
