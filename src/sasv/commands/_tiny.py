"""Both corpora of the published table in small: of synthetic voices, of any speech, or parts of the real ones."""

from pathlib import Path

import numpy as np

from sasv.corpora import CORPORA, synthetic
from sasv.corpora.base import CorpusLists, write_tables
from sasv.corpora.protocol import add_protocol
from sasv.synthesis.copies import joined
from sasv.tables import Table, Trials, Utterances, load_enrolments, load_trials, load_utterances
from sasv.tables.labels import TRIAL_LABELS

SMALL_SHARE, SMALL_SPEAKERS, SMALL_UTTERANCES = 3, 40, 400
"""The small part (it plays ASVspoof2019 LA, the other training speakers VoxCeleb2) has 40 speakers, as train+dev, or
more until it has that many bona fide utterances, but at most a third of the training speakers."""

NONTARGETS = 33_327 / 63_882
"""Nontarget trials for each spoofed one, as in the evaluation list of ASVspoof2019 LA (both sexes, attacks A07-A19)."""

MOST_UTTERANCES, MOST_SPEAKERS, MOST_CLAIMED, MOST_TRIALS = 20, 40, 8, 300
"""What is taken of the real corpora."""


def speech(corpus: str, voices: int, seed: int, rendered: Path, out: Path) -> None:
    """Write the tables of the speech: ``vox2.tsv``, and ``utterances.tsv`` with dev and eval protocols.

    The small part takes its next speaker from the folder of the corpus whose utterances it has fewest of, so that it
    resembles the test: first those with spoofed speech, then those with most utterances.
    """
    root = Path(corpus) if corpus else synthetic.render(rendered, voices, seed=seed)
    if (root / "utterances.tsv").is_file():
        lists = CORPORA.get("table")(root)
    else:
        lists = CORPORA.get("librispeech")(root)
        add_protocol(lists, seed)
    _rename(lists, "test", "eval")
    counts: dict[str, list[int]] = {}
    folders = {row.speaker: row.path.partition("/")[0] for row in lists.utterances}
    for row in lists.utterances:
        if row.split == "train":
            count = counts.setdefault(row.speaker, [0, 0])
            count[row.label != "spoof"] += 1
    rng = np.random.default_rng([seed, 11])
    order = [sorted(counts)[index] for index in rng.permutation(len(counts))]
    order.sort(key=lambda name: (-bool(counts[name][0]), -counts[name][1]))
    small: set[str] = set()
    taken = dict.fromkeys((folders[name] for name in order), 0)
    most = min(len(order), max(2, len(order) // SMALL_SHARE))
    while len(small) < most and (len(small) < SMALL_SPEAKERS or sum(taken.values()) < SMALL_UTTERANCES):
        name = min(order, key=lambda name: taken[folders[name]])
        order.remove(name)
        small.add(name)
        taken[folders[name]] += counts[name][1]
    held = [row for row in lists.utterances if row.split in ("dev", "eval") or row.speaker in small]
    bona_fide = [row for row in lists.utterances if row.split == "train" and row.speaker not in small]
    large = CorpusLists(lists.folder, [row._replace(split="dev") for row in bona_fide], files=lists.files)
    write_tables(large, out / "large", allow_missing=True)
    (out / "large" / "utterances.tsv").replace(out / "vox2.tsv")
    lists.utterances = held
    write_tables(lists, out, allow_missing=True)


def _rename(lists: CorpusLists, old: str, new: str) -> None:
    lists.utterances = [row._replace(split=new) if row.split == old else row for row in lists.utterances]
    lists.enrolments = {new if part == old else part: names for part, names in lists.enrolments.items()}
    lists.trials = {new if part == old else part: trials for part, trials in lists.trials.items()}


def assemble(speech_tables: Path, spoofed: Path, tables: Path) -> None:
    """Write the tables ``vox2`` and ``la`` of the speech and its spoofed copies."""
    (tables / "vox2").mkdir(exist_ok=True)
    load_utterances(speech_tables / "vox2.tsv").save(tables / "vox2" / "utterances.tsv")
    parts = [load_utterances(speech_tables / "utterances.tsv")]
    for part in ("train", "dev", "eval"):
        copies = load_utterances(spoofed / part / "utterances.tsv")
        parts.append(copies.take(np.array([name not in parts[0].rows for name in copies.ids], bool)))
    Utterances(joined(*parts)).save(tables / "la" / "utterances.tsv")
    for part in ("dev", "eval"):
        load_enrolments(speech_tables / f"enrolments_{part}.tsv").save(tables / "la" / f"enrolments_{part}.tsv")
        balanced(load_trials(spoofed / part / "trials.tsv")).save(tables / "la" / f"trials_{part}.tsv")


def balanced(trials: Trials) -> Table:
    """Return the trials with ``NONTARGETS`` nontarget ones for each spoofed one: what is too many, taken out evenly."""
    of = {kind: np.flatnonzero(trials.labels == code) for code, kind in enumerate(TRIAL_LABELS)}
    many, wanted = len(of["nontarget"]), round(NONTARGETS * len(of["spoof"]))
    if 0 < wanted < many:
        of["nontarget"] = of["nontarget"][np.arange(wanted) * many // wanted]
    return trials.table.take(np.sort(np.concatenate(list(of.values()))))


def reduce(whole: Path, out: Path, seed: int) -> None:
    """Write a part of a real corpus: some speakers, utterances and trials, drawn by the seed."""
    rng = np.random.default_rng([seed, 13])
    utterances = load_utterances(whole / "utterances.tsv")
    needed: set[str] = set()
    for path in sorted(whole.glob("trials_*.tsv")):
        part = path.stem.partition("_")[2]
        enrolments, trials = load_enrolments(whole / f"enrolments_{part}.tsv"), load_trials(path)
        speakers = set(rng.permutation(sorted(enrolments.speakers))[:MOST_CLAIMED].tolist())
        codes, names = trials.speakers
        claimed = np.array([name in speakers for name in names], bool)[codes]
        rows = [rng.permutation(np.flatnonzero(claimed & (trials.labels == kind)))[:MOST_TRIALS] for kind in range(3)]
        kept = trials.table.take(np.sort(np.concatenate(rows)))
        members = [(name, files) for name, files in zip(enrolments.speakers, enrolments.utterances) if name in speakers]
        table = Table.build({"speaker": [name for name, _ in members], "utterances": [",".join(f) for _, f in members]})
        table.save(out / f"enrolments_{part}.tsv")
        kept.save(out / f"trials_{part}.tsv")
        needed |= {name for _, files in members for name in files} | set(kept.texts("utterance"))
    codes, names = utterances.speakers
    chosen = set(rng.permutation(len(names))[:MOST_SPEAKERS].tolist())
    seen: dict[tuple[int, str], int] = {}
    splits = utterances.table.texts("split")
    keep = []
    for code, attack, split, name in zip(codes.tolist(), utterances.attack_texts, splits, utterances.ids):
        place = (code, attack if split in ("train", "dev") else "-")
        wanted = name in needed
        if not wanted and split in ("train", "dev") and code in chosen and seen.get(place, 0) < MOST_UTTERANCES:
            seen[place] = seen.get(place, 0) + 1
            wanted = True
        keep.append(wanted)
    utterances.take(np.array(keep, bool)).save(out / "utterances.tsv")
