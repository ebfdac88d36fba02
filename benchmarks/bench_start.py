"""Start and import times, each a new process."""

import subprocess
import sys
from pathlib import Path

from common import header, measure, row

SASV = str(Path(sys.executable).with_name("sasv"))


def main() -> None:
    header("start")
    run = lambda *words: measure(lambda: subprocess.run(words, check=True, capture_output=True), 7)  # noqa: E731
    baseline = run(sys.executable, "-c", "pass")
    row("python -c pass (baseline)", baseline)
    row("sasv --help", run(SASV, "--help"), baseline)
    row("sasv metrics --help", run(SASV, "metrics", "--help"), baseline)
    row("import sasv", run(sys.executable, "-c", "import sasv"), baseline)
    row("import torch", run(sys.executable, "-c", "import torch"), baseline)
    row(
        "from sasv import load_model",
        run(sys.executable, "-c", "from sasv import load_model"),
        baseline,
    )


if __name__ == "__main__":
    main()
