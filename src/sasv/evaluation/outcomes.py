"""Outcomes in a score file: the number of verdicts for each class of trials, and their costs."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sasv.decision import Outcome
from sasv.metrics import CostModel
from sasv.tables.labels import TRIAL_LABELS

OUTCOME = "outcome"
"""Name of the column of a score file."""

SHOWN = (Outcome.ACCEPT, Outcome.REJECT_SPEAKER, Outcome.REJECT_SPOOF, Outcome.INCONCLUSIVE)


def measure_outcomes(
    outcomes: Sequence[str], labels: np.ndarray, models: Sequence[CostModel]
) -> dict[str, Any]:
    """Count the outcomes of each class of trials, and compute their costs.

    Args:
        outcomes: (trials,) verdicts.
        labels: (trials,) 0 target, 1 nontarget, 2 spoof.
        models: cost models.

    Returns:
        ``counts``: class -> outcome -> number of trials. ``costs``: name of a cost model -> class
        -> outcome -> normalised cost. A target that is not accepted is a miss, whatever the reason;
        for the other classes, only acceptance has a cost.
    """
    found = np.array(outcomes)
    names = [*SHOWN, *sorted(set(outcomes) - {one.value for one in SHOWN})]
    counts = {
        kind: {str(name): int((found[labels == row] == name).sum()) for name in names}
        for row, kind in enumerate(TRIAL_LABELS)
        if (labels == row).any()
    }
    costs = {
        model.name: {
            kind: {
                name: share_of_cost(model, TRIAL_LABELS.index(kind), name, number, of_kind)
                for name, number in of_kind.items()
            }
            for kind, of_kind in counts.items()
        }
        for model in models
    }
    return {"counts": counts, "costs": costs}


def share_of_cost(
    model: CostModel, row: int, outcome: str, number: int, of_kind: dict[str, int]
) -> float:
    """Return the normalised cost of ``number`` trials of one class with the same outcome;
    ``of_kind`` is the number of all trials of each class.
    """
    wrong = (outcome == Outcome.ACCEPT) != (row == 0)
    return model.weights[row] / model.default * number / sum(of_kind.values()) if wrong else 0.0
