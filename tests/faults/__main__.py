"""The long run of all fault trials: ``python -m faults`` (``make faults``).

``tests`` and ``src`` must be on the Python path. The run writes its counts as JSON and as the
Markdown table of docs/results.md. The exit status is 1 if any trial failed.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from faults import files, kills
from faults.running import FAULTS, Figures, Trial, run_trials

COUNTS = {
    "audio": 10_000,
    "checkpoints": 3_000,
    "fields": 10_000,
    "tables": 3_000,
    "kills": 300,
    "full": 60,
}
TITLES = {
    "audio": "damaged audio files",
    "checkpoints": "damaged checkpoints",
    "fields": "checkpoints with one field changed (at most all of them)",
    "tables": "damaged tables and score files",
    "kills": "kills at a change of the file system",
    "full": "disks full at a change of the file system",
}


def main() -> int:
    """Run all trials; return the exit status."""
    parser = argparse.ArgumentParser(prog="faults", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path("build/faults"), help="folder of faults.json and faults.md"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--commands", nargs="*", default=[], help="commands that are interrupted (default all)"
    )
    for name, count in COUNTS.items():
        parser.add_argument(
            f"--{name}", type=int, default=count, help=f"{TITLES[name]} (default {count})"
        )
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    results = run(
        chosen.seed,
        {name: getattr(chosen, name) for name in COUNTS},
        partial(print, flush=True),
        chosen.commands,
    )
    chosen.out.mkdir(parents=True, exist_ok=True)
    values = {name: figures.to_dict() for name, figures in results.items()}
    about = {
        "seed": chosen.seed,
        "minutes": round((time.monotonic() - started) / 60, 1),
        "results": values,
    }
    (chosen.out / "faults.json").write_text(json.dumps(about, indent=1) + "\n")
    (chosen.out / "faults.md").write_text(markdown(results), "utf-8")
    print(markdown(results))
    print(f"{about['minutes']} minutes; {chosen.out}/faults.json names what failed")
    return int(any(figures.failed for figures in results.values()))


def run(
    seed: int, counts: dict[str, int], say: Callable[[str], object], names: Sequence[str] = ()
) -> dict[str, Figures]:
    """Run the requested number of trials of each part.

    Args:
        seed: seed of all random choices.
        counts: part -> number of trials.
        say: called with a message after each part and for each trial that failed.
        names: names of the commands to interrupt; all commands if empty.
    """
    results = {}
    with tempfile.TemporaryDirectory(prefix="sasv-faults-") as folder:
        seeds = files.Seeds(Path(folder))
        stage = kills.Stage(Path(folder), names)
        if any(counts.get(name) for name in ("audio", "checkpoints", "fields", "tables")):
            files.prepare(seeds)
        if counts.get("kills") or counts.get("full"):
            kills.prepare(stage)
        parts: dict[str, Callable[[int], Iterator[Trial]]] = {
            "audio": lambda count: files.audio_trials(count, seed, seeds),
            "checkpoints": lambda count: files.checkpoint_trials(count, seed, seeds),
            "fields": lambda count: files.field_trials(count, seed, seeds),
            "tables": lambda count: files.table_trials(count, seed, seeds),
            "kills": lambda count: kills.kill_trials(count, seed, stage, kills.KILL),
            "full": lambda count: kills.kill_trials(count, seed, stage, kills.FULL),
        }
        for name, make in parts.items():
            if not counts.get(name):
                continue
            seconds = 3 * kills.SECONDS if name in ("kills", "full") else 300.0
            results[name] = run_trials(list(make(counts[name])), seconds, say)
            say(f"{TITLES[name]}: {results[name].tried} tried, {results[name].failed} failed")
    return results


def markdown(results: dict[str, Figures]) -> str:
    """Return the table of docs/results.md: one row for each kind, and the total of each part."""
    lines = [f"| kind | tried | {' | '.join(FAULTS)} |", "|---|---:|" + "---:|" * len(FAULTS)]
    for name, figures in results.items():
        cells = [figures.tried, *(figures.outcomes[fault] for fault in FAULTS)]
        lines.append(f"| **{TITLES[name]}** | {' | '.join(f'{cell:,}' for cell in cells)} |")
        for kind, outcomes in sorted(figures.by_kind.items()):
            cells = [outcomes.total(), *(outcomes[fault] for fault in FAULTS)]
            lines.append(f"| {kind} | {' | '.join(f'{cell:,}' for cell in cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
