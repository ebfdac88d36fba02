"""The published table: its rows, and the stages of each.

Source: *Towards single integrated spoofing-aware speaker verification embeddings*, Interspeech
2023.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sasv.core.errors import SasvError

TRAIN_SETS = ("train", "train+dev")
TABLE_ENCODERS = ("ska-tdnn", "mfa-conformer")


@dataclass(frozen=True)
class Stage:
    """One training.

    Attributes:
        number: 1 (speakers), 2 (speakers and copies of their speech) or 3 (spoofed speech of
            ASVspoof2019 LA).
        corpus: vox2 (VoxCeleb2) or la (ASVspoof2019 LA).
        train_set: of ASVspoof2019 LA: train or train+dev; empty for VoxCeleb2.
    """

    number: Literal[1, 2, 3]
    corpus: Literal["vox2", "la"]
    train_set: str = ""

    @property
    def name(self) -> str:
        """Short name, part of the names of folders."""
        if self.number == 1:
            return "stage1"
        if self.number == 3:
            return f"stage3-{self.train_set}"
        return (
            f"stage2-{self.corpus}-{self.train_set}" if self.train_set else f"stage2-{self.corpus}"
        )


def model_name(stages: Sequence[Stage]) -> str:
    """Return the name of the model that has gone through these stages, which is that of its
    folder.
    """
    return "_".join(stage.name for stage in stages)


@dataclass(frozen=True)
class Row:
    """A row: its number; Stage 1; Stage 2 on VoxCeleb2 ("vox2"), ASVspoof2019 LA ("la") or not
    (""); Stage 3.
    """

    number: int
    stage1: bool
    stage2: Literal["vox2", "la", ""]
    stage3: bool

    def words(self) -> tuple[str, str, str]:
        """Return the data of each stage as the publication names it."""
        second = {"vox2": "Vox2 bna+cs", "la": "LA bna+cs", "": "-"}[self.stage2]
        return "Vox2 bna" if self.stage1 else "-", second, "LA bna+spf" if self.stage3 else "-"

    def needs_train_set(self) -> bool:
        """Whether ASVspoof2019 LA is trained on, so that the two training sets give two models."""
        return self.stage3 or self.stage2 == "la"

    def stages(self, train_set: str) -> tuple[Stage, ...]:
        """Return the stages of the row, each of which starts from the model of the one before."""
        found: list[Stage] = []
        if self.stage1:
            found.append(Stage(1, "vox2"))
        if self.stage2 == "vox2":
            found.append(Stage(2, "vox2"))
        if self.stage2 == "la":
            found.append(Stage(2, "la", train_set))
        if self.stage3:
            found.append(Stage(3, "la", train_set))
        return tuple(found)


ROWS = {
    row.number: row
    for row in (
        Row(1, False, "", True),
        Row(2, True, "", False),
        Row(3, True, "", True),
        Row(4, False, "vox2", False),
        Row(5, False, "vox2", True),
        Row(6, True, "vox2", False),
        Row(7, True, "vox2", True),
        Row(8, False, "la", False),
        Row(9, False, "la", True),
        Row(10, True, "la", False),
        Row(11, True, "la", True),
    )
}


def rows_of(numbers: Sequence[int | str]) -> list[Row]:
    """Return the rows with these numbers, or all where ``all`` is among them."""
    if "all" in numbers:
        return list(ROWS.values())
    unknown = [number for number in numbers if number not in ROWS]
    if unknown:
        raise SasvError(
            f"'{unknown[0]}' is not a row of the published table; use numbers from 1 to 11, or all"
        )
    return [ROWS[int(number)] for number in numbers]
