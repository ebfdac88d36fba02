"""Costs, tandem metrics, Cllr, and intervals, compared with values computed by hand, by brute
force, and by the official packages.
"""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_metrics import array, real_scores

from conftest import shared
from sasv.core.errors import SasvError
from sasv.metrics import (
    ASVSPOOF5_ASV,
    COST_MODELS,
    AsvRates,
    CostModel,
    Measure,
    Points,
    cllr,
    cost_model,
    intervals,
    min_cllr,
    min_t_dcf,
    paired_test,
    sasv_eers,
    t_eer,
)
from sasv.metrics.cllr import hull
from sasv.metrics.intervals import resamples
from sasv.metrics.summary import bona_fide_as_target
from sasv.metrics.tandem import asv_rates, t_eer_path

PAPER, TRACK_2, TRACK_1 = (COST_MODELS[name] for name in ("a-dcf-paper", "asvspoof5", "track1"))


def curve(scores, labels):
    return Points(np.asarray(scores, float), np.asarray(labels)).curve()


@pytest.fixture(scope="module")
def official():
    return json.loads(shared("scores", "asvspoof2019_la_dev_expected.json").read_text())


@pytest.fixture(scope="module")
def tandem():
    systems, labels = real_scores()
    return curve(systems["asv"], labels), curve(systems["cm"], bona_fide_as_target(labels))


@pytest.mark.speech
@pytest.mark.parametrize("system", ["asv", "cm", "sum"])
@pytest.mark.parametrize("model", ["a-dcf-paper", "asvspoof5"])
def test_a_dcf_equals_the_official_value(official, system, model):
    systems, labels = real_scores()
    found = COST_MODELS[model].minimum(curve(systems[system], labels))
    key = f"min_a_dcf_{'paper_default' if model == 'a-dcf-paper' else model}"
    assert found.value == pytest.approx(official[system][key], abs=1e-9)
    # the official threshold is the highest rejected score; ours parts it from the next one
    scores = np.unique(systems[system])
    assert (
        official[system][f"{key}_threshold"]
        < found.threshold
        <= scores[np.searchsorted(scores, found.threshold)]
    )
    assert np.searchsorted(scores, found.threshold) == np.searchsorted(
        scores, official[system][f"{key}_threshold"], "right"
    )


@pytest.mark.speech
def test_countermeasure_metrics_equal_the_official_values(official, tandem):
    systems, labels = real_scores()
    wanted = official["cm_track1"]
    measured = Measure(systems["cm"], labels, task="cm", llr=True)()
    assert measured["min_dcf.track1"] == pytest.approx(wanted["min_dcf"], abs=1e-9)
    assert measured["act_dcf.track1"] == pytest.approx(wanted["act_dcf"], abs=1e-9)
    assert measured["cllr"] == pytest.approx(wanted["cllr_bits"], abs=1e-9)
    assert measured["cm_eer_nearest"] == pytest.approx(100 * wanted["eer"], abs=1e-9)
    assert 0 < measured["min_cllr"] < measured["cllr"]


@pytest.mark.speech
def test_tandem_metrics_equal_the_official_values(official, tandem):
    wanted = official["track2"]
    asv, cm = tandem
    assert min_t_dcf(cm, ASVSPOOF5_ASV, TRACK_2).value == pytest.approx(
        wanted["min_t_dcf_asvspoof5_asv"], abs=1e-9
    )
    assert min_t_dcf(cm, asv_rates(asv), TRACK_2).value == pytest.approx(
        wanted["min_t_dcf_own_asv"], abs=1e-9
    )
    assert 100 * t_eer(asv, cm).rate == pytest.approx(wanted["t_eer_percent_exact"], abs=1e-6)
    assert t_eer(asv, cm, exact=False) == t_eer(asv, cm)
    systems, labels = real_scores()
    measured = Measure(systems["sum"], labels, asv=systems["asv"], cm=systems["cm"])()
    assert measured["t_eer"] == pytest.approx(wanted["t_eer_percent_exact"], abs=1e-6)
    assert measured["min_t_dcf"] == pytest.approx(wanted["min_t_dcf_own_asv"], abs=1e-9)


def test_costs_by_hand():
    # Accept from 2: half of the targets missed, no nontarget, half of the spoofs: the best of all
    # thresholds.
    labels = [0, 0, 1, 1, 2, 2]
    found = curve([3, 1, 0, 0.5, 2, -1], labels)
    model = CostModel("hand", 0.5, 0.3, 0.2, 2, 1, 5)
    assert model.weights == (1.0, 0.3, 1.0) and model.default == 1.0
    costs = {-1.0: 1.3, 0.0: 0.8, 0.5: 0.65, 1.0: 0.5, 2.0: 1.0, 3.0: 0.5, np.inf: 1.0}
    np.testing.assert_allclose(model.costs(found), list(costs.values()))
    assert model.minimum(found) == (0.5, 0.75)
    assert model.actual(found, 2.5).value == 0.5
    assert model.actual(found).threshold == pytest.approx(np.log(1.3))
    assert model.actual(found).value == pytest.approx(
        0.65
    )  # no target missed, half of the nontargets and spoofs in
    assert "priors target 0.5" in model.describe()


def test_t_dcf_by_hand():
    # The countermeasure misses half where it accepts no spoof; ASV rates are round numbers.
    cm = curve([2, 0, 1, -1], [0, 0, 2, 2])
    model = CostModel("hand", 0.5, 0.25, 0.25, 1, 2, 4)
    rates = AsvRates(0.1, 0.2, 0.5)
    base, missed, accepted = 0.05 + 0.1, 0.5 - 0.15, 0.5
    assert min_t_dcf(cm, rates, model).value == pytest.approx(
        (base + 0.5 * missed) / (base + missed)
    )
    assert min_t_dcf(cm, rates, model, legacy=True).value == pytest.approx(0.5)
    assert accepted > missed
    with pytest.raises(SasvError, match="are they fractions"):
        min_t_dcf(cm, AsvRates(10, 20, 50), model)
    with pytest.raises(SasvError, match="accepts no spoof"):
        min_t_dcf(cm, AsvRates(0.1, 0.2, 0.0), model, legacy=True)


def slow_t_eer(asv, cm):
    """Compute the t-EER from its definition, over every pair of thresholds."""
    best = None
    for at in range(len(asv.thresholds)):
        nontarget, spoof, missed = asv.nontarget[at], asv.spoof[at], asv.miss[at]
        if missed >= (nontarget + spoof) / 2:
            continue
        miss = cm.miss + (1 - cm.miss) * missed
        alarm = ((1 - cm.miss) * nontarget + cm.spoof * spoof) / 2
        chosen = int(np.abs(miss - alarm).argmin())
        if spoof == 0 or cm.miss[chosen] == 1:
            continue
        distance = abs(nontarget / spoof - cm.spoof[chosen] / (1 - cm.miss[chosen]))
        if best is None or distance < best[0]:
            best = distance, spoof * cm.spoof[chosen]
    return best[1]


@pytest.mark.parametrize("seed", range(8))
def test_t_eer_equals_the_definition(seed):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(300) % 3)
    asv = curve(np.round(rng.standard_normal(300) + 2 * (labels == 0) + (labels == 2), 3), labels)
    cm = curve(
        np.round(rng.standard_normal(300) + 1.5 * (labels != 2), 3), bona_fide_as_target(labels)
    )
    assert t_eer(asv, cm).rate == pytest.approx(slow_t_eer(asv, cm), abs=1e-9)
    path = t_eer_path(asv, cm, 0.5)
    middle = path.rate[~np.isnan(path.rate)]
    assert ((middle >= 0) & (middle <= 1)).all()


def pooled_adjacent_violators(positive):
    """Isotonic regression of 0 and 1 in the order of scores, as in textbooks."""
    blocks = []
    for value in positive:
        blocks.append([float(value), 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (a, n), (b, m) = blocks[-2:]
            blocks[-2:] = [[(a * n + b * m) / (n + m), n + m]]
    return np.concatenate([[value] * count for value, count in blocks])


@given(st.lists(st.booleans(), min_size=2, max_size=60))
@settings(max_examples=150, deadline=None)
def test_min_cllr_equals_pooled_adjacent_violators(positive):
    positive = np.array(positive)
    if positive.all() or not positive.any():
        return
    found = curve(np.arange(len(positive)), np.where(positive, 0, 1))
    shares = pooled_adjacent_violators(positive)
    prior = positive.mean()
    with np.errstate(divide="ignore"):
        llrs = np.log(shares) - np.log1p(-shares) - np.log(prior / (1 - prior))
    assert min_cllr(found.miss, found.nontarget) == pytest.approx(cllr(llrs, positive), abs=1e-9)


def test_convex_hull_of_two_arcs():
    """Convex arcs that meet in a corner lose only one point in each round; the walk over the
    remaining points gives the same hull.
    """
    x = np.linspace(0, 1, 2001)
    y = np.where(x < 0.5, x**2, 0.1 + x**2)
    y /= y[-1]
    hx, hy = hull(x, y)
    assert (np.diff(hy) * np.diff(hx)[:1] >= 0).all()
    slopes = np.diff(hy) / np.diff(hx)
    assert (np.diff(slopes) > 0).all()
    assert (np.interp(x, hx, hy) <= y + 1e-12).all() and len(hx) < len(x)


def test_cllr_by_hand():
    assert cllr(array(0, 0), np.array([True, False])) == pytest.approx(1.0)
    # log2(1 + 1/3) for a positive at log 3, log2(1 + 1/7) for a negative at -log 7
    expected = (np.log2(4 / 3) + np.log2(8 / 7)) / 2
    assert cllr(np.log([3, 1 / 7]), np.array([True, False])) == pytest.approx(expected)
    assert cllr(np.array([1e4, -1e4]), np.array([True, False])) == 0.0
    with pytest.raises(SasvError, match="one positive and one negative"):
        cllr(array(1, 2), np.array([True, True]))


def test_weights_count_trials():
    """For every metric, a weight of 2 is equivalent to a trial that occurs twice, and 0 to one that
    is left out.
    """
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 200).astype(np.int8)
    scores, cm = np.round(rng.standard_normal((2, 200)) + 2 * (labels == 0), 1)
    weights = rng.integers(0, 4, 200)
    rows = np.repeat(np.arange(200), weights)
    whole = Measure(scores, labels, llr=True, asv=scores, cm=cm)(weights)
    again = Measure(scores[rows], labels[rows], llr=True, asv=scores[rows], cm=cm[rows])()
    assert set(whole) == set(again)
    for name, value in again.items():
        assert whole[name] == pytest.approx(value, abs=1e-9), name


def test_resamples_by_speakers_and_by_trials():
    labels, speakers = np.array([0, 0, 1, 1, 2, 2]), np.array([5, 5, 5, 9, 9, 9])
    for weights in resamples(labels, speakers, 20, 0):
        assert weights.sum() == 6 and len(set(weights[:3])) == 1 and len(set(weights[3:])) == 1
    for weights in resamples(labels, None, 20, 0):
        assert [int(weights[labels == kind].sum()) for kind in range(3)] == [2, 2, 2]
    assert all(
        (a == b).all()
        for a, b in zip(resamples(labels, speakers, 5, 3), resamples(labels, speakers, 5, 3))
    )


@pytest.mark.slow
def test_intervals_cover_the_truth():
    """In 60 draws of trials with a known EER (two normal distributions with distance 2: 15.87 %),
    about 95 % of the intervals contain it.
    """
    rng = np.random.default_rng(0)
    labels, inside = np.repeat([0, 1], 300), 0
    for _ in range(60):
        measure = Measure(rng.standard_normal(600) + 2.0 * (labels == 0), labels, brief=True)
        low, high = intervals(measure, None, 200, seed=1)["sv_eer"]
        inside += low <= 15.8655 <= high
    assert 51 <= inside <= 60


def test_intervals_hold_the_value_and_are_seeded():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 3000)
    measure = Measure(rng.standard_normal(3000) + 2.0 * (labels == 0), labels)
    speakers = rng.integers(0, 40, 3000)
    one = intervals(measure, speakers, 100, seed=1)
    assert (
        one
        == intervals(measure, speakers, 100, seed=1)
        != intervals(measure, speakers, 100, seed=2)
    )
    whole = measure()
    assert set(one) == set(whole)
    for name, (low, high) in one.items():
        assert low <= whole[name] <= high, name


def test_paired_test_finds_differences_that_single_intervals_miss():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 1000)
    base = rng.standard_normal(2000) + 2.0 * (labels == 0)
    better = Measure(
        base + 0.15 * (labels == 0) + 0.05 * rng.standard_normal(2000), labels, brief=True
    )
    first = Measure(base, labels, brief=True)
    same = Measure(base + 0.02 * rng.standard_normal(2000), labels, brief=True)
    found = paired_test(first, better, None, 300)["sv_eer"]
    assert found.second < found.first and found.interval[1] < 0 and found.p < 0.01
    spans = [intervals(one, None, 300)["sv_eer"] for one in (first, better)]
    assert spans[1][1] > spans[0][0]  # they overlap
    assert paired_test(first, same, None, 300)["sv_eer"].p > 0.1
    assert paired_test(first, first, None, 50)["sv_eer"].p == 1.0
    with pytest.raises(SasvError, match="same trials"):
        paired_test(first, Measure(base[:-1], labels[:-1]))


def test_bad_scores():
    labels = np.array([0, 1, 2])
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(SasvError, match="finite"):
            Measure(array(1, bad, 0), labels)()
    with pytest.raises(SasvError, match="no trials"):
        Points(array(), np.array([]))
    equal = Measure(np.ones(3), labels, llr=True, asv=np.ones(3), cm=np.ones(3))()
    assert (equal["sasv_eer"], equal["sv_eer"], equal["min_cllr"]) == (50.0, 50.0, 1.0)
    assert equal["min_a_dcf.asvspoof5"] == 1.0
    missing = Measure(array(1, 0), np.array([0, 1]))()
    assert (
        missing["spf_eer"] is None
        and missing["sv_eer"] == 0.0
        and missing["min_dcf.sre-0.01"] == 0.0
    )
    spoofs = Measure(array(1, 0), np.array([0, 2]))()
    assert (spoofs["sv_eer"], spoofs["spf_eer"], spoofs["min_a_dcf.asvspoof5"]) == (None, 0.0, None)
    with pytest.raises(SasvError, match="no target trials"):
        Measure(array(1, 0), np.array([1, 2]))()


def test_a_million_identical_scores():
    labels = (np.arange(10**6) % 3).astype(np.int8)
    found = Measure(np.full(10**6, 0.25), labels, asv=np.full(10**6, 0.25), cm=np.zeros(10**6))()
    assert found["sasv_eer"] == found["spf_eer"] == 50.0 and found["min_a_dcf.a-dcf-paper"] == 1.0


def test_cost_models_by_name_and_by_numbers():
    assert cost_model("asvspoof5").weights == pytest.approx((0.9405, 0.095, 0.5))
    assert cost_model("0.9,0.05,0.05,1,10,20").weights == PAPER.weights
    with pytest.raises(SasvError, match=r"'asv5' is not a cost model; use one of asvspoof5"):
        cost_model("asv5")
    with pytest.raises(SasvError, match="add up to 1"):
        cost_model("0.9,0.9,0.05,1,10,20")
    for text in ("0.9,0.05,0.05,1,inf,20", "0.9,0.05,0.05,nan,10,20", "0.9,0.05,0.05,1,10,1e400"):
        with pytest.raises(SasvError, match="must be finite"):
            cost_model(text)
    with pytest.raises(SasvError, match="every trial would be decided alike"):
        cost_model("0.9,0.05,0.05,1e-300,10,10")
    with pytest.raises(SasvError, match="may be free"):
        cost_model("1,0,0,1,10,20")
    with pytest.raises(SasvError, match="needs spoof trials"):
        TRACK_1.minimum(curve([1, 0], [0, 1]))


@pytest.mark.speech
def test_eers_of_measure_equal_those_of_sasv_eers():
    systems, labels = real_scores()
    measured = Measure(systems["sum"], labels)()
    for name in ("sasv_eer", "sv_eer", "spf_eer"):
        assert measured[name] == sasv_eers(systems["sum"], labels)[name]
