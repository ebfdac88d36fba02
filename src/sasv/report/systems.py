"""The systems that a report shows."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sasv.core.errors import SasvError
from sasv.metrics import Measure
from sasv.tables import Scores


@dataclass
class System:
    """A system of a report."""

    name: str
    path: str
    scores: Scores
    measure: Measure
    metrics: dict[str, Any]
    folder: Path | None
    tests: dict[str, Any] = field(default_factory=dict)

    @property
    def threshold(self) -> float | None:
        """Threshold of the least cost of the first cost model; None where trials are missing that
        it needs.
        """
        try:
            return self.measure.models[0].minimum(self.measure.points.curve()).threshold
        except SasvError:
            return None


def counted(system: System) -> str:
    """Return the counts of trials in words."""
    sizes = np.bincount(system.measure.labels, minlength=3)
    if system.measure.task == "cm":
        return f"{sizes[0]:,} bona fide and {sizes[2]:,} spoofed utterances"
    return f"{sizes[0]:,} target, {sizes[1]:,} nontarget and {sizes[2]:,} spoofed trials"
