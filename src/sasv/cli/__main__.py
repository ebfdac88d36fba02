"""``python -m sasv.cli``, the same as ``python -m sasv``."""

import sys

from sasv.cli.program import main

if __name__ == "__main__":
    sys.exit(main())
