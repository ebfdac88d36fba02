"""Spoofed copies of the utterances of a table, and the trials that use them."""

import os
import zlib
from pathlib import Path

from sasv.audio import read_speech, write_audio
from sasv.core.errors import AudioError, SasvError
from sasv.core.progress import Progress
from sasv.tables import NONE, Table, Trials, Utterances
from sasv.vocoders import VOCODERS
from sasv.vocoders.base import Vocoder

COLUMNS = ("utterance", "path", "speaker", "split", "label", "attack", "seconds", "source")


def copy_name(utterance: str, vocoder: str) -> str:
    """Name of the copy of an utterance."""
    return f"{utterance}~{vocoder}"


def copy_utterances(
    utterances: Utterances, vocoders: list[str], out: Path, seed: int = 0
) -> tuple[Utterances, dict[str, str]]:
    """Copy every utterance with every vocoder; copies that are there already are kept.

    Args:
        utterances: bona fide speech.
        vocoders: registry names.
        out: folder; copies go to ``out/VOCODER/UTTERANCE.flac``.
        seed: of vocoders that draw.

    Returns:
        The table of the copies (label spoof, attack the vocoder, source the original), and utterance -> reason for
        those that could not be read.
    """
    if utterances.spoofed.any():
        raise SasvError(f"{utterances.table.name}: copies are made of bona fide speech; give --where label=bonafide")
    machines: dict[str, Vocoder] = {name: VOCODERS.get(name)() for name in vocoders}
    splits = utterances.table.texts("split") if "split" in utterances.table.columns else ["all"] * len(utterances)
    speakers = utterances.table.texts("speaker")
    rows: list[tuple[str, ...]] = []
    failures: dict[str, str] = {}
    with Progress("copies", len(utterances) * len(vocoders)) as progress:
        for row, name in enumerate(utterances.ids):
            try:
                wave = read_speech(utterances.path(row))
            except AudioError as error:
                failures[name] = str(error)
                progress.add(len(vocoders))
                continue
            for vocoder, machine in machines.items():
                path = (out / vocoder / f"{name}.flac").resolve()
                if not path.exists():
                    write_audio(path, machine(wave, zlib.crc32(f"{seed}:{name}".encode())))
                seconds = f"{len(wave) / machine.rate:.3f}"
                rows.append(
                    (copy_name(name, vocoder), str(path), speakers[row], splits[row], "spoof", vocoder, seconds, name)
                )
                progress.add()
    if not rows:
        raise SasvError(
            f"{utterances.table.name}: nothing could be copied; first reason: {next(iter(failures.values()))}"
        )
    table = Table.build(dict(zip(COLUMNS, zip(*rows))), str(out / "utterances.tsv"))
    return Utterances(table), failures


def spoofed_trials(trials: Trials, copies: Utterances) -> Table:
    """Return the trials, and one spoofed trial for each copy of a target trial's utterance."""
    sources: dict[str, list[tuple[str, str]]] = {}
    for source, name, attack in zip(copies.table.texts("source"), copies.ids, copies.attack_texts):
        sources.setdefault(source, []).append((name, attack))
    table = trials.table
    rows = list(zip(table.texts("speaker"), table.texts("utterance"), table.texts("label"), trials.attack_texts))
    spoofed = [
        (speaker, name, "spoof", attack)
        for speaker, utterance, label, _ in rows
        if label == "target"
        for name, attack in sources.get(utterance, [])
    ]
    return Table.build(dict(zip(("speaker", "utterance", "label", "attack"), zip(*rows, *spoofed))), "trials")


def joined(*tables: Utterances) -> Table:
    """Stack utterance tables; columns that one of them lacks are filled, paths made absolute."""
    columns = list(dict.fromkeys(column for table in tables for column in table.table.columns))
    if not all("seconds" in table.table.columns for table in tables):
        columns = [column for column in columns if column != "seconds"]
    defaults = {"label": "bonafide", "attack": NONE, "split": "all"}
    cells: dict[str, list[str]] = {column: [] for column in columns}
    for table in tables:
        for column in columns:
            if column == "path":
                cells[column] += [os.path.abspath(path) for path in table.paths]
            elif column in table.table.columns:
                cells[column] += table.table.texts(column)
            else:
                cells[column] += [defaults.get(column, NONE)] * len(table)
    return Table.build(cells, "utterances")
