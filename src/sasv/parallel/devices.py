"""The device on which networks are computed, and the precision of its arithmetic."""

import contextlib
import os
from collections.abc import Iterator
from typing import Literal

import torch

from sasv.core.errors import SasvError
from sasv.parallel.environment import launcher

Precision = Literal["float32", "bfloat16"]
"""Arithmetic of an encoder: exact, or products and convolutions in bfloat16 (autocast)."""

BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")
"""Names under which PyTorch lists the instructions for bfloat16 of a processor."""


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """Return the device with the given name.

    Raises:
        SasvError: the name is not that of a device, sasv does not support the device, or this
            machine does not have it.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        wanted = torch.device(device)
    except (RuntimeError, ValueError) as error:
        raise SasvError(
            f"device '{device}': there is no device of this name; use cpu, cuda, cuda:0, or auto"
        ) from error
    if wanted.type not in ("cpu", "cuda", "mps"):
        raise SasvError(
            f"device '{device}': sasv does not support this device; use cpu, cuda, cuda:0, or auto"
        )
    if wanted.type == "mps" and not torch.backends.mps.is_available():
        raise SasvError(f"device {device}: this machine has no usable Apple GPU; use --device cpu")
    if wanted.type != "cuda":
        return wanted
    if not torch.cuda.is_available():
        raise SasvError(f"device {device}: this machine has no usable GPU; use --device cpu")
    index = launcher().local_rank if wanted.index is None else wanted.index
    if index >= torch.cuda.device_count():
        raise SasvError(
            f"device cuda:{index}: this machine has {torch.cuda.device_count()} GPUs, numbered "
            "from cuda:0"
        )
    return torch.device("cuda", index)


def computes_bfloat16(device: torch.device) -> bool:
    """Return whether a device has instructions for bfloat16; without them, it is slower than
    float32. Where this cannot be found out, the answer is yes.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older versions of PyTorch do not list the abilities of a processor.
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        abilities = torch.cpu.get_capabilities()
        return any(abilities.get(name, False) for name in BFLOAT16_INSTRUCTIONS)
    return True


@contextlib.contextmanager
def arithmetic(tf32: bool = False, deterministic: bool = False) -> Iterator[None]:
    """Set the arithmetic of a GPU, and restore the previous settings at the end. A CPU is always
    exact and deterministic.

    PyTorch lets convolutions of float32 tensors round their inputs to TF32 (10 bits of mantissa),
    which changes scores by up to 0.004.

    Args:
        tf32: whether products and convolutions of float32 tensors may use TF32.
        deterministic: use deterministic algorithms only, so that the same run gives bit-identical
            results. An operation without such an algorithm raises RuntimeError.
    """
    matmul = torch.backends.cuda.matmul
    cudnn = torch.backends.cudnn
    before = (
        matmul.allow_tf32,
        cudnn.allow_tf32,
        cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    matmul.allow_tf32 = tf32
    cudnn.allow_tf32 = tf32
    if deterministic:
        # cuBLAS reads this variable when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        cudnn.benchmark = False
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before[:3]
        torch.use_deterministic_algorithms(before[3], warn_only=before[4])
