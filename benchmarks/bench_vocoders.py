"""Vocoders: speed relative to real time on one core, memory of a worker, overhead of the runner,
and two processes compared with one.

    python benchmarks/bench_vocoders.py [SPEECH]

SPEECH is a folder of FLAC files, for instance LibriSpeech; without it, sound that resembles a voice
is used.
"""

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch

from common import header
from sasv.audio import RATE, read_audio, write_audio
from sasv.core.errors import SasvError
from sasv.synthesis.plan import Makers, plan_units
from sasv.synthesis.run import run
from sasv.tables import Table, load_utterances
from sasv.vocoders import ALWAYS, VOCODERS, make_vocoder

SECONDS = 8
FILES = 40
REPEATS = 3
VOXCELEB2_FILES = 1_092_009
VOXCELEB2_HOURS = 2_360


def speech(root: Path | None) -> list[np.ndarray]:
    """Return utterances of ``SECONDS``."""
    if root is not None and root.is_dir():
        waves = (read_audio(path) for path in sorted(root.rglob("*.flac")))
        whole = np.concatenate([wave for wave, _ in zip(waves, range(4 * FILES))])
    else:
        rng = np.random.default_rng(0)
        at = np.arange(FILES * SECONDS * RATE) / RATE
        phase = 2 * np.pi * np.cumsum(130 * (1 + 0.1 * np.sin(2 * np.pi * at))) / RATE
        whole = 0.05 * sum(
            np.sin(k * phase) / k for k in range(1, 12)
        ) + 0.003 * rng.standard_normal(len(at))
    count = min(FILES, len(whole) // (SECONDS * RATE))
    return list(whole[: count * SECONDS * RATE].astype(np.float32).reshape(count, -1))


def bare(name: str, waves: list[np.ndarray], answer) -> None:
    """In a new process, send the median seconds for each second of speech, and the peak memory in
    MB.
    """
    torch.set_num_threads(1)
    try:
        vocoder = make_vocoder(name)
    except SasvError as error:
        answer.send(str(error))
        return
    vocoder(waves[0][:RATE])
    times = []
    for wave in waves:
        started = time.perf_counter()
        vocoder(wave)
        times.append((time.perf_counter() - started) / (len(wave) / RATE))
    answer.send(
        (statistics.median(times), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    )


def of_fresh_process(name: str, waves: list[np.ndarray]) -> tuple[float, float] | str:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=bare, args=(name, waves, theirs))
    process.start()
    answer = ours.recv()
    process.join()
    return answer


def by_hand(names: tuple[str, ...], waves: list[np.ndarray], folder: Path) -> float:
    """Return the seconds of a loop that only reads, copies, and writes."""
    vocoders = [make_vocoder(name) for name in names]
    started = time.perf_counter()
    for vocoder in vocoders:
        for number in range(len(waves)):
            write_audio(
                folder / f"{number}.flac",
                vocoder(read_audio(folder / "speech" / f"source{number}.flac")),
            )
    return time.perf_counter() - started


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("speech", nargs="?", type=Path, help="folder of .flac files")
    parser.add_argument("--quick", action="store_true", help="the smallest size, for a test")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    waves = speech(options.speech)
    repeats = REPEATS
    if options.quick:
        waves = [wave[: RATE // 2] for wave in waves[:2]]
        repeats = 1
    header(f"vocoders: {len(waves)} utterances of {SECONDS} s; median of utterances, one thread")
    for name in ALWAYS[:1] if options.quick else VOCODERS:
        few = [waves[0][: 2 * RATE]] if name == "cargan" else waves
        found = "" if VOCODERS.get(name).needs_weights else of_fresh_process(name, few)
        if isinstance(found, str):
            print(f"  {name:16} not measured: {found or 'needs weights'}")
        else:
            print(
                f"  {name:16} {1 / found[0]:8.1f} x real time a core, {found[1]:6.0f} MB a worker"
            )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for number, wave in enumerate(waves):
            (folder / "speech").mkdir(exist_ok=True)
            soundfile.write(folder / "speech" / f"source{number}.flac", wave, RATE)
        size = (
            sum(path.stat().st_size for path in (folder / "speech").glob("*.flac"))
            / len(waves)
            / SECONDS
        )
        names = [f"source{number}" for number in range(len(waves))]
        paths = [f"speech/{name}.flac" for name in names]
        Table.build({"utterance": names, "path": paths, "speaker": names}).save(
            folder / "utterances.tsv"
        )
        table = load_utterances(folder / "utterances.tsv")
        times: dict[str, list[float]] = {"loop": [], "1 process": [], "2 processes": []}
        makers = Makers(ALWAYS)
        for repeat in range(repeats):
            times["loop"].append(by_hand(ALWAYS, waves, folder))
            for workers in (1, 2):
                out = folder / f"{repeat}-{workers}"
                plan = plan_units(table, ALWAYS, out)
                started = time.perf_counter()
                run(plan, makers, out / "parts-bench", workers=workers)
                times["1 process" if workers == 1 else "2 processes"].append(
                    time.perf_counter() - started
                )
        loop, one, two = (statistics.median(times[name]) for name in times)
        copies = len(ALWAYS) * len(waves)
        made = sum(path.stat().st_size for path in (folder / "0-1").rglob("*.flac"))
    print(f"  bare loop: read, copy, write, {copies} copies   {loop:6.2f} s (baseline)")
    print(
        f"  runner, 1 process                  {one:6.2f} s, {100 * (one / loop - 1):+.1f} % of "
        "the bare loop"
    )
    print(
        f"  runner, 2 processes                {two:6.2f} s, {one / two:.2f} x, the start of both "
        "included"
    )
    per_second = made / (copies * SECONDS)
    print(f"  FLAC: copies {per_second:,.0f} bytes a second of speech, originals {size:,.0f}")
    hours = VOXCELEB2_HOURS * one / (copies * SECONDS)
    print(
        f"  VoxCeleb2 ({VOXCELEB2_FILES:,} files, {VOXCELEB2_HOURS:,} h), one of these three "
        "vocoders each: "
        f"{hours:,.0f} core-hours and {VOXCELEB2_HOURS * 3600 * per_second / 1e12:.2f} TB"
    )


if __name__ == "__main__":
    main()
