"""Builds the report on one or more systems from its sections."""

from collections.abc import Sequence
from pathlib import Path

from sasv.core.files import write_json
from sasv.evaluation import MeasureSettings
from sasv.report.page import write_report
from sasv.report.sections.configuration import configuration
from sasv.report.sections.curves import costs, histograms, tandems, trade_offs
from sasv.report.sections.differences import differences
from sasv.report.sections.embeddings import maps
from sasv.report.sections.errors import worst
from sasv.report.sections.groups import groups
from sasv.report.sections.metrics import summary
from sasv.report.sections.outcomes import outcomes
from sasv.report.systems import System, counted


def build_report(
    systems: Sequence[System], settings: MeasureSettings, out: Path, title: str, most_errors: int
) -> None:
    """Write the report of some systems: HTML, Markdown with its figures, PNG, and the numbers as
    JSON.

    Args:
        systems: the systems; the first is the baseline of the paired tests.
        settings: how they were measured.
        out: output folder.
        title: title of the page.
        most_errors: number of errors of each kind to show; 0 shows none.
    """
    sections = [summary(systems)]
    if len(systems) > 1:
        sections.append(differences(systems, settings.resample))
    sections += outcomes(systems)
    sections.append(trade_offs(systems))
    sections.append(histograms(systems))
    for column in settings.by:
        sections += groups(systems, column)
    sections += costs(systems)
    sections += tandems(systems)
    if most_errors:
        sections += [worst(one, settings.utterances, most_errors) for one in systems]
    sections += maps(systems)
    sections.append(configuration(systems, settings.repeats, settings.resample, settings.seed))
    number = "1 system" if len(systems) == 1 else f"{len(systems)} systems"
    write_report(title, f"{number} on {counted(systems[0])}.", sections, out)
    write_json(
        out / "report.json",
        {one.name: one.metrics | {"against_first": one.tests} for one in systems},
    )
