"""Makes a protocol for a corpus that has none: splits the speakers, and draws enrolments and trials
at random with a seed.
"""

from dataclasses import dataclass

import numpy as np

from sasv.core.errors import SasvError
from sasv.corpora.base import CorpusLists, Trial

ENROL = 3
LEAST = 6
"""Utterances that a speaker needs for evaluation: three for enrolment and three for test."""


@dataclass(frozen=True)
class ProtocolSizes:
    """Sizes of a protocol.

    Attributes:
        share: share of all speakers that is held out for evaluation.
        tests: maximum number of test utterances per speaker.
        impostors: number of test utterances of each other speaker in the nontarget trials of a
            speaker.
    """

    share: float = 0.2
    tests: int = 9
    impostors: int = 2


def add_protocol(lists: CorpusLists, seed: int = 0, sizes: ProtocolSizes | None = None) -> None:
    """Split the speakers of ``lists`` into the disjoint sets train, dev and test, and add
    enrolments and trials.

    Raises:
        SasvError: fewer than four speakers have six utterances, or fewer than two speakers remain
            for training.
    """
    sizes = sizes or ProtocolSizes()
    by_speaker: dict[str, list[str]] = {}
    for row in lists.utterances:
        by_speaker.setdefault(row.speaker, []).append(row.utterance)
    able = sorted(name for name, rows in by_speaker.items() if len(rows) >= LEAST)
    held = min(len(able), max(4, round(sizes.share * len(by_speaker))))
    if held < 4 or len(by_speaker) - held < 2:
        raise SasvError(
            f"{lists.folder}: {len(able)} of {len(by_speaker)} speakers have {LEAST} utterances; "
            "evaluation needs four of them and training two others"
        )
    rng = np.random.default_rng([seed, 7])
    chosen = [able[index] for index in rng.permutation(len(able))[:held]]
    parts = {
        "dev": sorted(chosen[: max(2, held // 3)]),
        "test": sorted(chosen[max(2, held // 3) :]),
    }
    split = {name: part for part, names in parts.items() for name in names}
    lists.utterances = [
        row._replace(split=split.get(row.speaker, "train")) for row in lists.utterances
    ]
    for part, names in parts.items():
        drawn = {
            name: [by_speaker[name][index] for index in rng.permutation(len(by_speaker[name]))]
            for name in names
        }
        tests = {name: rows[ENROL : ENROL + sizes.tests] for name, rows in drawn.items()}
        lists.enrolments[part] = {name: rows[:ENROL] for name, rows in drawn.items()}
        lists.trials[part] = [
            Trial(name, row, "target") for name in names for row in tests[name]
        ] + [
            Trial(name, row, "nontarget")
            for name in names
            for other in names
            if other != name
            for row in tests[other][: sizes.impostors]
        ]
