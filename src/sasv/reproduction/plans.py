"""Planners, which list the steps for the models and evaluations of the table. There is one class
for each scale.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sasv.core.errors import SasvError
from sasv.encoders import ENCODERS
from sasv.encoders.cost import gflop
from sasv.reproduction import costs
from sasv.reproduction.calls import Call, Resolve
from sasv.reproduction.options import PlanOptions
from sasv.reproduction.rows import Stage, model_name
from sasv.reproduction.steps import Step
from sasv.training.recipes import recipe_values
from sasv.vocoders import ALWAYS

NOT_COMPARED = {
    "num_workers",
    "loader_timeout",
    "device",
    "out",
    "model",
    "utterances",
    "enrolments",
    "trials",
    "init",
    "licence",
    "batch_seconds",
    "dev_utterances",
    "dev_enrolments",
    "dev_trials",
    "embeddings",
}
"""Options that do not affect the outputs of a step, or affect them only through the files that they
name.
"""

PLACES = {"noises", "rirs", "weights", "folder"}
"""Options that name folders or weights, which are inputs and compared by content."""

TRAINING_INPUTS = (
    "utterances",
    "init",
    "dev_utterances",
    "dev_enrolments",
    "dev_trials",
    "noises",
    "rirs",
)


@dataclass(frozen=True)
class Product:
    """Outputs and inputs of a step.

    Attributes:
        folder: folder of the step.
        outputs: files in the folder.
        inputs: role -> file or folder.
        hours: estimated duration in hours.
        gigabytes: estimated disk space in gigabytes.
    """

    folder: Path
    outputs: Sequence[str]
    inputs: Mapping[str, Path]
    hours: float = 0.0
    gigabytes: float = 0.0


class Planner:
    """Collects steps, each of them once, in an order in which the inputs of each are available. The
    subclasses are the scales.

    Args:
        options: the options of the plan.
        resolve: makes a call of a command runnable.
    """

    default_vocoders: Sequence[str] = ALWAYS

    def __init__(self, options: PlanOptions, resolve: Resolve):
        self.options = options
        self.out = Path(options.out)
        self.resolve = resolve
        self.tables = self.out / "tables"
        self.vocoders = list(options.vocoders or self.default_vocoders)
        self.tflops = costs.sustained_tflops(options.tflops)
        self.steps: list[Step] = []

    def model(self, encoder: str, stages: Sequence[Stage]) -> Path:
        """Return the path of the model that has gone through these stages."""
        return self.out / "models" / encoder / model_name(stages) / "model.safetensors"

    def evaluation(self, encoder: str, stages: Sequence[Stage]) -> Path:
        """Return the folder of a model's evaluation."""
        return self.out / "evaluation" / encoder / model_name(stages)

    def add(self, encoder: str, stages: Sequence[Stage]) -> None:
        """Add the steps of a model and of those that it starts from, and its evaluation."""
        if encoder not in ENCODERS:
            raise SasvError(f"'{encoder}' is not an encoder; use one of: {', '.join(ENCODERS)}")
        if not self.steps:
            self._prepare()
        for count in range(1, len(stages) + 1):
            self._train(encoder, stages[:count])
        self._evaluate(encoder, stages)

    # Methods that the scales implement.

    def _prepare(self) -> None:
        """Add the steps that write the tables ``vox2`` and ``la``."""
        raise NotImplementedError

    def _recipe(self, stage: Stage) -> str:
        """Return the name of the recipe of a stage."""
        raise NotImplementedError

    def _encoder_options(self, encoder: str) -> dict[str, Any]:
        """Return the options of an encoder that differ from the published ones."""
        raise NotImplementedError

    def _num_workers(self) -> int:
        """Return the number of loader processes."""
        raise NotImplementedError

    def _copy_processes(self, vocoders: Sequence[str]) -> int:
        """Return the number of processes that make copies on the CPU."""
        return 1

    def _development(self, stage: Stage) -> tuple[Path, str] | None:
        """Return the folder and part of the development trials, None if there are none with which a
        model can be selected.
        """
        raise NotImplementedError

    def _copies_of(self, corpus: str) -> tuple[str, float]:
        """Return which vocoders copy an utterance in Stage 2 (``all`` or ``one``), and the hours
        that are copied.
        """
        raise NotImplementedError

    def _training_gigabytes(self) -> float:
        """Return the disk that a training takes."""
        raise NotImplementedError

    def _evaluated_utterances(self) -> int:
        """Return how many utterances an evaluation embeds."""
        raise NotImplementedError

    # Methods that all scales share.

    def _copy(
        self, table: Path, product: Product, vocoders: Sequence[str], which: Mapping[str, str]
    ) -> None:
        """Add spoofed copies of the utterances of a table."""
        weights = {name: path for name, path in self.options.weights.items() if name in vocoders}
        values = {
            "utterances": str(table),
            "out": str(product.folder),
            "vocoders": list(vocoders),
            "weights": weights,
            **which,
            "seed": self.options.seed,
            "device": self.options.device,
        }
        processes = self._copy_processes(vocoders)
        if processes > 1:
            values["num_workers"] = processes
        inputs = {
            **product.inputs,
            **{f"weights.{name}": Path(path) for name, path in weights.items()},
        }
        product = Product(product.folder, product.outputs, inputs, product.hours, product.gigabytes)
        self._by_command(Call("synthesize", values, launched=True), product)

    def _stage2_copies(self, corpus: str) -> Path:
        """Add the copies of Stage 2; return their table."""
        folder = self.out / "copies" / corpus
        table = self.tables / corpus / "utterances.tsv"
        choose, hours = self._copies_of(corpus)
        which = {"where": "split=dev" if corpus == "vox2" else "split=train,dev", "choose": choose}
        cost = costs.copy_cost(hours, 1 if choose == "one" else len(self.vocoders))
        self._copy(
            table,
            Product(folder, ["utterances.tsv"], {"utterances": table}, *cost),
            self.vocoders,
            which,
        )
        return folder / "utterances.tsv"

    def _train(self, encoder: str, stages: Sequence[Stage]) -> None:
        """Add the last of some stages."""
        stage = stages[-1]
        table = (
            self._stage2_copies(stage.corpus)
            if stage.number == 2
            else self.tables / stage.corpus / "utterances.tsv"
        )
        folder = self.model(encoder, stages).parent
        recipe = self._recipe(stage)
        by_recipe = recipe_values(recipe)
        values: dict[str, Any] = {
            "utterances": str(table),
            "out": str(folder),
            "encoder": encoder,
            "seed": self.options.seed,
            "init": str(self.model(encoder, stages[:-1])) if len(stages) > 1 else "",
            "device": self.options.device,
            "precision": self.options.precision,
            "licence": self.options.licence,
            "where": self._where(stage),
        }
        values |= {
            "num_workers": self._num_workers(),
            "encoder_options": self._chosen_options(encoder),
        }
        values |= self._overrides(by_recipe) | self._selection(stage)
        if stage.corpus == "vox2":
            values |= {"noises": self.options.noises, "rirs": self.options.rirs}
        inputs = {name: Path(values[name]) for name in TRAINING_INPUTS if values.get(name)}
        whole = by_recipe | values
        cost = gflop(encoder, self._chosen_options(encoder))
        hours = costs.train_hours(
            cost, whole["epochs"], _crops(whole, stage), whole["crop_frames"], self.tflops
        )
        product = Product(folder, ["model.safetensors"], inputs, hours, self._training_gigabytes())
        self._by_command(
            Call("train", values, recipe, True), product, f"train {encoder}, {model_name(stages)}"
        )

    def _chosen_options(self, encoder: str) -> dict[str, Any]:
        """Return the options of an encoder: those of the scale, overridden by the given ones."""
        given = self.options.encoder_options
        of_scale = self._encoder_options(encoder)
        if given.get("backbone"):  # a configuration would be taken instead of its weights
            of_scale.pop("config", None)
        return {**of_scale, **given}

    def _where(self, stage: Stage) -> str:
        """Return which rows of its table a stage trains on."""
        if stage.corpus == "vox2":
            return "split=dev"
        split = "split=train,dev" if stage.train_set == "train+dev" else "split=train"
        # copies and bona fide speech, without the real spoofs of the corpus
        return split if stage.number == 3 else f"{split};attack=-,{','.join(self.vocoders)}"

    def _overrides(self, by_recipe: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that override those of a recipe."""
        options = self.options
        values: dict[str, Any] = {}
        if options.epochs:
            values["epochs"] = options.epochs
        if options.batches_per_epoch:
            values["batches_per_epoch"] = options.batches_per_epoch
        if options.pairs:
            values["pairs"] = options.pairs
            if by_recipe.get("spoof_pairs"):
                values["spoof_pairs"] = options.pairs
        return values

    def _selection(self, stage: Stage) -> dict[str, str]:
        """Return the development tables of a stage."""
        found = self._development(stage)
        if found is None:
            return {}
        folder, part = found
        return {
            "dev_utterances": str(folder / "utterances.tsv"),
            "dev_enrolments": str(folder / f"enrolments_{part}.tsv"),
            "dev_trials": str(folder / f"trials_{part}.tsv"),
        }

    def _evaluate(self, encoder: str, stages: Sequence[Stage]) -> None:
        la = self.tables / "la"
        folder = self.evaluation(encoder, stages)
        inputs = {
            "utterances": la / "utterances.tsv",
            "enrolments": la / "enrolments_eval.tsv",
            "trials": la / "trials_eval.tsv",
            "model": self.model(encoder, stages),
        }
        values = {role: str(path) for role, path in inputs.items()}
        values |= {"out": str(folder), "device": self.options.device}
        cost = gflop(encoder, self._chosen_options(encoder))
        hours = costs.evaluation_hours(cost, self._evaluated_utterances(), self.tflops)
        product = Product(
            folder, ["metrics.json", "scores.tsv"], inputs, hours, costs.EVALUATION_GIGABYTES
        )
        self._by_command(
            Call("evaluate", values), product, f"evaluate {encoder}, {model_name(stages)}"
        )

    def _prepare_corpus(self, corpus: str, folder: str, out: Path, outputs: Sequence[str]) -> None:
        """Add the tables of a corpus."""
        values = {"corpus": corpus, "folder": folder, "out": str(out)}
        product = Product(
            out,
            outputs,
            {"folder": Path(folder)},
            costs.PREPARE_HOURS[corpus],
            costs.TABLE_GIGABYTES,
        )
        self._by_command(Call("prepare", values), product)

    def _prepare_corpora(self, tables: Path) -> None:
        """Add the tables of the published corpora."""
        given = {
            "voxceleb2": self.options.voxceleb2,
            "asvspoof2019": self.options.asvspoof2019,
            "voxceleb1": self.options.voxceleb1,
        }
        missing = [name for name in ("voxceleb2", "asvspoof2019") if not given[name]]
        if missing:
            raise SasvError(
                f"give the corpora with --{' and --'.join(missing)}, or use --scale tiny, which "
                "needs none"
            )
        self._prepare_corpus("voxceleb2", given["voxceleb2"], tables / "vox2", ["utterances.tsv"])
        outputs = ["utterances.tsv", "enrolments_eval.tsv", "trials_eval.tsv"]
        self._prepare_corpus("asvspoof2019", given["asvspoof2019"], tables / "la", outputs)
        if given["voxceleb1"]:
            outputs = ["utterances.tsv", "trials_o.tsv"]
            self._prepare_corpus("voxceleb1", given["voxceleb1"], self.tables / "vox1", outputs)

    def _by_command(self, call: Call, product: Product, label: str = "") -> None:
        """Add a step that is a command."""
        if any(step.folder == product.folder for step in self.steps):
            return
        found = self.resolve(call)
        self.steps.append(
            Step(
                label or f"{call.name} {product.folder.parent.name} {product.folder.name}",
                found.command,
                found.run,
                product.folder,
                product.outputs,
                {
                    name: value
                    for name, value in found.options.items()
                    if name not in NOT_COMPARED | PLACES
                },
                product.inputs,
                product.hours,
                product.gigabytes,
                {name: value for name, value in found.defaults.items() if name not in NOT_COMPARED},
                found.renamed,
            )
        )

    def _by_function(self, step: Step) -> None:
        """Add a step that is not a command."""
        if not any(other.folder == step.folder for other in self.steps):
            self.steps.append(step)


def _crops(values: Mapping[str, Any], stage: Stage) -> float:
    """Return the crops of an epoch of a training with these values."""
    pairs = values["pairs"] + values.get("spoof_pairs", 0)
    if values["batches_per_epoch"] != "paper":
        return 2.0 * pairs * values["batches_per_epoch"]
    if stage.corpus == "vox2":
        return costs.VOXCELEB2_UTTERANCES * pairs / values["pairs"]
    return 2.0 * pairs * costs.ASVSPOOF2019_BATCHES[stage.train_set]


class Full(Planner):
    """The published table: the whole corpora, the published encoders and recipes."""

    def __init__(self, options: PlanOptions, resolve: Resolve):
        if options.corpus:
            raise SasvError(
                "--corpus can only be used with --scale tiny; the full table needs --voxceleb2 "
                "and --asvspoof2019"
            )
        super().__init__(options, resolve)

    def _prepare(self) -> None:
        self._prepare_corpora(self.tables)

    def _recipe(self, stage: Stage) -> str:
        if stage.corpus == "vox2":
            return f"stage{stage.number}-voxceleb2"
        return f"stage{stage.number}-asvspoof2019-{stage.train_set.replace('+', '-')}"

    def _encoder_options(self, encoder: str) -> dict[str, Any]:
        return {}

    def _num_workers(self) -> int:
        return self.options.num_workers

    def _development(self, stage: Stage) -> tuple[Path, str] | None:
        if stage.corpus == "vox2":
            return (self.tables / "vox1", "o") if self.options.voxceleb1 else None
        return None if stage.train_set == "train+dev" else (self.tables / "la", "dev")

    def _copies_of(self, corpus: str) -> tuple[str, float]:
        return (
            ("one", costs.VOXCELEB2_HOURS)
            if corpus == "vox2"
            else ("all", costs.ASVSPOOF2019_HOURS)
        )

    def _training_gigabytes(self) -> float:
        return costs.MODEL_GIGABYTES

    def _evaluated_utterances(self) -> int:
        return costs.EVALUATION_UTTERANCES
