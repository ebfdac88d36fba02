"""Checks PyTorch archives before they are loaded: their members, and the objects that their pickle
would create.

``torch.load(weights_only=True)`` runs no code, but it decompresses members, ignores checksums, and
lets a pickle of sixty bytes allocate any amount of memory. A file that passes these checks contains
only tensors and plain values, is not larger in memory than on disk, and has correct checksums.
"""

import io
import mmap
import pickletools
import zipfile
from pathlib import Path
from typing import IO, cast

from sasv.core.errors import CheckpointError

ALLOWED = {
    "collections": ("OrderedDict", "defaultdict", "Counter"),
    "_codecs": ("encode",),
    "torch": (
        "Size",
        "device",
        "BoolStorage",
        "ByteStorage",
        "CharStorage",
        "ShortStorage",
        "IntStorage",
    )
    + ("LongStorage", "HalfStorage", "BFloat16Storage", "FloatStorage", "DoubleStorage")
    + (
        "bool",
        "uint8",
        "int8",
        "int16",
        "int32",
        "int64",
        "float16",
        "bfloat16",
        "float32",
        "float64",
    ),
    "torch._utils": ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"),
    "torch.storage": ("UntypedStorage", "TypedStorage", "_LegacyStorage"),
}
"""Module -> names in it that a pickle of weights may refer to."""
REFUSED = ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4", "BYTEARRAY8", "NEXT_BUFFER")
"""Pickle instructions that refer to a class in a way that is not checked here, or that allocate
memory.
"""
LARGEST_PICKLE = 256 * 1024**2
"""Maximum size of a pickle in bytes; it contains names and shapes, but no weights."""
LEGACY_PICKLES = 5
"""Number of successive pickles at the start of a file in the older torch format: magic number,
version, system, state, keys.
"""


def check_archive(path: Path) -> None:
    """Check a torch file: a zip archive, or the older format of successive pickles.

    Raises:
        CheckpointError: the file is damaged, compressed, not a torch file, or has a pickle that
            contains more than weights.
    """
    with open(path, "rb") as stream:
        if stream.read(2) != b"PK":
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as whole:
                for _ in range(LEGACY_PICKLES):
                    if not _check_pickle(path, cast("IO[bytes]", whole)):
                        break
            return
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive)
    except (
        zipfile.BadZipFile,
        OSError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
    ) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{path}: truncated or damaged checkpoint ({reason}); download it again"
        ) from error


def _check_members(path: Path, archive: zipfile.ZipFile) -> None:
    members = archive.infolist()
    names = [member.filename for member in members]
    if any(name.endswith(".npy") for name in names):
        raise CheckpointError(
            f"{path}: a NumPy archive, not a checkpoint; save a state dict of tensors with torch"
        )
    if any(name.endswith("constants.pkl") for name in names):
        raise CheckpointError(
            f"{path}: a TorchScript archive, not a checkpoint; save its model.state_dict() with "
            "torch"
        )
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise CheckpointError(
                f"{path}: refused, because its member {member.filename} is compressed, which torch "
                "never does; save it again with torch"
            )
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise CheckpointError(
            f"{path}: refused, because its members claim more bytes than the file has; download it "
            "again"
        )
    broken = archive.testzip()
    if broken is not None:
        raise CheckpointError(
            f"{path}: damaged: the checksum of its member {broken} is wrong; download it again"
        )
    pickles = [member for member in members if member.filename.endswith(".pkl")]
    if not pickles:
        raise CheckpointError(f"{path}: a zip archive without a torch pickle, so not a checkpoint")
    for member in pickles:
        if member.file_size > LARGEST_PICKLE:
            raise CheckpointError(
                f"{path}: refused, because the pickle {member.filename} is far too large to "
                "contain only names and shapes"
            )
        _check_pickle(path, io.BytesIO(archive.read(member)))


def _check_pickle(path: Path, stream: IO[bytes]) -> bool:
    """Check one pickle and leave the stream at its end. Return False if the pickle is truncated,
    which torch will report.

    The stream is memory or a mapped file, so that a request for more bytes than are left allocates
    nothing.
    """
    try:
        for instruction, argument, _ in pickletools.genops(stream):
            if instruction.name in REFUSED or (
                instruction.name == "GLOBAL" and not _allowed(str(argument))
            ):
                wanted = f": {argument}" if instruction.name == "GLOBAL" else ""
                raise CheckpointError(
                    f"{path}: refused, because the pickle contains more than weights{wanted} and "
                    "could run code or fill the memory; use a plain state dict instead"
                )
    except ValueError:
        return False
    return True


def _allowed(reference: str) -> bool:
    module, _, name = reference.partition(" ")
    return name in ALLOWED.get(module, ())
