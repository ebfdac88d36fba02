"""ASVspoof 5 (Wang et al. 2024), as unpacked: flac_T, flac_D, flac_E_eval, and the protocol lists
of tracks 1 and 2.
"""

from pathlib import Path

from sasv.core.errors import SasvError
from sasv.corpora.asvspoof2019 import read_enrolments
from sasv.corpora.base import CorpusLists, Trial, Utterance
from sasv.corpora.lists import read_fields
from sasv.corpora.tree import audio_below
from sasv.tables import NONE
from sasv.tables.labels import BONA_FIDE, SPOOF

PARTS = {
    "train": ("train", "flac_T"),
    "dev": ("dev.track_1", "flac_D"),
    "eval": ("eval.track_1", "flac_E_eval"),
}
NAME = "ASVspoof5"


def read(folder: Path) -> CorpusLists:
    """Read those of the train, dev and eval parts that exist. The protocol lists are in ``folder``
    or in one of its subfolders.
    """
    found = {
        path.name: path for path in [*folder.glob(f"*/{NAME}.*.tsv"), *folder.glob(f"{NAME}.*.tsv")]
    }
    if not found:
        raise SasvError(
            f"{folder}: contains no {NAME}.*.tsv, and neither do its subfolders; unpack "
            "ASVspoof5_protocols.tar.gz there"
        )
    lists = CorpusLists(folder, [], files=set(audio_below(folder)))
    columns: dict[str, dict[str, str]] = {"gender": {}, "codec": {}}
    for part, (listed, audio) in PARTS.items():
        protocol = found.get(f"{NAME}.{listed}.tsv")
        if protocol is None:
            lists.notes.append(f"no {part} part: {NAME}.{listed}.tsv is not there")
            continue
        for speaker, name, gender, codec, _, _, _, attack, key, _ in read_fields(protocol, 10):
            if key not in (BONA_FIDE, SPOOF):
                raise SasvError(
                    f"{protocol}: unknown key '{key}' of {name}; expected bonafide or spoof"
                )
            shown = attack if key == SPOOF else NONE
            lists.utterances.append(
                Utterance(name, f"{audio}/{name}.flac", speaker, part, key, shown)
            )
            columns["gender"][name], columns["codec"][name] = gender, codec
        enrolments, trials = (
            found.get(f"{NAME}.{part}.track_2.{kind}.tsv") for kind in ("enroll", "trial")
        )
        if enrolments is None or trials is None:
            if part != "train":
                lists.notes.append(f"no {part} trials: the lists of track 2 are not there")
            continue
        speakers = read_enrolments(enrolments)
        lists.enrolments[part], lists.trials[part] = speakers, read_trials(trials)
        for speaker, names in speakers.items():
            for name in names:
                lists.utterances.append(
                    Utterance(name, f"{audio}/{name}.flac", speaker, f"{part}-enrolment")
                )
    lists.extras = columns
    return lists


def read_trials(path: Path) -> list[Trial]:
    """Return the trials in lines ``D_0062 D_0000000001 F A11 spoof``."""
    trials = []
    for speaker, name, _, attack, key in read_fields(path, 5):
        if key not in ("target", "nontarget", "spoof"):
            raise SasvError(
                f"{path}: unknown key '{key}' of {name}; expected target, nontarget or spoof"
            )
        trials.append(Trial(speaker, name, key, attack if key == SPOOF else NONE))
    return trials
