"""Every command as a typed function: ``from sasv.commands import evaluate, EvaluateOptions``.

Each command is a function that takes its dataclass of options. The same dataclass defines the flags
and the YAML file of the command.
"""

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple


class Command(NamedTuple):
    """Information about a command that is available without importing it.

    Attributes:
        module: its module in ``sasv.commands``.
        options: the dataclass of its options.
        summary: what it does.
        positionals: options that are given by position.
        presets: ``module:function`` that turns a first argument into a YAML file of options.
        resumable: whether the same command continues after an interruption.
        inputs: options that name its inputs: a path, several paths, or a mapping to paths.
        speech: options that name folders of speech, into which nothing may be written.
        outputs: option that names an output -> patterns of the files that are written into this
            folder; empty for an option that names a file.
    """

    module: str
    options: str
    summary: str
    positionals: tuple[str, ...] = ()
    presets: str = ""
    resumable: bool = False
    inputs: tuple[str, ...] = ()
    speech: tuple[str, ...] = ()
    outputs: Mapping[str, tuple[str, ...]] = {}


COMMANDS = {
    "prepare": Command(
        "_prepare",
        "PrepareOptions",
        "check a corpus and write its tables",
        positionals=("corpus", "folder"),
        inputs=("protocol",),
        speech=("folder",),
        outputs={
            "out": (
                "utterances.tsv",
                "enrolments*.tsv",
                "trials*.tsv",
                "missing.txt",
                "audio/shard-*",
            )
        },
    ),
    "pack": Command(
        "_pack",
        "PackOptions",
        "pack the recordings of a table into tars with indexes",
        positionals=("table", "out"),
        resumable=True,
        inputs=("table",),
        outputs={
            "out": ("utterances.tsv", "pack.json", "shards.tsv", "shard-*.tar", "shard-*.tar.index")
        },
    ),
    "export-table": Command(
        "_export_table",
        "ExportTableOptions",
        "write a table for lhotse or Hugging Face",
        positionals=("table", "out"),
        resumable=True,
        inputs=("table",),
        outputs={
            "out": (
                "recordings.jsonl.gz",
                "supervisions.jsonl.gz",
                "cuts.jsonl.gz",
                "pack.json",
                "data/*.parquet",
            )
        },
    ),
    "synthesize": Command(
        "_synthesize",
        "SynthesizeOptions",
        "make spoofed copies of utterances with vocoders",
        positionals=("utterances",),
        resumable=True,
        inputs=("utterances", "trials", "weights"),
        outputs={"out": ("utterances.tsv", "trials.tsv", "audio/*")},
    ),
    "train": Command(
        "_train",
        "TrainOptions",
        "train an encoder, from a recipe or from flags",
        presets="sasv.training.recipes:recipe",
        resumable=True,
        inputs=("utterances", "dev_utterances", "dev_enrolments", "dev_trials", "init"),
        speech=("noises", "rirs"),
        outputs={
            "out": (
                "model.safetensors",
                "best.safetensors",
                "options.json",
                "environment.json",
                "state.pt",
                "metrics.csv",
                "curves.png",
            )
        },
    ),
    "embed": Command(
        "_embed",
        "EmbedOptions",
        "compute the embeddings of a table; in shards, resumable",
        positionals=("utterances",),
        resumable=True,
        inputs=("utterances", "model"),
        outputs={"out": ("embeddings.npy", "embeddings.json", "index.tsv", "failed.tsv")},
    ),
    "evaluate": Command(
        "_evaluate",
        "EvaluateOptions",
        "score trials and compute the metrics",
        resumable=True,
        inputs=("utterances", "enrolments", "trials", "model", "embeddings", "cohort"),
        outputs={
            "out": (
                "scores.tsv",
                "scores.scoring.json",
                "metrics.json",
                "scores.png",
                "embeddings/*",
                "cohort/*",
                "countermeasure/*",
            )
        },
    ),
    "metrics": Command(
        "_metrics",
        "MetricsOptions",
        "compute the metrics of a score file, or compare two",
        positionals=("scores",),
    ),
    "calibrate": Command(
        "_calibrate",
        "CalibrateOptions",
        "turn scores into LLRs, fuse systems, choose a threshold",
        positionals=("scores",),
        inputs=("scores", "key", "cm", "apply", "apply_key", "apply_cm", "model"),
        speech=("enrolled",),
        outputs={"out": (), "result": (), "model_out": ()},
    ),
    "report": Command(
        "_report",
        "ReportOptions",
        "write a page with curves, tables, and worst errors",
        positionals=("systems",),
        inputs=("systems", "key", "utterances"),
        outputs={"out": ("report.html", "report.md", "report.png", "report.json", "figures/*.png")},
    ),
    "submit": Command(
        "_submit",
        "SubmitOptions",
        "write scores in the format of the ASVspoof 5 challenge",
        positionals=("scores", "out"),
        inputs=("scores", "key"),
        outputs={"out": ()},
    ),
    "verify": Command(
        "_verify",
        "VerifyOptions",
        "accept or reject a recording: ENROL... TEST",
        positionals=("recordings",),
    ),
    "detect": Command(
        "_detect",
        "DetectOptions",
        "decide whether recordings are bona fide or spoofed",
        positionals=("recordings",),
    ),
    "stress": Command(
        "_stress",
        "StressOptions",
        "test a system under copies, codecs, noise, rooms, level, and shorter speech",
        positionals=("speech",),
        resumable=True,
        inputs=("enrolments", "trials", "system", "against", "weights", "cohort"),
        speech=("speech", "noises", "rirs"),
        outputs={
            "out": (
                "report.html",
                "report.md",
                "report.json",
                "report.tsv",
                "copies/*",
                "listen/*",
                "systems/*",
            )
        },
    ),
    "models": Command(
        "_models",
        "ModelsOptions",
        "list the weights that can be used by name",
    ),
    "download": Command(
        "_download",
        "DownloadOptions",
        "download weights by name, or from the Hugging Face hub",
        positionals=("names",),
        resumable=True,
    ),
    "push": Command(
        "_push",
        "PushOptions",
        "publish a model and its card on the Hugging Face hub",
        positionals=("model", "repository"),
        inputs=("model", "card", "metrics"),
        outputs={"out": ("model.safetensors", "README.md", "metrics.json")},
    ),
    "convert": Command(
        "_convert",
        "ConvertOptions",
        "convert a checkpoint to or from the published format",
        positionals=("source", "result"),
        inputs=("source",),
        outputs={"result": ()},
    ),
    "export": Command(
        "_export",
        "ExportOptions",
        "export a model as one ONNX file, and check that it gives the same results",
        positionals=("model", "out"),
        inputs=("model", "utterances", "enrolments", "trials"),
        outputs={"out": ()},
    ),
    "benchmark-runtime": Command(
        "_benchmark_runtime",
        "BenchmarkRuntimeOptions",
        "measure the speed and the memory of an exported model",
        positionals=("model",),
    ),
    "enrol": Command(
        "_enrol",
        "EnrolOptions",
        "enrol a speaker in a store of voiceprints",
        positionals=("store", "speaker", "recordings"),
    ),
    "store": Command(
        "_store",
        "StoreOptions",
        "manage a store of voiceprints: verify, export, delete, rotate",
        positionals=("action", "path"),
    ),
    "keys": Command(
        "_keys",
        "KeysOptions",
        "create, list, and revoke API keys of the service",
        positionals=("action", "path"),
    ),
    "serve": Command(
        "_serve",
        "ServeOptions",
        "serve enrolment and verification over HTTP, with a page to try them",
    ),
    "info": Command(
        "_info",
        "InfoOptions",
        "show the metadata of a checkpoint",
        positionals=("model",),
    ),
    "reproduce": Command(
        "_reproduce",
        "ReproduceOptions",
        "plan, run, and compare rows of the published table",
        resumable=True,
        speech=("voxceleb2", "asvspoof2019", "voxceleb1", "noises", "rirs", "corpus"),
        outputs={"out": ("table.json", "table/*")},
    ),
    "demo": Command(
        "_demo",
        "DemoOptions",
        "run the published table at small scale",
        resumable=True,
        speech=("corpus",),
        outputs={"out": ("table.json", "table/*", "report/*")},
    ),
}


def function_name(command: str) -> str:
    """Return the name of the function of a command: ``benchmark-runtime`` is
    ``benchmark_runtime``.
    """
    return command.replace("-", "_")


_OWNERS = {function_name(name): command.module for name, command in COMMANDS.items()}
_OWNERS |= {command.options: command.module for command in COMMANDS.values()}
__all__ = sorted([*_OWNERS, "COMMANDS", "Command"])


def __getattr__(name: str) -> Any:
    """Import a command when it is first used."""
    if name not in _OWNERS:
        raise AttributeError(f"module 'sasv.commands' has no attribute '{name}'")
    return getattr(importlib.import_module(f"sasv.commands.{_OWNERS[name]}"), name)
