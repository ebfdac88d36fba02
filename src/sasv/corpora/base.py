"""The result of a corpus reader, and checking and writing it as tables."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from sasv.audio import AUTO, measure, read_audio
from sasv.core.errors import AudioError, SasvError, listed
from sasv.core.files import write_text
from sasv.core.progress import Progress
from sasv.corpora.contained import Contained, write_contained
from sasv.corpora.tree import audio_below
from sasv.storage import joined
from sasv.tables import NONE, Enrolments, Table, Trials, Utterances, check_trials

logger = logging.getLogger("sasv")

T = TypeVar("T")
R = TypeVar("R")

READERS = 8

MIN_SPEECH = 0.75
"""``check_speech`` reports recordings with less speech than this, in seconds; sasv verify refuses
them.
"""


class Utterance(NamedTuple):
    """One row of the utterance table; the path is relative to the corpus folder."""

    utterance: str
    path: str
    speaker: str
    split: str
    label: str = "bonafide"
    attack: str = NONE
    seconds: str = ""


class Trial(NamedTuple):
    """One trial; the label is target, nontarget or spoof."""

    speaker: str
    utterance: str
    label: str
    attack: str = NONE


@dataclass
class CorpusLists:
    """The lists of a corpus, before anything is checked.

    Attributes:
        folder: folder to which the paths are relative.
        utterances: all utterances of all splits.
        enrolments: part -> speaker -> utterances.
        trials: part -> trials.
        extras: further columns of the utterance table: column -> utterance -> cell.
        files: relative paths of the audio files that exist.
        notes: messages for the user about what was found or is missing.
        contained: recordings that are no files of their own, and whose rows have no path yet.
    """

    folder: Path
    utterances: list[Utterance]
    enrolments: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    trials: dict[str, list[Trial]] = field(default_factory=dict)
    extras: dict[str, dict[str, str]] = field(default_factory=dict)
    files: set[str] | None = None
    notes: list[str] = field(default_factory=list)
    contained: Contained | None = None


@dataclass(frozen=True)
class Prepared:
    """The tables that were written."""

    utterances: Path
    enrolments: dict[str, Path]
    trials: dict[str, Path]
    missing: int
    unreadable: int
    speechless: list[str] = field(default_factory=list)


def write_tables(
    lists: CorpusLists,
    out: Path,
    allow_missing: bool = False,
    seconds: bool = True,
    channel: str = AUTO,
    check_speech: bool = False,
) -> Prepared:
    """Check that the listed files exist and can be read, then write the tables.

    Args:
        lists: the result of a corpus reader.
        out: folder for ``utterances.tsv``, ``enrolments_PART.tsv``, ``trials_PART.tsv``.
        allow_missing: leave out missing and unreadable files (and the trials that need them)
            instead of failing.
        seconds: read every header for the column ``seconds``; if a header does not state the
            length, the file is decoded once.
        channel: the channel of each recording to use, for the column ``channel``; ``auto`` writes
            no such column.
        check_speech: measure the amount of speech in every recording, for the column
            ``speech_seconds``.

    Raises:
        SasvError: files are missing or unreadable (``missing.txt`` in ``out`` lists all of them),
            or two utterances have the same name.
    """
    if not lists.utterances:
        raise SasvError(
            f"{lists.folder}: no utterances found; check that this is the unpacked corpus folder"
        )
    if lists.contained is not None:
        _write_contained(lists, lists.contained, out)
    _check_names(lists)
    present = set(audio_below(lists.folder)) if lists.files is None else lists.files
    missing = [row.path for row in lists.utterances if row.path not in present]
    kept = [row for row in lists.utterances if row.path in present]
    unreadable: list[str] = []
    if seconds:
        kept, unreadable = _measured(lists.folder, kept)
    if missing or unreadable:
        write_text(out / "missing.txt", "".join(f"{name}\n" for name in (*missing, *unreadable)))
        problems = []
        if missing:
            problems.append(
                f"{len(missing)} of {len(lists.utterances)} listed files are missing "
                f"({listed(missing, 3)})"
            )
        if unreadable:
            problems.append(f"{len(unreadable)} cannot be read ({listed(unreadable, 2)})")
        advice = f"all are in {out / 'missing.txt'}"
        if not allow_missing:
            raise SasvError(
                f"{lists.folder}: {'; '.join(problems)}; {advice}; fix them, or --allow-missing"
            )
        logger.info(f"left out: {'; '.join(problems)}; {advice}")
    elif (out / "missing.txt").exists():
        (out / "missing.txt").unlink()
    root = lists.folder.resolve()
    columns: dict[str, Sequence[str]] = {
        "utterance": [row.utterance for row in kept],
        "path": [joined(str(root), row.path) for row in kept],
        "speaker": [row.speaker for row in kept],
        "split": [row.split for row in kept],
        "label": [row.label for row in kept],
        "attack": [row.attack for row in kept],
    }
    if all(row.seconds for row in kept):
        columns["seconds"] = [row.seconds for row in kept]
    for column, cells in lists.extras.items():
        columns[column] = [cells.get(row.utterance, NONE) for row in kept]
    if channel != AUTO:
        columns["channel"] = [channel] * len(kept)
    speechless = []
    if check_speech:
        speech = _speech_seconds(lists, kept, channel)
        columns["speech_seconds"] = [f"{found:.2f}" for found in speech]
        speechless = [row.utterance for row, found in zip(kept, speech) if found < MIN_SPEECH]
    utterances = Utterances(Table.build(columns, str(out / "utterances.tsv")))
    known = set(columns["utterance"])
    enrolment_paths = {}
    trial_paths = {}
    written: list[tuple[Path, Table]] = [(out / "utterances.tsv", utterances.table)]
    for part, speakers in lists.enrolments.items():
        path = out / f"enrolments_{part}.tsv"
        usable = {
            name: [file for file in files if file in known] for name, files in speakers.items()
        }
        usable = (
            {name: files for name, files in usable.items() if files} if allow_missing else speakers
        )
        table = Table.build(
            {"speaker": list(usable), "utterances": list(map(",".join, usable.values()))}, str(path)
        )
        enrolments = Enrolments(table)
        written.append((path, table))
        enrolment_paths[part] = path
        if part in lists.trials:
            path = out / f"trials_{part}.tsv"
            trials = lists.trials[part]
            if allow_missing:
                trials = [
                    trial
                    for trial in trials
                    if trial.utterance in known and trial.speaker in usable
                ]
            table = Table.build(
                {name: [getattr(trial, name) for trial in trials] for name in Trial._fields},
                str(path),
            )
            check_trials(Trials(table), enrolments, utterances.rows)
            written.append((path, table))
            trial_paths[part] = path
    for path, table in written:
        table.save(path)
    return Prepared(
        out / "utterances.tsv",
        enrolment_paths,
        trial_paths,
        len(missing),
        len(unreadable),
        speechless,
    )


def readable_name(name: str) -> str:
    """Return a file name as a valid utterance name: without commas, and with bytes that are not
    UTF-8 written as escapes (``\\xe9``).
    """
    return (
        name.replace(",", "_")
        .encode("utf-8", "surrogateescape")
        .decode("utf-8", "backslashreplace")
    )


def _write_contained(lists: CorpusLists, contained: Contained, out: Path) -> None:
    """Write the recordings that are no files of their own, and fill in their paths."""
    _check_names(lists)
    paths = write_contained(contained, out)
    lists.utterances = [
        row._replace(path=paths.get(row.utterance, row.path)) for row in lists.utterances
    ]
    lists.files = (lists.files or set()) | set(paths.values())


def _check_names(lists: CorpusLists) -> None:
    """Raise SasvError if a name cannot be written into a table, or if two files would have the same
    name.
    """
    broken = [
        row.path
        for row in lists.utterances
        if any(mark in row.path + row.speaker for mark in "\t\n\r")
    ]
    if broken:
        shown = listed([repr(path) for path in broken], 3)
        raise SasvError(
            f"{lists.folder}: {len(broken)} names contain a tab or a line break ({shown}), which "
            "a table cannot contain; rename them"
        )
    first: dict[str, str] = {}
    for row in lists.utterances:
        other = first.setdefault(row.utterance, row.path)
        if other != row.path:
            raise SasvError(
                f"{lists.folder}: {other} and {row.path} would both be called {row.utterance}; "
                "rename or remove one"
            )


def _speech_seconds(lists: CorpusLists, rows: list[Utterance], channel: str) -> list[float]:
    """Return the seconds of speech in each recording; 0 if it cannot be read."""
    from sasv.audio.speech import net_speech  # imported here, because it loads the detector

    channels = lists.extras.get("channel", {})

    def measured(row: Utterance) -> float:
        own = channels.get(row.utterance, NONE)
        try:
            wave = read_audio(
                joined(str(lists.folder), row.path), channel=channel if own == NONE else own
            )
        except AudioError:
            return 0.0
        return net_speech(wave).net_seconds

    found = []
    with ThreadPoolExecutor(READERS) as pool, Progress("speech", len(rows)) as progress:
        for seconds in pool.map(measured, rows):
            found.append(seconds)
            progress.add()
    return found


def _measured(folder: Path, rows: list[Utterance]) -> tuple[list[Utterance], list[str]]:
    """Fill in the unknown lengths; return the readable rows, and a message for each unreadable
    one.
    """

    def measured(row: Utterance) -> Utterance:
        if row.seconds:
            return row
        return row._replace(seconds=f"{measure(joined(str(folder), row.path)).seconds:.3f}")

    return read_headers(measured, rows)


def read_headers(read: Callable[[T], R], items: Sequence[T]) -> tuple[list[R], list[str]]:
    """Return the results of a function that reads the header of a recording, in order, and the
    messages of the SasvErrors that it raised.
    """

    def found(item: T) -> R | str:
        try:
            return read(item)
        except SasvError as error:
            return str(error)

    results = []
    faults = []
    with ThreadPoolExecutor(READERS) as pool, Progress("headers", len(items)) as progress:
        for result in pool.map(found, items, chunksize=256):
            progress.add()
            if isinstance(result, str):
                faults.append(result)
            else:
                results.append(result)
    return results, faults
