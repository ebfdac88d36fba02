"""ASVspoof 2019 logical access, as unpacked from LA.zip (Wang et al., Computer Speech & Language
2020).
"""

from pathlib import Path

from sasv.core.errors import SasvError
from sasv.corpora.base import CorpusLists, Trial, Utterance
from sasv.corpora.lists import read_countermeasure, read_fields
from sasv.corpora.tree import audio_below
from sasv.tables import NONE
from sasv.tables.labels import SPOOF

PARTS = {"train": "train.trn", "dev": "dev.trl", "eval": "eval.trl"}
NAME = "ASVspoof2019.LA"
GENDERS = ("female", "male")


def read(folder: Path) -> CorpusLists:
    """Read those of the train, dev and eval parts that exist. ``folder`` is ``LA`` or its
    parent.
    """
    root = folder / "LA" if (folder / "LA").is_dir() else folder
    cm = root / "ASVspoof2019_LA_cm_protocols"
    if not cm.is_dir():
        raise SasvError(
            f"{folder}: contains no folder ASVspoof2019_LA_cm_protocols; give the folder LA of the "
            "unpacked archive"
        )
    lists = CorpusLists(root, [], files=set(audio_below(root)))
    for part, kind in PARTS.items():
        protocol = cm / f"{NAME}.cm.{kind}.txt"
        if not protocol.exists():
            lists.notes.append(f"no {part} part: {protocol.name} does not exist")
            continue
        audio = f"ASVspoof2019_LA_{part}/flac"
        lists.utterances += [
            Utterance(name, f"{audio}/{name}.flac", speaker, part, label, attack)
            for speaker, name, label, attack in read_countermeasure(protocol)
        ]
        asv = root / "ASVspoof2019_LA_asv_protocols"
        enrolments = [asv / f"{NAME}.asv.{part}.{gender}.trn.txt" for gender in GENDERS]
        trials = asv / f"{NAME}.asv.{part}.gi.trl.txt"
        if part == "train":
            continue
        if not (trials.exists() and all(path.exists() for path in enrolments)):
            lists.notes.append(f"no {part} trials: {asv.name} does not contain its lists")
            continue
        speakers = read_enrolments(*enrolments)
        lists.enrolments[part], lists.trials[part] = speakers, read_trials(trials)
        listed = {row.utterance for row in lists.utterances}
        lists.utterances += [
            # These are not in the countermeasure list, on which the published system is trained,
            # and get a split of their own.
            Utterance(name, f"{audio}/{name}.flac", speaker, f"{part}-enrolment")
            for speaker, names in speakers.items()
            for name in names
            if name not in listed
        ]
    return lists


def read_trials(path: Path) -> list[Trial]:
    """Return the trials in lines ``LA_0015 LA_E_1103494 bonafide target``. For spoofed speech, the
    third field is the attack.
    """
    trials = []
    for speaker, name, kind, label in read_fields(path, 4):
        if label not in ("target", "nontarget", "spoof"):
            raise SasvError(
                f"{path}: unknown label '{label}' of {name}; expected target, nontarget or spoof"
            )
        trials.append(Trial(speaker, name, label, kind if label == SPOOF else NONE))
    return trials


def read_enrolments(*paths: Path) -> dict[str, list[str]]:
    """Return speaker -> enrolment utterances from lines ``LA_0026 LA_E_A6067886,LA_E_A6399397``."""
    return {speaker: names.split(",") for path in paths for speaker, names in read_fields(path, 2)}
