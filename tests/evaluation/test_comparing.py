"""Two systems are aligned by speaker and utterance, whatever their order."""

import numpy as np
import pytest

from sasv.core.errors import SasvError
from sasv.evaluation import MeasureSettings, compare
from sasv.evaluation.comparing import aligned
from sasv.tables import Scores, Table


def scores(order, name="a.tsv", label=None, seed=0):
    rng = np.random.default_rng(seed)
    count = 60
    labels = [("target", "nontarget", "spoof")[row % 3] for row in range(count)]
    if label is not None:
        labels[label] = "spoof"
    values = rng.standard_normal(count) + np.array([name == "target" for name in labels])
    cells = {
        "speaker": [f"s{row % 5}" for row in range(count)],
        "utterance": [f"u{row}" for row in range(count)],
        "label": labels,
        "score": [f"{value:.6f}" for value in values],
    }
    return Scores(
        Table.build({key: [column[row] for row in order] for key, column in cells.items()}, name)
    )


def test_the_order_of_trials_does_not_matter():
    settings = MeasureSettings(repeats=50)
    order = np.random.default_rng(1).permutation(60).tolist()
    first = scores(range(60))
    straight = compare(first, scores(range(60), seed=1), settings)
    assert compare(first, scores(order, seed=1), settings) == straight
    assert aligned(first, first).tolist() == list(range(60))


def test_differing_trials_and_labels_are_reported():
    first = scores(range(60))
    with pytest.raises(
        SasvError,
        match=r"b\.tsv: its trials are not those of a\.tsv: 1 are missing .*b\.tsv lacks s4 u59",
    ):
        compare(first, scores(range(59), "b.tsv"), MeasureSettings())
    with pytest.raises(SasvError, match="0 are missing and 1 are new"):
        compare(scores(range(59)), scores(range(60), "b.tsv"), MeasureSettings())
    with pytest.raises(SasvError, match="the label of the trial s3 u3 differs"):
        compare(first, scores(range(60), "b.tsv", label=3), MeasureSettings())


@pytest.mark.parametrize("changes", [{"repeats": -1}, {"resample": "files"}, {"threshold": np.nan}])
def test_settings_have_ranges(changes):
    with pytest.raises(SasvError):
        MeasureSettings(**changes)
