"""sasv demo: the published table at small scale, in one command."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from sasv.commands._first_minute import first_minute
from sasv.commands._report import ReportOptions, report
from sasv.commands._reproduce import ReproduceOptions, reproduce
from sasv.core.errors import MissingExtra
from sasv.core.options import Count, Options, Range, Seed
from sasv.core.progress import duration
from sasv.reproduction.table import Reproduction, Result

logger = logging.getLogger("sasv")

SHOWN = {1: "Stage 3 alone", 2: "Stage 1", 3: "Stages 1, 3", 6: "Stages 1, 2", 7: "Stages 1, 2, 3"}
"""Rows of the demonstration: with and without each stage."""


@dataclass
class DemoOptions(Options):
    """Run five rows of the published table at small scale: train small encoders with and without
    each stage, and evaluate them on unseen speakers and an unseen vocoder.

    Args:
        corpus: folder of speech in the layout of LibriSpeech (SUBSET/SPEAKER/CHAPTER/NAME.flac), or
            one with utterances.tsv; by default synthetic speakers are rendered.
        out: output folder; a second run resumes there.
        voices: number of synthetic speakers to render.
        epochs: epochs of every stage; 0 takes those of its recipe.
        batches_per_epoch: batches per epoch; 0 takes those of the recipe.
        pairs: bona fide pairs per batch, and as many spoofed pairs; 0 takes those of the recipe.
        seed: random seed.
        device: cpu, cuda, or auto.
        redo: do a step again whose options or inputs have changed; its old folder is kept as
            NAME.old-1, or with the next free number.
    """

    RENAMED: ClassVar[dict[str, str]] = {"batches": "batches_per_epoch"}

    corpus: str = ""
    out: str = "demo"
    voices: Annotated[int, Range(8)] = 80
    epochs: Count = 0
    batches_per_epoch: Count = 0
    pairs: Count = 0
    seed: Seed = 0
    device: str = "auto"
    redo: bool = False


def demo(options: DemoOptions) -> Reproduction:
    """Run the demonstration; return the cells of its table, with what it shows as their text."""
    started = time.monotonic()
    if not options.corpus:
        first_minute(options.device)
    results = reproduce(
        ReproduceOptions(
            **vars(options),  # every option of the demonstration is also an option of reproduce
            rows=list(SHOWN),
            encoder=["ecapa-tdnn"],
            train_set=["train"],
            scale="tiny",
            licence="that of the training speech" if options.corpus else "CC0-1.0",
        )
    )
    out = Path(options.out)
    shown = sorted(
        results, key=lambda result: result.row != 2
    )  # the paired tests are against Stage 1
    systems = [f"{SHOWN[result.row]}={result.metrics['folder']}" for result in shown]
    page = str(out / "report")
    try:
        report(
            ReportOptions(
                systems, page, title="sasv demo: what each stage adds", intervals=200, worst=5
            )
        )
    except MissingExtra as error:
        logger.info(f"no report: {error}")
    took = duration(time.monotonic() - started)
    return Reproduction(results, f"{results.text}\n{closing(options, results, took)}")


def opening(options: DemoOptions) -> str:
    """Return a text that says what will happen and how long it takes."""
    speech = options.corpus or f"{options.voices} synthetic speakers (espeak-ng), rendered here"
    first = [] if options.corpus else ["First, four verdicts of the model that comes with sasv."]
    rows = "\n".join(f"  row {row:2}  {name}" for row, name in SHOWN.items())
    return "\n".join(
        (
            "Spoofing-aware speaker verification: one embedding has to accept the claimed speaker "
            "and to reject",
            f"both other people and synthetic copies. Speech: {speech}.",
            *first,
            "Stage 1 trains on bona fide speech; Stage 2 adds copies of it made by vocoders; "
            "Stage 3 trains on",
            "bona fide and spoofed speech of a small second corpus. Five rows of the published "
            "table are trained,",
            "with and without each stage:",
            rows,
            "They are evaluated on speakers and a vocoder (source-filter) that were not used in "
            "training.",
            "This takes nine to thirteen minutes on two cores. If it is stopped, the same command "
            "resumes.",
        )
    )


def closing(options: DemoOptions, results: list[Result], took: str) -> str:
    """Return a sentence that sums up the table, and suggestions for the next commands."""
    found = {result.row: result.metrics["sasv_eer"] for result in results}
    ladder = " -> ".join(f"{found[row]:.1f}%" for row in (2, 6, 7))
    falls = found[2] > found[6] > found[7]
    if falls:
        verdict = "each stage lowers the error on copies by a vocoder that was not used in training"
    else:
        verdict = (
            "not every stage lowers the error here; a few speakers and minutes of training are "
            "not always enough"
        )
    row = next(result for result in results if result.row == 7)
    counts = ", ".join(
        f"{row.metrics[name]} {name}" for name in ("targets", "nontargets", "spoofs")
    )
    note = (
        ""
        if options.corpus
        else " The voices are synthetic, so this shows how it works, not how well."
    )
    lines = [
        "",
        f"SASV-EER of Stage 1, Stages 1 and 2, all three: {ladder}: {verdict}.",
        f"{counts}; {took}.{note}",
        "",
        f"report  {options.out}/report/report.html",
        f"model   {row.model}",
        "",
        "Next, on real speech:",
    ]
    if not options.corpus:
        lines.append("  make demo CORPUS=/path/to/LibriSpeech")
    lines += [
        "  sasv verify ENROL.wav TEST.wav                     with the model that comes with sasv",
        "  sasv reproduce --row 7 --voxceleb2 DIR --asvspoof2019 DIR --dry-run   the published "
        "system",
    ]
    return "\n".join(lines)
