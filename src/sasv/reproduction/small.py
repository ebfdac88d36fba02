"""Small versions of both corpora of the published table: from synthetic voices, from any speech, or
from parts of the real corpora.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sasv.corpora import CORPORA, synthetic
from sasv.corpora.base import CorpusLists, write_tables
from sasv.corpora.protocol import add_protocol
from sasv.synthesis.copies import union
from sasv.tables import Table, Trials, Utterances, load_enrolments, load_trials, load_utterances
from sasv.tables.labels import TRIAL_LABELS

SMALL_SHARE = 3
"""The small part has at most this fraction (a third) of the training speakers. It takes the role of
ASVspoof2019 LA, and the other training speakers that of VoxCeleb2."""

SMALL_SPEAKERS = 40
"""Number of speakers of the small part, as in train+dev of ASVspoof2019 LA. There are more if these
have fewer than SMALL_UTTERANCES utterances.
"""

SMALL_UTTERANCES = 400
"""Minimum number of bona fide utterances of the small part."""

NONTARGETS = 33_327 / 63_882
"""Ratio of nontarget to spoofed trials, as in the evaluation list of ASVspoof2019 LA (both sexes,
attacks A07-A19).
"""

MOST_UTTERANCES = 20
"""Number of utterances per speaker and attack that are taken from the real corpora."""

MOST_SPEAKERS = 40
"""Number of training speakers that are taken from each of the real corpora."""

MOST_CLAIMED = 8
"""Number of claimed speakers that are taken from a protocol."""

MOST_TRIALS = 300
"""Number of trials of each class that are taken from a protocol."""


def speech(corpus: str, voices: int, seed: int, rendered: Path, out: Path) -> None:
    """Write the tables of the speech: ``vox2.tsv``, and ``utterances.tsv`` with dev and eval
    protocols.

    Args:
        corpus: folder of speech; "" renders synthetic speakers.
        voices: synthetic speakers to render.
        seed: of all that is drawn.
        rendered: folder for the synthetic speech.
        out: folder for the tables.
    """
    root = Path(corpus) if corpus else synthetic.render(rendered, voices, seed=seed)
    lists = _read(root, seed)
    small = small_speakers(lists, seed)
    bona_fide = [
        row._replace(split="dev")
        for row in lists.utterances
        if row.split == "train" and row.speaker not in small
    ]
    large = CorpusLists(lists.folder, bona_fide, files=lists.files)
    write_tables(large, out / "large", allow_missing=True)
    (out / "large" / "utterances.tsv").replace(out / "vox2.tsv")
    held = [row for row in lists.utterances if row.split in ("dev", "eval") or row.speaker in small]
    write_tables(replace(lists, utterances=held), out, allow_missing=True)


def _read(root: Path, seed: int) -> CorpusLists:
    """Return the lists of a folder of speech, its parts called train, dev and eval."""
    if (root / "utterances.tsv").is_file():
        lists = CORPORA.get("table")(root)
    else:
        lists = CORPORA.get("librispeech")(root)
        add_protocol(lists, seed)
    return _renamed(lists, "test", "eval")


def _renamed(lists: CorpusLists, old: str, new: str) -> CorpusLists:
    """Return lists in which a part has another name."""

    def name(part: str) -> str:
        return new if part == old else part

    return replace(
        lists,
        utterances=[row._replace(split=name(row.split)) for row in lists.utterances],
        enrolments={name(part): names for part, names in lists.enrolments.items()},
        trials={name(part): trials for part, trials in lists.trials.items()},
    )


def small_speakers(lists: CorpusLists, seed: int) -> set[str]:
    """Return the training speakers of the small part.

    The next speaker comes from the folder of the corpus from which the part has the fewest
    utterances so far, so that the part resembles the test. In a folder, speakers with spoofed
    speech come first, then those with the most utterances.
    """
    spoofed: dict[str, int] = {}
    bona_fide: dict[str, int] = {}
    folders: dict[str, str] = {}
    for row in lists.utterances:
        folders[row.speaker] = row.path.partition("/")[0]
        if row.split == "train":
            counts = spoofed if row.label == "spoof" else bona_fide
            counts[row.speaker] = counts.get(row.speaker, 0) + 1
    names = sorted({*spoofed, *bona_fide})
    order = [names[index] for index in np.random.default_rng([seed, 11]).permutation(len(names))]
    order.sort(key=lambda name: (name not in spoofed, -bona_fide.get(name, 0)))
    taken = dict.fromkeys((folders[name] for name in order), 0)
    most = min(len(order), max(2, len(order) // SMALL_SHARE))
    small: set[str] = set()
    while len(small) < most and (
        len(small) < SMALL_SPEAKERS or sum(taken.values()) < SMALL_UTTERANCES
    ):
        name = min(order, key=lambda name: taken[folders[name]])
        order.remove(name)
        small.add(name)
        taken[folders[name]] += bona_fide.get(name, 0)
    return small


def assemble(speech_tables: Path, spoofed: Path, tables: Path) -> None:
    """Write the tables ``vox2`` and ``la`` of the speech and its spoofed copies."""
    (tables / "vox2").mkdir(exist_ok=True)
    load_utterances(speech_tables / "vox2.tsv").save(tables / "vox2" / "utterances.tsv")
    parts = [load_utterances(speech_tables / "utterances.tsv")]
    for part in ("train", "dev", "eval"):
        copies = load_utterances(spoofed / part / "utterances.tsv")
        parts.append(
            copies.take(np.array([name not in parts[0].rows for name in copies.ids], bool))
        )
    Utterances(union(*parts)).save(tables / "la" / "utterances.tsv")
    for part in ("dev", "eval"):
        load_enrolments(speech_tables / f"enrolments_{part}.tsv").save(
            tables / "la" / f"enrolments_{part}.tsv"
        )
        balanced(load_trials(spoofed / part / "trials.tsv")).save(
            tables / "la" / f"trials_{part}.tsv"
        )


def balanced(trials: Trials) -> Table:
    """Return the trials with ``NONTARGETS`` nontarget trials per spoofed one; surplus trials are
    removed evenly.
    """
    of = {kind: np.flatnonzero(trials.labels == code) for code, kind in enumerate(TRIAL_LABELS)}
    many = len(of["nontarget"])
    wanted = round(NONTARGETS * len(of["spoof"]))
    if 0 < wanted < many:
        of["nontarget"] = of["nontarget"][np.arange(wanted) * many // wanted]
    return trials.table.take(np.sort(np.concatenate(list(of.values()))))


def reduce(whole: Path, out: Path, seed: int) -> None:
    """Write a part of a real corpus: some speakers, utterances and trials, drawn by the seed."""
    rng = np.random.default_rng([seed, 13])
    needed: set[str] = set()
    for path in sorted(whole.glob("trials_*.tsv")):
        needed |= _reduce_protocol(whole, path.stem.partition("_")[2], out, rng)
    utterances = load_utterances(whole / "utterances.tsv")
    utterances.take(_kept(utterances, needed, rng)).save(out / "utterances.tsv")


def _reduce_protocol(whole: Path, part: str, out: Path, rng: np.random.Generator) -> set[str]:
    """Write some trials of a part, and the enrolments that they need; return the utterances of
    both.
    """
    enrolments = load_enrolments(whole / f"enrolments_{part}.tsv")
    trials = load_trials(whole / f"trials_{part}.tsv")
    speakers = set(rng.permutation(sorted(enrolments.speakers))[:MOST_CLAIMED].tolist())
    codes, names = trials.speakers
    claimed = np.array([name in speakers for name in names], bool)[codes]
    rows = [
        rng.permutation(np.flatnonzero(claimed & (trials.labels == kind)))[:MOST_TRIALS]
        for kind in range(3)
    ]
    kept = trials.table.take(np.sort(np.concatenate(rows)))
    members: Sequence[tuple[str, Sequence[str]]] = [
        (name, files)
        for name, files in zip(enrolments.speakers, enrolments.utterances)
        if name in speakers
    ]
    columns = {
        "speaker": [name for name, _ in members],
        "utterances": [",".join(files) for _, files in members],
    }
    Table.build(columns).save(out / f"enrolments_{part}.tsv")
    kept.save(out / f"trials_{part}.tsv")
    return {name for _, files in members for name in files} | set(kept.texts("utterance"))


def _kept(utterances: Utterances, needed: set[str], rng: np.random.Generator) -> np.ndarray:
    """Return whether each utterance is in the part: those needed, and some of some speakers to
    train on.
    """
    codes, names = utterances.speakers
    chosen = set(rng.permutation(len(names))[:MOST_SPEAKERS].tolist())
    seen: dict[tuple[int, str], int] = {}
    splits = utterances.table.texts("split")
    keep = []
    for code, attack, split, name in zip(
        codes.tolist(), utterances.attack_texts, splits, utterances.ids
    ):
        trained = split in ("train", "dev")
        place = (code, attack if trained else "-")
        wanted = name in needed
        if not wanted and trained and code in chosen and seen.get(place, 0) < MOST_UTTERANCES:
            seen[place] = seen.get(place, 0) + 1
            wanted = True
        keep.append(wanted)
    return np.array(keep, bool)
