"""Start and import times, each a new process."""

import subprocess
import sys
from collections.abc import Sequence

from common import header, is_quick, measure, row


def main(words: Sequence[str] | None = None) -> None:
    repeats = 1 if is_quick(words, __doc__) else 7
    sasv = (sys.executable, "-m", "sasv")
    header("start")

    def run(*command: str) -> float:
        return measure(lambda: subprocess.run(command, check=True, capture_output=True), repeats)

    baseline = run(sys.executable, "-c", "pass")
    row("python -c pass (baseline)", baseline)
    row("sasv --help", run(*sasv, "--help"), baseline)
    row("sasv metrics --help", run(*sasv, "metrics", "--help"), baseline)
    row("import sasv", run(sys.executable, "-c", "import sasv"), baseline)
    row("import torch", run(sys.executable, "-c", "import torch"), baseline)
    row(
        "from sasv import load_model",
        run(sys.executable, "-c", "from sasv import load_model"),
        baseline,
    )


if __name__ == "__main__":
    main()
