"""sasv reproduce: plans and runs rows of the published table, and prints the results next to the
published ones.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, ClassVar, Literal

from sasv.commands._calls import check_launcher, resolve
from sasv.core.errors import SasvError
from sasv.core.files import locked
from sasv.core.options import Options, Range
from sasv.core.registry import listing
from sasv.encoders import ENCODERS
from sasv.reproduction import carry_out, check_unchanged, plan_lines
from sasv.reproduction.beforehand import check_beforehand, check_output
from sasv.reproduction.options import PlanOptions
from sasv.reproduction.rows import TABLE_ENCODERS, TRAIN_SETS, Row, rows_of
from sasv.reproduction.table import Reproduction, add_cells, results_of, results_table, write_table
from sasv.reproduction.tiny_plans import planner_of

__all__ = ["ReproduceOptions", "reproduce"]


@dataclass(kw_only=True)
@listing(encoders=ENCODERS)
class RowOptions(Options):
    """The cells of the table to reproduce.

    Args:
        row: one row of the table.
        rows: several rows (3,7), or all.
        encoder: one or more of {encoders}; by default mfa-conformer, and for all rows ska-tdnn and
            mfa-conformer as in the table.
        train_set: training sets of ASVspoof2019 LA: train, train+dev, or both; by default
            train+dev, and for all rows both.
    """

    row: Annotated[int | None, Range(1, 11)] = None
    rows: Annotated[list[int | Literal["all"]], Range(1, 11)] = field(default_factory=list)
    encoder: list[str] = field(default_factory=list)
    train_set: list[Literal["train", "train+dev"]] = field(default_factory=list)


@dataclass(kw_only=True)
class ReproduceOptions(PlanOptions, RowOptions):
    """Run rows of the published table: prepare tables, make copies, train each stage, evaluate,
    and print the results beside the published ones.

    Finished steps are skipped, and an interrupted step resumes. If the options or inputs of a step
    have changed since, the command stops unless ``redo`` is given. At scale tiny without corpora,
    the speech is synthetic, or that of ``corpus``.

    Args:
        launch: launcher that starts training and copying on many GPUs or nodes (torchrun
            --nproc-per-node 4).
        redo: do a step again whose options or inputs have changed; its old folder is kept as
            NAME.old-1, or with the next free number.
        dry_run: print the plan (steps, hours, disk space, commands) and do nothing.
    """

    RENAMED: ClassVar[dict[str, str]] = {"workers": "num_workers", "batches": "batches_per_epoch"}

    launch: str = ""
    redo: bool = False
    dry_run: bool = False


def reproduce(options: ReproduceOptions) -> Reproduction:
    """Plan and run the rows; write table.json and the table as HTML, Markdown, and PNG; return its
    cells.

    A dry run returns no cells, but the plan as text.
    """
    rows, encoders, train_sets = chosen(options)
    if options.encoder_options and len(encoders) > 1:
        raise SasvError(
            "--encoder-options can only be used with a single encoder, not with "
            f"{', '.join(encoders)}; run one command for each encoder"
        )
    check_launcher(options.launch)
    planner = planner_of(options, partial(resolve, launcher=options.launch))
    cells = add_cells(planner, rows, encoders, train_sets)
    if options.dry_run:
        return Reproduction(text="\n".join(plan_lines(planner.steps)))
    check_output(planner.out)
    with locked(planner.out):
        check_unchanged(planner.steps, options.redo)
        check_beforehand(options, planner.steps, options.launch)
        carry_out(planner.steps, options.redo)
        results = results_of(planner, cells)
        table = results_table(results, rows)
        write_table(results, table, about(options), planner.out)
    return Reproduction(results, f"\n{table.text()}\n\n{about(options)}")


def chosen(options: RowOptions) -> tuple[list[Row], list[str], list[str]]:
    """Return the requested rows, encoders, and training sets."""
    if (options.row is None) == (not options.rows):
        raise SasvError("no rows are given; use --row 7, --rows 3,7, or --rows all")
    rows = options.rows if options.row is None else [options.row]
    everything = "all" in options.rows
    encoders = list(TABLE_ENCODERS) if everything else ["mfa-conformer"]
    train_sets = list(TRAIN_SETS) if everything else ["train+dev"]
    return rows_of(rows), options.encoder or encoders, [*options.train_set] or train_sets


def about(options: ReproduceOptions) -> str:
    """Return a sentence that says where the numbers come from."""
    if options.scale == "full":
        return (
            f"Full scale, seed {options.seed}; published: Interspeech 2023, ASVspoof2019 LA "
            "evaluation."
        )
    speech = options.corpus or ("parts of the corpora" if options.voxceleb2 else "synthetic voices")
    return (
        f"Tiny scale on {speech}, seed {options.seed}: this shows that every stage runs and what "
        "it is for. The published results come from large encoders and the complete corpora and "
        "cannot be compared with these."
    )
