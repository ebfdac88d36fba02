"""sasv report."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sasv.core.errors import SasvError
from sasv.core.options import BootstrapCount, Count, Options, Seed
from sasv.core.outputs import refuse_inside_speech
from sasv.evaluation import MeasureSettings, compare, measure_of, metrics_of
from sasv.metrics import cost_model
from sasv.report.build import build_report
from sasv.report.systems import System
from sasv.scores import read_scores
from sasv.tables import load_utterances

logger = logging.getLogger("sasv")


@dataclass
class ReportOptions(Options):
    """Write a page on one or more systems as HTML, Markdown, and PNG: curves, tables with
    intervals, and the worst errors.

    Args:
        systems: score files, or folders that sasv evaluate wrote; NAME=PATH names a system, and
            NAME=PATH:COLUMN takes one column of a file that holds several scores. The first system
            is the baseline of the paired tests.
        out: output folder, for report.html, report.md, report.png, report.json, and figures.
        title: title of the page.
        key: trial list with labels, if the score files have none.
        utterances: utterance table, for links to the audio of the worst errors and for columns of
            ``by`` that the score files lack.
        by: columns (attack,codec) for each of whose values the metrics are computed separately.
        costs: name of a cost model, or six numbers; by default several common models.
        llr: treat the scores as log-likelihood ratios.
        worst: number of errors of each kind to show.
        intervals: number of bootstrap samples for 95 % intervals; 0 computes none.
        resample: what the bootstrap draws: claimed speakers, each with all its trials, or single
            trials.
        seed: random seed of the bootstrap.
    """

    systems: list[str]
    out: str
    title: str = "Spoofing-aware speaker verification"
    key: str = ""
    utterances: str = ""
    by: list[str] = field(default_factory=lambda: ["attack"])
    costs: str = ""
    llr: bool = False
    worst: Count = 10
    intervals: BootstrapCount = 1000
    resample: Literal["speakers", "trials"] = "speakers"
    seed: Seed = 0


def report(options: ReportOptions) -> list[System]:
    """Write the page about some systems; return its contents."""
    settings = MeasureSettings(
        costs=[cost_model(options.costs)] if options.costs else [],
        llr=options.llr,
        by=options.by,
        utterances=load_utterances(options.utterances) if options.utterances else None,
        repeats=options.intervals,
        resample=options.resample,
        seed=options.seed,
    )
    if settings.utterances is not None:
        refuse_inside_speech(options.out, settings.utterances.paths)
    systems: list[System] = []
    for text in options.systems:
        system = load_system(text, options.key, settings)
        if system.name in {one.name for one in systems}:
            raise SasvError(
                f"two systems have the name {system.name}; give them different names with NAME=PATH"
            )
        if systems:
            system.tests = compare(systems[0].scores, system.scores, settings)
        systems.append(system)
    out = Path(options.out)
    build_report(systems, settings, out, options.title, options.worst)
    logger.info(f"report: {out / 'report.html'}")
    return systems


def load_system(text: str, key: str, settings: MeasureSettings) -> System:
    """Read and measure a system.

    Args:
        text: its score file or the folder of its evaluation, as ``PATH``, optionally with ``NAME=``
            or ``:COLUMN``.
        key: trial list with labels, if the score file has none.
        settings: the metrics to compute.
    """
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists():  # a path may itself contain an equals sign
        name = ""
        path = text
    column = ""
    if not Path(path).exists():
        path, _, column = path.partition(":")
    folder = Path(path) if Path(path).is_dir() else None
    file = folder / "scores.tsv" if folder else Path(path)
    scores = read_scores(file, key, column)
    name = name or column or (folder.name if folder else file.stem)
    return System(
        name, str(file), scores, measure_of(scores, settings), metrics_of(scores, settings), folder
    )
