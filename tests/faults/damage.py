"""Seeded damage to the bits, fields, lengths, and table cells of files.

The same seed and number always give the same bytes.
"""

import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Damage = Callable[[bytearray, np.random.Generator], bytes]

EXTREMES = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFF000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
)
HEADER_BYTES = 96
"""Number of bytes at the start of a file that count as its header."""


def flip_bits(data: bytearray, rng: np.random.Generator) -> bytes:
    """Flip 1 to 20 bits anywhere."""
    for at in rng.integers(len(data), size=rng.integers(1, 21)):
        data[at] ^= 1 << int(rng.integers(8))
    return bytes(data)


def flip_header_bits(data: bytearray, rng: np.random.Generator) -> bytes:
    """Flip 1 to 8 bits of the header."""
    for at in rng.integers(min(len(data), HEADER_BYTES), size=rng.integers(1, 9)):
        data[at] ^= 1 << int(rng.integers(8))
    return bytes(data)


def extreme_field(data: bytearray, rng: np.random.Generator) -> bytes:
    """Set 1 to 3 fields of the header, of 1, 2, 4 or 8 bytes in either byte order, to an extreme
    number.
    """
    for _ in range(rng.integers(1, 4)):
        size = int(rng.choice([1, 2, 4, 8]))
        last = min(len(data), HEADER_BYTES) - size
        if last < 1:
            continue
        at = int(rng.integers(last))
        value = int(rng.choice(EXTREMES)) & (256**size - 1)
        data[at : at + size] = value.to_bytes(size, "little" if rng.integers(2) else "big")
    return bytes(data)


def random_bytes(data: bytearray, rng: np.random.Generator) -> bytes:
    """Replace a range of bytes with random bytes."""
    at = int(rng.integers(len(data)))
    count = int(min(len(data) - at, 1 << rng.integers(1, 14)))
    data[at : at + count] = rng.bytes(count)
    return bytes(data)


def zero_run(data: bytearray, rng: np.random.Generator) -> bytes:
    """Replace a range of bytes with zeros, like a disk that lost pages."""
    at = int(rng.integers(len(data)))
    count = int(min(len(data) - at, 1 << rng.integers(3, 15)))
    data[at : at + count] = bytes(count)
    return bytes(data)


def truncate(data: bytearray, rng: np.random.Generator) -> bytes:
    """Cut off the end of the file, in half of the cases near the header."""
    most = len(data) if rng.integers(2) else min(len(data), 2 * HEADER_BYTES)
    return bytes(data[: int(rng.integers(most))])


def splice(data: bytearray, rng: np.random.Generator) -> bytes:
    """Copy a range of bytes to another place, or remove it."""
    start, stop = sorted(int(at) for at in rng.integers(len(data), size=2))
    if rng.integers(2):
        return bytes(data[:start] + data[stop:])
    at = int(rng.integers(len(data)))
    return bytes(data[:at] + data[start:stop] + data[at:])


def append_junk(data: bytearray, rng: np.random.Generator) -> bytes:
    """Append random bytes, zeros, or another copy of the file."""
    tail = (rng.bytes(int(rng.integers(1, 5000))), bytes(int(rng.integers(1, 5000))), bytes(data))
    return bytes(data) + tail[int(rng.integers(3))]


BYTES: dict[str, Damage] = {
    "bits flipped": flip_bits,
    "bits of the header flipped": flip_header_bits,
    "field of the header extreme": extreme_field,
    "random stretch": random_bytes,
    "run of zeros": zero_run,
    "truncated": truncate,
    "spliced": splice,
    "junk appended": append_junk,
}
"""Kinds of damage that apply to any file."""


def damaged(kind: str, data: bytes, rng: np.random.Generator) -> bytes:
    """Return the damaged bytes. ``kind`` is a key of BYTES, or empty to leave them unchanged."""
    return BYTES[kind](bytearray(data), rng) if kind else data


def values() -> list[Any]:
    """Return values of every JSON type, including extreme ones."""
    deep: Any = 0
    for _ in range(200):
        deep = [deep]
    numbers = [
        0,
        -1,
        1,
        2,
        3,
        7,
        10**6,
        10**9,
        2**31,
        2**63,
        10**30,
        -(10**9),
        0.5,
        -0.0,
        1e-308,
        1e308,
        float("nan"),
    ]
    texts = [
        "",
        "x",
        "0",
        "\0",
        "cosine",
        "../x",
        "a\nb",
        "ä" * 1000,
        "ecapa-tdnn",
        "mfa-conformer",
        "log-mel",
    ]
    return [
        None,
        True,
        False,
        *numbers,
        float("inf"),
        *texts,
        [],
        [1],
        ["x"],
        [None] * 1000,
        {},
        {"x": 1},
        {"": {}},
        {"threshold": 1e308},
        deep,
    ]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every field in a JSON value, including fields of mappings and lists."""
    found = [path] if path else []
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, part in inner:
        found += places(part, (*path, key))
    return found


def change_field(value: Any, rng: np.random.Generator) -> Any:
    """Replace, remove or add one field of a JSON value, at any depth."""
    value = json.loads(json.dumps(value))
    path = places(value)[int(rng.integers(len(places(value))))]
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    choice = int(rng.integers(10))
    pool = values()
    if choice == 0:
        del holder[path[-1]]
    elif choice == 1 and isinstance(holder, dict):
        holder[f"{path[-1]}_"] = holder[path[-1]]
    else:
        holder[path[-1]] = pool[int(rng.integers(len(pool)))]
    return value


def with_field(value: Any, path: Sequence[Any], replacement: Any) -> Any:
    """Return a copy of a JSON value with the field at a path (see ``places``) replaced."""
    value = json.loads(json.dumps(value))
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = replacement
    return value


def specification_of(data: bytes) -> Any:
    """Return the specification in a safetensors file of sasv as a JSON value."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["sasv"])


def with_specification(data: bytes, change: Callable[[Any], Any]) -> bytes:
    """Return a safetensors file of sasv with a changed specification."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"]["sasv"] = json.dumps(change(json.loads(header["__metadata__"]["sasv"])))
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def with_header(data: bytes, change: Callable[[Any], Any]) -> bytes:
    """Return a safetensors file with a changed header (types, shapes, offsets)."""
    (length,) = struct.unpack("<Q", data[:8])
    text = json.dumps(change(json.loads(data[8 : 8 + length]))).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


CELLS = (
    *(
        "",
        " ",
        "-",
        "0",
        "-1",
        "1e400",
        "-1e400",
        "nan",
        "inf",
        "1e308",
        "1e-320",
        "0x10",
        "1_000",
        "٣",
        "1,5",
        "True",
    ),
    *(
        "target",
        "bonafide",
        "spoof",
        "Spoof ",
        "nontarget",
        "../../etc/passwd",
        "/",
        "~",
        "$$",
        "$x_{$",
        "=1+1",
        "%s",
    ),
    *(
        "\0",
        "a\0b",
        "\x1b[31m",
        "\u202e",
        "\ufeff",
        "\ud7ff",
        "𝔘",
        "<script>",
        "|",
        "`",
        '"',
        '""',
        '"a',
        "'",
        "\\",
    ),
    *(
        "a b",
        "a\tb",
        "a,b",
        "a;b",
        "a\rb",
        "a\nb",
        "a" * 300,
        "a" * 100_000,
        "9" * 400,
        ".",
        "..",
        "#",
        "s0",
        "s1-0",
    ),
)
"""Values that replace the cells of a table."""


def damaged_table(kind: str, text: str, separator: str, rng: np.random.Generator) -> bytes:
    """Return the bytes of a damaged table. ``kind`` is a key of TABLE_DAMAGE."""
    return TABLE_DAMAGE[kind]([line.split(separator) for line in text.splitlines()], separator, rng)


Rows = list[list[str]]


def _text(rows: Rows, separator: str, end: str = "\n") -> bytes:
    return "".join(separator.join(row) + end for row in rows).encode("utf-8", "surrogatepass")


def _cells(rows: Rows, separator: str, rng: np.random.Generator) -> bytes:
    for _ in range(rng.integers(1, 4)):
        row = rows[int(rng.integers(len(rows)))]
        row[int(rng.integers(len(row)))] = CELLS[int(rng.integers(len(CELLS)))]
    return _text(rows, separator)


def _column(rows: Rows, separator: str, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(rows[0])))
    cell = CELLS[int(rng.integers(len(CELLS)))]
    for row in rows[1:]:
        row[at] = cell
    return _text(rows, separator)


def _header(rows: Rows, separator: str, rng: np.random.Generator) -> bytes:
    header = rows[0]
    at = int(rng.integers(len(header)))
    choice = int(rng.integers(5))
    if choice == 0:
        header[at] = header[int(rng.integers(len(header)))]
    elif choice == 1:
        rows.pop(0)
    elif choice == 2:
        header[at] = CELLS[int(rng.integers(len(CELLS)))]
    elif choice == 3:
        header[at] = header[at].upper()
    else:
        rows.insert(int(rng.integers(len(rows))), list(header))
    return _text(rows, separator)


def _columns(rows: Rows, separator: str, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(rows[0])))
    choice = int(rng.integers(3))
    for row in rows if choice < 2 else [rows[int(rng.integers(len(rows)))]]:
        if choice == 1:
            row.insert(at, "x")
        else:
            row.pop(at)
    return _text(rows, separator)


def _rows(rows: Rows, separator: str, rng: np.random.Generator) -> bytes:
    choice = int(rng.integers(4))
    if choice == 0:
        rows = rows[:1]
    elif choice == 1:
        rows = rows[: int(rng.integers(len(rows)))]
    elif choice == 2:
        rows = rows + rows[1:]
    else:
        rows = [rows[0], *(rows[1 + int(at)] for at in rng.permutation(len(rows) - 1))]
    return _text(rows, separator)


def _ends(rows: Rows, separator: str, rng: np.random.Generator) -> bytes:
    ends = ("\r", "\r\n", "\n\n", "\x0b", "\u2028", "\n\r", "\0")
    return _text(rows, separator, ends[int(rng.integers(len(ends)))])


def _delimiter(rows: Rows, separator: str, rng: np.random.Generator) -> bytes:
    others = (",", ";", " ", "  ", "|", "\t\t", ":", "\0")
    return _text(rows, others[int(rng.integers(len(others)))])


def _encoding(rows: Rows, separator: str, rng: np.random.Generator) -> bytes:
    text = _text(rows, separator).decode().replace("s", "ß")
    encodings = ("utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig", "utf-7", "cp037")
    return text.encode(encodings[int(rng.integers(len(encodings)))], "replace")


def _quotes(rows: Rows, separator: str, rng: np.random.Generator) -> bytes:
    quote = ('"', "'", '""')[int(rng.integers(3))]
    quoted = [[f"{quote}{cell}{quote}" for cell in row] for row in rows]
    data = _text(quoted, separator)
    return data if rng.integers(2) else data.replace(quote.encode(), b"", 1)


def _bytes(rows: Rows, separator: str, rng: np.random.Generator) -> bytes:
    damages = list(BYTES.values())
    return damages[int(rng.integers(len(damages)))](bytearray(_text(rows, separator)), rng)


TABLE_DAMAGE: dict[str, Callable[[Rows, str, np.random.Generator], bytes]] = {
    "cells extreme": _cells,
    "column extreme": _column,
    "header": _header,
    "columns added or removed": _columns,
    "rows": _rows,
    "line ends": _ends,
    "delimiter": _delimiter,
    "encoding": _encoding,
    "quotes": _quotes,
    "bytes": _bytes,
}
