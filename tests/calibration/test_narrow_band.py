"""The calibration of speech of a lower bandwidth: its values, its fit, and the same verdicts from a
table, a verifier, and a saved voiceprint.
"""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from sasv.audio import write_audio
from sasv.calibration import ThreeWay, fit_three_way
from sasv.calibration.backend import Linear, fit_linear
from sasv.calibration.narrow_band import MEDIUM_HZ, NARROW_HZ, NarrowBand, completed
from sasv.checkpoints import load_checkpoint
from sasv.commands import CalibrateOptions, _calibrate
from sasv.core.errors import AudioError, SasvError
from sasv.decision import CalibratedHead, Outcome, Recording, SpeechLimits, Verifier
from sasv.embeddings.bandwidth import bandwidths
from sasv.embeddings.extract import Embeddings
from sasv.evaluation import load_protocol
from sasv.evaluation.claims import Spoofing, score_claims
from sasv.metrics import COST_MODELS
from sasv.runtime.verifier import Voiceprint
from sasv.scores import SpoofHead, read_scores
from sasv.scores.quality import Bandwidths, enrolment_bandwidth
from sasv.tables import load_utterances

COSTS = COST_MODELS["asvspoof5"]
ONE = Linear(["score"], [8.0], -3.0)
BOTH = Linear(["score"], [9.0], -4.0)
MEDIUM = Linear(["score"], [6.0], -2.0)
PHONE = 3875.0
MP3 = 5625.0
WIDE = 7750.0


def three_way(narrow):
    """LLR of the speaker: 10 score - 5 for wide-band speech."""
    return ThreeWay(
        speaker=Linear(["score"], [10.0], -5.0),
        spoof=Linear(["cm_score"], [2.0], 3.0),
        share=1.0,
        bound=5.0,
        ranges={},
        costs=COSTS,
        source="dev",
        narrow=narrow,
    )


def test_values_by_hand():
    sides = Bandwidths(
        np.array([WIDE, PHONE, WIDE, PHONE, PHONE, np.nan]),
        np.array([WIDE, WIDE, PHONE, PHONE, np.inf, PHONE]),
    )
    scores = np.full(6, 0.8)
    made = three_way(NarrowBand(5000.0, ONE, BOTH))
    found = made(scores, np.zeros(6), np.ones(6), sides)
    # 10 * 0.8 - 5, 8 * 0.8 - 3 for either side, 9 * 0.8 - 4 for both; the last two are unknown
    assert found.speaker == pytest.approx([3.0, 3.4, 3.4, 3.2, 3.0, 3.0])
    assert made(scores, np.zeros(6), np.ones(6)).speaker == pytest.approx([3.0] * 6)
    only_one = three_way(NarrowBand(5000.0, ONE))(scores, np.zeros(6), np.ones(6), sides)
    assert only_one.speaker == pytest.approx([3.0, 3.4, 3.4, 3.0, 3.0, 3.0])
    np.testing.assert_array_equal(found.spoof, only_one.spoof)


def test_values_of_a_medium_bandwidth_by_hand():
    """A side of medium bandwidth counts only if no side is narrow-band."""
    sides = Bandwidths(
        np.array([MP3, WIDE, MP3, MP3, PHONE, WIDE, MP3, 6200.0]),
        np.array([WIDE, MP3, MP3, PHONE, MP3, WIDE, np.nan, WIDE]),
    )
    scores = np.full(8, 0.8)
    made = three_way(NarrowBand(5300.0, ONE, BOTH, 6200.0, MEDIUM))
    found = made(scores, np.zeros(8), np.ones(8), sides)
    # 6 * 0.8 - 2; with a narrow-band side 8 * 0.8 - 3; else 10 * 0.8 - 5
    assert found.speaker == pytest.approx([2.8, 2.8, 2.8, 3.4, 3.4, 3.0, 3.0, 3.0])
    without = three_way(NarrowBand(5300.0, ONE, BOTH))(scores, np.zeros(8), np.ones(8), sides)
    assert without.speaker == pytest.approx([3.0, 3.0, 3.0, 3.4, 3.4, 3.0, 3.0, 3.0])


def test_the_bandwidth_of_an_enrolment_is_that_of_most_of_its_recordings():
    assert enrolment_bandwidth([PHONE]) == PHONE
    assert enrolment_bandwidth([PHONE, WIDE, 4000.0]) == 4000.0
    assert enrolment_bandwidth([WIDE, PHONE]) == WIDE
    assert enrolment_bandwidth([PHONE, None, np.nan]) == np.inf
    assert enrolment_bandwidth([]) == np.inf


def test_a_calibration_without_narrow_band_speech_is_as_before():
    plain = three_way(None)
    record = plain.to_dict()
    assert set(record) == {
        *("speaker", "spoof", "share", "bound", "ranges", "costs", "source", "spoof_axis")
    }
    assert ThreeWay.from_dict(json.loads(json.dumps(record))) == plain
    scores = np.linspace(-1, 1, 7)
    phone = Bandwidths(np.full(7, PHONE), np.full(7, PHONE))
    first = plain(scores, scores, scores)
    for one, two in zip(first, plain(scores, scores, scores, phone)):
        np.testing.assert_array_equal(one, two)


def test_the_record_of_the_released_model_stays_the_same():
    record = load_checkpoint("default").specification.decision["three_way"]
    assert CalibratedHead.from_record(record).to_record() == record


def test_record_round_trips_and_a_broken_one_is_refused():
    for narrow in (
        NarrowBand(5000.0, ONE, BOTH),
        NarrowBand(4500.0, None, BOTH),
        NarrowBand(5300.0, ONE, None, 6200.0, MEDIUM),
    ):
        made = three_way(narrow)
        record = json.loads(json.dumps(made.to_dict()))
        assert ThreeWay.from_dict(record) == made
        for wrong in (
            {"below": -1.0},
            {"below": 0.0},
            {"medium_below": 100.0},
            {"medium_below": float("inf")},
            {"medium_below": None, "medium": {"columns": ["score"], "weights": [1.0], "offset": 0}},
            {"medium": {"columns": ["norm"], "weights": [1.0], "offset": 0.0}},
            {"one": {"columns": ["cm_score"], "weights": [1.0], "offset": 0.0}},
            {"both": {"columns": ["score"], "weights": [], "offset": 0.0}},
            {"three": None},
        ):
            with pytest.raises(SasvError):
                ThreeWay.from_dict(record | {"narrow": record["narrow"] | wrong})
    with pytest.raises(SasvError):
        ThreeWay.from_dict(record | {"narrow": [1.0]})
    infinite = Linear(["score"], [1.0], float("inf"))
    with pytest.raises(SasvError, match="invalid"):
        three_way(NarrowBand(5000.0, infinite))


def drawn(counts=(60, 40, 30, 25), seed=0):
    """Return columns, labels, and groups: so many targets and nontargets with 0, 1, and 2
    narrow-band sides, and with a tested recording of medium bandwidth, and as many spoofs of
    wide-band speech as targets.
    """
    rng = np.random.default_rng(seed)
    sides = np.repeat([0, 1, 2, 3, 0, 1, 2, 3, 0], [*counts, *counts, sum(counts)])
    labels = np.repeat([0, 1, 2], sum(counts))
    target = np.array([0.8, 0.5, 0.7, 0.6])[sides]
    nontarget = np.array([0.2, 0.1, 0.3, 0.2])[sides]
    columns = {
        "score": np.where(labels == 1, nontarget, target) + 0.15 * rng.standard_normal(len(sides)),
        "cm_score": rng.standard_normal(len(sides)) + np.where(labels == 2, -2.0, 2.0),
        "bandwidth": np.array([WIDE, PHONE, PHONE, MP3])[sides],
        "enrolment_bandwidth": np.where(sides == 2, PHONE, WIDE),
    }
    return columns, labels, np.where(labels == 2, "a", "-")


def without_bandwidths(columns):
    return {name: columns[name] for name in ("score", "cm_score")}


def test_each_kind_of_trial_is_fitted_to_its_own():
    columns, labels, groups = drawn()
    made = fit_three_way(columns, labels, groups, COSTS, "dev")
    plain = fit_three_way(without_bandwidths(columns), labels, groups, COSTS, "dev")
    narrow = made.narrow
    assert narrow is not None and narrow.below == NARROW_HZ and narrow.medium_below == MEDIUM_HZ
    sides = (columns["bandwidth"] < 5000).astype(int) + (columns["enrolment_bandwidth"] < 5000)
    sides[columns["bandwidth"] == MP3] = 3
    for count, line in enumerate((made.speaker, narrow.one, narrow.both, narrow.medium)):
        rows = (sides == count) & (labels != 2)
        alone = fit_linear({"score": columns["score"][rows]}, labels[rows], {0: 0.5, 1: 0.5})
        assert line == alone
    assert (made.spoof, made.share, made.bound) == (plain.spoof, plain.share, plain.bound)
    assert made.known == plain.known


@pytest.mark.parametrize(
    "counts", [(60, 0, 0, 0), (60, 19, 19, 19), (0, 40, 30, 25), (19, 40, 0, 0)]
)
def test_too_few_trials_of_a_kind_are_fitted_with_all_others(counts):
    columns, labels, groups = drawn(counts)
    made = fit_three_way(columns, labels, groups, COSTS, "dev")
    assert made == fit_three_way(without_bandwidths(columns), labels, groups, COSTS, "dev")
    columns, labels, groups = drawn((60, 19, 20, 19))
    some = fit_three_way(columns, labels, groups, COSTS, "dev")
    assert some.narrow.one is None and some.narrow.both is not None and some.narrow.medium is None


def kinds(wide, one, both, medium):
    """Return labels and bandwidths: so many targets, and as many nontargets, of each kind."""
    tested = np.repeat([WIDE, PHONE, PHONE, MP3], [wide, one, both, medium])
    enrolled = np.repeat([WIDE, WIDE, PHONE, WIDE], [wide, one, both, medium])
    labels = np.repeat([0, 1], len(tested))
    return labels, Bandwidths(np.tile(tested, 2), np.tile(enrolled, 2))


def test_a_new_calibration_keeps_the_lines_for_which_it_has_too_few_trials():
    other = Linear(["score"], [1.0], 0.0)
    before = NarrowBand(NARROW_HZ, ONE, BOTH, MEDIUM_HZ, MEDIUM)
    new = NarrowBand(NARROW_HZ, other, None, MEDIUM_HZ, None)
    found = completed(new, before, *kinds(50, 20, 0, 0))
    assert found == NarrowBand(NARROW_HZ, other, BOTH, MEDIUM_HZ, MEDIUM)
    assert completed(None, before, *kinds(50, 0, 0, 0)) == before
    assert completed(None, before, *kinds(50, 1, 0, 19)) == before
    # All trials were fitted together, and most of them, or enough of them, are of one kind.
    assert completed(None, before, *kinds(5, 10, 0, 0)) == replace(before, one=None)
    assert completed(None, before, *kinds(0, 0, 25, 30)) == replace(before, both=None, medium=None)
    assert completed(None, replace(before, both=None, medium=None), *kinds(0, 9, 0, 0)) is None
    for unusable in (None, NarrowBand(5000.0, ONE, BOTH, MEDIUM_HZ), NarrowBand(NARROW_HZ, ONE)):
        assert completed(new, unusable, *kinds(50, 20, 0, 0)) is new
        assert completed(None, unusable, *kinds(50, 0, 0, 0)) is None


# The first dimension tells speakers apart, the second speech.
HEAD = CalibratedHead(SpoofHead(np.array([0.0, 1.0])), three_way(NarrowBand(5000.0, ONE, BOTH)))


def recording(cosine, bandwidth, name="a.wav"):
    vector = np.array([cosine, np.sqrt(1 - cosine**2)], np.float32)
    return Recording(name, vector, 4.0, 3.0, bandwidth=bandwidth)


def test_a_verdict_depends_on_the_bandwidth_of_both_sides():
    """At a cosine of 0.55, the LLR of the speaker is 0.5, 1.4, or 0.95."""
    verifier = Verifier(three_way=HEAD)
    for enrolled, tested, expected in (
        (WIDE, WIDE, 0.5),
        (WIDE, PHONE, 1.4),
        (PHONE, WIDE, 1.4),
        (PHONE, PHONE, 0.95),
        (None, PHONE, 0.5),
        (PHONE, None, 0.5),
    ):
        enrolment = [Recording("e.wav", np.array([1.0, 0.0], np.float32), 4.0, 3.0)]
        enrolment = [Recording(**{**vars(enrolment[0]), "bandwidth": enrolled})]
        decision = verifier.decide(enrolment, recording(0.55, tested))
        assert decision.llrs["speaker"] == pytest.approx(expected, abs=1e-6)
        voiceprint = Voiceprint(tuple(enrolment), "model", "p")
        again = Voiceprint.from_json(voiceprint.to_json())
        assert again.recordings[0].bandwidth == enrolled
        assert verifier.decide(again.recordings, recording(0.55, tested)) == decision
        values = json.loads(voiceprint.to_json())
        for one in values["recordings"]:
            del one["bandwidth"]
        old = Voiceprint.from_json(json.dumps(values)).recordings
        assert old[0].bandwidth is None
        as_wide = verifier.decide(old, recording(0.55, tested)).llrs["speaker"]
        assert as_wide == pytest.approx(0.5, abs=1e-6)


def test_verdicts_on_a_table_are_those_of_a_verifier(tmp_path):
    """Speaker e is enrolled by telephone, speaker w otherwise; each is tested both ways."""
    rng = np.random.default_rng(1)
    hertz = {"e1": PHONE, "e2": 4000.0, "w1": WIDE, "w2": PHONE, "w3": WIDE}
    hertz |= {f"t{row}": (PHONE, WIDE, np.nan)[row % 3] for row in range(9)}
    names = list(hertz)
    lines = [f"{name}\t{name}.wav\t{name[0]}\tbonafide\t4" for name in names]
    head = "utterance\tpath\tspeaker\tlabel\tseconds"
    (tmp_path / "utterances.tsv").write_text("\n".join([head, *lines]) + "\n")
    (tmp_path / "enrolments.tsv").write_text("speaker\tutterances\ne\te1,e2\nw\tw1,w2,w3\n")
    trials = [(speaker, f"t{row}") for row in range(9) for speaker in "ew"]
    body = "".join(f"{one}\t{other}\ttarget\n" for one, other in trials)
    (tmp_path / "trials.tsv").write_text(f"speaker\tutterance\tlabel\n{body}")
    protocol = load_protocol(
        *(str(tmp_path / f"{name}.tsv") for name in ("utterances", "enrolments", "trials"))
    )
    names = list(protocol.utterances.ids)
    angles = rng.uniform(-1.5, 1.5, len(names)) * np.array([name[0] == "t" for name in names])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    embeddings = Embeddings(vectors, names, {})
    cm_scores = dict(zip(names, HEAD.head.scores(vectors).tolist()))
    verifier = Verifier(three_way=HEAD, limits=SpeechLimits(min_agreement=-1))
    scores = score_claims(
        protocol,
        embeddings,
        verifier,
        tmp_path / "scores.tsv",
        quality=True,
        spoofing=Spoofing(cm_scores, three_way=HEAD),
        bandwidths=np.array([hertz[name] for name in names]),
    )
    rows = {name: row for row, name in enumerate(names)}

    def known(name):
        value = None if np.isnan(hertz[name]) else hertz[name]
        return Recording(name, vectors[rows[name]], 4.0, 3.0, bandwidth=value)

    llrs = scores.numbers("speaker_llr")
    outcomes = scores.table.texts("outcome")
    members = {"e": ["e1", "e2"], "w": ["w1", "w2", "w3"]}
    for row, (speaker, test) in enumerate(trials):
        decision = verifier.decide([known(name) for name in members[speaker]], known(test))
        assert llrs[row] == pytest.approx(decision.llrs["speaker"], rel=1e-6, abs=1e-6)
        assert Outcome(outcomes[row]) is decision.outcome
    assert {*np.unique(scores.numbers("bandwidth"))} == {PHONE, WIDE, 8000.0}
    assert {*np.unique(scores.numbers("enrolment_bandwidth"))} == {4000.0, WIDE}
    assert len(set(outcomes)) > 1


def test_the_command_reads_the_bandwidths_from_the_score_file(tmp_path, monkeypatch, caplog):
    columns, labels, groups = drawn()
    names = ("target", "nontarget", "spoof")
    head = ["speaker", "utterance", "label", "attack", *columns]
    rows = ["\t".join(head)]
    for row, label in enumerate(labels):
        values = [f"{columns[name][row]:.9g}" for name in columns]
        rows.append("\t".join(["p", f"u{row}", names[label], groups[row], *values]))
    path = tmp_path / "scores.tsv"
    path.write_text("\n".join(rows) + "\n")
    specification = SimpleNamespace(encoder_options={})
    checkpoint = SimpleNamespace(specification=specification)
    monkeypatch.setattr(_calibrate, "load_checkpoint", lambda _: checkpoint)
    scores = read_scores(path)
    options = CalibrateOptions(str(path), kind="three-way", model="m", model_out="o")
    assert _calibrate.three_way_of(scores, options, COSTS).narrow is None
    options.quality = ["bandwidth"]
    with caplog.at_level("INFO", "sasv"):
        found = _calibrate.three_way_of(scores, options, COSTS)
    assert found.narrow is not None and found.narrow.one is not None
    assert "have a calibration of their own" in caplog.text
    options.quality = ["norm", "bandwidth"]
    with pytest.raises(SasvError, match="no column 'norm'"):
        _calibrate.three_way_of(scores, options, COSTS)
    options.quality = ["log_seconds"]
    with pytest.raises(SasvError, match="norm and bandwidth if --quality names them"):
        _calibrate.three_way_of(scores, options, COSTS)


class Ear:
    """Stands for a model: the bandwidth is the length of the file."""

    def __init__(self):
        self.heard = []

    def bandwidth(self, path, channel):
        self.heard.append(str(path).rpartition("/")[2])
        if "broken" in str(path):
            raise AudioError("unreadable")
        return None if "silent" in str(path) else 5000.0 + len(self.heard)


def test_each_recording_is_measured_once(tmp_path):
    names = ("a", "b", "broken", "silent")
    for row, name in enumerate(names):
        write_audio(tmp_path / f"{name}.wav", np.full(1600 + row, 0.1, np.float32))
    lines = [f"{name}\t{name}.wav\tp\tbonafide" for name in names]
    table = tmp_path / "utterances.tsv"
    table.write_text("\n".join(["utterance\tpath\tspeaker\tlabel", *lines]) + "\n")
    ear = Ear()
    path = tmp_path / "bandwidth.tsv"
    first = bandwidths(ear, load_utterances(table), path, quiet=True)
    assert len(ear.heard) == 4 and np.isnan(first).tolist() == [False, False, True, True]
    again = bandwidths(ear, load_utterances(table), path, quiet=True)
    np.testing.assert_array_equal(first, again)
    assert len(ear.heard) == 4
    write_audio(tmp_path / "b.wav", np.full(3200, 0.2, np.float32))
    bandwidths(ear, load_utterances(table), path, quiet=True)
    assert ear.heard[4:] == ["b.wav"]
    path.write_text("not a table")
    bandwidths(ear, load_utterances(table), path, quiet=True)
    assert sorted(ear.heard[5:]) == sorted(f"{name}.wav" for name in names)
