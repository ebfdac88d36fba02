"""Plots: scores of the three classes and their error trade-off, the curves of a training run,
spectrograms.
"""

import os
from statistics import NormalDist
from typing import Any

import numpy as np

from sasv.core.files import write_bytes
from sasv.report.canvas import attempt, new_figure, save_figure

CLASSES = (("target", "#2a7f3f"), ("nontarget", "#3b6fb6"), ("spoof", "#c23b3b"))
MOST_POINTS = 2000
TICKS = (0.1, 1, 5, 20, 40, 60, 80, 95, 99)
LEAST_RATE = 5e-4


def plot_scores(
    scores: np.ndarray, labels: np.ndarray, path: str | os.PathLike[str], metrics: dict[str, Any]
) -> None:
    """Write a PNG: histograms of the classes with the SASV threshold, and miss against false alarm
    per kind.

    Args:
        scores, labels: as in sasv_eers.
        path: PNG file to write.
        metrics: rates and thresholds by name (of sasv_eers, or of a countermeasure: cm_eer,
            cm_threshold).

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    image = attempt(score_panels, scores, labels, metrics)
    if image is not None:
        write_bytes(path, image)


def score_panels(scores: np.ndarray, labels: np.ndarray, metrics: dict[str, Any]) -> Any:
    """Return the figure of ``plot_scores``."""
    figure = new_figure(11, 4.4)
    left, right = figure.subplots(1, 2)
    edges = np.linspace(scores.min(), max(scores.max(), scores.min() + 1e-6), 61)
    for kind, (name, colour) in enumerate(CLASSES):
        mine = scores[labels == kind]
        if len(mine):
            left.hist(
                mine, edges, density=True, alpha=0.55, color=colour, label=f"{name} ({len(mine)})"
            )
    found = (metrics.get(f"{name}_threshold") for name in ("sasv", "sv", "cm"))
    threshold = next((value for value in found if value is not None), None)
    if threshold is not None:
        left.axvline(
            threshold,
            color="black",
            linestyle="--",
            linewidth=1,
            label=f"EER threshold {threshold:.3f}",
        )
    left.set(xlabel="score", ylabel="density", title="Scores of the three classes")
    left.legend(frameon=False)
    for kind, name in ((1, "sv"), (2, "spf"), (2, "cm")):
        if metrics.get(f"{name}_eer") is None:
            continue
        alarms, misses = error_curve(scores[labels == 0], scores[labels == kind])
        label = (
            f"target against {CLASSES[kind][0]}: {name.upper()}-EER {metrics[f'{name}_eer']:.2f}%"
        )
        right.plot(probit(alarms), probit(misses), color=CLASSES[kind][1], label=label)
    ends = probit(np.array([0.0, 1.0]))
    right.plot(ends, ends, color="grey", linewidth=0.8, linestyle=":", label="equal error")
    right.set(
        xlabel="false acceptance (%)",
        ylabel="false rejection (%)",
        title="Detection error trade-off",
    )
    ticks = probit(np.array(TICKS) / 100)
    right.set_xticks(ticks, [f"{tick:g}" for tick in TICKS])
    right.set_yticks(ticks, [f"{tick:g}" for tick in TICKS])
    right.grid(alpha=0.3)
    right.set(xlim=ends, ylim=ends)
    right.legend(loc="upper right")
    return figure


def plot_curves(history: list[dict[str, Any]], path: str | os.PathLike[str]) -> None:
    """Write a PNG of a training run by epoch: loss and accuracy, error rates on the development
    trials, rate.

    Args:
        history: the rows of ``metrics.csv``.
        path: PNG file to write.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    image = attempt(training_panels, history)
    if image is not None:
        write_bytes(path, image)


def training_panels(history: list[dict[str, Any]]) -> Any:
    """Return the figure of ``plot_curves``."""
    figure = new_figure(13, 3.8)
    axes = figure.subplots(1, 3)

    def draw(axis: Any, name: str, label: str, colour: str) -> None:
        points = [(row["epoch"], row[name]) for row in history if row.get(name) is not None]
        if points:
            axis.plot(*zip(*points), marker=".", color=colour, label=label)

    draw(axes[0], "loss", "loss", "black")
    axes[0].set(title="Loss and accuracy", ylabel="loss")
    other = axes[0].twinx()
    draw(other, "accuracy", "accuracy", CLASSES[0][1])
    other.set_ylabel("accuracy (%)", color=CLASSES[0][1])
    for name, colour in (("sasv", "black"), ("sv", CLASSES[1][1]), ("spf", CLASSES[2][1])):
        draw(axes[1], f"{name}_eer", f"{name.upper()}-EER", colour)
    axes[1].set(title="Development trials", ylabel="EER (%)", ylim=(0, None))
    if axes[1].lines:
        axes[1].legend(frameon=False)
    draw(axes[2], "lr", "learning rate", "black")
    axes[2].set(title="Learning rate")
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
    return figure


def probit(rates: np.ndarray) -> np.ndarray:
    """Map rates to normal deviates, the axes of a DET plot (Martin et al. 1997); 0 and 1 go to its
    edges.
    """
    return np.vectorize(NormalDist().inv_cdf)(np.clip(rates, LEAST_RATE, 1 - LEAST_RATE))


def error_curve(positives: np.ndarray, negatives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (false acceptance, false rejection) over all thresholds, thinned to at most
    MOST_POINTS.
    """
    thresholds = np.unique(np.concatenate((positives, negatives)))
    if len(thresholds) > MOST_POINTS:
        thresholds = thresholds[np.linspace(0, len(thresholds) - 1, MOST_POINTS).astype(int)]
    thresholds = np.append(thresholds, np.inf)
    misses = np.searchsorted(np.sort(positives), thresholds) / len(positives)
    alarms = 1 - np.searchsorted(np.sort(negatives), thresholds) / len(negatives)
    return alarms, misses


def plot_spectrograms(
    waves: dict[str, np.ndarray], rate: int, path: str | os.PathLike[str], columns: int = 2
) -> None:
    """Write a PNG: spectrograms side by side, in dB below the peak (its 99.9th percentile) of the
    first.

    Args:
        waves: title -> mono speech, (samples,).
        rate: samples per second of all of them.
        path: PNG file to write.
        columns: pictures in a row.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    rows = -(-len(waves) // columns)
    figure = new_figure(5.5 * columns, 2.4 * rows)
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False)
    loudest = None
    image = None
    for axis, (title, wave) in zip(axes.flat, waves.items()):
        frames = np.lib.stride_tricks.sliding_window_view(wave, 512)[::128] * np.hanning(512)
        level = 20 * np.log10(np.abs(np.fft.rfft(frames)).T + 1e-9)
        loudest = np.percentile(level, 99.9) if loudest is None else loudest
        extent = (0, len(wave) / rate, 0, rate / 2000)
        shown = level - loudest
        image = axis.imshow(
            shown, origin="lower", aspect="auto", extent=extent, vmin=-60, vmax=0, cmap="magma"
        )
        axis.set_title(title)
    for axis in axes.flat[len(waves) :]:
        axis.set_axis_off()
    figure.supxlabel("seconds")
    figure.supylabel("kHz")
    figure.colorbar(image, ax=axes, label="dB")
    save_figure(figure, path, 60)
