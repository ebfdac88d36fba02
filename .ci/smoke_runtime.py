"""Smoke test of sasv[runtime]: run with the interpreter of an environment without PyTorch, with an
exported model as argument.

Starts the command line, verifies generated recordings with the exported model, and checks that what
needs PyTorch says so.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from smoke import buzz, run, verified


def main() -> None:
    """Run all checks; an assertion fails where one does not hold."""
    model = str(Path(sys.argv[1]).resolve())
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is not None)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0, "PyTorch is installed"
    with tempfile.TemporaryDirectory() as folder:
        files = [buzz(Path(folder) / f"{pitch}.wav", pitch) for pitch in (100, 101, 220)]
        verdict = verified(*files, "--model", model)
        assert "sasv[torch]" in run("verify", *files, status=2)
    assert "sasv[torch]" in run("train", "--utterances", "u.tsv", "--out", "out", status=2)
    print(f"without PyTorch, verify says {verdict}")


if __name__ == "__main__":
    main()
