"""sasv reproduce: rows of the published table, planned, run, and set beside the published
figures.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from sasv.commands._calls import check_launcher, resolve
from sasv.core.errors import SasvError
from sasv.core.files import locked
from sasv.core.options import Count, NonNegativeFloat, Options, Range, Seed
from sasv.core.registry import listing
from sasv.encoders import ENCODERS
from sasv.reproduction import carry_out, check_unchanged, plan_lines
from sasv.reproduction.beforehand import check_beforehand, check_output
from sasv.reproduction.rows import TABLE_ENCODERS, TRAIN_SETS, Row, parse_rows
from sasv.reproduction.settings import Corpora, Settings, SmallSpeech, TrainSettings
from sasv.reproduction.table import Reproduction, add_cells, results_of, table_of, write_table
from sasv.reproduction.tiny_plans import planner_of

__all__ = ["ReproduceOptions", "reproduce"]


@dataclass
@listing(encoders=ENCODERS)
class ReproduceOptions(Options):
    """Run rows of the published table: tables, copies, the training of each stage, evaluation.

    What is done is skipped, and what was interrupted goes on. Where the options or inputs of a step
    that was begun have changed, nothing is done unless ``redo`` is given. At scale tiny without
    corpora the speech is synthetic, or that of ``corpus``.

    Args:
        row: one row, 1 to 11.
        rows: several, separated by commas, or all.
        encoder: {encoders}; several separated by commas; empty takes mfa-conformer, of all
            rows the two of the table.
        train_set: train, train+dev, or both separated by a comma; empty takes train+dev, of all
            rows both.
        voxceleb2: corpus folder.
        asvspoof2019: corpus folder (LA).
        voxceleb1: corpus folder; Stage 1 and Stage 2 on VoxCeleb2 are chosen on its list O, without
            it the last epoch is the model.
        noises: MUSAN folder, for Stage 1 and Stage 2 on VoxCeleb2.
        rirs: folder of room impulse responses.
        vocoders: makers of the copies of Stage 2; empty takes griffin-lim, source-filter and world,
            at scale tiny without corpora griffin-lim and world.
        weights: path of the weights of a vocoder, by its name.
        out: folder of all steps.
        scale: full, or tiny: small encoders, few epochs, little data, so that the table runs
            anywhere; without corpora, no more nontarget trials for a spoofed one than ASVspoof2019
            LA has (33,327 to 63,882).
        corpus: speech for scale tiny: a LibriSpeech-style folder, or one with utterances.tsv; empty
            renders it.
        voices: synthetic speakers to render.
        attacks: vocoders of the spoofed speech of Stage 3, at scale tiny.
        unseen: vocoder of the spoofed test trials that no stage learns from, at scale tiny.
        epochs: of every stage, in place of those of its recipe.
        batches_per_epoch: in place of those of the recipe.
        pairs: bona fide pairs a batch (and as many spoofed), in place of those of the recipe.
        launch: how training and copying start on many GPUs or nodes (torchrun --nproc-per-node 4).
        precision: float32, bfloat16 or float16.
        num_workers: DataLoader workers of each training; at scale tiny one.
        device: cpu, cuda, or auto.
        tflops: sustained speed for the estimates, TFLOP a second; 0 takes 100 for a GPU and 0.15
            for a CPU.
        seed: of everything.
        licence: of the models.
        redo: do a step again where its options or inputs have changed; its old folder is kept as
            NAME.old-1, or the next free number.
        dry_run: print the plan with hours, disk and commands; do nothing.
    """

    RENAMED: ClassVar[dict[str, str]] = {"workers": "num_workers", "batches": "batches_per_epoch"}

    row: Annotated[int, Range(0, 11)] = 0
    rows: str = ""
    encoder: str = ""
    train_set: str = ""
    voxceleb2: str = ""
    asvspoof2019: str = ""
    voxceleb1: str = ""
    noises: str = ""
    rirs: str = ""
    vocoders: list[str] = field(default_factory=list)
    weights: dict[str, str] = field(default_factory=dict)
    out: str = "reproduction"
    scale: Literal["full", "tiny"] = "full"
    corpus: str = ""
    voices: Annotated[int, Range(8)] = 80
    attacks: list[str] = field(default_factory=lambda: ["world"])
    unseen: str = "source-filter"
    epochs: Count = 0
    batches_per_epoch: Count = 0
    pairs: Count = 0
    launch: str = ""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    num_workers: Count = 8
    device: str = "auto"
    tflops: NonNegativeFloat = 0.0
    seed: Seed = 0
    licence: str = "unknown"
    redo: bool = False
    dry_run: bool = False


def reproduce(options: ReproduceOptions) -> Reproduction:
    """Plan and run the rows; write table.json and the table as HTML, Markdown and PNG; return its
    cells.

    A dry run returns no cells, and the plan as their text.
    """
    rows, encoders, train_sets = chosen(options)
    check_launcher(options.launch)
    settings = settings_of(options)
    planner = planner_of(options.scale, settings, partial(resolve, launcher=options.launch))
    cells = add_cells(planner, rows, encoders, train_sets)
    if options.dry_run:
        return Reproduction(text="\n".join(plan_lines(planner.steps)))
    check_output(settings.out)
    with locked(settings.out):
        check_unchanged(planner.steps, options.redo)
        check_beforehand(settings, planner.steps, options.launch)
        carry_out(planner.steps, options.redo)
        results = results_of(planner, cells)
        table = table_of(results, rows)
        write_table(results, table, about(options), settings.out)
    return Reproduction(results, f"\n{table.text()}\n\n{about(options)}")


def settings_of(options: ReproduceOptions) -> Settings:
    """Return what a plan is made for."""
    return Settings(
        out=Path(options.out),
        corpora=Corpora(
            voxceleb2=options.voxceleb2,
            asvspoof2019=options.asvspoof2019,
            voxceleb1=options.voxceleb1,
            noises=options.noises,
            rirs=options.rirs,
        ),
        speech=SmallSpeech(options.corpus, options.voices, tuple(options.attacks), options.unseen),
        training=TrainSettings(
            epochs=options.epochs,
            batches_per_epoch=options.batches_per_epoch,
            pairs=options.pairs,
            precision=options.precision,
            num_workers=options.num_workers,
            licence=options.licence,
        ),
        vocoders=tuple(options.vocoders),
        weights=options.weights,
        device=options.device,
        tflops=options.tflops,
        seed=options.seed,
    )


def chosen(options: ReproduceOptions) -> tuple[list[Row], list[str], list[str]]:
    """Return the rows, encoders and training sets that are wanted."""
    if bool(options.row) == bool(options.rows):
        raise SasvError("say which rows: --row 7, --rows 3,7 or --rows all")
    rows = parse_rows(options.rows or str(options.row))
    everything = options.rows == "all"
    encoders = _split(options.encoder) or (
        list(TABLE_ENCODERS) if everything else ["mfa-conformer"]
    )
    train_sets = _split(options.train_set) or (list(TRAIN_SETS) if everything else ["train+dev"])
    unknown = [name for name in train_sets if name not in TRAIN_SETS]
    if unknown:
        raise SasvError(f"'{unknown[0]}' is no training set of the table; use train or train+dev")
    return rows, encoders, train_sets


def about(options: ReproduceOptions) -> str:
    """Return what the figures are, in a sentence."""
    if options.scale == "full":
        return (
            f"Full scale, seed {options.seed}; published: Interspeech 2023, ASVspoof2019 LA "
            "evaluation."
        )
    speech = options.corpus or ("parts of the corpora" if options.voxceleb2 else "synthetic voices")
    return (
        f"Tiny scale on {speech}, seed {options.seed}: it shows that every stage runs and what it "
        "is for; the "
        "published figures come from large encoders and the whole corpora and are no comparison."
    )


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
