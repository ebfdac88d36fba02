"""The report of a stress test: a page in HTML and Markdown, and its numbers as JSON and TSV."""

from pathlib import Path
from typing import Any

from sasv.core.errors import listed
from sasv.core.files import write_json
from sasv.core.version import __version__
from sasv.metrics.intervals import Difference, Interval
from sasv.report.page import Cell, Section, table_rows, write_report
from sasv.stress.conditions import CLEAN
from sasv.stress.measure import (
    FEWEST_SPEAKERS,
    INCONCLUSIVE,
    MISS,
    OTHERS,
    Result,
    eer_name,
    rate_name,
)
from sasv.stress.ranking import Point, weakest, weakest_of_each
from sasv.stress.run import StressTest, folder_name
from sasv.stress.speech import NONTARGET, SPOOF, TARGET
from sasv.tables import NONE, TRIAL_LABELS, Table

SIGNIFICANT = 0.05


def write_pages(test: StressTest) -> None:
    """Write ``report.html``, ``report.md``, ``report.json``, ``report.tsv``, and the scores of each
    system.
    """
    out = test.settings.out
    for result in test.results:
        write_scores(test, result)
    names = [result.system.name for result in test.results]
    sections = [weak_points(test)]
    if len(names) > 1:
        sections += [side_by_side(test), *(differences(test, one) for one in test.results[1:])]
    for result in test.results:
        sections += [by_condition(test, result), by_attack(test, result)]
    sections += [everything(test), *unheard(test), configuration(test)]
    about = (
        f"{listed(names)} on {len(test.speech.enrolments)} speakers: {counted(test)}, each "
        f"unchanged and under {len(test.conditions) - 1} conditions. {uncertainty(test)}"
    )
    write_report("Stress test", about, sections, out, image=False)
    write_json(out / "report.json", as_values(test))
    rows_of_report(test).save(out / "report.tsv")


def summary(test: StressTest) -> str:
    """Return the weakest points as text, for the command line."""
    first = test.results[0]
    lines = [
        f"{first.system.name}: {threshold_text(first)}",
        f"{counted(test)}; {len(test.speech.enrolments)} speakers",
        "",
        (
            "weakest points (error rate at this threshold, 95 % interval; in brackets: without "
            "the condition)"
        ),
    ]
    points = weakest_of_each(first, test.claims)
    width = max(len(kind_text(point.kind)) for point in points)
    for point in points:
        clean = "" if point.clean is None else f"  [{percent(point.clean)}]"
        undecided = first.measured[point.condition].values[INCONCLUSIVE]
        if point.kind == MISS and undecided:
            clean += f", {percent(undecided)} without a verdict"
        lines.append(
            f"  {kind_text(point.kind):{width}}  {percent(point.rate):>7}"
            f"{spanned(point.interval, ' '):16}  {test.conditions[point.condition].text}{clean}"
        )
    lines += ["", uncertainty(test)]
    for result in test.results[1:]:
        better, worse, total = verdicts(test, result)
        lines.append(
            f"{result.system.name} against {first.system.name}: lower EER in {better}, higher in "
            f"{worse} of {total} comparisons (p < {SIGNIFICANT}, not corrected for their number)"
        )
    lines += ["", f"report     {test.settings.out / 'report.html'}"]
    if test.listening:
        lines.append(f"listen to  {test.settings.out / 'listen'}")
    return "\n".join(lines)


def counted(test: StressTest) -> str:
    """Return the numbers of claims in words."""
    labels = test.claims.labels
    return (
        f"{int((labels == TARGET).sum()):,} target, {int((labels == NONTARGET).sum()):,} nontarget "
        f"and {int((labels == SPOOF).sum()):,} spoofed claims"
    )


def uncertainty(test: StressTest) -> str:
    """Return a sentence or two about the uncertainty of the rates."""
    count = len(test.speech.enrolments)
    if count < FEWEST_SPEAKERS:
        return (
            f"There are no intervals and no tests, because they need {FEWEST_SPEAKERS} speakers "
            f"and there are only {count}. The rates are not reliable."
        )
    if not test.settings.repeats:
        return "No intervals and no tests were requested (--intervals 0)."
    return (
        f"The intervals (95 %) come from resampling the {count} claimed speakers "
        f"{test.settings.repeats:,} times. They say nothing about other kinds of speech."
    )


def threshold_text(result: Result) -> str:
    """Return the threshold of a system in words."""
    return f"accepts scores of at least {result.threshold.value:.4f} ({result.threshold.source})"


def kind_text(kind: str) -> str:
    """Return the name of a kind of error, in words."""
    if kind == MISS:
        return "targets not accepted"
    return "other people accepted" if kind == OTHERS else f"{kind} accepted"


def percent(value: float | None) -> str:
    """Return a rate as text."""
    return "-" if value is None else f"{value:.1f} %"


def spanned(span: Interval | None, before: str = "") -> str:
    """Return an interval of a rate as text, or "" if there is none."""
    return "" if span is None else f"{before}({span[0]:.1f} to {span[1]:.1f})"


def rate_cell(value: float | None, span: Interval | None, bold: bool = False) -> Cell:
    """Return a rate with its interval."""
    return Cell(percent(value), bold, small=spanned(span))


def weak_points(test: StressTest) -> Section:
    """Return for each kind of error the condition in which it is most frequent."""
    first = test.results[0]
    rows = []
    for point in weakest_of_each(first, test.claims):
        clean = first.measured[CLEAN]
        rows.append(
            [
                Cell(kind_text(point.kind)),
                rate_cell(point.rate, point.interval, bold=True),
                Cell(test.conditions[point.condition].text),
                rate_cell(point.clean, clean.intervals.get(rate_name(point.kind))),
                rate_cell(point.eer, point.eer_interval),
                *listening_cells(test, point, 1),
            ]
        )
    note = (
        f"{first.system.name} {threshold_text(first)}. For each kind of error, the table shows the "
        "condition in which it is most frequent, the rate of the same error without a condition, "
        "and the equal error rate, which does not depend on the threshold. The weakest point "
        "comes first."
    )
    header = ["error", "rate", "condition", "unchanged", "EER", "worst recording"]
    return Section("Weakest points", note, header, rows)


def listening_cells(test: StressTest, point: Point, count: int) -> list[Cell]:
    """Return cells with recordings to listen to."""
    paths = test.listening.get((point.kind, point.condition), [])[:count]
    cells = [Cell("listen", audio=path, beside=True) for path in paths]
    return cells + [Cell(NONE)] * (count - len(cells))


def side_by_side(test: StressTest) -> Section:
    """Return each kind of error of all systems, without a condition and in the worst condition."""
    weak = [
        {point.kind: point for point in weakest_of_each(one, test.claims)} for one in test.results
    ]
    rows = []
    for kind in weak[0]:
        clean = [
            rate_cell(
                one.measured[CLEAN].values.get(rate_name(kind)),
                one.measured[CLEAN].intervals.get(rate_name(kind)),
            )
            for one in test.results
        ]
        rows.append([Cell(kind_text(kind)), Cell("unchanged"), *clean])
        worst = [found[kind] for found in weak]
        cells = [
            Cell(percent(one.rate), small=f"{one.condition}{spanned(one.interval, ' ')}")
            for one in worst
        ]
        rows.append([Cell(kind_text(kind)), Cell("worst condition"), *cells])
    for name, text in (("sv_eer", "SV-EER"), ("spf_eer", "SPF-EER"), ("sasv_eer", "SASV-EER")):
        cells = [
            rate_cell(one.measured[CLEAN].values.get(name), one.measured[CLEAN].intervals.get(name))
            for one in test.results
        ]
        rows.append([Cell(text), Cell("unchanged"), *cells])
    thresholds = [
        Cell(f"{one.threshold.value:.4f}", small="own" if one.threshold.own else "chosen here")
        for one in test.results
    ]
    rows.append([Cell("threshold"), Cell(""), *thresholds])
    note = (
        "The rates of each system are those at its threshold. If a system has none, it was chosen "
        "on this speech, which makes the rates too optimistic; compare the equal error rates "
        "instead."
    )
    header = ["error", "", *(one.system.name for one in test.results)]
    return Section("Systems side by side", note, header, rows)


def compared_names(kind: str) -> list[str]:
    """Return the names of the rates of a kind of error that are compared between systems."""
    return [name for name in (rate_name(kind), eer_name(kind)) if name]


def verdicts(test: StressTest, result: Result) -> tuple[int, int, int]:
    """Return the numbers of comparisons of equal error rates in which a system is better than the
    first system, in which it is worse, and of all comparisons.
    """
    first = test.results[0].system.name
    better = 0
    worse = 0
    total = 0
    for found in result.measured.values():
        for kind in test.claims.kinds:
            one = found.against.get(first, {}).get(eer_name(kind))
            if one is None:
                continue
            total += 1
            if one.p < SIGNIFICANT:
                better += one.second < one.first
                worse += one.second > one.first
    return better, worse, total


def differences(test: StressTest, result: Result) -> Section:
    """Return the paired tests of a system against the first, the largest differences first."""
    first = test.results[0].system.name
    found: list[tuple[float, list[Cell]]] = []
    for condition, measured in result.measured.items():
        tests = measured.against.get(first, {})
        for kind in (MISS, *test.claims.kinds):
            rate = tests.get(rate_name(kind))
            eer = tests.get(eer_name(kind)) if kind != MISS else None
            if rate is None:
                continue
            ranked = abs((eer or rate).second - (eer or rate).first)
            cells = [
                Cell(kind_text(kind)),
                Cell(test.conditions[condition].text),
                difference_cell(rate),
                difference_cell(eer),
            ]
            found.append((ranked, cells))
    rows = [cells for _, cells in sorted(found, key=lambda one: -one[0])]
    note = (
        f"Differences {result.system.name} minus {first}, in percentage points, on the same "
        "bootstrap samples of the claimed speakers. Better and worse mean that p is below "
        f"{SIGNIFICANT}, not corrected for the number of tests; otherwise, no difference was shown."
    )
    if not rows:
        note = uncertainty(test)
    header = ["error", "condition", "at the thresholds", "EER"] if rows else []
    return Section(f"{result.system.name} against {first}", note, header, rows)


def difference_cell(one: Difference | None) -> Cell:
    """Return a difference with its interval, its p-value, and the conclusion."""
    if one is None:
        return Cell(NONE)
    change = one.second - one.first
    verdict = ""
    if one.p < SIGNIFICANT:
        verdict = " better" if change < 0 else " worse"
    low, high = one.interval
    small = f"({low:+.1f} to {high:+.1f}), p = {one.p:.3f}"
    return Cell(f"{change:+.1f}{verdict}", verdict == " better", small=small)


def by_condition(test: StressTest, result: Result) -> Section:
    """Return the errors on bona fide speech and the pooled equal error rates under each condition,
    the condition with the highest SASV-EER first.
    """
    names = (MISS, INCONCLUSIVE, f"accepted.{OTHERS}", "sv_eer", "spf_eer", "sasv_eer")

    def weakness(condition: str) -> tuple[float, float]:
        values = result.measured[condition].values
        return values["sasv_eer"] or 0.0, values[MISS] or 0.0

    order = sorted(result.measured, key=weakness, reverse=True)
    rows = [
        [
            Cell(test.conditions[condition].text),
            *(
                rate_cell(
                    result.measured[condition].values.get(name),
                    result.measured[condition].intervals.get(name),
                )
                for name in names
            ),
        ]
        for condition in order
    ]
    note = (
        "The first three columns are rates at the threshold: targets that are not accepted, "
        "targets without a verdict (too little speech, or speech of low quality), and other "
        "people who are accepted. The others are equal error rates, with all spoofs together."
    )
    header = [
        "condition",
        "targets not accepted",
        "targets without a verdict",
        "others accepted",
        "SV-EER",
        "SPF-EER",
        "SASV-EER",
    ]
    return Section(f"{result.system.name} by condition", note, header, rows)


def by_attack(test: StressTest, result: Result) -> Section:
    """Return the share of spoofs of each attack that are accepted under each condition."""
    attacks = [name for name in test.claims.kinds if name != OTHERS]

    def strongest(condition: str) -> float:
        values = result.measured[condition].values
        return max((values.get(rate_name(name)) or 0.0 for name in attacks), default=0.0)

    attacks.sort(
        key=lambda name: (
            -max((one.values.get(rate_name(name)) or 0.0) for one in result.measured.values())
        )
    )
    rows = []
    for condition in sorted(result.measured, key=lambda name: -strongest(name)):
        one = result.measured[condition]
        cells = [
            rate_cell(one.values.get(rate_name(name)), one.intervals.get(rate_name(name)))
            for name in attacks
        ]
        rows.append([Cell(test.conditions[condition].text), *cells])
    counts = ", ".join(f"{name} {test.claims.kinds[name]}" for name in attacks)
    note = f"Spoofs that are accepted at the threshold. Claims by each attack: {counts or 'none'}."
    title = f"{result.system.name} by attack"
    return Section(title, note, ["condition", *attacks] if attacks else [], rows if attacks else [])


def everything(test: StressTest) -> Section:
    """Return all error rates of the first system, the highest first, with recordings."""
    first = test.results[0]
    listened = max(1, test.settings.listen)
    rows = [
        [
            Cell(kind_text(point.kind)),
            Cell(test.conditions[point.condition].text),
            rate_cell(point.rate, point.interval),
            rate_cell(point.eer, point.eer_interval),
            *listening_cells(test, point, listened),
        ]
        for point in weakest(first, test.claims)
    ]
    note = (
        "The recordings are those with the largest errors of the system: targets with the lowest "
        "scores, and spoofs with the highest."
    )
    header = ["error", "condition", "rate", "EER", *[""] * listened]
    return Section(f"All errors of {first.system.name}, weakest first", note, header, rows)


def unheard(test: StressTest) -> list[Section]:
    """Return a section on the recordings that a system could not use, if there are any."""
    rows = [
        [result.system.name, test.conditions[condition].text, name, reason]
        for result in test.results
        for condition, one in result.measured.items()
        for name, reason in one.unheard.items()
    ]
    if not rows:
        return []
    note = "They count as not accepted, and have the lowest scores in equal error rates."
    header = ["system", "condition", "recording", "reason"]
    return [Section("Recordings that could not be used", note, header, table_rows(rows))]


def configuration(test: StressTest) -> Section:
    """Return a section on what was tested, and how."""
    settings = test.settings
    sizes = settings.sizes
    rows = [["system", one.system.name, one.system.text] for one in test.results]
    rows += [["threshold", one.system.name, threshold_text(one)] for one in test.results]
    rows += [
        ["speech", settings.place, f"{len(test.speech.enrolments)} speakers, {counted(test)}"],
        [
            "used of each recording",
            f"the first {sizes.max_seconds:g} s",
            ("enrolments are unchanged"),
        ],
        ["vocoders", ", ".join(test.vocoders) or "none", ""],
    ]
    rows += [["condition", name, one.text] for name, one in test.conditions.items()]
    rows += [["seed", str(sizes.seed), ""], ["sasv", __version__, ""]]
    return Section("Configuration and data", uncertainty(test), ["", "", ""], table_rows(rows))


def as_values(test: StressTest) -> dict[str, Any]:
    """Return the report as plain values."""
    return {
        "sasv": __version__,
        "speakers": len(test.speech.enrolments),
        "claims": {
            name: int((test.claims.labels == row).sum()) for row, name in enumerate(TRIAL_LABELS)
        },
        "attacks": {name: count for name, count in test.claims.kinds.items() if name != OTHERS},
        "vocoders": list(test.vocoders),
        "conditions": {name: one.text for name, one in test.conditions.items()},
        "settings": vars(test.settings.sizes)
        | {"repeats": test.settings.repeats, "where": test.settings.where},
        "uncertainty": uncertainty(test),
        "weakest": [point._asdict() for point in weakest(test.results[0], test.claims)],
        "listen": {
            f"{kind} {condition}": paths for (kind, condition), paths in test.listening.items()
        },
        "systems": {
            one.system.name: {
                "system": one.system.text,
                "threshold": one.threshold._asdict(),
                "conditions": {
                    condition: {
                        "values": found.values,
                        "intervals": found.intervals,
                        "against": {
                            name: {metric: test._asdict() for metric, test in tests.items()}
                            for name, tests in found.against.items()
                        },
                        "unheard": found.unheard,
                    }
                    for condition, found in one.measured.items()
                },
            }
            for one in test.results
        },
    }


def rows_of_report(test: StressTest) -> Table:
    """Return all error rates of all systems as a table, the weakest of each first."""
    columns = (
        "system",
        "error",
        "condition",
        "rate",
        "rate_low",
        "rate_high",
        "eer",
        "eer_low",
        "eer_high",
        "claims",
    )
    rows = []
    kinds = test.claims.kinds
    targets = int((test.claims.labels == TARGET).sum())
    for result in test.results:
        for point in weakest(result, test.claims):
            spans = [point.interval or ("", ""), point.eer_interval or ("", "")]
            numbers = [point.rate, *spans[0], "" if point.eer is None else point.eer, *spans[1]]
            texts = [NONE if value == "" else f"{value:.4f}" for value in numbers]
            count = targets if point.kind == MISS else kinds[point.kind]
            rows.append((result.system.name, point.kind, point.condition, *texts, count))
    return Table.build(dict(zip(columns, zip(*rows))), "report")


def write_scores(test: StressTest, result: Result) -> None:
    """Write the score and the outcome of each claim under each condition, for ``sasv metrics`` and
    ``sasv report``.
    """
    cells: dict[str, list[Any]] = {
        name: []
        for name in ("speaker", "utterance", "label", "attack", "condition", "score", "outcome")
    }
    for condition, heard in result.heard.items():
        accepted = heard.accepted(result.threshold)
        for row, claim in enumerate(test.claims.rows):
            outcome = heard.outcomes[row]
            said = "accept" if accepted[row] else "reject"
            cells["speaker"].append(claim.speaker)
            cells["utterance"].append(f"{claim.recording}@{condition}")
            cells["label"].append(TRIAL_LABELS[claim.label])
            cells["attack"].append(claim.attack)
            cells["condition"].append(condition)
            cells["score"].append(f"{heard.ranks[row]:.9g}")
            cells["outcome"].append(said if outcome is None else outcome.value)
    folder = test.settings.out / "systems" / folder_name(result.system.name)
    Table.build(cells).save(Path(folder) / "scores.tsv")
