"""The commands to interrupt. Each runs as on the command line, including the check of outputs."""

import importlib
import itertools
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from conftest import buzz, make_corpus, tiny_options
from faults.scenario import Scenario, run_command
from faults.stores import make_store_stock, store_scenarios
from sasv import commands
from sasv.audio import write_audio
from sasv.checkpoints import load_checkpoint, save_checkpoint
from toy import ANYTHING

WEIGHTS = "row3-ska-train"
"""Name of the weights that are downloaded from a local folder used as a mirror."""
LENIENT = "lenient.safetensors"
"""A model that accepts buzzing as speech."""
GRAPH = "graph.onnx"
"""The ONNX graph that PyTorch exports from that model."""


def make_stock(stock: Path, names: Sequence[str] = ()) -> Path:
    """Make the corpus and the finished runs that the commands need, and return their folder.

    Args:
        stock: folder for these files.
        names: names of the commands to interrupt; all commands if empty.
    """
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
    checkpoint = load_checkpoint(model)
    checkpoint.specification.decision = {
        **(checkpoint.specification.decision or {}),
        "speech": vars(ANYTHING),
    }
    save_checkpoint(stock / LENIENT, checkpoint)
    make_store_stock(stock)
    if not names or "export" in names:
        _make_graph(stock)
    return stock


def _make_graph(stock: Path) -> None:
    """Export the graph once. Each run of ``sasv export`` would take ten seconds for it."""
    from sasv.embeddings.model import load_model
    from sasv.export.graph import graph_of, to_onnx

    path = stock / LENIENT
    graph = to_onnx(graph_of(load_model(path, "cpu"), load_checkpoint(path)))
    (stock / GRAPH).write_bytes(graph.SerializeToString())


def known_scenarios(stock: Path) -> list[Scenario]:
    """Return a scenario for every command that writes files, with ``stock`` as its input."""
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

    def calibrate_people(out: Path) -> Any:
        # This changes only the child process. One vocoder is enough.
        importlib.import_module("sasv.commands._calibrate_people").ALWAYS = ("source-filter",)
        return commands.CalibrateOptions(
            enrolled=str(stock / "people"),
            model=str(stock / LENIENT),
            model_out=str(out / "calibrated.safetensors"),
        )

    def stress(out: Path) -> Any:
        return commands.StressOptions(
            utterances,
            str(out),
            str(stock / LENIENT),
            conditions=["white-10", "telephone"],
            vocoders=["source-filter"],
            where="split=dev",
            recordings=1,
            impostors=1,
            min_speech=0,
            listen=1,
            intervals=10,
            device="cpu",
        )

    def pack(out: Path) -> Any:
        return commands.PackOptions(utterances, str(out), "200KB", "flac", "split=dev", 1)

    def export(out: Path) -> Any:
        import onnx

        exporting = importlib.import_module("sasv.export.export")
        exporting.to_onnx = lambda graph: onnx.load(stock / GRAPH)  # only in the child process
        return commands.ExportOptions(str(stock / LENIENT), str(out / "model.onnx"))

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
        os.environ["SASV_HOME"] = str(out)  # only in the child process
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
        Scenario("prepare", partial(run_command, "prepare", prepare), 8),
        Scenario("prepare of a folder", partial(run_command, "prepare", prepare_folder), 4),
        Scenario("synthesize", partial(run_command, "synthesize", synthesize), 10),
        Scenario("embed", partial(run_command, "embed", embed), 10),
        Scenario("evaluate", partial(run_command, "evaluate", evaluate), 10),
        Scenario("train", partial(run_command, "train", train), 16),
        Scenario("calibrate", partial(run_command, "calibrate", calibrate), 6),
        Scenario("calibrate with --apply", partial(run_command, "calibrate", apply), 4),
        Scenario("report", partial(run_command, "report", report), 6),
        Scenario("submit", partial(run_command, "submit", submit), 3),
        Scenario("convert", partial(run_command, "convert", convert), 3),
        Scenario("push --out", partial(run_command, "push", push), 4),
        Scenario("download", partial(run_command, "download", download), 5),
        Scenario("reproduce", partial(run_command, "reproduce", reproduce), 10),
        Scenario("demo", partial(run_command, "demo", demo), 1),
        Scenario("calibrate --enrolled", partial(run_command, "calibrate", calibrate_people), 4),
        Scenario("stress", partial(run_command, "stress", stress), 10),
        Scenario("pack", partial(run_command, "pack", pack), 8),
        Scenario("export", partial(run_command, "export", export), 3),
        *store_scenarios(stock),
    ]


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
