"""sasv metrics."""

import json
from dataclasses import dataclass
from typing import Any

from sasv.metrics import attack_eers, sasv_eers, speaker_intervals
from sasv.report.text import format_metrics
from sasv.tables import Scores, load_scores


@dataclass
class MetricsOptions:
    """EERs of a score file (columns speaker, utterance, label, attack, score).

    Args:
        scores: score file.
        json: print JSON.
        intervals: bootstrap samples over speakers for 95 % intervals; 0 for none.
        seed: of the bootstrap.
    """

    scores: str
    json: bool = False
    intervals: int = 0
    seed: int = 0


def metrics_of(scores: Scores, intervals: int = 0, seed: int = 0) -> dict[str, Any]:
    """Return the EERs in percent, thresholds, counts, the SPF-EER of each attack, and intervals where wanted."""
    attacks, names = scores.attacks
    result: dict[str, Any] = sasv_eers(scores.values, scores.labels)
    result["attacks"] = attack_eers(scores.values, scores.labels, attacks, names)
    if intervals:
        result["intervals"] = speaker_intervals(
            scores.values, scores.labels, scores.speakers[0], repeats=intervals, seed=seed
        )
    return result


def metrics(options: MetricsOptions) -> dict[str, Any]:
    """Print and return the metrics of a score file."""
    result = metrics_of(load_scores(options.scores), options.intervals, options.seed)
    print(json.dumps(result, indent=1) if options.json else format_metrics(result))
    return result
