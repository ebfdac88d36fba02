"""The commands that are interrupted, each as the command line runs it: with the check of its
outputs.
"""

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from conftest import buzz, make_corpus, tiny_options
from sasv import commands
from sasv.audio import write_audio
from sasv.cli.program import checked_outputs

WEIGHTS = "row3-ska-train"
"""Name under which weights are fetched from a folder that stands for a mirror."""


@dataclass(frozen=True)
class Scenario:
    """A command that is interrupted.

    Attributes:
        name: of the scenario.
        run: runs the command; takes the folder of the trial.
        share: how often it is drawn.
    """

    name: str
    run: Callable[[Path], object]
    share: int


def make_stock(stock: Path) -> Path:
    """Make the corpus and the finished runs that commands take; return their folder."""
    make_corpus(stock / "corpus", seconds=0.8)
    for speaker, number in itertools.product(range(12), range(6)):
        path = stock / f"speech/set/{speaker}/0/{speaker}-0-{number:04}.wav"
        write_audio(path, buzz(12800, 90 + 11 * speaker, [speaker, number]))
    chosen = tiny_options(stock / "corpus", stock / "run", epochs=1, batches_per_epoch=2)
    commands.train(chosen)
    model = str(stock / "run/model.safetensors")
    commands.evaluate(_evaluation(stock, stock / "evaluation", model))
    mirror = str(stock / f"mirror/{WEIGHTS}.model")
    commands.convert(commands.ConvertOptions(model, mirror))
    return stock


def known_scenarios(stock: Path) -> list[Scenario]:
    """Return every command that writes, on the files of a stock."""
    corpus = stock / "corpus"
    model = str(stock / "run/model.safetensors")
    scores = str(stock / "evaluation/scores.tsv")
    utterances = str(corpus / "utterances.tsv")

    def prepare(out: Path) -> Any:
        return commands.PrepareOptions("table", str(corpus), str(out))

    def prepare_folder(out: Path) -> Any:
        return commands.PrepareOptions("librispeech", str(stock / "speech"), str(out))

    def synthesize(out: Path) -> Any:
        return commands.SynthesizeOptions(
            utterances,
            str(out),
            ["griffin-lim", "8khz"],
            where="speaker=s6",
            num_workers=0,
            device="cpu",
        )

    def embed(out: Path) -> Any:
        return commands.EmbedOptions(
            utterances, str(out), model, where="split=dev", batch_seconds=3, device="cpu"
        )

    def evaluate(out: Path) -> Any:
        return _evaluation(stock, out, model)

    def train(out: Path) -> Any:
        return tiny_options(corpus, out, epochs=2, batches_per_epoch=2, save_minutes=0.0)

    def calibrate(out: Path) -> Any:
        return commands.CalibrateOptions(
            scores,
            str(out / "backend.json"),
            model=model,
            model_out=str(out / "calibrated.safetensors"),
        )

    def apply(out: Path) -> Any:
        return commands.CalibrateOptions(
            scores, str(out / "backend.json"), apply=scores, result=str(out / "llrs.tsv")
        )

    def report(out: Path) -> Any:
        return commands.ReportOptions([scores], str(out), intervals=10, worst=2)

    def submit(out: Path) -> Any:
        return commands.SubmitOptions(scores, str(out / "submission.tsv"))

    def convert(out: Path) -> Any:
        return commands.ConvertOptions(model, str(out / "published.model"))

    def push(out: Path) -> Any:
        metrics = str(stock / "evaluation/metrics.json")
        return commands.PushOptions(model, "someone/model", metrics=metrics, out=str(out))

    def download(out: Path) -> Any:
        os.environ["SASV_HOME"] = str(out)  # of the child alone
        return commands.DownloadOptions([WEIGHTS], mirror=str(stock / "mirror"))

    def reproduce(out: Path) -> Any:
        return commands.ReproduceOptions(
            row=2,
            encoder="ecapa-tdnn",
            scale="tiny",
            corpus=str(stock / "speech"),
            epochs=1,
            batches_per_epoch=1,
            pairs=2,
            out=str(out),
            device="cpu",
        )

    def demo(out: Path) -> Any:
        return commands.DemoOptions(
            corpus=str(stock / "speech"),
            out=str(out),
            epochs=1,
            batches_per_epoch=1,
            pairs=2,
            device="cpu",
        )

    return [
        Scenario("prepare", partial(_run, "prepare", prepare), 8),
        Scenario("prepare of a folder", partial(_run, "prepare", prepare_folder), 4),
        Scenario("synthesize", partial(_run, "synthesize", synthesize), 10),
        Scenario("embed", partial(_run, "embed", embed), 10),
        Scenario("evaluate", partial(_run, "evaluate", evaluate), 10),
        Scenario("train", partial(_run, "train", train), 16),
        Scenario("calibrate", partial(_run, "calibrate", calibrate), 6),
        Scenario("calibrate with --apply", partial(_run, "calibrate", apply), 4),
        Scenario("report", partial(_run, "report", report), 6),
        Scenario("submit", partial(_run, "submit", submit), 3),
        Scenario("convert", partial(_run, "convert", convert), 3),
        Scenario("push --out", partial(_run, "push", push), 4),
        Scenario("download", partial(_run, "download", download), 5),
        Scenario("reproduce", partial(_run, "reproduce", reproduce), 10),
        Scenario("demo", partial(_run, "demo", demo), 1),
    ]


def _run(name: str, options_for: Callable[[Path], Any], out: Path) -> object:
    """Run a command as the command line does."""
    options = options_for(out)
    with checked_outputs(name, options):
        return getattr(commands, name)(options)


def _evaluation(stock: Path, out: Path, model: str) -> commands.EvaluateOptions:
    corpus = stock / "corpus"
    return commands.EvaluateOptions(
        str(corpus / "utterances.tsv"),
        str(out),
        str(corpus / "enrolments_dev.tsv"),
        str(corpus / "trials_dev.tsv"),
        model,
        batch_seconds=3,
        intervals=10,
        plot=False,
        device="cpu",
    )
