"""Metrics as lines of text."""

from collections.abc import Mapping
from typing import Any

MEANING = {
    "sasv": "targets against nontargets and spoofs",
    "sv": "targets against nontargets (other people)",
    "spf": "targets against spoofs (copies of the target)",
}


def format_metrics(metrics: Mapping[str, Any]) -> str:
    """Return the EERs, a line each, with counts, intervals where there are any, and the EER of each attack."""
    lines = [f"trials: {metrics['targets']} target, {metrics['nontargets']} nontarget, {metrics['spoofs']} spoof"]
    intervals = metrics.get("intervals") or {}
    for name, meaning in MEANING.items():
        value = metrics[f"{name}_eer"]
        interval = intervals.get(f"{name}_eer")
        shown = "   -   " if value is None else f"{value:6.2f}%"
        span = f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""
        lines.append(f"{name.upper() + '-EER':9} {shown}{span}  {meaning}")
    for attack, value in (metrics.get("attacks") or {}).items():
        lines.append(f"  spoofs by {attack}: {value:.2f}%")
    return "\n".join(lines)
