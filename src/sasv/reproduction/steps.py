"""Steps that record in their folder what they depended on (options, inputs, version of sasv).

Finished work is never removed. A step whose options or inputs differ from the record is not run
again unless this is requested (``redo``); its old folder is then renamed to ``NAME.old-1`` (or the
next free number). A step is recorded as done only after all outputs are written, and this entry is
removed before the first output may change.
"""

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sasv.core.errors import SasvError, write_reason
from sasv.core.files import digest_of_file, read_json, write_json
from sasv.core.options import split_items
from sasv.core.progress import duration
from sasv.core.version import __version__
from sasv.tables.content import compare, content_of

logger = logging.getLogger("sasv")

RECORD = "step.json"
FORMAT = 2
"""Version of the record format. The first version stored inputs as path -> digest, and folders
among the options.
"""


class State(NamedTuple):
    """The state of a step.

    Attributes:
        action: done, new, resume (started with the same options and inputs), or changed (the folder
            contains the result of another step).
        why: the reason in words.
        notes: differences that do not require running the step again.
    """

    action: Literal["done", "new", "resume", "changed"]
    why: str
    notes: Sequence[str] = ()


@dataclass
class Step:
    """A step of a long job, with a folder of its own.

    Attributes:
        name: short name for the plan.
        command: the equivalent command line.
        run: runs the step.
        folder: folder of its outputs.
        outputs: files that exist in the folder when the step is done.
        options: values on which the step depends besides its inputs.
        inputs: role -> file or folder that it reads. The role of an input that an option names is
            the name of the option, or ``OPTION.KEY`` if the option is a mapping.
        hours: estimated duration in hours.
        gigabytes: estimated disk space in gigabytes.
        defaults: default values of options, for comparison with records of other versions that have
            more or fewer options.
        renamed: old name -> current name of options.
        beside: other folders into which only this step writes; they are moved aside together with
            its own.
    """

    name: str
    command: str
    run: Callable[[], Any]
    folder: Path
    outputs: Sequence[str]
    options: dict[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Path] = field(default_factory=dict)
    hours: float = 0.0
    gigabytes: float = 0.0
    defaults: Mapping[str, Any] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    beside: Sequence[Path] = ()

    @property
    def files(self) -> list[Path]:
        """Paths of the outputs."""
        return [_plain(self.folder / name) for name in self.outputs]

    def facts(self) -> dict[str, Any]:
        """Return the values and inputs on which the step depends now."""
        inputs = {role: content_of(path) for role, path in self.inputs.items()}
        return {
            "options": json.loads(json.dumps(self.options)),
            "inputs": inputs,
            "sasv": __version__,
        }

    def state(self, waiting: frozenset[Path] = frozenset()) -> State:
        """Return what has to be done, and why.

        Args:
            waiting: files that an earlier step still has to write; inputs among them are not
                compared.
        """
        try:
            kept = self._record()
        except SasvError as error:
            return State("changed", str(error))
        if kept is None:
            taken = [str(folder) for folder in (self.folder, *self.beside) if _holds_files(folder)]
            if not taken:
                return State("new", "not begun")
            return State(
                "changed", f"{' and '.join(taken)}: files, but no {RECORD} that says what made them"
            )
        changes, notes = self._differences(kept, waiting)
        if changes:
            return State("changed", "; ".join(changes), notes)
        if not kept["done"]:
            return State("resume", "interrupted", notes)
        missing = [file.name for file in self.files if not file.is_file()]
        if missing:
            return State("resume", f"{', '.join(missing)} is gone", notes)
        return State("done", "done already", notes)

    def mark(self, facts: dict[str, Any], done: bool) -> None:
        """Write the record."""
        write_json(self.folder / RECORD, {"format": FORMAT, "facts": facts, "done": done})

    def move_aside(self) -> list[Path]:
        """Rename the folders of the step to ``NAME.old-N``; return the new names.

        The folder with the record is renamed last, so that after an interruption the record still
        shows that the step has changed or is not done.
        """
        moved = []
        folders = [folder for folder in (*self.beside, self.folder) if os.path.lexists(folder)]
        number = 1
        while any(os.path.lexists(_aside(folder, number)) for folder in folders):
            number += 1
        try:
            kept = self._record()
        except SasvError:
            kept = None
        if kept is not None and kept["done"] and len(folders) > 1:
            write_json(self.folder / RECORD, kept | {"done": False})
        for folder in folders:
            try:
                folder.rename(_aside(folder, number))
            except OSError as error:
                raise SasvError(
                    f"{folder}: cannot be renamed: {write_reason(error)}; nothing was removed"
                ) from error
            moved.append(_aside(folder, number))
        return moved

    def _record(self) -> dict[str, Any] | None:
        """Return the record, or None if there is none. Raises SasvError if it is damaged."""
        path = self.folder / RECORD
        if not path.is_file():
            return None
        kept: dict[str, Any] = read_json(path, {"facts": dict, "done": bool})
        if not all(isinstance(kept["facts"].get(key), dict) for key in ("options", "inputs")):
            raise SasvError(f"{path}: this is not the record of a step, or it is damaged")
        return kept

    def _differences(
        self, kept: Mapping[str, Any], waiting: frozenset[Path]
    ) -> tuple[list[str], list[str]]:
        """Return, in words, the changes since the record, and the differences that do not require
        running the step again.
        """
        facts = kept["facts"]
        options = {self.renamed.get(name, name): value for name, value in facts["options"].items()}
        before: Mapping[str, Any] = (
            facts["inputs"]
            if kept.get("format") == FORMAT
            else _old_inputs(facts["inputs"], options, self.inputs)
        )
        changes: list[str] = []
        notes: list[str] = []
        for role, path in self.inputs.items():
            if _plain(path) in waiting:
                continue
            content = before.get(role)
            if content is None or not _is_content(content):
                changes.append(f"{role} was none, now {path}")
                continue
            found = compare(content, path)
            if found == "changed":
                was = (
                    f" (was {content['path']})" if content["path"] != os.path.abspath(path) else ""
                )
                changes.append(f"{role}: {path} {'changed' if path.exists() else 'is gone'}{was}")
            elif found == "unknown":
                notes.append(
                    f"{role} was {content['path']}, which is gone; {path} is taken for the same"
                )
        changes += [
            f"{role} was {_path_of(before[role])}, now none"
            for role in before
            if role not in self.inputs
        ]
        changes += self._option_changes(options, notes)
        if facts.get("sasv") != __version__:
            notes.append(f"made by sasv {facts.get('sasv')}, this is {__version__}")
        return changes, notes

    def _option_changes(self, before: Mapping[str, Any], notes: list[str]) -> list[str]:
        now = json.loads(json.dumps(self.options))
        changes = []
        for name in dict.fromkeys((*before, *now)):
            if name not in now and self.defaults and name not in self.defaults:
                notes.append(f"{name} was {before[name]!r} and is not compared any more")
                continue
            old = before.get(name, self.defaults.get(name))
            new = now.get(name, self.defaults.get(name))
            if isinstance(old, str) and isinstance(new, list):
                old = split_items(old)  # as an earlier version wrote a list
            if old != new:
                changes.append(f"{name} was {old!r}, now {new!r}")
        return changes


def _is_content(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("path"), str)


def _path_of(content: Any) -> str:
    return content["path"] if _is_content(content) else "another"


def _old_inputs(
    digests: Mapping[str, Any], options: dict[str, Any], roles: Mapping[str, Path]
) -> dict[str, dict[str, str]]:
    """Return role -> content for a record of the first format, and remove the inputs from its
    options.

    A file is recognised by its digest, otherwise by the longest common end of its path.
    """
    left = dict(digests)
    found: dict[str, dict[str, str]] = {}
    for role, path in roles.items():
        name, _, key = role.partition(".")
        given = options.get(name)
        if key:
            text = given.pop(key, "") if isinstance(given, dict) else ""
        else:
            text = options.pop(name, "")
        if isinstance(text, str) and text:
            found[role] = {"path": os.path.abspath(text)}
            continue
        digest = digest_of_file(path) if path.is_file() else ""
        same = [old for old in digests if digests[old] == digest]  # one file may have several roles
        old = same[0] if same else max(left, key=lambda old: _equal_end(old, path), default="")
        if old:
            left.pop(old, None)
            found[role] = {"path": os.path.abspath(old), "sha256": str(digests[old])}
    return found | {old: {"path": os.path.abspath(old)} for old in left}


def _equal_end(path: str, other: Path) -> int:
    """Return how many of the last components of two paths are equal."""
    count = 0
    for one, two in zip(reversed(Path(path).parts), reversed(other.parts)):
        if one != two:
            break
        count += 1
    return count


def _plain(path: Path) -> Path:
    return Path(os.path.normpath(path))


def _aside(folder: Path, number: int) -> Path:
    return folder.with_name(f"{folder.name}.old-{number}")


def _holds_files(folder: Path) -> bool:
    """Whether anything but temporary (hidden) files is in a folder."""
    try:
        return any(not entry.name.startswith(".") for entry in folder.iterdir())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise SasvError(f"{folder}: cannot read: {error.strerror or error}") from error


def check_unchanged(steps: Sequence[Step], redo: bool = False) -> None:
    """Check before the first step, as far as possible, that no step has changed.

    Args:
        steps: the steps, each after those whose outputs it reads.
        redo: whether the folders of changed steps are moved aside, so that these are allowed.

    Raises:
        SasvError: a step has changed; the message names the folders, the differences, and the
            remedy.
    """
    if redo:
        return
    waiting: set[Path] = set()
    found = []
    for step in steps:
        state = step.state(frozenset(waiting))
        if state.action == "changed":
            found.append(refusal(step, state))
        if state.action != "done":
            waiting.update(step.files)
    if found:
        raise SasvError("\n".join(found))


def refusal(step: Step, state: State) -> str:
    """Explain why a changed step is not run again by default, and how to request it."""
    return (
        f"{step.name}: {step.folder} contains other work ({state.why}); nothing was changed. "
        "Choose another --out, or add --redo: the old folder is then kept as "
        f"{_aside(step.folder, 1).name}, or the next free number, and the step is done again"
    )


def carry_out(steps: Sequence[Step], redo: bool = False) -> None:
    """Run the steps in order, except those that are done.

    Args:
        steps: the steps, each after those whose outputs it reads.
        redo: whether to move the folder of a changed step aside and run the step again, instead of
            stopping.

    Raises:
        SasvError: a step failed or has changed. The same call resumes there.
    """
    check_unchanged(steps, redo)
    for number, step in enumerate(steps, 1):
        state = step.state()
        head = f"[{number}/{len(steps)}] {step.name}"
        for note in state.notes:
            logger.info(f"{head}: note: {note}")
        if state.action == "done":
            logger.info(f"{head}: done already")
            continue
        if state.action == "changed":
            if not redo:
                raise SasvError(refusal(step, state))
            kept = " and ".join(map(str, step.move_aside()))
            logger.info(
                f"\n{head}: {state.why}; again from its beginning, what was there is kept in {kept}"
            )
        elif state.action == "resume":
            logger.info(f"\n{head}: {state.why}, going on")
        else:
            logger.info(f"\n{head}")
        logger.info(f"  {step.command}")
        _do(step)


def _do(step: Step) -> None:
    facts = step.facts()
    step.mark(facts, False)
    step.run()
    missing = [str(file) for file in step.files if not file.is_file()]
    if missing:
        raise SasvError(f"{step.name}: did not leave {', '.join(missing)}; {step.command}")
    step.mark(facts, True)


def plan_lines(steps: Sequence[Step]) -> list[str]:
    """Return the lines of the plan: the state of each step, its estimated time and disk space, its
    command, and the totals.
    """
    waiting: set[Path] = set()
    lines = []
    hours = 0.0
    gigabytes = 0.0
    for number, step in enumerate(steps, 1):
        state = step.state(frozenset(waiting))
        why = state.why
        cost = "nothing to do"
        if state.action == "changed":
            why = f"contains other work ({why}): --redo moves it aside and does the step again"
        elif state.action == "done" and waiting.intersection(map(_plain, step.inputs.values())):
            why = "done already, unless the steps before it change its inputs"
        if state.action != "done":
            waiting.update(step.files)
            hours += step.hours
            gigabytes += step.gigabytes
            cost = f"about {duration(3600 * step.hours)}, {step.gigabytes:.2f} GB"
        lines.append(f"[{number}/{len(steps)}] {step.name}: {why}; {cost}")
        lines += [f"  note: {note}" for note in state.notes]
        lines.append(f"  {step.command}")
    lines.append(f"in all about {duration(3600 * hours)} and {gigabytes:.2f} GB, estimated")
    return lines
