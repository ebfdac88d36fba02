"""LLRs for speaker and spoofing: their values, their shrinkage, and the resulting verdicts."""

import json

import numpy as np
import pytest

from sasv.calibration import ThreeWay, fit_spoof_head, fit_three_way
from sasv.calibration.backend import Linear
from sasv.calibration.three_way import held_out_share
from sasv.core.errors import SasvError
from sasv.decision import CalibratedHead, Outcome, Recording, SpeechLimits, Verifier, detect_spoof
from sasv.decision import outcomes as verdicts
from sasv.evaluation.outcomes import measure_outcomes
from sasv.metrics import COST_MODELS, Measure
from sasv.scores import Evidence, SpoofHead

COSTS = COST_MODELS["asvspoof5"]  # weights 0.9405, 0.095, 0.5
BY_HAND = ThreeWay(
    speaker=Linear(["score"], [10.0], -5.0),
    spoof=Linear(["cm_score"], [2.0], -1.0),
    share=0.5,
    bound=3.0,
    ranges={"cm_score": {"low": -2.0, "high": 4.0, "spread": 1.0}},
    costs=COSTS,
    source="dev",
)


def drawn(attacks=("a", "b", "c"), shift=(0.0, 0.0, 0.0), trials=200, seed=0):
    """Return columns, labels, and groups. Spoofs score like targets, and attacks are shifted
    towards bona fide speech.
    """
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1, *[2] * len(attacks)], trials)
    groups = np.repeat(["-", "-", *attacks], trials)
    places = np.repeat([2.0, 2.0, *(np.array(shift) - 2.0)], trials)
    columns = {
        "score": rng.standard_normal(len(labels)) * 0.1 + 0.7 * (labels != 1),
        "cm_score": rng.standard_normal(len(labels)) + places,
        "norm": rng.uniform(9, 11, len(labels)),
    }
    return columns, labels, groups


def test_values_by_hand():
    evidence = BY_HAND(np.array([0.8]), np.array([1.5]), np.array([1.0]))
    assert evidence.speaker == pytest.approx([3.0])  # 10 * 0.8 - 5
    assert evidence.spoof == pytest.approx([1.0])  # half of 2 * 1.5 - 1
    share = 0.5 / 0.595
    expected = -np.log((1 - share) * np.exp(-3.0) + share * np.exp(-1.0))
    assert evidence.llr(COSTS.spoof_share) == pytest.approx([expected])


def test_spoof_llr_shrinks_to_zero_far_from_calibration_data():
    values = np.array([-2.0, 4.0, 5.0, 6.0, 10.0, -12.0])
    evidence = BY_HAND(np.zeros(6), values, np.ones(6))
    assert evidence.familiarity[:2] == pytest.approx([1, 1])
    assert evidence.familiarity[2:4] == pytest.approx([np.exp(-0.5), np.exp(-2.0)])
    assert np.abs(evidence.spoof[4:]).max() < 1e-6
    assert np.abs(evidence.spoof).max() <= BY_HAND.share * BY_HAND.bound


def test_share_is_estimated_on_held_out_attacks():
    columns, labels, groups = drawn()
    alike = fit_three_way(columns, labels, groups, COSTS, "dev")
    assert alike.share > 0.8 and set(alike.known) == {"cm_score", "norm"}
    columns, labels, groups = drawn(shift=(0.0, 0.0, 5.0))  # the third sounds bona fide
    unlike = fit_three_way(columns, labels, groups, COSTS, "dev")
    assert unlike.share < 0.7 * alike.share
    classes = np.where(labels == 2, 2, 0)
    opposite = np.where(groups == "c", 10.0, columns["cm_score"])
    assert held_out_share(opposite, classes, groups, 5.0) <= unlike.share
    assert held_out_share(columns["cm_score"], classes, np.array(["-"] * len(labels)), 5.0) == 1.0


def test_record_round_trips_and_a_broken_one_is_refused():
    columns, labels, groups = drawn()
    made = fit_three_way(columns, labels, groups, COSTS, "dev")
    record = json.loads(json.dumps(made.to_dict()))
    again = ThreeWay.from_dict(record)
    first, second = (
        one(columns["score"], columns["cm_score"], columns["norm"]) for one in (made, again)
    )
    np.testing.assert_array_equal(first.spoof, second.spoof)
    assert again == made
    for changes in (
        {"share": 2.0},
        {"bound": -1.0},
        {"ranges": {"cm_score": {"low": 0.0}}},
        {"ranges": {"loudness": {"low": 0.0, "high": 1.0, "spread": 1.0}}},
        {"speaker": {"columns": ["other"], "weights": [1.0], "offset": 0.0}},
        {"spoof": None},
        {"surplus": 1},
    ):
        with pytest.raises(SasvError):
            ThreeWay.from_dict(record | changes)
    for wrong in ("score", "cm_score"):
        with pytest.raises(SasvError, match="does not mean a more likely target"):
            fit_three_way(columns | {wrong: -columns[wrong]}, labels, groups, COSTS, "dev")
    with pytest.raises(SasvError, match="needs a cost"):
        fit_three_way(columns, labels, groups, COST_MODELS["track1"], "dev")


def recording(vector):
    return Recording("a.wav", np.array(vector, np.float32), 4.0, 3.0)


# The first dimension tells speakers apart, the second speech: cm_score = 4 y / |x| here.
HEAD = SpoofHead(np.array([0.0, 4.0]))
VERIFIER = Verifier(three_way=CalibratedHead(HEAD, BY_HAND))


@pytest.mark.parametrize(
    ("vector", "outcome"),
    [
        ([0.9, 0.43], Outcome.ACCEPT),
        ([-0.9, 0.43], Outcome.REJECT_SPEAKER),
        ([0.9, -0.43], Outcome.REJECT_SPOOF),
        ([-0.9, -0.43], Outcome.REJECT_SPOOF),
    ],
)
def test_verdicts(vector, outcome):
    decision = VERIFIER.decide([recording([1.0, 0.0])], recording(vector))
    assert decision.outcome is outcome
    shown = decision.to_dict()
    assert {"llr", "speaker_llr", "spoof_llr", "llr_threshold", "costs"} <= set(shown)
    cosine, cm_score = vector[0] / np.hypot(*vector), 4 * vector[1] / np.hypot(*vector)
    assert shown["speaker_llr"] == pytest.approx(10 * cosine - 5, abs=1e-5)
    expected = BY_HAND(np.array(cosine), np.array(cm_score), np.array(1.0))
    assert shown["spoof_llr"] == pytest.approx(float(expected.spoof), abs=1e-5)
    given = VERIFIER.with_threshold(0.5).decide([recording([1.0, 0.0])], recording(vector))
    assert given.accepted == (cosine >= 0.5)


def test_an_unfamiliar_recording_is_never_rejected_as_a_spoof():
    strict = COST_MODELS["a-dcf-paper"]  # a spoof costs more than the evidence of nothing
    known = {"norm": {"low": 0.5, "high": 1.5, "spread": 0.1}}
    three_way = ThreeWay(BY_HAND.speaker, BY_HAND.spoof, 1.0, 3.0, known, strict)
    verifier = Verifier(three_way=CalibratedHead(HEAD, three_way))
    loud = recording([90.0, -43.0])
    decision = verifier.decide([recording([1.0, 0.0])], loud)
    assert decision.outcome is Outcome.INCONCLUSIVE and not decision.accepted
    assert decision.reasons[-1].code == "unfamiliar_recording" and decision.scores
    other = verifier.decide([recording([-1.0, 0.0])], loud)
    assert other.outcome is Outcome.REJECT_SPEAKER
    usual = Verifier(
        three_way=CalibratedHead(HEAD, ThreeWay(**{**vars_of(three_way), "costs": COSTS}))
    )
    accepted = usual.decide([recording([1.0, 0.0])], loud)
    assert accepted.accepted and accepted.reasons[-1].code == "unfamiliar_recording"


def vars_of(three_way):
    return {name: value for name, value in vars(three_way).items() if name != "known"}


def test_the_record_of_a_decision_holds_its_spoof_head():
    record = json.loads(json.dumps(VERIFIER.decision_record()))
    again = Verifier.from_records({}, record).three_way
    assert again.calibration == BY_HAND and again.head.weight.tolist() == [0.0, 4.0]
    for head in (None, {}, {"weight": [0.0], "bias": "none"}, {"weight": 1.0, "bias": 0.0}):
        broken = record | {"three_way": record["three_way"] | {"head": head}}
        with pytest.raises(SasvError, match="spoof head"):
            Verifier.from_records({}, broken)


def test_detection_without_a_claim():
    found = [
        detect_spoof(VERIFIER.three_way, recording(vector), SpeechLimits(), COST_MODELS["track1"])
        for vector in ([0.0, 1.0], [0.9, -0.43], [1.0, 0.0])
    ]
    assert [one["outcome"] for one in found] == ["bonafide", "spoof", "bonafide"]
    assert found[0]["llr_threshold"] == pytest.approx(np.log(0.5 / 0.95))
    silent = Recording("a.wav", None, 4.0, 0.0)
    none = detect_spoof(VERIFIER.three_way, silent, SpeechLimits(), COST_MODELS["track1"])
    assert none["outcome"] == "inconclusive" and none["spoof_llr"] is None and none["reasons"]
    far = ThreeWay(
        **{**vars_of(BY_HAND), "ranges": {"norm": {"low": 5.0, "high": 6.0, "spread": 1.0}}}
    )
    unlike = detect_spoof(CalibratedHead(HEAD, far), recording([0.0, 1.0]), SpeechLimits(), COSTS)
    assert unlike["outcome"] == "inconclusive"
    with pytest.raises(SasvError, match="cost nothing"):
        detect_spoof(
            VERIFIER.three_way, recording([1.0, 0.0]), SpeechLimits(), COST_MODELS["sre-0.01"]
        )


def test_counts_and_costs_of_outcomes_are_those_of_the_decisions():
    """Without inconclusive outcomes, the costs add up to the actual a-DCF of the LLRs."""
    columns, labels, groups = drawn(shift=(1.0, 2.0, 3.0))
    made = fit_three_way(columns, labels, groups, COSTS, "dev")
    evidence = made(columns["score"], columns["cm_score"], columns["norm"])
    found = [one.value for one in verdicts(evidence, COSTS)]
    result = measure_outcomes(found, labels, [COSTS])
    assert {kind: sum(row.values()) for kind, row in result["counts"].items()} == {
        "target": 200,
        "nontarget": 200,
        "spoof": 600,
    }
    total = sum(sum(row.values()) for row in result["costs"]["asvspoof5"].values())
    llrs = evidence.llr(COSTS.spoof_share)
    actual = Measure(llrs, labels, costs=[COSTS], llr=True)()["act_a_dcf.asvspoof5"]
    assert total == pytest.approx(actual, abs=1e-9)
    assert result["counts"]["nontarget"]["reject_speaker"] > 150
    none = Evidence(np.zeros(1), np.zeros(1), np.zeros(1))
    assert verdicts(none, COST_MODELS["a-dcf-paper"]) == [Outcome.INCONCLUSIVE]


def test_a_spoof_head_for_an_encoder_as_it_is():
    """Spoofs are shifted slightly in one direction. The head finds it, and the scores of new spoofs
    are separated.
    """
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((600, 16))
    spoofed = np.arange(600) % 3 == 0
    vectors[spoofed, 3] -= 2.5
    head = fit_spoof_head(5 * vectors[:400], spoofed[:400])
    assert np.abs(head.weight).argmax() == 3 and head.weight[3] > 0
    scores = head.scores(vectors[400:])
    assert scores[~spoofed[400:]].mean() > 1 > -1 > scores[spoofed[400:]].mean()
    weak = fit_spoof_head(vectors[:400], spoofed[:400], ridge=10.0)
    assert np.linalg.norm(weak.weight) < 0.1 * np.linalg.norm(head.weight)
    for vectors_, spoofed_ in ((vectors, spoofed & False), (vectors * np.nan, spoofed)):
        with pytest.raises(SasvError, match="a spoof head needs"):
            fit_spoof_head(vectors_, spoofed_)


def test_a_spoof_axis_does_not_make_another_speaker_of_a_spoof():
    """The axis lowers the cosine of a spoof, but its speaker LLR is that of the cosine without the
    axis.
    """
    columns, labels, groups = drawn()
    sines = np.where(labels == 2, 0.95, 0.0) * np.linspace(0.9, 1, len(labels))
    lowered = columns["score"] * np.sqrt(1 - sines**2)
    seen = {"score": lowered, "cm_score": -sines}
    made = fit_three_way(seen, labels, groups, COST_MODELS["a-dcf-paper"], "dev", spoof_axis=True)
    evidence = made(lowered, -sines, np.ones(len(labels)))
    expected = made.speaker({"score": columns["score"]})
    np.testing.assert_allclose(evidence.speaker, expected, rtol=1e-6, atol=1e-6)
    found = np.array(verdicts(evidence, COST_MODELS["a-dcf-paper"]))
    assert (found[labels == 2] == "reject_spoof").mean() > 0.95
    assert (found[labels == 1] == "reject_speaker").mean() > 0.95
    assert ThreeWay.from_dict(made.to_dict()) == made
