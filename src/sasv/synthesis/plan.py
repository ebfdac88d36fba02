"""Plans the copies of a job. The plan depends only on the table, the vocoders, and the seed."""

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from sasv.core.errors import SasvError
from sasv.core.files import digest_of_bytes, read_bytes
from sasv.storage.locations import absolute, as_folders
from sasv.tables import Utterances


class Unit(NamedTuple):
    """One copy to make.

    Attributes:
        row: row of its source in the table.
        source: path of the source.
        vocoder: name in the registry.
        path: path of the copy.
        seed: random seed for the vocoder.
        channel: channel of the source to copy.
    """

    row: int
    source: str
    vocoder: str
    path: str
    seed: int
    channel: str = "auto"


@dataclass(frozen=True)
class Plan:
    """All copies of a job, and the identifier of the job."""

    units: list[Unit]
    signature: str


@dataclass(frozen=True)
class Makers:
    """The vocoders of a job.

    Attributes:
        names: names in the registry.
        weights: name -> file or folder of weights, for vocoders that need them.
        device: device for vocoders with a network.
    """

    names: Sequence[str]
    weights: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"

    def identity(self, name: str) -> str:
        """Return the identity of the weights of a vocoder: the digest of a file, or the path of a
        folder.
        """
        weights = Path(self.weights.get(name, ""))
        return digest_of_bytes(read_bytes(weights)) if weights.is_file() else str(weights)


def plan_units(
    utterances: Utterances,
    vocoders: Sequence[str],
    out: Path,
    seed: int = 0,
    choose: Literal["all", "one"] = "all",
    suffix: str = "flac",
) -> Plan:
    """Return the copies to make, in a folder tree ``out/VOCODER`` that mirrors that of the sources.

    Args:
        utterances: bona fide speech.
        vocoders: names in the registry.
        out: folder for the audio.
        seed: random seed of the choice and of the vocoders.
        choose: all vocoders for each utterance, or one at random.
        suffix: flac or wav.

    Raises:
        SasvError: ``out`` contains a source, or two copies would have the same file.
    """
    sources = [absolute(path) for path in utterances.paths]
    paths = [as_folders(source) for source in sources]
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    _check_apart(paths, utterances.table.texts("speaker"), root, out)
    stems = [str(Path(os.path.relpath(path, root)).with_suffix("")) for path in paths]
    if len(set(stems)) < len(stems):
        # Two sources have the same name, so their full names are used.
        stems = [os.path.relpath(path, root) for path in paths]
    if len(set(stems)) < len(stems):
        # Several rows have the same source file, with different channels.
        stems = [f"{stem}-{utterances.channel(row)}" for row, stem in enumerate(stems)]
    units = []
    for row, (name, stem) in enumerate(zip(utterances.ids, stems)):
        drawn = zlib.crc32(f"{seed}:{name}".encode("utf-8", "surrogateescape"))
        chosen = list(vocoders)
        if choose == "one":
            chosen = [vocoders[int(np.random.default_rng(drawn).integers(len(vocoders)))]]
        for vocoder in chosen:
            path = str((out / vocoder / f"{stem}.{suffix}").absolute())
            units.append(Unit(row, sources[row], vocoder, path, drawn, utterances.channel(row)))
    _check_once(units)
    lines = (f"{unit.source}\t{unit.path}\t{unit.seed}\n" for unit in units)
    return Plan(
        units, digest_of_bytes(*(line.encode("utf-8", "surrogateescape") for line in lines))
    )


def _check_apart(paths: Sequence[str], speakers: Sequence[str], root: str, out: Path) -> None:
    """Raise SasvError if the copies would be written into the folder of the speech, where they
    would later be mistaken for original speech.

    A folder of speech contains sources or subfolders with the names of their speakers, or is the
    common root of sources at equal depth. The common root of several corpora, whose depths differ,
    is not a folder of speech.
    """
    if any(out.parent.glob("parts-*")):  # a job of an older version, which may continue
        return
    copies = Path(os.path.realpath(out))
    refused = {os.path.realpath(folder) for folder in {os.path.dirname(path) for path in paths}}
    for path, speaker in zip(paths, speakers):
        above, found, _ = path.rpartition(f"{os.sep}{speaker}{os.sep}")
        if (
            found
            and above
            and (above == os.path.dirname(root) or f"{above}{os.sep}".startswith(f"{root}{os.sep}"))
        ):
            refused.add(os.path.realpath(above))
    depths = {path.count(os.sep) for path in paths}
    if len(depths) == 1 and root != os.sep and not f"{Path.cwd()}".startswith(f"{root}{os.sep}"):
        refused.add(os.path.realpath(root))
    inside = next(
        (str(folder) for folder in (copies, *copies.parents) if str(folder) in refused), None
    )
    if inside is not None:
        raise SasvError(
            f"{out}: this folder is inside the folder of the speech ({inside}), where the copies "
            "would be mistaken for original speech; choose an --out elsewhere"
        )


def _check_once(units: Sequence[Unit]) -> None:
    """Raise SasvError if two copies would have the same file."""
    first: dict[str, Unit] = {}
    for unit in units:
        other = first.setdefault(unit.path, unit)
        if other is not unit:
            raise SasvError(
                f"{unit.source}: two rows of the table refer to this file and channel; remove one "
                "of them"
            )
