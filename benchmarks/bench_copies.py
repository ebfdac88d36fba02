"""Many short copies in shards that are killed and resumed: time, and whether anything was lost.

    python benchmarks/bench_copies.py --out FOLDER [--files 100000] [--shards 8]

Renders short recordings, starts one process for each shard, kills all of them with SIGKILL (once
for each ``--kill-at``), starts them again, and then checks that every copy is in the table once,
that its file has the checksum that the table states, and that a sample of copies equals copies that
are made alone. FOLDER can be given again: finished work is kept.
"""

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from common import header
from sasv.core.files import digest_of_file
from sasv.synthesis.plan import Makers, plan_units
from sasv.synthesis.worker import Task, Worker
from sasv.tables import Table, Utterances, load_utterances

RATE = 16000
SPEAKERS = 500
SAMPLE = 500
"""Number of copies that are made once more, each alone."""


def speech(folder: Path, files: int, seconds: float) -> Path:
    """Write short voiced sounds, all different, and their table; keep existing files."""
    table = folder / "utterances.tsv"
    if table.exists():
        return table
    at = np.arange(int(seconds * RATE)) / RATE
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(RATE + len(at))
    tones = [
        0.05 * sum(np.sin(2 * np.pi * pitch * k * at) / k for k in range(1, 6))
        for pitch in range(90, 240)
    ]
    names = []
    for index in range(files):
        name = f"s{index % SPEAKERS:03}/u{index:06}.wav"
        start = int(rng.integers(RATE))
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        wave = tones[index % len(tones)] + 0.003 * noise[start : start + len(at)]
        soundfile.write(folder / name, wave, RATE)
        names.append(name)
    columns = {
        "utterance": [Path(name).stem for name in names],
        "path": names,
        "speaker": [name.split("/")[0] for name in names],
        "seconds": [f"{seconds:.3f}"] * files,
    }
    Table.build(columns, str(table)).save(table)
    return table


class Shards:
    """Start one process for each shard."""

    def __init__(self, table: Path, out: Path, count: int, vocoder: str):
        command = [sys.executable, "-m", "sasv", "synthesize", str(table), "--out", str(out)]
        command += ["--vocoders", f"[{vocoder}]"]
        self.logs = [out.parent / f"shard-{index + 1}.log" for index in range(count)]
        self.processes = []
        for index, log in enumerate(self.logs):
            with open(log, "ab") as stream:
                self.processes.append(
                    subprocess.Popen(
                        [*command, "--shard", f"{index + 1}/{count}"],
                        stdout=stream,
                        stderr=stream,
                        start_new_session=True,
                    )
                )

    def run(self) -> bool:
        """Whether any of them is still running."""
        return any(process.poll() is None for process in self.processes)

    def kill(self) -> None:
        """Kill all of them at the same time."""
        for process in self.processes:
            os.killpg(process.pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()

    def check(self) -> None:
        """Raise SystemExit if one of them failed."""
        for process, log in zip(self.processes, self.logs):
            if process.wait():
                raise SystemExit(f"{log}: {log.read_text().splitlines()[-1]}")


def copies_made(out: Path) -> int:
    """Return the number of finished copies in the logs of the shards."""
    logs = out.glob("parts-*/*/made.jsonl")
    return sum(line[1:2].isdigit() for log in logs for line in log.open("rb"))


def cpu_seconds() -> float:
    """Return the processor seconds of the child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def faults(table: Path, out: Path, vocoder: str) -> list[str]:
    """Return the faults of the copies."""
    sources = load_utterances(table)
    copies = load_utterances(out / "utterances.tsv", "label=spoof")
    found = []
    if sorted(copies.table.texts("source")) != sorted(sources.ids):
        found.append("the table of the copies does not name each source once")
    digests = copies.table.texts("sha256")
    changed = [
        path for path, digest in zip(copies.paths, digests) if digest_of_file(path) != digest
    ]
    if changed:
        found.append(f"{len(changed)} files have another checksum, the first is {changed[0]}")
    left = list((out / "audio").rglob("*.part*"))
    if left:
        found.append(f"{len(left)} temporary files are left, the first is {left[0]}")
    return found + differing(sources, copies, vocoder)


def differing(sources: Utterances, copies: Utterances, vocoder: str) -> list[str]:
    """Return the differences between a sample of copies and copies that are made alone."""
    step = max(1, len(sources) // SAMPLE)
    digests = dict(zip(copies.table.texts("source"), copies.table.texts("sha256")))
    worker = Worker(Makers([vocoder]))
    with tempfile.TemporaryDirectory() as folder:
        chosen = sources.take(np.arange(0, len(sources), step))
        plan = plan_units(chosen, [vocoder], Path(folder) / "audio")
        others = [
            name
            for name, unit in zip(chosen.ids, plan.units)
            if worker.copy(Task(0, unit, True)).digest != digests.get(name)
        ]
    return [f"{len(others)} of {len(chosen)} differ from copies made alone"] if others else []


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="", help="folder for all files; else a temporary one")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a recording")
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--vocoder", default="source-filter")
    parser.add_argument("--kill-at", type=float, nargs="*", default=[0.3, 0.7], help="shares made")
    parser.add_argument("--quick", action="store_true", help="the smallest size, for a test")
    options = parser.parse_args(words)
    if options.quick:
        options.files, options.shards, options.kill_at = 6, 2, [0.5]
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(options.out or temporary)
        table = speech(root / "speech", options.files, options.seconds)
        out = root / "copies"
        header(
            f"{options.files:,} copies of {options.seconds} s by {options.vocoder}, "
            f"{options.shards} shards (baseline: copies made alone)"
        )
        for share in [*options.kill_at, None]:
            started = time.monotonic()
            before = copies_made(out)
            shards = Shards(table, out, options.shards, options.vocoder)
            while shards.run():
                time.sleep(0.05 if options.quick else 2)
                if share is not None and copies_made(out) >= share * options.files:
                    shards.kill()
                    break
            end = "killed"
            if share is None or not any(process.returncode for process in shards.processes):
                shards.check()
                end = "done"
            print(
                f"  {before:,} copies were there, {copies_made(out):,} when the shards were {end}, "
                f"after {time.monotonic() - started:.0f} s; {cpu_seconds():.0f} CPU seconds so far",
                flush=True,
            )
        found = faults(table, out, options.vocoder)
        print(f"  faults: {'; '.join(found) or 'none'}")
        if found:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
