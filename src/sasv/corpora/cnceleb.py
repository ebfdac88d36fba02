"""CN-Celeb 1 and 2 (Fan et al. 2020, Li et al. 2022): ``data/idNNNNN``, ``dev/dev.lst``, and
``eval`` with its lists.
"""

import re
from pathlib import Path

from sasv.core.errors import SasvError
from sasv.core.files import read_lines
from sasv.corpora.base import CorpusLists, Trial, Utterance
from sasv.corpora.lists import read_fields, without_suffix
from sasv.corpora.tree import audio_below

DATA = re.compile(r"(?:.*/)?data/(id\d+)/([^/]+)$")
EVALUATION = re.compile(r"(?:.*/)?eval/((?:enroll|test)/(id\d+)[^/]*)$")


def read(folder: Path) -> CorpusLists:
    """Read the tree below ``data`` and ``eval``.

    The split is ``train`` for the speakers in ``dev/dev.lst`` (for all speakers, if there is no
    such list), ``eval-speakers`` for the others in ``data``, and ``eval`` for the enrolment and
    test utterances.
    """
    files = audio_below(folder)
    lists = CorpusLists(folder, [], files=set(files))
    listed = next(iter(sorted(folder.glob("**/dev/dev.lst"))), None)
    training = set(read_lines(listed)) if listed is not None else None
    for path in files:
        data = DATA.match(path)
        if data is not None:
            split = "train" if training is None or data[1] in training else "eval-speakers"
            name = f"{data[1]}/{without_suffix(data[2])}"
            lists.utterances.append(Utterance(name, path, data[1], split))
            continue
        evaluation = EVALUATION.match(path)
        if evaluation is not None:
            name = without_suffix(evaluation[1])
            lists.utterances.append(Utterance(name, path, evaluation[2], "eval"))
    if not lists.utterances:
        raise SasvError(
            f"{folder}: contains no audio in data/idNNNNN or eval/enroll; give the unpacked "
            "CN-Celeb folder"
        )
    if listed is None:
        lists.notes.append("no dev/dev.lst: all speakers of data are taken for training")
    enrol = next(iter(sorted(folder.glob("**/eval/lists/enroll.lst"))), None)
    trials = next(iter(sorted(folder.glob("**/eval/lists/trials.lst"))), None)
    if enrol is None or trials is None:
        lists.notes.append("no eval trials: eval/lists/enroll.lst or trials.lst is not there")
        return lists
    lists.enrolments["eval"] = {
        name: [without_suffix(path)] for name, path in read_fields(enrol, 2)
    }
    lists.trials["eval"] = [_trial(trials, *fields) for fields in read_fields(trials, 3)]
    return lists


def _trial(path: Path, speaker: str, test: str, label: str) -> Trial:
    if label not in ("0", "1"):
        raise SasvError(f"{path}: unknown label '{label}' of {test}; expected 1 or 0")
    return Trial(speaker, without_suffix(test), "target" if label == "1" else "nontarget")
