"""The published table: which stages each row has, and what a stage costs.

Source: *Towards single integrated spoofing-aware speaker verification embeddings*, Interspeech 2023.
"""

from dataclasses import dataclass

from sasv.core.errors import SasvError

TRAIN_SETS = ("train", "train+dev")
TABLE_ENCODERS = ("ska-tdnn", "mfa-conformer")


@dataclass(frozen=True)
class Row:
    """A row: its number; Stage 1; Stage 2 on VoxCeleb2 ("vox2"), ASVspoof2019 LA ("la") or not (""); Stage 3."""

    number: int
    stage1: bool
    stage2: str
    stage3: bool

    def words(self) -> tuple[str, str, str]:
        """Return the data of each stage as the publication names it."""
        second = {"vox2": "Vox2 bna+cs", "la": "LA bna+cs", "": "-"}[self.stage2]
        return "Vox2 bna" if self.stage1 else "-", second, "LA bna+spf" if self.stage3 else "-"

    def needs_train_set(self) -> bool:
        """Whether ASVspoof2019 LA is trained on, so that the two training sets give two models."""
        return self.stage3 or self.stage2 == "la"

    def lineage(self, train_set: str) -> list[str]:
        """Return the models of the row, each begun from the one before."""
        names: list[str] = []
        second = f"stage2-la-{train_set}" if self.stage2 == "la" else "stage2-vox2"
        parts = (self.stage1, "stage1"), (bool(self.stage2), second), (self.stage3, f"stage3-{train_set}")
        for wanted, name in parts:
            if wanted:
                names.append("_".join([*names[-1:], name]))
        return names


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


def parse_rows(text: str) -> list[Row]:
    """Return the rows of ``all`` or of numbers separated by commas."""
    if text == "all":
        return list(ROWS.values())
    try:
        return [ROWS[int(part)] for part in text.split(",")]
    except (ValueError, KeyError) as error:
        raise SasvError(f"'{text}' is no row of the published table; use numbers from 1 to 11, or all") from error


GFLOP = {"ecapa-tdnn": 16.8, "ska-tdnn": 158.0, "mfa-conformer": 26.8}
"""Arithmetic of a training crop of two seconds, forward and backward (docs/results.md)."""

TINY_GFLOP = {"ecapa-tdnn": 0.45, "ska-tdnn": 3.5, "mfa-conformer": 0.7}
TINY_SIZES: dict[str, dict[str, int]] = {
    "ecapa-tdnn": {"channels": 128, "pooled": 256, "attention": 64, "bottleneck": 64},
    "ska-tdnn": {"channels": 64, "scale": 4, "bottleneck": 32, "pooled": 128, "attention": 32, "front": 16},
    "mfa-conformer": {"units": 64, "heads": 2, "blocks": 2, "feedforward": 128, "attention": 32},
}


def train_hours(gflop: float, epochs: int, crops: float, frames: int, tflops: float) -> float:
    """Return the hours of a training at a sustained speed of so many TFLOP a second."""
    return epochs * crops * gflop * frames / 200 / (1e3 * tflops) / 3600
