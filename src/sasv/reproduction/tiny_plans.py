"""Planners of the table at tiny scale, and the choice among all planners."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sasv.core.errors import SasvError
from sasv.encoders import preset
from sasv.reproduction import costs, small
from sasv.reproduction.calls import Resolve
from sasv.reproduction.options import PlanOptions
from sasv.reproduction.plans import Full, Planner, Product
from sasv.reproduction.rows import Stage
from sasv.reproduction.steps import Step
from sasv.vocoders import VOCODERS


class Tiny(Planner):
    """Base class of the planners with small encoders and little data."""

    def _recipe(self, stage: Stage) -> str:
        return f"stage{stage.number}-tiny"

    def _encoder_options(self, encoder: str) -> dict[str, Any]:
        return preset(encoder, "tiny")

    def _num_workers(self) -> int:
        return 1

    def _copy_processes(self, vocoders: Sequence[str]) -> int:
        neural = any(VOCODERS.get(name).neural for name in vocoders)
        if neural or self.options.device not in ("auto", "cpu"):
            return 1
        return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)

    def _overrides(self, by_recipe: Mapping[str, Any]) -> dict[str, Any]:
        values = super()._overrides(by_recipe)
        if "epochs" in values:
            epochs = values["epochs"]
            values["cycle_epochs"] = epochs
            values["warmup_epochs"] = min(by_recipe["warmup_epochs"], epochs - 1)
        return values

    def _copies_of(self, corpus: str) -> tuple[str, float]:
        return "all", costs.SMALL_HOURS

    def _training_gigabytes(self) -> float:
        return costs.SMALL_MODEL_GIGABYTES

    def _evaluated_utterances(self) -> int:
        return costs.SMALL_EVALUATION_UTTERANCES


class TinyParts(Tiny):
    """The table on parts of the published corpora, to show that every stage runs on them. The model
    is that of the last epoch.
    """

    def _prepare(self) -> None:
        whole = self.tables / "whole"
        self._prepare_corpora(whole)
        seed = self.options.seed
        inputs = {name: whole / name / "utterances.tsv" for name in ("vox2", "la")}
        for name in ("vox2", "la"):
            folder = self.tables / name
            run = partial(small.reduce, whole / name, folder, seed)
            command = _within(f"part of {name}", folder)
            self._by_function(
                Step(
                    f"part of {name}",
                    command,
                    run,
                    folder,
                    ["utterances.tsv"],
                    {"seed": seed},
                    inputs,
                )
            )

    def _development(self, stage: Stage) -> tuple[Path, str] | None:
        return None


class TinySynthetic(Tiny):
    """The table on synthetic voices or any other speech, which is split into two corpora. Spoofed
    speech is made by vocoders.
    """

    default_vocoders = ("griffin-lim", "world")

    def _prepare(self) -> None:
        options = self.options
        if options.unseen in (*options.attacks, *self.vocoders):
            raise SasvError(
                f"--unseen {options.unseen} is also among --vocoders or --attacks, so it would not "
                "be unseen"
            )
        protocol = [
            f"{kind}_{part}.tsv" for part in ("dev", "eval") for kind in ("enrolments", "trials")
        ]
        speech = self.tables / "speech"
        rendered = self.out / "speech"
        self._by_function(
            Step(
                "speech and its protocol",
                _within("speech and its protocol", speech),
                partial(
                    small.speech, options.corpus, options.voices, options.seed, rendered, speech
                ),
                speech,
                ["vox2.tsv", "utterances.tsv", *protocol],
                {"voices": options.voices, "seed": options.seed},
                {"corpus": Path(options.corpus)} if options.corpus else {},
                costs.RENDER_HOURS,
                costs.RENDER_GIGABYTES,
                {"corpus": ""},
                beside=[] if options.corpus else [rendered],
            )
        )
        self._spoof(speech)
        spoofed = self.out / "spoofed"
        inputs = {"speech": speech / "utterances.tsv"}
        inputs |= {part: spoofed / part / "utterances.tsv" for part in ("train", "dev", "eval")}
        name = "tables of both corpora in small"
        la = self.tables / "la"
        self._by_function(
            Step(
                name,
                _within(name, la),
                partial(small.assemble, speech, spoofed, self.tables),
                la,
                ["../vox2/utterances.tsv", "utterances.tsv", *protocol],
                {},
                inputs,
                beside=[self.tables / "vox2"],
            )
        )

    def _spoof(self, speech: Path) -> None:
        """Add the spoofed speech of the three parts of the small corpus."""
        table = speech / "utterances.tsv"
        for part, vocoders in (
            ("train", self.options.attacks),
            ("dev", self.options.attacks),
            ("eval", [self.options.unseen]),
        ):
            inputs = {"utterances": table}
            outputs = ["utterances.tsv"]
            which = {"where": "split=train"}
            if part != "train":
                inputs["trials"] = speech / f"trials_{part}.tsv"
                outputs.append("trials.tsv")
                which = {"trials": str(inputs["trials"])}
            cost = costs.copy_cost(costs.SMALL_SPOOFED_HOURS, len(vocoders))
            folder = self.out / "spoofed" / part
            self._copy(table, Product(folder, outputs, inputs, *cost), vocoders, which)

    def _development(self, stage: Stage) -> tuple[Path, str] | None:
        return None if stage.train_set == "train+dev" else (self.tables / "la", "dev")


def _within(name: str, folder: Path) -> str:
    return f"(within sasv reproduce) {name} -> {folder}"


def planner_of(options: PlanOptions, resolve: Resolve) -> Planner:
    """Return the planner of a scale: full, or tiny on parts of the corpora that are given, else on
    other speech.
    """
    if options.scale == "full":
        return Full(options, resolve)
    if options.voxceleb2 or options.asvspoof2019:
        return TinyParts(options, resolve)
    return TinySynthetic(options, resolve)
