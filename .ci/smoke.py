"""Smoke test of an installed sasv: run with the interpreter of a fresh environment, outside the
checkout.

Imports every module but those of the service, starts the command line, and verifies a generated
recording with the model in the package.
"""

import importlib
import pkgutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

import sasv

SERVICE = "sasv.service."
"""Modules that an extra of their own makes importable; all others import without it."""


def buzz(path: Path, pitch: float) -> str:
    """Write two seconds of a buzzing "voice"."""
    time = np.arange(32000) / 16000
    wave = sum(np.sin(2 * np.pi * k * pitch * time) / k for k in range(1, 10))
    noise = np.random.default_rng(0).standard_normal(len(time))
    soundfile.write(path, (0.1 * wave + 0.005 * noise).astype(np.float32), 16000)
    return str(path)


def run(*words: str, status: int = 0) -> str:
    """Run ``python -m sasv``, which must end with the status, and return what it printed."""
    done = subprocess.run([sys.executable, "-m", "sasv", *words], capture_output=True, text=True)
    assert done.returncode == status, (
        f"{words}: status {done.returncode}\n{done.stdout}{done.stderr}"
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def verified(*files: str) -> str:
    """Return the verdict on recordings. A buzz is hardly speech, so "inconclusive" is a right
    one.
    """
    words = [sys.executable, "-m", "sasv", "verify", *files]
    done = subprocess.run(words, capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    verdicts = [
        word for word in ("accept", "reject", "inconclusive") if word in done.stdout + done.stderr
    ]
    assert verdicts, f"status {done.returncode}\n{done.stdout}{done.stderr}"
    assert (done.returncode == 0) == (verdicts[0] != "inconclusive"), done.returncode
    return verdicts[0]


def main() -> None:
    """Run all checks; an assertion fails where one does not hold."""
    found = [module.name for module in pkgutil.walk_packages(sasv.__path__, "sasv.")]
    modules = [name for name in found if name != "sasv.__main__" and not name.startswith(SERVICE)]
    for name in modules:
        importlib.import_module(name)
    assert sasv.__version__ in run("--version")
    assert "verify" in run("--help")
    assert "recordings" in run("verify", "--help")
    with tempfile.TemporaryDirectory() as folder:
        files = [buzz(Path(folder) / f"{pitch}.wav", pitch) for pitch in (100, 101, 220)]
        verdict = verified(*files)
        assert "missing.wav" in run("verify", files[0], str(Path(folder) / "missing.wav"), status=2)
    print(f"sasv {sasv.__version__}: {len(modules)} modules import; verify says {verdict}")


if __name__ == "__main__":
    main()
