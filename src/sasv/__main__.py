"""Entry point of ``python -m sasv``, and of ``torchrun -m sasv`` with several processes."""

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
    except SasvError:  # the command has already reported it
        return False


status = main()
if many():
    # All results are written and the process group is closed. Gloo's threads occasionally abort a
    # process that exits normally ("terminate called without an active exception"), and torchrun
    # would then report the whole job as failed.
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    os._exit(status)
sys.exit(status)
