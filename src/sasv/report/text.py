"""Metrics as lines of text."""

from collections.abc import Mapping
from typing import Any

from sasv.metrics.costs import COST_MODELS

MEANING = {
    "sasv_eer": "targets against nontargets and spoofs",
    "sv_eer": "targets against nontargets (other people)",
    "spf_eer": "targets against spoofs (copies of the target)",
    "cm_eer": "bona fide against spoofed speech",
    "cllr": "bits: cost of the scores as LLRs (0 perfect, 1 useless)",
    "min_cllr": "bits: after the best calibration",
    "min_t_dcf": "tandem cost, revised",
    "min_t_dcf_legacy": "tandem cost, as in ASVspoof 2019",
    "t_eer": "tandem EER",
}
SHOWN = {
    "sasv_eer": "SASV-EER",
    "sv_eer": "SV-EER",
    "spf_eer": "SPF-EER",
    "cm_eer": "EER",
    "cllr": "Cllr",
    "min_cllr": "min Cllr",
    "min_t_dcf": "min t-DCF",
    "min_t_dcf_legacy": "min t-DCF",
    "t_eer": "t-EER",
    "min_a_dcf": "min a-DCF",
    "act_a_dcf": "act a-DCF",
    "min_dcf": "min DCF",
    "act_dcf": "act DCF",
}


def title(metric: str) -> str:
    """Return the name of a metric as the field writes it, with its cost model."""
    kind, _, model = metric.partition(".")
    shown = SHOWN.get(kind.removesuffix("_nearest"), kind)
    if kind.endswith("_nearest"):
        shown += " (nearest point)"
    return (
        f"{shown} [{model}]"
        if model
        else f"{shown} (legacy)"
        if kind.endswith("_legacy")
        else shown
    )


def is_rate(metric: str) -> bool:
    """Whether a metric is a rate in percent."""
    return "eer" in metric


def is_metric(name: str) -> bool:
    """Whether a key of the metrics is one."""
    return name.partition(".")[0].removesuffix("_nearest") in SHOWN


def show(metric: str, value: float | None) -> str:
    """Return a value as text: rates with two decimals and a percent sign, costs with four
    decimals.
    """
    if value is None:
        return "-"
    return f"{value:.2f}%" if is_rate(metric) else f"{value:.4f}"


def format_metrics(metrics: Mapping[str, Any]) -> str:
    """Return the metrics, a line each, with counts, intervals if there are any, and groups."""
    if metrics.get("task") == "cm":
        lines = [f"trials: {metrics['bonafide']} bona fide, {metrics['spoofs']} spoof"]
    else:
        lines = [
            f"trials: {metrics['targets']} target, {metrics['nontargets']} nontarget, "
            f"{metrics['spoofs']} spoof"
        ]
    spans = metrics.get("intervals") or {}
    names = [name for name in metrics if is_metric(name) and not name.endswith("_nearest")]
    width = max(len(title(name)) for name in names)
    for name in names:
        value = metrics[name]
        span = spans.get(name)
        shown = (
            f" [{show(name, span[0]).rstrip('%')}, {show(name, span[1]).rstrip('%')}]"
            if span
            else ""
        )
        meaning = MEANING.get(name) or _cost_line(metrics, name)
        lines.append(f"{title(name):{width}} {show(name, value):>8}{shown}  {meaning}".rstrip())
    for column, groups in (metrics.get("groups") or {}).items():
        for value, found in groups.items():
            # the groups of a column differ in spoofs (attacks) or in everything
            wanted = [name for name in found if is_metric(name) and found[name] is not None]
            wanted = [
                name
                for name in wanted
                if column != "attack" or name in ("spf_eer", "cm_eer") or "dcf" in name
            ]
            cells = ", ".join(f"{title(name)} {show(name, found[name])}" for name in wanted)
            lines.append(f"  {column} {value}: {cells}")
    return "\n".join(lines)


def format_outcomes(outcomes: Mapping[str, Any]) -> str:
    """Return what became of each kind of trial as a table, with the cost by each cost model."""
    counts = outcomes["counts"]
    names = list(dict.fromkeys(name for row in counts.values() for name in row))
    lines = [f"{'outcomes':10}" + "".join(f"{name.replace('_', ' '):>16}" for name in names)]
    lines += [
        f"{kind:10}" + "".join(f"{row.get(name, 0):16d}" for name in names)
        for kind, row in counts.items()
    ]
    for model, kinds in outcomes["costs"].items():
        total = sum(sum(row.values()) for row in kinds.values())
        parts = ", ".join(f"{kind} {sum(row.values()):.4f}" for kind, row in kinds.items())
        lines.append(f"cost [{model}] {total:.4f}: {parts}")
    return "\n".join(lines)


def _cost_line(metrics: Mapping[str, Any], name: str) -> str:
    model = name.partition(".")[2]
    known = (metrics.get("costs") or {}).get(model) or (
        COST_MODELS[model].describe() if model in COST_MODELS else ""
    )
    return known.partition(": ")[2]


def format_differences(
    found: Mapping[str, Mapping[str, Any]], first: str, second: str, resample: str
) -> str:
    """Return the paired test of two systems, a line a metric."""
    lines = [
        f"paired test, resampling {resample}: {second} minus {first}, 95 % interval, p of no "
        "difference"
    ]
    width = max((len(title(name)) for name in found), default=0)
    for name, row in found.items():
        low, high = row["interval"]
        digits = 2 if is_rate(name) else 4
        lines.append(
            f"  {title(name):{width}} {show(name, row['first'])} -> {show(name, row['second'])}: "
            f"{row['second'] - row['first']:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}], "
            f"p = {row['p']:.3f}"
        )
    return "\n".join(lines)
