"""sasv synthesize."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from sasv.core.errors import SasvError, some
from sasv.core.progress import say
from sasv.tables import Trials, Utterances, load_trials, load_utterances
from sasv.vocoders.copies import check_copies, joined, spoofed_trials, table_of
from sasv.vocoders.runner import estimate, plan_units, run


@dataclass
class SynthesizeOptions:
    """Make spoofed copies of utterances by vocoders, and trials with them.

    Args:
        utterances: table of speech; only its bona fide rows are copied.
        out: folder for the copies and for utterances.tsv (originals and copies), and trials.tsv.
        vocoders: griffin-lim, source-filter, world (the last needs sasv[vocoders]).
        where: copy only the rows with this ``column=value``.
        trials: copy only the target utterances of these trials, and write trials.tsv with spoofed trials added.
        choose: all vocoders for each utterance, or one of them at random.
        suffix: flac or wav.
        workers: processes.
        shard: this part of the work, ``i/n``; empty takes torchrun's rank.
        verify: read every copy again at the end.
        seed: of the choice and of vocoders that draw.
    """

    utterances: str
    out: str
    vocoders: list[str] = field(default_factory=lambda: ["griffin-lim", "source-filter", "world"])
    where: str = ""
    trials: str = ""
    choose: Literal["all", "one"] = "all"
    suffix: Literal["flac", "wav"] = "flac"
    workers: int = 1
    shard: str = ""
    verify: bool = False
    seed: int = 0


def synthesize(options: SynthesizeOptions) -> Utterances | None:
    """Copy utterances and return the table of the copies, None while other shards still work.

    What is there already is kept. SasvError at the end where some could not be read.
    """
    out = Path(options.out)
    everything = load_utterances(options.utterances)
    chosen = everything.where(options.where)
    chosen = chosen.take(~chosen.spoofed)
    trials: Trials | None = None
    if options.trials:
        trials = load_trials(options.trials)
        targets = {trials.utterances[1][code] for code in np.unique(trials.utterances[0][trials.labels == 0])}
        chosen = chosen.take(np.array([name in targets for name in chosen.ids], bool))
    if not len(chosen):
        raise SasvError(f"{options.utterances}: no bona fide utterance to copy; check --where and --trials")
    plan = plan_units(chosen, options.vocoders, out / "audio", options.seed, options.choose, options.suffix)
    parts = out / f"parts-{plan.signature[:12]}"
    if not parts.exists():
        say(estimate(plan, options.vocoders, chosen, options.workers))
    result = run(plan, options.vocoders, parts, options.shard, options.workers)
    if result is None:
        return None
    made, failed = result
    failures = list(dict.fromkeys(failed.values()))
    if not made:
        raise SasvError(f"{options.utterances}: nothing could be copied; first reason: {failures[0]}")
    copies = table_of(plan, made, chosen, str(out / "utterances.tsv"))
    joined(everything, copies).save(out / "utterances.tsv")
    if trials is not None:
        spoofed_trials(trials, copies).save(out / "trials.tsv")
    say(f"{out / 'utterances.tsv'}: {len(everything)} originals and {len(copies)} copies")
    if options.verify:
        failures += check_copies(copies)
    if failures:
        raise SasvError(
            f"{len(failures)} utterances could not be copied, or copies not read ({some(failures, 3)}); "
            "the others are done: mend these and run the same command again"
        )
    return copies
