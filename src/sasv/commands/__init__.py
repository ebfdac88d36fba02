"""Everything the command line does, as typed functions: ``from sasv.commands import evaluate, EvaluateOptions``.

Each command is a function that takes its dataclass of options, which is at once the YAML file and the flags.
"""

import importlib
from typing import Any, NamedTuple


class Command(NamedTuple):
    """What is known of a command without importing it.

    Attributes:
        module: its module in ``sasv.commands``.
        options: the dataclass of its options.
        summary: what it does.
        positionals: options that are given by position.
        presets: ``module:function`` that turns a first word into a YAML file of options.
        resumable: the same command goes on where it was interrupted.
    """

    module: str
    options: str
    summary: str
    positionals: tuple[str, ...] = ()
    presets: str = ""
    resumable: bool = False


COMMANDS = {
    "prepare": Command(
        "_prepare",
        "PrepareOptions",
        "check a corpus folder and write its tables",
        positionals=("corpus", "folder"),
    ),
    "synthesize": Command(
        "_synthesize",
        "SynthesizeOptions",
        "make spoofed copies of utterances by vocoders",
        positionals=("utterances",),
        resumable=True,
    ),
    "train": Command(
        "_train",
        "TrainOptions",
        "train an encoder (recipe or flags)",
        presets="sasv.training.recipes:recipe",
        resumable=True,
    ),
    "embed": Command(
        "_embed",
        "EmbedOptions",
        "embeddings of a table; sharded, resumable",
        positionals=("utterances",),
        resumable=True,
    ),
    "evaluate": Command(
        "_evaluate",
        "EvaluateOptions",
        "score trials: score file, metrics and plot",
        resumable=True,
    ),
    "metrics": Command(
        "_metrics",
        "MetricsOptions",
        "metrics of a score file, ours or others'; paired test of two",
        positionals=("scores",),
    ),
    "calibrate": Command(
        "_calibrate",
        "CalibrateOptions",
        "scores to LLRs, fusion of systems, threshold from costs",
        positionals=("scores",),
    ),
    "report": Command(
        "_report",
        "ReportOptions",
        "page with curves, tables and worst errors of systems",
        positionals=("systems",),
    ),
    "submit": Command(
        "_submit",
        "SubmitOptions",
        "scores in the format of the ASVspoof 5 challenge",
        positionals=("scores", "out"),
    ),
    "verify": Command(
        "_verify",
        "VerifyOptions",
        "accept or reject a recording: ENROL... TEST",
        positionals=("recordings",),
    ),
    "models": Command(
        "_models",
        "ModelsOptions",
        "weights that have a name, and which are on this machine",
    ),
    "download": Command(
        "_download",
        "DownloadOptions",
        "fetch weights by name, or from the hub by org/name",
        positionals=("names",),
        resumable=True,
    ),
    "push": Command(
        "_push",
        "PushOptions",
        "publish a model with its card on the Hugging Face hub",
        positionals=("model", "repository"),
    ),
    "convert": Command(
        "_convert",
        "ConvertOptions",
        "checkpoint to and from the published format",
        positionals=("source", "result"),
    ),
    "info": Command(
        "_info",
        "InfoOptions",
        "what a checkpoint says of itself",
        positionals=("model",),
    ),
    "reproduce": Command(
        "_reproduce",
        "ReproduceOptions",
        "rows of the published table: plan, run, compare",
        resumable=True,
    ),
    "demo": Command(
        "_demo",
        "DemoOptions",
        "the table in small, on speech it renders itself, or on yours",
        resumable=True,
    ),
}

_OWNERS = {name: command.module for name, command in COMMANDS.items()}
_OWNERS |= {command.options: command.module for command in COMMANDS.values()}
__all__ = sorted([*_OWNERS, "COMMANDS", "Command"])


def __getattr__(name: str) -> Any:
    """Import a command when it is first used."""
    if name not in _OWNERS:
        raise AttributeError(f"module 'sasv.commands' has no attribute '{name}'")
    return getattr(importlib.import_module(f"sasv.commands.{_OWNERS[name]}"), name)
