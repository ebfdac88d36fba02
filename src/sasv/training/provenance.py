"""Provenance of a run: versions, machine, commit."""

import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("sasv", "torch", "numpy", "soundfile", "soxr", "safetensors")


def environment() -> dict[str, Any]:
    """Return the versions of the packages, a description of the machine, and the git commit of the
    code if there is one.
    """
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "python": platform.python_version(),
        "packages": versions,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "commit": commit(),
    }


@cache  # the code of a process does not change after it was loaded
def commit() -> str | None:
    """Return the git commit of the code, followed by ``+`` if files have been changed; None outside
    a checkout.
    """
    folder = Path(__file__).parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    found = git("rev-parse", "HEAD")
    if (
        found is None or git("ls-files", "--error-unmatch", __file__) is None
    ):  # installed below another checkout
        return None
    return found + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
