"""Checks, before the first step of a long job, what its later steps will need."""

import importlib.util
import logging
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from sasv.batches.augment import Augmenter
from sasv.core.errors import MissingExtra, SasvError, write_reason
from sasv.core.files import write_text
from sasv.parallel.devices import pick_device
from sasv.reproduction.options import PlanOptions
from sasv.reproduction.steps import Step
from sasv.vocoders import make_vocoder

logger = logging.getLogger("sasv")


def check_output(out: Path) -> None:
    """Check that files can be written into a folder.

    Raises:
        SasvError: they cannot.
    """
    probe = out / ".writable"
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(probe, "")
        probe.unlink()
    except OSError as error:
        raise SasvError(
            f"{out}: cannot write: {write_reason(error)}; choose another --out"
        ) from error


def check_beforehand(options: PlanOptions, steps: Sequence[Step], launcher: str = "") -> None:
    """Check what the remaining steps will need: corpora, augmentations, vocoders, launcher, device,
    and packages.

    Args:
        options: the options of the plan.
        steps: the plan.
        launcher: command that starts several processes.

    Raises:
        SasvError: something is missing; the message names it and the remedy.
    """
    waiting = [step for step in steps if step.state().action != "done"]
    if waiting:
        _check_folders(options)
        _check_launcher(launcher)
        pick_device(options.device)
        if options.noises or options.rirs:
            Augmenter(options.noises, options.rirs)
        for vocoder in dict.fromkeys(
            name for step in waiting for name in step.options.get("vocoders", ())
        ):
            make_vocoder(vocoder, options.weights.get(vocoder, ""))
        _say_space(waiting)
    if importlib.util.find_spec("matplotlib") is None:
        logger.info(
            f"note: {MissingExtra('matplotlib', 'plots', 'the image of the table')}; it will be "
            "left out"
        )


def _check_folders(options: PlanOptions) -> None:
    for name in ("voxceleb2", "asvspoof2019", "voxceleb1", "noises", "rirs", "corpus"):
        folder = getattr(options, name)
        if folder and not Path(folder).is_dir():
            raise SasvError(f"{folder}: there is no such folder; check the path (--{name})")


def _check_launcher(launcher: str) -> None:
    program = shlex.split(launcher)[0] if launcher else "torchrun"
    if program != "torchrun" and shutil.which(program) is None:  # torchrun is a module of torch
        raise SasvError(f"--launch: {program} was not found on this machine; check the PATH")


def _say_space(waiting: Sequence[Step]) -> None:
    """Warn if the disk is too small according to the estimates."""
    needed = sum(step.gigabytes for step in waiting)
    place = waiting[0].folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 1e9
    if free < needed:
        logger.info(
            f"note: the steps write about {needed:.2f} GB, estimated; {free:.2f} GB are free on "
            f"the disk of {place}"
        )
