"""EERs, compared with values computed by hand, by brute force, and by the official packages on real
scores.
"""

import csv
import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import shared
from sasv.cli import main
from sasv.commands import MetricsOptions, metrics
from sasv.core.errors import SasvError
from sasv.metrics import eer, sasv_eers
from sasv.metrics.curve import Points
from sasv.tables import Table


def array(*values):
    return np.array(values, np.float64)


def test_hand_computed():
    # Targets 3 2 1, negatives 2.5 0.5 0: at threshold 2 one of three is rejected, one of three
    # accepted.
    assert eer(array(3, 2, 1), array(2.5, 0.5, 0)).rate == pytest.approx(1 / 3)
    assert eer(array(3, 2), array(1, 0)).rate == 0.0
    assert eer(array(1, 0), array(3, 2)).rate == 1.0
    # All equal: the ROC is one straight line, its middle is one half.
    assert eer(array(1, 1, 1), array(1, 1)).rate == 0.5
    # Targets 1 3, negatives 0 2 2: from (0, 1/2 missed) at 3 to (2/3, 1/2) at 2, so 1/2 false
    # alarms at a miss of 1/2.
    assert eer(array(1, 3), array(0, 2, 2)).rate == pytest.approx(0.5)
    # A tie between a target and a negative: the segment from (0, 1/2) to (1/2, 0) meets the
    # diagonal at 1/4.
    assert eer(array(2, 1), array(1, 0)).rate == pytest.approx(0.25)


def brute_force(positives, negatives):
    """Follow the whole ROC and find its intersection with miss = false alarm."""
    points = [(0.0, 1.0)]
    for threshold in sorted(set(positives) | set(negatives), reverse=True):
        points.append(
            (np.mean(np.array(negatives) >= threshold), np.mean(np.array(positives) < threshold))
        )
    for (a0, m0), (a1, m1) in zip(points, points[1:]):
        if m0 >= a0 and m1 <= a1:
            gap0, gap1 = m0 - a0, m1 - a1
            share = gap0 / (gap0 - gap1) if gap0 != gap1 else 0.0
            return a0 + share * (a1 - a0)
    raise AssertionError


SCORES = st.lists(st.integers(-6, 6).map(float), min_size=1, max_size=25)


@pytest.mark.slow
@given(SCORES, SCORES, SCORES)
@settings(max_examples=200, deadline=None)
def test_equals_brute_force_with_ties(positives, one, two):
    assert eer(array(*positives), array(*one), array(*two)).rate == pytest.approx(
        brute_force(positives, one + two), abs=1e-12
    )


def real_scores():
    with gzip.open(shared("scores", "asvspoof2019_la_dev_ecapa_aasist.csv.gz"), "rt") as stream:
        rows = list(csv.DictReader(stream))
    labels = np.array([{0: 2, 1: 0, 2: 1}[int(float(row["sasv_label"]))] for row in rows])
    asv, cm = (np.array([float(row[name]) for row in rows]) for name in ("asv_score", "cm_score"))
    return {"asv": asv, "cm": cm, "sum": asv + cm}, labels


@pytest.mark.speech
@pytest.mark.parametrize("system", ["asv", "cm", "sum"])
def test_real_scores_give_the_official_values(system):
    systems, labels = real_scores()
    expected = json.loads(shared("scores", "asvspoof2019_la_dev_expected.json").read_text())[system]
    found = sasv_eers(systems[system], labels)
    for name in ("sasv_eer", "sv_eer", "spf_eer"):
        assert found[name] == pytest.approx(expected[name], abs=1e-9)


def score_file(path):
    table = Table.build(
        {
            "speaker": ["a", "a", "b", "b", "a", "b"],
            "utterance": list("123456"),
            "label": ["target", "nontarget", "target", "nontarget", "spoof", "spoof"],
            "attack": ["-", "-", "-", "-", "A01", "A02"],
            "score": [0.9, 0.1, 0.8, 0.2, 0.85, 0.3],
        }
    )
    table.save(path)
    return path


def test_metrics_command(tmp_path, capsys):
    path = str(score_file(tmp_path / "s.tsv"))
    result = metrics(MetricsOptions(path, json=True, intervals=50))
    assert main(["metrics", path, "--json", "--intervals", "50"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["sv_eer"] == 0.0
    assert printed["spf_eer"] == 50.0
    assert {name: group["spf_eer"] for name, group in printed["groups"]["attack"].items()} == {
        "A01": 50.0,
        "A02": 0.0,
    }
    assert printed["intervals"]["sv_eer"] == [0.0, 0.0]
    assert (printed["targets"], printed["nontargets"], printed["spoofs"]) == (2, 2, 2)
    assert set(printed) == set(result)
    assert main(["metrics", path]) == 0
    assert "SPF-EER" in capsys.readouterr().out


def test_a_class_that_is_missing():
    scores, labels = array(1, 0), np.array([0, 1])
    found = sasv_eers(scores, labels)
    assert (found["sv_eer"], found["sasv_eer"], found["spf_eer"]) == (0.0, None, None)
    with pytest.raises(SasvError, match="no target trials"):
        sasv_eers(scores, np.array([1, 2]))
    with pytest.raises(SasvError, match="finite"):
        sasv_eers(array(np.nan, 0), labels)


def official_eer(targets, others):
    """The EER of the ASVspoof packages: a stable sort of the target scores followed by the
    others.
    """
    scores = np.concatenate((targets, others))
    labels = np.concatenate((np.ones(len(targets)), np.zeros(len(others))))
    labels = labels[np.argsort(scores, kind="mergesort")]
    rejected = np.cumsum(labels)
    miss = np.concatenate(([0.0], rejected / len(targets)))
    accepted = len(others) - (np.arange(1, len(scores) + 1) - rejected)
    alarms = np.concatenate(([1.0], accepted / len(others)))
    nearest = np.argmin(np.abs(miss - alarms))
    return (miss[nearest] + alarms[nearest]) / 2


@pytest.mark.parametrize("levels", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("seed", range(8))
def test_ties_are_ordered_as_in_the_asvspoof_packages(levels, seed):
    rng = np.random.default_rng([levels, seed])
    targets = rng.integers(0, levels, rng.integers(1, 60)) + rng.integers(0, 2)
    others = rng.integers(0, levels, rng.integers(1, 90))
    scores = np.concatenate((targets, others)).astype(float)
    labels = np.repeat([0, 1], [len(targets), len(others)]).astype(np.int8)
    found = Points(scores, labels).curve().eer_nearest(1)
    assert found.rate == pytest.approx(official_eer(targets, others), abs=1e-12)
