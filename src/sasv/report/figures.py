"""Figures of a report, which show where a system is right and wrong."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sasv.metrics.costs import CostModel
from sasv.metrics.curve import Points
from sasv.metrics.summary import Measure
from sasv.metrics.tandem import t_eer, t_eer_path
from sasv.report.canvas import load_matplotlib, new_figure, render
from sasv.report.plots import CLASSES, MOST_POINTS, TICKS, error_curve, probit
from sasv.scores import unit

WIDTH = 11.0
MOST_NAMED = 12
"""Attacks or speakers with a colour of their own."""


def stack(images: Sequence[bytes]) -> bytes:
    """Return PNG files one below the other as one."""
    image = load_matplotlib().image
    parts = [image.imread(io.BytesIO(data))[:, :, :3] for data in images]
    width = max(part.shape[1] for part in parts)
    padded = [
        np.pad(part, ((0, 12), (0, width - part.shape[1]), (0, 0)), constant_values=1.0)
        for part in parts
    ]
    stream = io.BytesIO()
    image.imsave(stream, np.concatenate(padded), format="png")
    return stream.getvalue()


def text_image(text: str) -> bytes:
    """Return lines of text as a PNG file."""
    lines = text.splitlines()
    height = 0.145 * len(lines) + 0.3
    figure = new_figure(WIDTH, height, layout=None)
    figure.text(0.01, 1 - 0.12 / height, text, family="monospace", fontsize=8.5, va="top")
    return render(figure)


def histograms(systems: Mapping[str, Measure], thresholds: Mapping[str, float | None]) -> Any:
    """Return the scores of each class, a panel a system, with the threshold of the least cost."""
    figure, axes = _panels(len(systems))
    for axis, (name, measure) in zip(axes, systems.items()):
        scores = measure.scores
        labels = measure.labels
        low, high = np.percentile(scores, [0.05, 99.95])
        edges = np.linspace(low, max(high, low + 1e-6), 61)
        for kind, (title, colour) in enumerate(CLASSES):
            mine = scores[labels == kind]
            if len(mine):
                title = "bona fide" if measure.task == "cm" and not kind else title
                weights = np.full(len(mine), 100 / len(mine))
                label = f"{title} ({len(mine):,})"
                axis.hist(
                    np.clip(mine, low, high),
                    edges,
                    weights=weights,
                    alpha=0.55,
                    color=colour,
                    label=label,
                )
        threshold = thresholds.get(name)
        if threshold is not None:
            axis.axvline(
                threshold, color="black", ls="--", lw=1, label=f"least cost: {threshold:.3f}"
            )
        axis.set(xlabel="score", ylabel="share of the class (%)", title=name)
        axis.legend(frameon=False, fontsize=8)
    return figure


def det_curves(systems: Mapping[str, Measure]) -> Any:
    """Return detection error trade-offs: a panel against nontargets and one against spoofs, a line
    a system.
    """
    kinds = [(kind, name) for kind, (name, _) in enumerate(CLASSES) if kind]
    kinds = [
        (kind, name)
        for kind, name in kinds
        if any((one.labels == kind).any() for one in systems.values())
    ]
    figure, axes = _panels(len(kinds))
    for axis, (kind, title) in zip(axes, kinds):
        for name, measure in systems.items():
            if (measure.labels == kind).any():
                _det(
                    axis,
                    measure.scores[measure.labels == 0],
                    measure.scores[measure.labels == kind],
                    name,
                )
        first = "bona fide" if all(one.task == "cm" for one in systems.values()) else "target"
        _det_axes(axis, f"{first} against {title}")
    return figure


def attack_curves(name: str, measure: Measure, attacks: np.ndarray, names: Sequence[str]) -> Any:
    """Return the trade-off of targets against the spoofs of each attack, of one system."""
    figure, axes = _panels(1, 2.0)
    target = measure.scores[measure.labels == 0]
    spoofed = measure.labels == 2
    present = [index for index in range(len(names)) if (spoofed & (attacks == index)).any()]
    for index in sorted(present, key=lambda index: names[index]):
        _det(axes[0], target, measure.scores[spoofed & (attacks == index)], names[index])
    _det_axes(axes[0], f"{name}: against each attack")
    return figure


def cost_curves(systems: Mapping[str, Measure], model: CostModel) -> Any:
    """Return the cost against the threshold, a panel a system: how much a wrong threshold costs."""
    figure, axes = _panels(len(systems))
    for axis, (name, measure) in zip(axes, systems.items()):
        curve = measure.points.curve()
        keep = _thinned(len(curve.thresholds) - 1)
        costs = model.costs(curve)
        axis.plot(curve.thresholds[keep], costs[keep], color="black", label="cost")
        for rates, weight, (title, colour) in zip(
            (curve.miss, curve.nontarget, curve.spoof), model.weights, CLASSES
        ):
            if rates is not None and weight:
                part = weight * rates[keep] / model.default
                axis.plot(
                    curve.thresholds[keep], part, color=colour, lw=0.9, label=f"of {title} trials"
                )
        best = model.minimum(curve)
        axis.plot(
            [best.threshold], [best.value], "o", color="black", label=f"least: {best.value:.4f}"
        )
        low, high = np.percentile(measure.scores, [0.05, 99.95])
        axis.set(
            xlabel="threshold",
            ylabel=f"cost [{model.name}]",
            title=name,
            ylim=(0, 1.2),
            xlim=(low, high),
        )
        axis.legend(frameon=False, fontsize=8)
        axis.grid(alpha=0.3)
    return figure


def tandem_path(name: str, points: tuple[Points, Points]) -> Any:
    """Return the t-EER path: the thresholds of both systems at which the tandem's errors are equal,
    and that rate.
    """
    asv, cm = (one.curve() for one in points)
    figure, (left, right) = _panels(2)
    for share, label in ((0.0, "nontargets alone"), (0.5, "half spoofs"), (1.0, "spoofs alone")):
        look = _thinned(len(asv.thresholds) - 1)
        path = t_eer_path(asv, cm, share, look)
        good = ~np.isnan(path.rate) & np.isfinite(cm.thresholds[path.cm])
        where = asv.thresholds[path.asv[good]]
        left.plot(where, cm.thresholds[path.cm[good]], label=label)
        right.plot(where, 100 * path.rate[good], label=label)
    point = t_eer(asv, cm)
    left.plot([point.asv_threshold], [point.cm_threshold], "ko")
    right.plot(
        [point.asv_threshold], [100 * point.rate], "ko", label=f"t-EER {100 * point.rate:.2f}%"
    )
    left.set(
        xlabel="speaker threshold", ylabel="countermeasure threshold", title=f"{name}: t-EER path"
    )
    right.set(xlabel="speaker threshold", ylabel="tandem EER (%)", title="rate along the path")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=8)
    return figure


def embedding_map(
    name: str, vectors: np.ndarray, speakers: Sequence[str], spoofed: np.ndarray
) -> Any:
    """Return embeddings on their two main axes, coloured by speaker and by spoof.

    Args:
        name: of the system.
        vectors: (utterances, dimension).
        speakers: of each row, "-" where unknown; those with most utterances get a colour.
        spoofed: boolean per row.
    """
    directions = unit(vectors)
    centred = directions - directions.mean(axis=0)
    _, values, axes_found = np.linalg.svd(centred, full_matrices=False)
    flat = centred @ axes_found[:2].T
    share = 100 * values[:2] ** 2 / max((values**2).sum(), 1e-12)
    figure, (left, right) = _panels(2)
    names, counts = np.unique([name for name in speakers if name != "-"], return_counts=True)
    chosen = names[np.argsort(-counts, kind="stable")[:MOST_NAMED]]
    owners = np.array(speakers)
    others = ~np.isin(owners, chosen)
    left.scatter(*flat[others].T, s=5, color="lightgrey", label="others" if others.any() else None)
    colours = load_matplotlib().colormaps["tab20"](np.arange(len(chosen)) / 20)
    for speaker, colour in zip(chosen, colours):
        for mask, marker in ((~spoofed, "o"), (spoofed, "x")):
            rows = (owners == speaker) & mask
            label = speaker if marker == "o" else None
            left.scatter(
                *flat[rows].T, s=14, marker=marker, color=colour, linewidths=0.8, label=label
            )
    left.legend(fontsize=7, ncol=2)
    left.set_title(f"{name}: by speaker (x: spoofed)")
    for mask, label, colour in (
        (~spoofed, "bona fide", CLASSES[0][1]),
        (spoofed, "spoofed", CLASSES[2][1]),
    ):
        right.scatter(
            *flat[mask].T, s=6, alpha=0.6, color=colour, label=f"{label} ({mask.sum():,})"
        )
    right.legend(fontsize=8)
    right.set_title("by spoof")
    for axis in (left, right):
        axis.set(
            xlabel=f"main axis ({share[0]:.0f}% of the variance)",
            ylabel=f"second axis ({share[1]:.0f}%)",
        )
    return figure


def _thinned(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, MOST_POINTS)).astype(np.int64))


def _panels(count: int, least: float = 1.0) -> tuple[Any, list[Any]]:
    """Return a figure of panels, two in a row."""
    columns = min(2, max(1, count))
    rows = -(-count // columns)
    figure = new_figure(WIDTH * max(columns, least) / 2, 4.2 * rows)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[count:]:
        axis.axis("off")
    return figure, list(axes.flat)


def _det(axis: Any, positives: np.ndarray, negatives: np.ndarray, label: str) -> None:
    alarms, misses = error_curve(positives, negatives)
    labels = np.repeat(np.array([0, 1], np.int8), [len(positives), len(negatives)])
    point = Points(np.concatenate((positives, negatives)), labels).curve().eer(1)
    assert point is not None
    axis.plot(probit(alarms), probit(misses), lw=1.3, label=f"{label}: EER {100 * point.rate:.2f}%")


def _det_axes(axis: Any, title: str) -> None:
    ends = probit(np.array([0.0, 1.0]))
    axis.plot(ends, ends, color="grey", lw=0.8, ls=":")
    ticks = probit(np.array(TICKS) / 100)
    axis.set_xticks(ticks, [f"{tick:g}" for tick in TICKS])
    axis.set_yticks(ticks, [f"{tick:g}" for tick in TICKS])
    axis.set(
        xlabel="false acceptance (%)",
        ylabel="false rejection (%)",
        title=title,
        xlim=ends,
        ylim=ends,
    )
    axis.grid(alpha=0.3)
    axis.legend(loc="upper right", fontsize=8)
