"""``python -m sasv``, and ``torchrun -m sasv`` on many processes."""

import os
import sys

from sasv.cli.program import main
from sasv.parallel.environment import launcher

status = main()
if "WORLD_SIZE" in os.environ and launcher().world_size > 1:
    # Everything is written and the group is left. Gloo's threads now and then abort a process that ends by itself
    # ("terminate called without an active exception"), and torchrun would call the whole job failed.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
sys.exit(status)
