"""sasv synthesize."""

import logging
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from sasv.core.errors import SasvError, listed
from sasv.core.options import Count, Options, PositiveInt, Seed
from sasv.core.registry import listing
from sasv.parallel.devices import pick_device
from sasv.parallel.launchers import check_launched, launch
from sasv.synthesis.copies import check_copies, spoofed_trials, table_of_copies, union
from sasv.synthesis.estimate import estimate
from sasv.synthesis.log import Made, keep_settings
from sasv.synthesis.plan import Makers, Plan, plan_units
from sasv.synthesis.run import outcome, run
from sasv.tables import Trials, Utterances, load_trials, load_utterances
from sasv.vocoders import ALWAYS, VOCODERS

logger = logging.getLogger("sasv")


@dataclass
@listing(vocoders=VOCODERS)
class SynthesizeOptions(Options):
    """Make spoofed copies of utterances with vocoders, and trials that contain them.

    Args:
        utterances: utterance table; only its bona fide rows are copied.
        out: output folder, for the copies, utterances.tsv (originals and copies), and trials.tsv.
        vocoders: one or more of {vocoders}. Those after cargan up to mimi are networks and need
            weights; those named after a codec or a telephone band pass bona fide speech through it.
        weights: path of the weights of a vocoder, by its name (--weights.hifi-gan PATH).
        where: copy only the rows with this ``column=value``.
        trials: trial table; copy only its target utterances, and write trials.tsv with spoofed
            trials added.
        choose: copy each utterance with all vocoders, or with one of them at random.
        suffix: file format of the copies.
        num_workers: number of processes that make copies independently on the CPU.
        device: cpu, cuda, or auto (a GPU if there is one and a vocoder has a network).
        batch: batch size, in utterances; 0 takes 1 on a CPU and 64 on a GPU.
        shard: part of the work to do, as ``i/n``; by default the rank that torchrun gives.
        launcher: where the work is done: on this machine, or as jobs of SLURM or Ray.
        shards: number of parts into which slurm or ray divide the work.
        launcher_options: options of sbatch for each part (--launcher-options.partition NAME), and
            array_parallelism; or address, num_cpus, num_gpus, and memory of Ray.
        verify: read every copy again at the end.
        seed: random seed, for the choice of vocoders and for vocoders with random excitation.
    """

    RENAMED: ClassVar[dict[str, str]] = {"workers": "num_workers"}

    utterances: str
    out: str
    vocoders: list[str] = field(default_factory=lambda: list(ALWAYS))
    weights: dict[str, str] = field(default_factory=dict)
    where: str = ""
    trials: str = ""
    choose: Literal["all", "one"] = "all"
    suffix: Literal["flac", "wav"] = "flac"
    num_workers: Count = 1
    device: str = "auto"
    batch: Count = 0
    shard: str = ""
    launcher: Literal["local", "slurm", "ray"] = "local"
    shards: PositiveInt = 16
    launcher_options: dict[str, str] = field(default_factory=dict)
    verify: bool = False
    seed: Seed = 0


def synthesize(options: SynthesizeOptions) -> Utterances | None:
    """Copy utterances and return the table of the copies, or None while other shards are still
    working.

    Existing copies are kept. Raises SasvError at the end if some utterances could not be read.
    """
    if options.launcher != "local":
        check_launched(options.launcher, options.shard)
        # The device of a network is chosen on the machines that do the work.
        job = _job(replace(options, device="cpu", batch=1))
        work = partial(_synthesize_shard, options)
        logs = Path(options.out) / "jobs"
        launch(options.launcher, work, options.shards, options.launcher_options, logs)
        result = outcome(job.plan, job.makers, job.parts, options.shards)
        return _finish(options, job, *result)
    job = _job(options)
    if not job.parts.exists():
        logger.info(estimate(job.plan, job.makers, job.chosen, options.num_workers, job.batch))
    found = run(job.plan, job.makers, job.parts, options.shard, options.num_workers, job.batch)
    return None if found is None else _finish(options, job, *found)


@dataclass(frozen=True)
class _Job:
    """The job that the options describe."""

    everything: Utterances
    chosen: Utterances
    trials: Trials | None
    makers: Makers
    batch: int
    plan: Plan
    parts: Path


def _synthesize_shard(options: SynthesizeOptions, shard: str) -> None:
    """Make the copies of one shard, on a machine of a cluster."""
    job = _job(options)
    run(job.plan, job.makers, job.parts, shard, options.num_workers, job.batch, join=False)


def _job(options: SynthesizeOptions) -> _Job:
    out = Path(options.out)
    everything = load_utterances(options.utterances)
    chosen = everything.where(options.where)
    chosen = chosen.take(~chosen.spoofed)
    trials: Trials | None = None
    if options.trials:
        trials = load_trials(options.trials)
        targets = {
            trials.utterances[1][code]
            for code in np.unique(trials.utterances[0][trials.labels == 0])
        }
        chosen = chosen.take(np.array([name in targets for name in chosen.ids], bool))
    if not len(chosen):
        raise SasvError(
            f"{options.utterances}: there is no bona fide utterance to copy; check --where and "
            "--trials"
        )
    makers, batch = _makers(options)
    plan = plan_units(
        chosen, options.vocoders, out / "audio", options.seed, options.choose, options.suffix
    )
    keep_settings(out / "audio", makers, options.seed)
    parts = out / f"parts-{plan.signature[:12]}"
    return _Job(everything, chosen, trials, makers, batch, plan, parts)


def _finish(
    options: SynthesizeOptions, job: _Job, made: dict[int, Made], failed: dict[int, str]
) -> Utterances:
    """Write the tables."""
    out = Path(options.out)
    failures = list(dict.fromkeys(failed.values()))
    if not made:
        raise SasvError(
            f"{options.utterances}: no utterance could be copied; the first reason is: "
            f"{[*failures, 'the copies are gone'][0]}"
        )
    copies = table_of_copies(job.plan, made, job.chosen, str(out / "utterances.tsv"))
    union(job.everything, copies).save(out / "utterances.tsv")
    if job.trials is not None:
        spoofed_trials(job.trials, copies).save(out / "trials.tsv")
    logger.info(
        f"{out / 'utterances.tsv'}: {len(job.everything)} originals and {len(copies)} copies"
    )
    if options.verify:
        failures += check_copies(copies)
    if failures:
        raise SasvError(
            f"{len(failures)} utterances could not be copied, or their copies could not be read "
            f"({listed(failures, 3)}); the others are finished; fix these and run the same command "
            "again"
        )
    return copies


def _makers(options: SynthesizeOptions) -> tuple[Makers, int]:
    """Return the vocoders and the batch size. Raises SasvError for weights that belong to no
    vocoder.
    """
    if not options.vocoders:
        raise SasvError("--vocoders is empty; name one or more, or leave it out")
    kinds = {name: VOCODERS.get(name) for name in options.vocoders}
    if len(kinds) < len(options.vocoders):
        repeated = [name for name in kinds if options.vocoders.count(name) > 1]
        raise SasvError(f"--vocoders names {listed(repeated)} twice; name each one once")
    unknown = [name for name in options.weights if name not in kinds]
    if unknown:
        raise SasvError(
            f"--weights names {listed(unknown)}, but --vocoders only names: {listed(list(kinds))}"
        )
    device = options.device
    if device == "auto" and (
        options.num_workers > 1 or not any(kind.neural for kind in kinds.values())
    ):
        device = "cpu"
    device = str(pick_device(device))
    batch = options.batch or (1 if device == "cpu" else 64)
    if options.num_workers > 1 and (device != "cpu" or batch > 1):
        raise SasvError(
            "--num-workers starts processes on the CPU that copy one file at a time; leave out "
            "--device and --batch"
        )
    return Makers(options.vocoders, options.weights, device), batch
