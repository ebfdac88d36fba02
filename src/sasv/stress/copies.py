"""Copies of the tested recordings by every vocoder that is there."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sasv.core.errors import SasvError, listed
from sasv.parallel.devices import pick_device
from sasv.synthesis.copies import copy_name
from sasv.synthesis.estimate import estimate
from sasv.synthesis.log import keep_settings
from sasv.synthesis.plan import Makers, Plan, plan_units
from sasv.synthesis.run import run
from sasv.tables import Utterances
from sasv.vocoders import VOCODERS, make_vocoder

logger = logging.getLogger("sasv")


@dataclass(frozen=True)
class Copy:
    """A copy.

    Attributes:
        name: of the copy.
        source: name of the original.
        vocoder: that made it.
        path: its file.
    """

    name: str
    source: str
    vocoder: str
    path: str


def vocoders_here(names: Sequence[str], weights: Mapping[str, str]) -> list[str]:
    """Return the vocoders that can be used on this machine, and log which cannot.

    Args:
        names: those that are wanted; none takes all that are there.
        weights: vocoder -> path of its weights.

    Raises:
        SasvError: a vocoder that is named, here or by its weights, cannot be used.
    """
    kinds = {name: VOCODERS.get(name) for name in (*VOCODERS, *names)}
    wanted = [name for name in (names or kinds) if not kinds[name].condition]
    wrong = [name for name in names if kinds[name].condition]
    if wrong:
        raise SasvError(f"{listed(wrong)}: a codec, not a vocoder; give it as --conditions")
    unknown = [name for name in weights if name not in wanted]
    if unknown:
        raise SasvError(f"--weights names {listed(unknown)}, which is no vocoder of this test")
    found = []
    waiting = []
    for name in wanted:
        given = name in names or name in weights
        if kinds[name].needs_weights and not given:
            waiting.append(name)
            continue
        try:
            make_vocoder(name, weights.get(name, ""))
        except SasvError as error:
            if given:
                raise
            logger.info(f"left out: copies by {name}: {error}")
            continue
        found.append(name)
    if waiting:
        logger.info(
            f"left out: copies by {', '.join(waiting)}: these need weights "
            f"(--weights.{waiting[0]} PATH)"
        )
    return found


def plan_copies(
    targets: Utterances, vocoders: Sequence[str], out: Path, seed: int
) -> tuple[Plan, list[Copy]]:
    """Return the plan of all copies, and what they are.

    Args:
        targets: the recordings to copy.
        vocoders: registry names.
        out: folder of the copies.
        seed: of vocoders that draw.
    """
    plan = plan_units(targets, vocoders, out / "audio", seed)
    names = targets.ids
    copies = [
        Copy(copy_name(names[unit.row], unit.vocoder), names[unit.row], unit.vocoder, unit.path)
        for unit in plan.units
    ]
    return plan, copies


def make_copies(
    plan: Plan,
    targets: Utterances,
    vocoders: Sequence[str],
    weights: Mapping[str, str],
    out: Path,
    seed: int,
    shard: str,
    workers: int,
    device: str,
) -> None:
    """Make the copies of a shard that are not there yet.

    Args:
        plan: of all copies.
        targets: the recordings to copy.
        vocoders: registry names.
        weights: vocoder -> path of its weights.
        out: folder of the copies.
        seed: of vocoders that draw.
        shard: ``i/n``, or empty.
        workers: processes.
        device: where networks compute.
    """
    if not plan.units:
        return
    neural = any(VOCODERS.get(name).neural for name in vocoders)
    chosen = str(pick_device(device)) if neural and workers <= 1 else "cpu"
    makers = Makers(vocoders, dict(weights), chosen)
    keep_settings(out / "audio", makers, seed)
    parts = out / f"parts-{plan.signature[:12]}"
    if not parts.exists():
        logger.info(estimate(plan, makers, targets, workers))
    run(plan, makers, parts, shard, workers)
