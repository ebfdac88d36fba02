"""Copies of the tested recordings made with every available vocoder."""

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
        name: name of the copy.
        source: name of the original.
        vocoder: name of the vocoder.
        path: its file.
    """

    name: str
    source: str
    vocoder: str
    path: str


def vocoders_here(names: Sequence[str], weights: Mapping[str, str]) -> list[str]:
    """Return the vocoders that can be used on this machine, and log those that cannot.

    Args:
        names: names of the requested vocoders; by default all that are available.
        weights: vocoder -> path of its weights.

    Raises:
        SasvError: a vocoder that is named here or in ``weights`` cannot be used.
    """
    kinds = {name: VOCODERS.get(name) for name in (*VOCODERS, *names)}
    wanted = [name for name in (names or kinds) if not kinds[name].condition]
    wrong = [name for name in names if kinds[name].condition]
    if wrong:
        raise SasvError(
            f"{listed(wrong)}: this is a codec, not a vocoder; use it with --conditions"
        )
    unknown = [name for name in weights if name not in wanted]
    if unknown:
        raise SasvError(
            f"--weights names {listed(unknown)}, which is not a vocoder of this test; see "
            "--vocoders"
        )
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
            logger.info(f"no copies are made with {name}: {error}")
            continue
        found.append(name)
    if waiting:
        logger.info(
            f"no copies are made with {', '.join(waiting)}, which need weights "
            f"(--weights.{waiting[0]} PATH)"
        )
    return found


def plan_copies(
    targets: Utterances, vocoders: Sequence[str], out: Path, seed: int
) -> tuple[Plan, list[Copy]]:
    """Return the plan of all copies, and their descriptions.

    Args:
        targets: the recordings to copy.
        vocoders: names of the vocoders.
        out: folder of the copies.
        seed: random seed of the vocoders.
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
    """Make the missing copies of a shard.

    Args:
        plan: plan of all copies.
        targets: the recordings to copy.
        vocoders: names of the vocoders.
        weights: vocoder -> path of its weights.
        out: folder of the copies.
        seed: random seed of the vocoders.
        shard: ``i/n``, or empty.
        workers: number of processes.
        device: device for vocoders with a network.
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
