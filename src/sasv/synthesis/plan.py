"""Plans the copies of a job, depending only on the table, the vocoders, and the seed."""

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
        vocoder: registry name.
        path: where the copy goes.
        seed: of whatever the vocoder draws.
        channel: which channel of the source is copied.
    """

    row: int
    source: str
    vocoder: str
    path: str
    seed: int
    channel: str = "auto"


@dataclass(frozen=True)
class Plan:
    """All copies of a job, and what names the job."""

    units: list[Unit]
    signature: str


@dataclass(frozen=True)
class Makers:
    """The vocoders of a job.

    Attributes:
        names: registry names.
        weights: name -> file or folder of weights, for those that need them.
        device: where networks compute.
    """

    names: Sequence[str]
    weights: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"

    def identity(self, name: str) -> str:
        """Return what identifies the weights of a vocoder: the digest of a file, the path of a
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
    """Return the copies to make, in a tree ``out/VOCODER`` that mirrors the one of the sources.

    Args:
        utterances: bona fide speech.
        vocoders: registry names.
        out: folder for the audio.
        seed: of the choice and of vocoders that draw.
        choose: all vocoders for each utterance, or one at random.
        suffix: flac or wav.

    Raises:
        SasvError: a source lies in ``out``, or two copies would be one file.
    """
    sources = [absolute(path) for path in utterances.paths]
    paths = [as_folders(source) for source in sources]
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    _check_apart(paths, utterances.table.texts("speaker"), root, out)
    stems = [str(Path(os.path.relpath(path, root)).with_suffix("")) for path in paths]
    if len(set(stems)) < len(stems):  # two sources of one name: their full names differ
        stems = [os.path.relpath(path, root) for path in paths]
    if len(set(stems)) < len(stems):  # one file is the source of several rows: its channels
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
    """SasvError where the copies would lie in the folder of the speech, and be taken for speech
    later.

    That is a folder which holds sources themselves or folders named by their speakers, or the
    common root of sources that are all equally deep. The common root of several corpora (another
    depth each) is no folder of speech.
    """
    if any(out.parent.glob("parts-*")):  # a job of an older version, which may go on
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
            f"{out}: lies in the folder of the speech ({inside}), where the copies would be taken "
            "for speech; choose "
            "an --out elsewhere"
        )


def _check_once(units: Sequence[Unit]) -> None:
    """SasvError where two copies would be one file."""
    first: dict[str, Unit] = {}
    for unit in units:
        other = first.setdefault(unit.path, unit)
        if other is not unit:
            raise SasvError(
                f"{unit.source}: two rows of the table name this file and this channel; keep one"
            )
