"""``python -m sasv``, and ``torchrun -m sasv`` on many processes."""

import contextlib
import os
import sys

from sasv.cli.program import main


def many() -> bool:
    """Whether a launcher started this process together with others."""
    if "WORLD_SIZE" not in os.environ:
        return False
    from sasv.core.errors import SasvError
    from sasv.parallel.environment import launcher

    try:
        return launcher().world_size > 1
    except SasvError:  # said already, by the command
        return False


status = main()
if many():
    # Everything is written and the group is left. Gloo's threads now and then abort a process that
    # ends by itself ("terminate called without an active exception"), and torchrun would call the
    # whole job failed.
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    os._exit(status)
sys.exit(status)
