"""Memory allocation of large CPU tensors, and peak memory of the process."""

import contextlib
import ctypes

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3


def keep_memory() -> None:
    """Make glibc keep freed memory. Otherwise the pages of large CPU tensors go back to the system
    after every batch.

    This speeds up training and extraction by about a fifth. It does nothing with other C libraries.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        library.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def peak_memory() -> int | None:
    """Return the peak resident memory of this process in bytes, None if the system does not report
    it.
    """
    with contextlib.suppress(OSError), open("/proc/self/status") as lines:
        for line in lines:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None
