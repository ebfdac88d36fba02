"""sasv report."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sasv.commands._metrics import split_names
from sasv.core.errors import SasvError
from sasv.core.files import write_json
from sasv.core.options import Count, Options, Seed
from sasv.core.progress import say
from sasv.embeddings.extract import Embeddings
from sasv.evaluation import MeasureSettings, compare, measure_of, metrics_of
from sasv.metrics import Measure, cost_model
from sasv.report import figures
from sasv.report.canvas import render
from sasv.report.page import Cell, Section, table_rows, write_report
from sasv.report.text import is_metric, show, title
from sasv.scores import read_scores
from sasv.tables import NONE, Scores, Utterances, load_utterances


@dataclass
class ReportOptions(Options):
    """A page on one or more systems: curves, tables with intervals, worst errors; HTML, Markdown and PNG.

    Args:
        systems: score files, or folders of sasv evaluate; NAME=PATH gives a name, and a column of a file that holds
            several scores is NAME=PATH:COLUMN. The first is the baseline of the paired tests.
        out: folder for report.html, report.md, report.png, figures and report.json.
        title: of the page.
        key: trials with labels, where score files have none.
        utterances: utterance table: links to the audio of the worst errors, and columns for --by.
        by: columns whose values are measured apart.
        costs: cost model by name, or six numbers; empty takes the usual ones.
        llr: the scores are log-likelihood ratios.
        worst: errors to show of each kind.
        intervals: bootstrap samples for 95 % intervals; 0 for none.
        resample: speakers (the claimed ones) or trials.
        seed: of the bootstrap.
    """

    systems: list[str]
    out: str
    title: str = "Spoofing-aware speaker verification"
    key: str = ""
    utterances: str = ""
    by: str = "attack"
    costs: str = ""
    llr: bool = False
    worst: Count = 10
    intervals: Count = 1000
    resample: str = "speakers"
    seed: Seed = 0


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
        """Threshold of the least cost of the first cost model; None where trials are missing that it needs."""
        try:
            return self.measure.models[0].minimum(self.measure.points.curve()).threshold
        except SasvError:
            return None


def report(options: ReportOptions) -> list[System]:
    """Write the page of some systems; return what it shows."""
    systems = load_systems(options)
    measures = {one.name: one.measure for one in systems}
    sections = [summary(systems)]
    if len(systems) > 1:
        sections.append(differences(systems, options))
    curves = {"det": render(figures.det_curves(measures))}
    for number, one in enumerate(systems, 1):
        codes, names = one.scores.attacks
        if len(set(names) - {NONE}) > 1:  # a single attack is the curve against spoofs above
            curves[f"det-attacks-{number}"] = render(figures.attack_curves(one.name, one.measure, codes, names))
    note = "Both axes on the scale of the normal distribution; nearer to the lower left corner is better."
    sections.append(Section("Detection error trade-off", note, figures=curves))
    thresholds = {one.name: one.threshold for one in systems}
    panels = {"scores": render(figures.histograms(measures, thresholds))}
    sections.append(Section("Scores of the classes", "What overlaps across the line is an error.", figures=panels))
    for column in filter(None, options.by.split(",")):
        sections += groups(systems, column)
    model = systems[0].measure.models[0]
    if all(one.threshold is not None for one in systems):
        note = f"{model.describe()}. 1 is the cost of accepting or of rejecting everything."
        panels = {"costs": render(figures.cost_curves(measures, model))}
        sections.append(Section("Cost against threshold", note, figures=panels))
    paths: dict[str, bytes] = {}
    shown: set[tuple[bytes, bytes]] = set()
    for number, one in enumerate(systems, 1):
        tandem = one.measure.tandem
        if tandem is None or one.metrics.get("t_eer") is None:
            continue
        same = tandem[0].scores.tobytes(), tandem[1].scores.tobytes()
        if same not in shown:  # two scores of one file share their tandem
            shown.add(same)
            paths[f"t-eer-{number}"] = render(figures.tandem_path(one.name, tandem))
    if paths:
        note = "Where the tandem of countermeasure and speaker system rejects targets as often as it accepts others."
        sections.append(Section("t-EER path", note, figures=paths))
    table = load_utterances(options.utterances) if options.utterances else None
    sections += [worst(one, table, options.worst) for one in systems if options.worst]
    maps = {f"embeddings-{number}": image for number, one in enumerate(systems, 1) if (image := mapped(one))}
    if maps:
        note = "Test utterances on the two main axes of their normalised embeddings."
        sections.append(Section("Embeddings", note, figures=maps))
    sections.append(configuration(systems, options))
    out = Path(options.out)
    about = f"{len(systems)} system{'s' * (len(systems) > 1)} on {counted(systems[0])}."
    write_report(options.title, about, sections, out)
    write_json(out / "report.json", {one.name: one.metrics | {"against_first": one.tests} for one in systems})
    say(f"report: {out / 'report.html'}")
    return systems


def load_systems(options: ReportOptions) -> list[System]:
    """Read and measure the systems. SasvError where names are not distinct."""
    chosen = MeasureSettings(
        costs=[cost_model(options.costs)] if options.costs else [],
        llr=options.llr,
        by=split_names(options.by),
        utterances=load_utterances(options.utterances) if options.utterances else None,
        repeats=options.intervals,
        resample=options.resample,
        seed=options.seed,
    )
    systems: list[System] = []
    for text in options.systems:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():  # a path may hold an equals sign itself
            name, path = "", text
        path, _, column = path.partition(":") if not Path(path).exists() else (path, "", "")
        folder = Path(path) if Path(path).is_dir() else None
        file = folder / "scores.tsv" if folder else Path(path)
        scores = read_scores(file, options.key, column)
        name = name or column or (folder.name if folder else file.stem)
        if name in {one.name for one in systems}:
            raise SasvError(f"two systems are called {name}; name them: NAME=PATH")
        systems.append(System(name, str(file), scores, measure_of(scores, chosen), metrics_of(scores, chosen), folder))
        if len(systems) > 1:
            systems[-1].tests = compare(systems[0].scores, scores, chosen)
    return systems


def summary(systems: list[System]) -> Section:
    """Return the table of all metrics with intervals, a column a system, the best in bold."""
    names = list(dict.fromkeys(name for one in systems for name in one.metrics if is_metric(name)))
    names = [name for name in names if not name.endswith("_nearest")]
    rows = []
    for name in names:
        values = [one.metrics.get(name) for one in systems]
        if all(value is None for value in values):
            continue
        best = min(value for value in values if value is not None)
        cells = [interval(one.metrics, name, len(systems) > 1 and one.metrics.get(name) == best) for one in systems]
        rows.append([Cell(title(name)), *cells])
    note = "Lower is better everywhere. Small: 95 % bootstrap intervals. In square brackets: the cost model."
    return Section("Metrics", note, ["metric", *(one.name for one in systems)], rows)


def interval(metrics: dict[str, Any], name: str, best: bool = False) -> Cell:
    """Return a value with its interval."""
    span = (metrics.get("intervals") or {}).get(name)
    shown = f"({show(name, span[0]).rstrip('%')} to {show(name, span[1]).rstrip('%')})" if span else ""
    return Cell(show(name, metrics.get(name)), best, small=shown)


def differences(systems: list[System], options: ReportOptions) -> Section:
    """Return the paired tests against the first system."""
    rows = []
    names = list(dict.fromkeys(name for one in systems[1:] for name in one.tests if not name.endswith("_nearest")))
    for name in names:
        cells = []
        for one in systems[1:]:
            test = one.tests.get(name)
            if test is None:
                cells.append(Cell("-"))
                continue
            low, high = (show(name, edge).rstrip("%") for edge in test["interval"])
            change = test["second"] - test["first"]
            verdict = "" if test["p"] >= 0.05 else " better" if change < 0 else " worse"
            shown = f"{'+' * (change > 0)}{show(name, change)}{verdict}"
            cells.append(Cell(shown, verdict == " better", small=f"({low} to {high}), p = {test['p']:.3f}"))
        rows.append([Cell(title(name)), *cells])
    note = (
        f"Difference from {systems[0].name} on the same resamples ({options.resample}). Better or worse: p below 0.05 "
        "of there being no difference, not corrected for the number of tests; neither: no difference is shown."
    )
    return Section("Paired tests", note, ["metric", *(one.name for one in systems[1:])], rows)


def groups(systems: list[System], column: str) -> list[Section]:
    """Return a table a metric of the values of a column, with intervals, systems side by side."""
    found = {one.name: one.metrics["groups"].get(column, {}) for one in systems}
    parts = {value: part for values in found.values() for value, part in values.items()}
    wanted = [name for name in next(iter(parts.values()), {}) if is_metric(name)]
    note = "Each value has its own trials."
    if column == "attack":  # targets and nontargets are the same of every attack
        wanted = [name for name in wanted if name in ("spf_eer", "cm_eer") or "dcf" in name]
        note = "Spoofs of each attack against all bona fide trials; trials: its spoofs."
    sections = []
    for name in wanted:
        rows = []
        for value, part in parts.items():
            count = part["spoofs"] if column == "attack" else part["targets"] + part["nontargets"] + part["spoofs"]
            cells = [interval(found[one.name].get(value, {}), name) for one in systems]
            rows.append([Cell(value), Cell(f"{count:,}"), *cells])
        header = [column, "trials", *(one.name for one in systems)]
        sections.append(Section(f"{title(name)} by {column}", note, header, rows))
    return sections


def worst(system: System, table: Utterances | None, most: int) -> Section:
    """Return the errors that lie farthest from the threshold, with their audio where an utterance table is given."""
    scores, labels = system.measure.scores, system.measure.labels
    limit = system.threshold
    limit = float(np.median(scores)) if limit is None else limit
    rows = []
    named = system.scores.table.texts("speaker")
    heard, attacks = system.scores.table.texts("utterance"), system.scores.attack_texts
    for kind, what in ((0, "rejected target"), (1, "accepted nontarget"), (2, "accepted spoof")):
        what = "rejected bona fide" if system.measure.task == "cm" and not kind else what
        mine = np.flatnonzero((labels == kind) & ((scores < limit) if not kind else (scores >= limit)))
        order = mine[np.argsort(scores[mine] if not kind else -scores[mine], kind="stable")][:most]
        for row in order.tolist():
            audio = table.path(table.rows[heard[row]]) if table is not None and heard[row] in table.rows else ""
            cells = [what, f"{scores[row]:.4f}", named[row], Cell(heard[row], audio=audio), attacks[row]]
            rows.append(cells)
    note = f"Errors at the threshold {limit:.4f}, the farthest first." + ("" if rows else " There are none.")
    header = ["error", "score", "claimed speaker", "utterance", "attack"]
    return Section(f"Worst errors of {system.name}", note, header if rows else (), table_rows(rows))


def mapped(system: System) -> bytes | None:
    """Return the map of the test utterances' embeddings, None where the system has none."""
    folder = system.folder / "embeddings" if system.folder else None
    if folder is None or not (folder / "embeddings.npy").exists():
        return None
    embeddings = Embeddings.load(folder)
    place = {name: row for row, name in enumerate(embeddings.utterances)}
    codes, names = system.scores.utterances
    speaker_codes, speakers = system.scores.speakers
    known: dict[str, tuple[str, bool]] = {}
    for code, speaker, label in zip(codes.tolist(), speaker_codes.tolist(), system.scores.labels.tolist()):
        if names[code] in place and (label != 1 or names[code] not in known):
            known[names[code]] = (speakers[speaker] if label != 1 else NONE, label == 2)
    if len(known) < 3:
        return None
    vectors = embeddings.vectors[[place[name] for name in known]]
    owners, spoofed = zip(*known.values())
    return render(figures.embedding_map(system.name, vectors, owners, np.array(spoofed)))


def configuration(systems: list[System], options: ReportOptions) -> Section:
    """Return what was measured, and how."""
    from sasv.core.version import __version__

    rows: list[list[Any]] = []
    for one in systems:
        claimed = len(set(one.scores.speakers[1]))
        rows.append([one.name, one.path, counted(one), f"{claimed:,} claimed speakers"])
    models = systems[0].metrics["costs"].values()
    rows += [["cost model", model, "", ""] for model in models]
    how = f"{options.intervals:,} resamples of {options.resample}, seed {options.seed}" if options.intervals else "none"
    rows += [["intervals", how, "", ""], ["sasv", __version__, "", ""]]
    return Section("Configuration and data", "", ["", "", "", ""], table_rows(rows))


def counted(system: System) -> str:
    """Return the counts of trials in words."""
    sizes = np.bincount(system.measure.labels, minlength=3)
    if system.measure.task == "cm":
        return f"{sizes[0]:,} bona fide and {sizes[2]:,} spoofed utterances"
    return f"{sizes[0]:,} target, {sizes[1]:,} nontarget and {sizes[2]:,} spoofed trials"
