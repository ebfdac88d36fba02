"""Score files and keys in the formats of challenges and other toolkits.

They are damaged in the same way as the files of sasv.
"""

from dataclasses import dataclass

import numpy as np

ATTACKS = {"bonafide": "bonafide", "spoof": "A07"}


@dataclass(frozen=True)
class Drawn:
    """A trial with its score.

    Attributes:
        speaker: the claimed speaker.
        utterance: name of the recording.
        label: target, nontarget or spoof.
        score: random score, on average higher for targets.
        subset: eval, progress or hidden.
    """

    speaker: str
    utterance: str
    label: str
    score: float
    subset: str

    def text(self, form: str) -> str:
        """Return a row: ``form`` with the fields, ``cm``, ``attack``, ``number``, ``same`` and
        ``side``.
        """
        genuine = "spoof" if self.label == "spoof" else "bonafide"
        return form.format(
            speaker=self.speaker,
            utterance=self.utterance,
            label=self.label,
            score=f"{self.score:.6f}",
            subset=self.subset,
            cm=genuine,
            attack=ATTACKS[genuine],
            number={"spoof": 0, "target": 1, "nontarget": 2}[self.label],
            same=int(self.label == "target"),
        )


def drawn_trials(count: int = 45) -> list[Drawn]:
    """Return random trials with names like those of the challenges."""
    rng = np.random.default_rng(7)
    labels = ("target", "nontarget", "spoof")
    means = {"target": 1.5, "nontarget": -1.0, "spoof": 0.2}
    return [
        Drawn(
            f"LA_{number % 5:04}",
            f"LA_E_{1000000 + number}",
            labels[number % 3],
            means[labels[number % 3]] + rng.standard_normal(),
            ("eval", "eval", "progress", "hidden")[number // 3 % 4],
        )
        for number in range(count)
    ]


FORMS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "speechbrain": (("", "{speaker}/v/{utterance} w/{utterance} {same} {score}", " "),),
    "kaldi-eer": (("", "{score} {label}", " "),),
    "kaldi-and-voxceleb-list": (
        ("", "{speaker} {utterance} {score}", " "),
        ("", "{same} {speaker} {utterance}", " "),
    ),
    "nist-sre": (
        ("modelid\tsegmentid\tside\tLLR", "{speaker}\t{utterance}.sph\ta\t{score}", "\t"),
        ("modelid\tsegmentid\tside\tkey", "{speaker}\t{utterance}.sph\ta\t{label}", "\t"),
    ),
    "asvspoof2019-cm": (("", "{utterance} {attack} {cm} {score}", " "),),
    "asvspoof2019-asv": (("", "{attack} {label} {score}", " "),),
    "asvspoof2019-list": (
        ("", "{speaker} {utterance} {score}", " "),
        ("", "{speaker} {utterance} {attack} {label}", " "),
    ),
    "asvspoof2021-la": (
        ("", "{utterance} {score}", " "),
        ("", "{speaker} {utterance} alaw ita_tx {attack} {cm} notrim {subset}", " "),
    ),
    "asvspoof2021-df": (
        ("", "{utterance} {score}", " "),
        (
            "",
            "{speaker} {utterance} nocodec asvspoof {attack} {cm} notrim {subset} vocoder - - - -",
            " ",
        ),
    ),
    "asvspoof2021-pa": (
        ("", "{utterance} {score}", " "),
        ("", "{speaker} {utterance} R2 M2 d2 r1 m1 s2 c2 {cm} notrim {subset}", " "),
    ),
    "asvspoof2021-log": (
        ("", "Output, {utterance}, 0, {score}", ","),
        ("", "{speaker} {utterance} - {attack} {cm}", " "),
    ),
    "asvspoof5-track1": (
        ("filename\tcm-score", "{utterance}\t{score}", "\t"),
        ("", "{speaker} {utterance} F C01 1 2 AC1 {attack} {cm} -", " "),
    ),
    "asvspoof5-track2": (
        (
            "spk\tfilename\tcm-score\tasv-score\tsasv-score",
            "{speaker}\t{utterance}\t-\t-\t{score}",
            "\t",
        ),
        ("spk\tfilename\tcm-label\tasv-label", "{speaker}\t{utterance}\t{cm}\t{label}", "\t"),
    ),
    "sasv-fusion": (("asv_score,cm_score,sasv_score,sasv_label", "0.5,0.1,{score},{number}", ","),),
    "in-the-wild": (
        ("", "{utterance}.wav {score}", " "),
        ("file,speaker,label", "{utterance}.wav,Some {speaker},{cm}", ","),
    ),
    "quoted-csv": (
        (
            '"Speaker","Utterance","Label","Score"',
            '"{speaker}","{utterance}","{label}",{score}',
            ",",
        ),
    ),
    "semicolons": (("File;Key;Similarity", "{utterance};{label};{score}", ";"),),
}
"""Maps each layout to (header, format of a row, separator) of its score file and, if there is one,
of its key.
"""


def foreign_files() -> dict[str, tuple[tuple[str, str], ...]]:
    """Return (text, separator) of the score file and of the key, if any, of each layout."""
    trials = drawn_trials()
    return {
        name: tuple(
            (
                "".join(f"{row}\n" for row in (header, *(one.text(form) for one in trials)) if row),
                separator,
            )
            for header, form, separator in files
        )
        for name, files in FORMS.items()
    }
