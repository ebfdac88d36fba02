"""Curves: detection error trade-off, scores of the classes, cost against threshold, t-EER path."""

from collections.abc import Mapping, Sequence

from sasv.report import figures
from sasv.report.canvas import attempt
from sasv.report.page import Section
from sasv.report.systems import System
from sasv.tables import NONE


def trade_offs(systems: Sequence[System]) -> Section:
    """Return the detection error trade-offs of all systems, and of each system against each
    attack.
    """
    images = {"det": attempt(figures.det_curves, {one.name: one.measure for one in systems})}
    for number, one in enumerate(systems, 1):
        codes, names = one.scores.attacks
        if len(set(names) - {NONE}) > 1:  # a single attack is the curve against spoofs above
            images[f"det-attacks-{number}"] = attempt(
                figures.attack_curves, one.name, one.measure, codes, names
            )
    note = (
        "Both axes on the scale of the normal distribution; nearer to the lower left corner "
        "is better."
    )
    return Section("Detection error trade-off", note, figures=drawn(images))


def histograms(systems: Sequence[System]) -> Section:
    """Return the scores of the classes, a panel a system."""
    measures = {one.name: one.measure for one in systems}
    thresholds = {one.name: one.threshold for one in systems}
    images = {"scores": attempt(figures.histograms, measures, thresholds)}
    return Section(
        "Scores of the classes",
        "Scores on the wrong side of the line are errors.",
        figures=drawn(images),
    )


def costs(systems: Sequence[System]) -> list[Section]:
    """Return the cost against the threshold; nothing where trials are missing that the cost model
    needs.
    """
    if any(one.threshold is None for one in systems):
        return []
    model = systems[0].measure.models[0]
    images = {
        "costs": attempt(figures.cost_curves, {one.name: one.measure for one in systems}, model)
    }
    note = f"{model.describe()}. 1 is the cost of accepting or of rejecting everything."
    return [Section("Cost against threshold", note, figures=drawn(images))]


def tandems(systems: Sequence[System]) -> list[Section]:
    """Return the t-EER paths of the systems that are a tandem; nothing if none is."""
    images = {}
    shown: set[tuple[bytes, bytes]] = set()
    for number, one in enumerate(systems, 1):
        tandem = one.measure.tandem
        if tandem is None or one.metrics.get("t_eer") is None:
            continue
        same = (tandem[0].scores.tobytes(), tandem[1].scores.tobytes())
        if same in shown:  # two scores of one file share their tandem
            continue
        shown.add(same)
        images[f"t-eer-{number}"] = attempt(figures.tandem_path, one.name, tandem)
    if not images:
        return []
    note = (
        "The thresholds at which the tandem of countermeasure and speaker system rejects targets "
        "as often as it accepts other trials."
    )
    return [Section("t-EER path", note, figures=drawn(images))]


def drawn(images: Mapping[str, bytes | None]) -> dict[str, bytes]:
    """Return the figures that could be drawn."""
    return {name: image for name, image in images.items() if image is not None}
