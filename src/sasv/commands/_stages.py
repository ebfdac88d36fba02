"""The steps of ``sasv reproduce``: which commands with which options, in which order."""

import importlib
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sasv.commands import COMMANDS
from sasv.commands import _tiny as tiny
from sasv.core.errors import SasvError
from sasv.core.options import defaults_of, renamed_options, values_of
from sasv.core.words import words_of
from sasv.reproduction import Step
from sasv.reproduction.rows import GFLOP, TINY_GFLOP, TINY_SIZES, train_hours
from sasv.training.recipes import recipe_values
from sasv.vocoders import ALWAYS

if TYPE_CHECKING:
    from sasv.commands._reproduce import ReproduceOptions

FREE = ("num_workers", "device", "out", "model", "utterances", "enrolments", "trials", "init", "licence",
        "batch_seconds", "dev_utterances", "dev_enrolments", "dev_trials", "embeddings")  # fmt: skip
"""Options that a step's outputs do not depend on, or depend on through the files that they name."""

PLACES = ("noises", "rirs", "weights", "folder")
"""Options that name folders or weights: inputs, compared by content."""

VOX2_HOURS, VOX2_UTTERANCES, LA_HOURS = 2360.0, 1_092_009, 6.0
TINY_VOCODERS = ["griffin-lim", "world"]
COPY_SPEED = 40.0
"""Times real time of a vocoder on a core (docs/results.md)."""


class Planner:
    """Collects steps, each once, in an order in which each finds its inputs."""

    def __init__(self, options: "ReproduceOptions"):
        self.options = options
        self.out = Path(options.out)
        self.steps: list[Step] = []
        self.tiny = options.scale == "tiny"
        self.real = bool(options.voxceleb2 or options.asvspoof2019)
        if options.corpus and not self.tiny:
            raise SasvError("--corpus is for --scale tiny; the full table takes --voxceleb2 and --asvspoof2019")
        if options.launch and not shlex.split(options.launch)[0].endswith(("torchrun", "srun", "mpirun")):
            raise SasvError(f"--launch '{options.launch}': give the words before -m sasv (torchrun --nproc-per-node 4)")
        self.prepared = False
        self.vocoders = options.vocoders or (TINY_VOCODERS if self.tiny and not self.real else list(ALWAYS))

    def model(self, encoder: str, name: str) -> Path:
        """Return the path of a model."""
        return self.out / "models" / encoder / name / "model.safetensors"

    def evaluation(self, encoder: str, name: str) -> Path:
        """Return the folder of a model's evaluation."""
        return self.out / "evaluation" / encoder / name

    def add(self, encoder: str, lineage: Sequence[str]) -> None:
        """Add the steps of a model and of those that it comes from, and its evaluation."""
        if encoder not in GFLOP:
            raise SasvError(f"'{encoder}' is no encoder; use one of: {', '.join(GFLOP)}")
        if not self.prepared:
            self._prepare()
            self.prepared = True
        init = ""
        for name in lineage:
            self._train(encoder, name, init)
            init = str(self.model(encoder, name))
        self._evaluate(encoder, lineage[-1])

    def _prepare(self) -> None:
        """Add the tables: of the corpora, of parts of them, or of the speech at tiny scale."""
        options, tables = self.options, self.out / "tables"
        if self.tiny and not self.real:
            self._tiny_speech()
            return
        missing = [name for name in ("voxceleb2", "asvspoof2019") if not getattr(options, name)]
        if missing:
            raise SasvError(f"give the corpora: --{' and --'.join(missing)}; or --scale tiny, which needs none")
        whole = tables / "whole" if self.tiny else tables
        for corpus, name, hours in (("voxceleb2", "vox2", 0.1), ("asvspoof2019", "la", 0.02)):
            folder = getattr(options, corpus)
            found = {"corpus": corpus, "folder": folder, "out": str(whole / name)}
            parts = ["utterances.tsv"]
            parts += ["enrolments_eval.tsv", "trials_eval.tsv"] if name == "la" else []
            self._command("prepare", found, whole / name, parts, {"folder": Path(folder)}, hours, 0.2)
        if options.voxceleb1:
            found = {"corpus": "voxceleb1", "folder": options.voxceleb1, "out": str(tables / "vox1")}
            inputs = {"folder": Path(options.voxceleb1)}
            self._command("prepare", found, tables / "vox1", ["utterances.tsv", "trials_o.tsv"], inputs, 0.05)
        if self.tiny:
            inputs = {name: whole / name / "utterances.tsv" for name in ("vox2", "la")}
            for name in ("vox2", "la"):
                run = partial(tiny.reduce, whole / name, tables / name, options.seed)
                facts = {"seed": options.seed}
                self._own(f"part of {name}", tables / name, ["utterances.tsv"], inputs, facts, run)

    def _tiny_speech(self) -> None:
        options, tables = self.options, self.out / "tables"
        speech = tables / "speech"
        kept = ["utterances.tsv"] + [
            f"{kind}_{part}.tsv" for part in ("dev", "eval") for kind in ("enrolments", "trials")
        ]
        settings: dict[str, Any] = {"voices": options.voices, "seed": options.seed}
        rendered = self.out / "speech"
        self._own(
            "speech and its protocol", speech, ["vox2.tsv", *kept],
            {"corpus": Path(options.corpus)} if options.corpus else {}, settings,
            lambda: tiny.speech(options.corpus, options.voices, options.seed, rendered, speech),
            hours=0.02, gigabytes=0.15, defaults={"corpus": ""}, beside=[] if options.corpus else [rendered],
        )  # fmt: skip
        if options.unseen in (*options.attacks, *self.vocoders):
            raise SasvError(f"--unseen {options.unseen} is also among --vocoders or --attacks: then it is not unseen")
        for part, vocoders in (("train", options.attacks), ("dev", options.attacks), ("eval", [options.unseen])):
            folder = self.out / "spoofed" / part
            which = {"where": "split=train"} if part == "train" else {"trials": str(speech / f"trials_{part}.tsv")}
            inputs = {"utterances": speech / "utterances.tsv"}
            inputs |= {} if part == "train" else {"trials": speech / f"trials_{part}.tsv"}
            outputs = ["utterances.tsv"] + ([] if part == "train" else ["trials.tsv"])
            self._copy(speech / "utterances.tsv", folder, vocoders, which, outputs, inputs, 0.2)
        la = tables / "la"
        inputs = {"speech": speech / "utterances.tsv"}
        inputs |= {part: self.out / "spoofed" / part / "utterances.tsv" for part in ("train", "dev", "eval")}
        self._own(
            "tables of both corpora in small", la, ["../vox2/utterances.tsv", *kept], inputs, {},
            lambda: tiny.assemble(speech, self.out / "spoofed", tables), beside=[tables / "vox2"],
        )  # fmt: skip

    def _copies(self, data: str) -> Path:
        """Add the copies of Stage 2; return their table."""
        folder = self.out / "copies" / data
        table = self.out / "tables" / data / "utterances.tsv"
        hours = 1.0 if self.tiny else VOX2_HOURS if data == "vox2" else LA_HOURS
        split = "split=dev" if data == "vox2" else "split=train,dev"
        which = {"where": split, "choose": "one" if data == "vox2" and not self.tiny else "all"}
        self._copy(table, folder, self.vocoders, which, ["utterances.tsv"], {"utterances": table}, hours)
        return folder / "utterances.tsv"

    def _copy(
        self, table: Path, folder: Path, vocoders: list[str], which: dict[str, str], outputs: list[str],
        inputs: dict[str, Path], hours: float,
    ) -> None:  # fmt: skip
        options = self.options
        weights = {name: path for name, path in options.weights.items() if name in vocoders}
        inputs = inputs | {f"weights.{name}": Path(path) for name, path in weights.items()}
        values: dict[str, Any] = {
            "utterances": str(table),
            "out": str(folder),
            "vocoders": vocoders,
            "weights": weights,
            **which,
        }
        values |= {"seed": options.seed, "device": options.device}
        many = 1 if which.get("choose") == "one" else len(vocoders)
        cost = hours * many / COPY_SPEED, hours * many * 3600 * 16.9e3 / 1e9
        self._command("synthesize", values, folder, outputs, inputs, *cost, launched=True)

    def _train(self, encoder: str, name: str, init: str) -> None:
        options, tables = self.options, self.out / "tables"
        last = name.rpartition("_")[2]
        stage, _, data = last.partition("-")
        data, _, train_set = data.partition("-")
        if stage == "stage3":
            data, train_set = "la", last.removeprefix("stage3-")
        data = data or "vox2"
        table = self._copies(data) if stage == "stage2" else tables / data / "utterances.tsv"
        recipe = f"{stage}-tiny" if self.tiny else f"{stage}-{'voxceleb2' if data == 'vox2' else 'asvspoof2019'}"
        recipe += f"-{train_set.replace('+', '-')}" if data == "la" and not self.tiny else ""
        values: dict[str, Any] = {
            "utterances": str(table), "out": str(self.model(encoder, name).parent), "encoder": encoder, "init": init,
            "seed": options.seed, "device": options.device, "precision": options.precision, "licence": options.licence,
            "where": self._where(data, train_set, stage), "num_workers": 1 if self.tiny else options.num_workers,
        }  # fmt: skip
        if self.tiny:
            values["encoder_options"] = TINY_SIZES[encoder]
        if data == "vox2":
            values |= {"noises": options.noises, "rirs": options.rirs}
        for field in ("epochs", "batches_per_epoch"):
            if getattr(options, field):
                values[field] = getattr(options, field)
        set_by_recipe: dict[str, Any] = recipe_values(recipe)
        if options.pairs:
            values["pairs"] = options.pairs
            if set_by_recipe.get("spoof_pairs"):
                values["spoof_pairs"] = options.pairs
        if options.epochs and self.tiny:
            values["cycle_epochs"] = options.epochs
            values["warmup_epochs"] = min(set_by_recipe["warmup_epochs"], options.epochs - 1)
        values |= self._selection(data, train_set)
        read = ("utterances", "init", "dev_utterances", "dev_enrolments", "dev_trials", "noises", "rirs")
        inputs = {name: Path(values[name]) for name in read if values.get(name)}
        whole = set_by_recipe | values
        crops, gflop = self._crops(whole, data), (TINY_GFLOP if self.tiny else GFLOP)[encoder]
        hours = train_hours(gflop, whole["epochs"], crops, whole["crop_frames"], self._speed())
        folder = self.model(encoder, name).parent
        self._command(
            "train", values, folder, ["model.safetensors"], inputs, hours, 0.01 if self.tiny else 0.6, recipe=recipe,
            launched=True, label=f"train {encoder}, {name}",
        )  # fmt: skip

    def _where(self, data: str, train_set: str, stage: str) -> str:
        if data == "vox2":
            return "split=dev"
        split = "split=train,dev" if train_set == "train+dev" else "split=train"
        # copies and bona fide speech, without the real spoofs of the corpus
        return split if stage == "stage3" else f"{split};attack=-,{','.join(self.vocoders)}"

    def _selection(self, data: str, train_set: str) -> dict[str, str]:
        """Return the development tables; none where nothing is left that is not trained on."""
        if data == "vox2" and not self.tiny:
            folder, part = (self.out / "tables" / "vox1", "o") if self.options.voxceleb1 else (None, "")
        else:
            folder, part = (None, "") if train_set == "train+dev" else (self.out / "tables" / "la", "dev")
        if folder is None or (self.tiny and self.real):  # parts of the corpora: the last epoch
            return {}
        return {
            "dev_utterances": str(folder / "utterances.tsv"),
            "dev_enrolments": str(folder / f"enrolments_{part}.tsv"),
            "dev_trials": str(folder / f"trials_{part}.tsv"),
        }

    def _crops(self, values: dict[str, Any], data: str) -> float:
        """Return the crops of an epoch."""
        pairs = values["pairs"] + values.get("spoof_pairs", 0)
        if values["batches_per_epoch"] != "paper":
            return 2.0 * pairs * values["batches_per_epoch"]
        if data == "vox2":
            return VOX2_UTTERANCES * pairs / values["pairs"]
        return 2.0 * pairs * (38 if values["pairs"] == 40 else 63)

    def _speed(self) -> float:
        if self.options.tflops:
            return self.options.tflops
        import torch

        return 100.0 if torch.cuda.is_available() else 0.15

    def _evaluate(self, encoder: str, name: str) -> None:
        la, out = self.out / "tables" / "la", self.evaluation(encoder, name)
        inputs = {
            "utterances": la / "utterances.tsv",
            "enrolments": la / "enrolments_eval.tsv",
            "trials": la / "trials_eval.tsv",
            "model": self.model(encoder, name),
        }
        values = {role: str(path) for role, path in inputs.items()} | {"out": str(out), "device": self.options.device}
        gflop = (TINY_GFLOP if self.tiny else GFLOP)[encoder]
        hours = train_hours(gflop / 3, 1, 500 if self.tiny else 120_000, 200, self._speed())
        label = f"evaluate {encoder}, {name}"
        self._command("evaluate", values, out, ["metrics.json", "scores.tsv"], inputs, hours, 0.1, label=label)

    def _command(
        self, name: str, values: dict[str, Any], folder: Path, outputs: list[str], inputs: dict[str, Path],
        hours: float = 0.0, gigabytes: float = 0.0, recipe: str = "", launched: bool = False, label: str = "",
    ) -> None:  # fmt: skip
        """Add a step that is a command."""
        if any(step.folder == folder for step in self.steps):
            return
        module = importlib.import_module(f"sasv.commands.{COMMANDS[name].module}")
        kind, function = getattr(module, COMMANDS[name].options), getattr(module, name)
        by_recipe = recipe_values(recipe) if recipe else {}
        options = kind(**(by_recipe | values))
        words = [name, *([recipe] if recipe else []), *words_of(options, COMMANDS[name].positionals, by_recipe)]
        run: Callable[[], Any] = lambda: function(options)  # noqa: E731
        command = ["sasv", *words]
        if launched and self.options.launch:
            command = [*shlex.split(self.options.launch), "-m", "sasv", *words]
            run = lambda: launch(command)  # noqa: E731
        facts = {key: value for key, value in values_of(options).items() if key not in (*FREE, *PLACES)}
        defaults = {key: value for key, value in defaults_of(kind).items() if key not in FREE}
        label = label or f"{name} {folder.parent.name} {folder.name}"
        renamed = renamed_options(kind)
        self.steps.append(
            Step(label, shlex.join(command), run, folder, outputs, facts, inputs, hours, gigabytes, defaults, renamed)
        )

    def _own(
        self, name: str, folder: Path, outputs: list[str], inputs: dict[str, Path], facts: dict[str, Any],
        run: Callable[[], Any], **more: Any,
    ) -> None:  # fmt: skip
        """Add a step that no command does."""
        if not any(step.folder == folder for step in self.steps):
            command = f"(within sasv reproduce) {name} -> {folder}"
            self.steps.append(Step(name, command, run, folder, outputs, facts, inputs, **more))


def launch(command: list[str]) -> None:
    """Run a command that starts many processes. SasvError where it fails."""
    if command[0] == "torchrun":
        command = [sys.executable, "-m", "torch.distributed.run", *command[1:]]
    if subprocess.run(command).returncode != 0:
        raise SasvError(f"failed, the reason is above: {shlex.join(command)}; the same command goes on from there")
