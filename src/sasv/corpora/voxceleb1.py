"""VoxCeleb1 (Nagrani et al. 2017): ``wav/idNNNNN/<video>/NNNNN.wav`` and the trial lists O, E and H."""

from pathlib import Path

from sasv.core.errors import SasvError
from sasv.core.files import read_lines
from sasv.corpora.base import CorpusLists, Trial
from sasv.corpora.voxceleb2 import utterances_below

TRIALS = {"o": "veri_test2.txt", "e": "list_test_all2.txt", "h": "list_test_hard2.txt"}


def read(folder: Path) -> CorpusLists:
    """Read the tree and those of the cleaned trial lists that lie in the folder.

    A trial compares two utterances: the first is enrolled under its own name.
    """
    utterances, files = utterances_below(folder, "VoxCeleb1")
    lists = CorpusLists(folder, utterances, files=files)
    for part, name in TRIALS.items():
        path = folder / name
        if not path.exists():
            lists.notes.append(f"no VoxCeleb1-{part.upper()} trials: {name} does not lie in the folder")
            continue
        trials = read_trials(path)
        lists.trials[part] = trials
        lists.enrolments[part] = {trial.speaker: [trial.speaker] for trial in trials}
    return lists


def read_trials(path: Path) -> list[Trial]:
    """Return the trials of lines ``1 id10270/x6uYqmx31kE/00001.wav id10270/8jEAjG6SegY/00008.wav``."""
    trials = []
    for number, line in enumerate(read_lines(path), 1):
        fields = line.split()
        if len(fields) != 3 or fields[0] not in ("0", "1"):
            raise SasvError(f"{path}, line {number}: expected '1 ENROLMENT.wav TEST.wav' with 0 or 1 first")
        enrolment, test = (field.rpartition(".")[0] for field in fields[1:])
        trials.append(Trial(enrolment, test, "target" if fields[0] == "1" else "nontarget"))
    return trials
