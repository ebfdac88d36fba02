"""Estimates the time and the disk space of a job before it begins."""

import io
import time
from pathlib import Path

import numpy as np
import soundfile

from sasv.audio import RATE, read_speech
from sasv.core.errors import AudioError
from sasv.core.progress import duration
from sasv.synthesis.plan import Makers, Plan
from sasv.synthesis.worker import Worker
from sasv.tables import Utterances

SAMPLE_SECONDS = 2.0
"""Seconds of speech on which each vocoder is timed."""

TRIED = 20
"""Maximum number of recordings that are tried to obtain this speech."""


def estimate(
    plan: Plan, makers: Makers, utterances: Utterances, workers: int, batch: int = 1
) -> str:
    """Return a text with the time and the disk space of a plan, estimated from a few seconds of its
    speech.
    """
    known = utterances.seconds
    total = 0.0 if known is None else float(known[[unit.row for unit in plan.units]].sum())
    if not total:
        return (
            f"{len(plan.units):,} copies; there is no estimate, because the table has no column "
            "seconds"
        )
    wave = _some_speech(plan)
    if wave is None:
        return (
            f"{len(plan.units):,} copies; there is no estimate, because the first files cannot be "
            "read"
        )
    spent = []
    bytes_each = []
    for vocoder in Worker(makers).vocoders.values():
        vocoder(wave[: RATE // 2])  # the first call loads the weights
        started = time.perf_counter()
        copy = vocoder.many([wave] * batch, RATE, [0] * batch)[0]
        spent.append((time.perf_counter() - started) / (batch * len(wave) / RATE))
        file = io.BytesIO()
        soundfile.write(file, copy, RATE, format=Path(plan.units[0].path).suffix[1:])
        bytes_each.append(len(file.getvalue()) / (len(wave) / RATE))
    processes = max(workers, 1)
    needed = total * float(np.mean(spent)) / processes
    return (
        f"{len(plan.units):,} copies of {duration(total)} of speech: about {duration(needed)} on "
        f"{processes} "
        f"process{'es' if processes > 1 else ''} and "
        f"{total * float(np.mean(bytes_each)) / 1e9:.2f} GB"
    )


def _some_speech(plan: Plan) -> np.ndarray | None:
    for unit in plan.units[:TRIED]:
        try:
            return read_speech(unit.source, channel=unit.channel)[: int(SAMPLE_SECONDS * RATE)]
        except AudioError:
            continue
    return None
