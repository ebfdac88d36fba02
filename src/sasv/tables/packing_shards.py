"""Packs a table on many machines, with the same bytes as in one process.

The content of a tar depends on the sizes of the recordings before it. Therefore the sizes are
determined first: from the disk if recordings are packed unchanged, or by encoding them once if they
are packed as FLAC. Then every tar can be written independently, and a finished tar is recorded by a
marker in the folder of the plan.
"""

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from sasv.core.errors import SasvError
from sasv.core.files import locked, read_json, write_json
from sasv.core.progress import Progress
from sasv.parallel.sharding import parse_shard
from sasv.storage.tars import END
from sasv.tables.packing import (
    Audio,
    Packed,
    Recordings,
    Shard,
    Sources,
    Writer,
    entries_of,
    finish,
    is_outdated,
    keep_record,
    member_bytes,
    read_ahead,
    sizes_of,
    sources_of,
    sources_state,
    suffix_in_tar,
    tar_path,
    write_tar,
)
from sasv.tables.table import Table
from sasv.tables.utterances import Utterances

PLAN = "plan.tsv"
MARK = {"members": int, "bytes": int, "sha256": str}

Run = Callable[[Callable[..., None]], None]
"""Runs a function of the table, the options, and the shard ``i/n`` for all shards."""


class Range(NamedTuple):
    """The recordings of a tar: the first one, and their number."""

    first: int
    members: int


def pack_in_shards(
    run: Run,
    count: int,
    utterances: Utterances,
    out: Path,
    shard_bytes: int,
    audio: Audio = "as-is",
    num_workers: int = 4,
    verify: bool = False,
) -> Packed:
    """Pack a table as ``packing.pack`` does, but in shards.

    Args:
        run: runs ``measure_shard`` and ``write_shard`` for all shards, and waits for them.
        count: number of shards.
        utterances: the table.
        out: folder for the tars.
        shard_bytes: largest size of a tar.
        audio: copy recordings unchanged, or convert them to FLAC if that preserves their samples
            exactly.
        num_workers: threads that read.
        verify: read every finished tar again and compare its checksum.

    Raises:
        SasvError: as for ``packing.pack``, or a shard failed.
    """
    sources = sources_of(utterances, out)
    parts = _parts(out)
    with locked(out):
        keep_record(out, utterances, shard_bytes, audio)
        writer = Writer(out, shard_bytes, sources)
        writer.resume()
        if len(writer.members) < len(sources.paths):
            if not (parts / PLAN).exists():
                sizes = sizes_of(utterances.table.name, sources.paths, num_workers)
                members = [(suffix_in_tar(path), size) for path, size in zip(sources.paths, sizes)]
                if audio == "flac":
                    run(measure_shard)
                    members = _measured(parts, count, len(sources.paths))
                _save_plan(parts, plan_tars(sources.keys, members, shard_bytes))
            for number, shard in enumerate(writer.shards):  # of a run in one process
                _mark(parts, number, shard)
            run(write_shard)
            _take_over(writer, parts)
        packed = finish(utterances, out, sources, writer, verify)
        shutil.rmtree(parts, ignore_errors=True)
    return packed


def plan_tars(
    keys: Sequence[str], members: Sequence[tuple[str, int]], shard_bytes: int
) -> list[Range]:
    """Return the recordings of each tar.

    Args:
        keys: keys of the recordings.
        members: suffix and size of each.
        shard_bytes: largest size of a tar.
    """
    plan = []
    first = 0
    size = 0
    for number, (key, (suffix, length)) in enumerate(zip(keys, members)):
        inside = member_bytes(key + suffix, length)
        if number > first and size + inside + len(END) > shard_bytes:
            plan.append(Range(first, number - first))
            first = number
            size = 0
        size += inside
    plan.append(Range(first, len(keys) - first))
    return plan


def measure_shard(
    utterances: Utterances, out: Path, shard_bytes: int, audio: Audio, num_workers: int, shard: str
) -> None:
    """Encode every n-th block of the recordings, and keep only their sizes."""
    index, count = parse_shard(shard)
    kept = _sizes(_parts(out), index, count)
    if kept.exists():
        return
    paths = sources_of(utterances, out).paths
    start, stop = _block(len(paths), index, count)
    with (
        ThreadPoolExecutor(max(1, num_workers)) as pool,
        Progress("measure", stop - start) as progress,
    ):
        sizes: list[list[str | int]] = []
        for suffix, data in read_ahead(pool, paths[start:stop], audio, num_workers):
            sizes.append([suffix, len(data)])
            progress.add()
    write_json(kept, {"sizes": sizes})


def write_shard(
    utterances: Utterances, out: Path, shard_bytes: int, audio: Audio, num_workers: int, shard: str
) -> None:
    """Write every n-th tar of the plan, except for existing ones.

    Raises:
        SasvError: a recording has changed since its size was determined.
    """
    index, count = parse_shard(shard)
    parts = _parts(out)
    plan = _load_plan(parts)
    sources = sources_of(utterances, out)
    mine = range(index, len(plan), count)
    todo = [number for number in mine if not _is_there(out, parts, number, plan[number], sources)]
    with (
        ThreadPoolExecutor(max(1, num_workers)) as pool,
        Progress("pack", sum(plan[number].members for number in todo)) as progress,
    ):
        for number in todo:
            wanted = _slice(sources, plan[number])
            left = Recordings(read_ahead(pool, wanted.paths, audio, num_workers))
            path = tar_path(out, number)
            written, _ = write_tar(path, wanted.keys, left, shard_bytes, progress)
            written = replace(written, sources=sources_state(wanted.paths))
            if left.next is not None:
                raise SasvError(
                    f"{path}: its recordings have changed since the tars were planned; remove "
                    f"{parts} and run the same command again"
                )
            _mark(parts, number, written)


def _block(total: int, index: int, count: int) -> tuple[int, int]:
    """Return the beginning and the end of a block of a shard."""
    return total * index // count, total * (index + 1) // count


def _slice(sources: Sources, of: Range) -> Sources:
    stop = of.first + of.members
    return Sources(sources.paths[of.first : stop], sources.keys[of.first : stop])


def _parts(out: Path) -> Path:
    return out / "parts"


def _sizes(parts: Path, index: int, count: int) -> Path:
    return parts / f"sizes-{index + 1}-of-{count}.json"


def _measured(parts: Path, count: int, total: int) -> list[tuple[str, int]]:
    """Join the sizes that the shards measured."""
    members = []
    for index in range(count):
        kept = read_json(_sizes(parts, index, count), {"sizes": list})
        members += [(str(suffix), int(size)) for suffix, size in kept["sizes"]]
    if len(members) != total:
        raise SasvError(
            f"{parts}: contains the sizes of another table; remove it and run the same command "
            "again"
        )
    return members


def _save_plan(parts: Path, plan: Sequence[Range]) -> None:
    columns = {"first": [of.first for of in plan], "members": [of.members for of in plan]}
    Table.build(columns, str(parts / PLAN)).save(parts / PLAN)


def _load_plan(parts: Path) -> list[Range]:
    table = Table.load(parts / PLAN)
    table.require("first", "members")
    numbers = (table.numbers(name).astype(int).tolist() for name in ("first", "members"))
    return [Range(first, members) for first, members in zip(*numbers)]


def _mark_path(parts: Path, number: int) -> Path:
    return parts / f"shard-{number:06}.json"


def _mark(parts: Path, number: int, shard: Shard) -> None:
    """Record that a tar is complete."""
    about = {
        "members": shard.members,
        "bytes": shard.size,
        "sha256": shard.sha256,
        "sources": shard.sources,
    }
    write_json(_mark_path(parts, number), about)


def _marked(out: Path, parts: Path, number: int) -> Shard | None:
    """Return the shard to which a marker belongs, or None if there is none."""
    path = _mark_path(parts, number)
    if not path.exists():
        return None
    about = read_json(path, MARK)
    return Shard(
        tar_path(out, number).name,
        about["members"],
        about["bytes"],
        about["sha256"],
        about.get("sources", ""),
    )


def _is_there(out: Path, parts: Path, number: int, of: Range, sources: Sources) -> bool:
    shard = _marked(out, parts, number)
    wanted = _slice(sources, of)
    return (
        shard is not None
        and entries_of(out, shard, wanted.keys) is not None
        and not is_outdated(shard, wanted.paths)
    )


def _take_over(writer: Writer, parts: Path) -> None:
    """Add the tars that have a marker."""
    for number, of in enumerate(_load_plan(parts)):
        if number < len(writer.shards):
            continue
        shard = _marked(writer.out, parts, number)
        keys = writer.keys[of.first : of.first + of.members]
        entries = None if shard is None else entries_of(writer.out, shard, keys)
        if shard is None or entries is None:
            raise SasvError(
                f"{tar_path(writer.out, number)}: the tar is incomplete; run the same command again"
            )
        writer.add(shard, entries)
    writer.save()
