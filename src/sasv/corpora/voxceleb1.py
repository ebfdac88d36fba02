"""VoxCeleb1 (Nagrani et al. 2017): ``wav/idNNNNN/<video>/NNNNN.wav`` and the trial lists O, E and
H.
"""

from pathlib import Path

from sasv.core.errors import SasvError
from sasv.core.files import read_lines
from sasv.corpora.base import CorpusLists, Trial
from sasv.corpora.lists import without_suffix
from sasv.corpora.voxceleb2 import LISTED, utterances_below

TRIALS = {
    "o": ("veri_test2.txt", "veri_test_cleaned.txt", "vox1_O_cleaned.txt", "vox1-O-cleaned.txt"),
    "e": (
        "list_test_all2.txt",
        "list_test_all_cleaned.txt",
        "vox1_E_cleaned.txt",
        "vox1-E-cleaned.txt",
    ),
    "h": (
        "list_test_hard2.txt",
        "list_test_hard_cleaned.txt",
        "vox1_H_cleaned.txt",
        "vox1-H-cleaned.txt",
    ),
    "o-original": ("veri_test.txt", "vox1_O.txt"),
    "e-original": ("list_test_all.txt", "vox1_E.txt"),
    "h-original": ("list_test_hard.txt", "vox1_H.txt"),
}
"""File names of the trial lists: the cleaned ones, which are used today, and the original ones."""

LABELS = {"1": "target", "0": "nontarget", "target": "target", "nontarget": "nontarget"}


def read(folder: Path) -> CorpusLists:
    """Read the tree, and the trial lists that are in ``folder`` or in its subfolder ``meta``.

    A trial compares two utterances; the first is enrolled as a speaker that has the name of the
    utterance.
    """
    utterances, files = utterances_below(folder, "VoxCeleb1")
    lists = CorpusLists(folder, utterances, files=files)
    for part, names in TRIALS.items():
        places = [place / name for place in (folder, folder / "meta") for name in names]
        path = next((place for place in places if place.exists()), None)
        if path is None:
            if not part.endswith("-original"):
                lists.notes.append(
                    f"no VoxCeleb1-{part.upper()} trials: {names[0]} is not in the folder"
                )
            continue
        trials = read_trials(path)
        lists.trials[part] = trials
        lists.enrolments[part] = {trial.speaker: [trial.speaker] for trial in trials}
    return lists


def read_trials(path: Path) -> list[Trial]:
    """Return the trials in lines ``1 id10270/x6uYqmx31kE/00001.wav id10270/8jEAjG6SegY/00008.wav``.

    The label may also be the last field (target, nontarget), the suffixes may be missing, and the
    paths may begin with further folders.
    """
    trials = []
    for number, line in enumerate(read_lines(path), 1):
        fields = line.split()
        if len(fields) == 3 and fields[0] in LABELS:
            label, *names = fields
        elif len(fields) == 3 and fields[2] in ("target", "nontarget"):
            *names, label = fields
        else:
            raise SasvError(
                f"{path}, line {number}: expected '1 ENROLMENT.wav TEST.wav' with 0 or 1 first"
            )
        enrolment, test = (_utterance(name) for name in names)
        trials.append(Trial(enrolment, test, LABELS[label]))
    return trials


def _utterance(name: str) -> str:
    match = LISTED.match(name)
    return without_suffix(name) if match is None else match[1]
