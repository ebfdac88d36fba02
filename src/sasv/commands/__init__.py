"""Everything the command line does, as typed functions: ``from sasv.commands import evaluate, EvaluateOptions``.

Each command is a function that takes its dataclass of options, which is at once the YAML file and the flags.
"""

import importlib
from typing import Any, NamedTuple


class Command(NamedTuple):
    """Where a command lives and what it does, known without importing it."""

    module: str
    options: str
    summary: str


COMMANDS = {
    "prepare": Command("_prepare", "PrepareOptions", "check a corpus folder and write its tables"),
    "synthesize": Command("_synthesize", "SynthesizeOptions", "make spoofed copies of utterances by vocoders"),
    "train": Command("_train", "TrainOptions", "train an encoder (recipe or flags)"),
    "embed": Command("_embed", "EmbedOptions", "embeddings of a table; sharded, resumable"),
    "evaluate": Command("_evaluate", "EvaluateOptions", "score trials: score file, metrics and plot"),
    "metrics": Command("_metrics", "MetricsOptions", "metrics of a score file, ours or others'; paired test of two"),
    "calibrate": Command("_calibrate", "CalibrateOptions", "scores to LLRs, fusion of systems, threshold from costs"),
    "report": Command("_report", "ReportOptions", "page with curves, tables and worst errors of systems"),
    "submit": Command("_submit", "SubmitOptions", "scores in the format of the ASVspoof 5 challenge"),
    "verify": Command("_verify", "VerifyOptions", "accept or reject a recording: ENROL... TEST"),
    "models": Command("_models", "ModelsOptions", "weights that have a name, and which are on this machine"),
    "download": Command("_download", "DownloadOptions", "fetch weights by name, or from the hub by org/name"),
    "push": Command("_push", "PushOptions", "publish a model with its card on the Hugging Face hub"),
    "convert": Command("_convert", "ConvertOptions", "checkpoint to and from the published format"),
    "info": Command("_info", "InfoOptions", "what a checkpoint says of itself"),
    "reproduce": Command("_reproduce", "ReproduceOptions", "rows of the published table: plan, run, compare"),
    "demo": Command("_demo", "DemoOptions", "the table in small, on speech it renders itself, or on yours"),
}

POSITIONALS = {
    "prepare": ("corpus", "folder"),
    "synthesize": ("utterances",),
    "embed": ("utterances",),
    "metrics": ("scores",),
    "calibrate": ("scores",),
    "report": ("systems",),
    "submit": ("scores", "out"),
    "verify": ("recordings",),
    "download": ("names",),
    "push": ("model", "repository"),
    "convert": ("source", "result"),
    "info": ("model",),
}
"""Options that are given by position."""

_OWNERS = {name: command.module for name, command in COMMANDS.items()}
_OWNERS |= {command.options: command.module for command in COMMANDS.values()}
__all__ = sorted([*_OWNERS, "COMMANDS", "Command", "POSITIONALS"])


def __getattr__(name: str) -> Any:
    """Import a command when it is first used."""
    if name not in _OWNERS:
        raise AttributeError(f"module 'sasv.commands' has no attribute '{name}'")
    return getattr(importlib.import_module(f"sasv.commands.{_OWNERS[name]}"), name)
