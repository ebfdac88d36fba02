"""``python -m sasv``, and ``torchrun -m sasv`` on many processes."""

import sys

from sasv.cli import main

sys.exit(main())
