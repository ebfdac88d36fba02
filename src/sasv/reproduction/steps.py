"""Steps with a memory: each keeps in its folder what it depended on (options, inputs, version of the code)."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sasv.core.errors import SasvError
from sasv.core.files import read_bytes, sha256_of, write_json
from sasv.core.progress import duration, say

RECORD = "step.json"


@dataclass
class Step:
    """A piece of work with a folder of its own.

    Attributes:
        name: short, for the plan.
        command: what a person would type to do the same.
        run: does it.
        folder: where its outputs lie; emptied before the step is done again.
        outputs: files in the folder that are there when it is done.
        options: what it depends on besides its inputs.
        inputs: files it reads.
        hours: how long it takes, estimated.
        gigabytes: how much disk it takes, estimated.
    """

    name: str
    command: str
    run: Callable[[], Any]
    folder: Path
    outputs: Sequence[str]
    options: dict[str, Any] = field(default_factory=dict)
    inputs: Sequence[Path] = ()
    hours: float = 0.0
    gigabytes: float = 0.0

    @property
    def files(self) -> list[Path]:
        """Paths of the outputs."""
        return [self.folder / name for name in self.outputs]

    def facts(self) -> dict[str, Any]:
        """Return what the step depends on now."""
        from sasv.core.version import __version__

        digests = {str(path): sha256_of(path) if path.is_file() else None for path in self.inputs}
        return {"options": json.loads(json.dumps(self.options)), "inputs": digests, "sasv": __version__}

    def state(self) -> tuple[str, str]:
        """Return what is to be done and why: done, new, resume or redo."""
        path = self.folder / RECORD
        if not path.is_file():
            return "new", "not begun"
        try:
            kept = json.loads(read_bytes(path))
            changes = differences(kept["facts"], self.facts())
        except (ValueError, KeyError) as error:
            raise SasvError(f"{path}: broken ({error}); remove {self.folder} to begin this step anew") from error
        if changes:
            return "redo", "; ".join(changes)
        if not kept["done"]:
            return "resume", "interrupted"
        missing = [file.name for file in self.files if not file.is_file()]
        return ("resume", f"{', '.join(missing)} is gone") if missing else ("done", "done already")


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return in words how what a step depends on has changed."""
    found = []
    for name in dict.fromkeys((*old["options"], *new["options"])):
        before, now = old["options"].get(name), new["options"].get(name)
        if before != now:
            found.append(f"{name} was {before!r}, now {now!r}")
    for name in dict.fromkeys((*old["inputs"], *new["inputs"])):
        if old["inputs"].get(name) != new["inputs"].get(name):
            found.append(f"{name} changed" if name in old["inputs"] and name in new["inputs"] else f"input {name}")
    if old["sasv"] != new["sasv"]:
        found.append(f"sasv was {old['sasv']}, now {new['sasv']}")
    return found


def carry_out(steps: Sequence[Step]) -> None:
    """Do the steps in order, each only where it has to be; say why where one is done again.

    Raises:
        SasvError: of the step that failed; the same call goes on there.
    """
    for number, step in enumerate(steps, 1):
        action, why = step.state()
        head = f"[{number}/{len(steps)}] {step.name}"
        if action == "done":
            say(f"{head}: done already")
            continue
        say(f"\n{head}: {why}, {'again from its beginning' if action == 'redo' else 'going on'}" if action != "new"
            else f"\n{head}")  # fmt: skip
        say(f"  {step.command}")
        if action == "redo":
            shutil.rmtree(step.folder)
        facts = step.facts()
        step.folder.mkdir(parents=True, exist_ok=True)
        write_json(step.folder / RECORD, {"facts": facts, "done": False})
        step.run()
        missing = [str(file) for file in step.files if not file.is_file()]
        if missing:
            raise SasvError(f"{step.name}: did not leave {', '.join(missing)}; {step.command}")
        write_json(step.folder / RECORD, {"facts": facts, "done": True})


def plan_lines(steps: Sequence[Step]) -> list[str]:
    """Return the plan: what each step would do and why, its estimated time and disk, its command, and the sums."""
    waiting: set[Path] = set()
    lines = []
    hours = gigabytes = 0.0
    for number, step in enumerate(steps, 1):
        action, why = step.state()
        if action in ("done", "redo") and waiting.intersection(step.inputs):
            action, why = "after", "done again where the steps before it change what it reads"
        if action != "done":
            waiting.update(step.files)
            hours, gigabytes = hours + step.hours, gigabytes + step.gigabytes
        cost = f"about {duration(3600 * step.hours)}, {step.gigabytes:.2f} GB" if action != "done" else "nothing to do"
        lines += [f"[{number}/{len(steps)}] {step.name}: {why}; {cost}", f"  {step.command}"]
    lines.append(f"in all about {duration(3600 * hours)} and {gigabytes:.2f} GB, estimated")
    return lines
