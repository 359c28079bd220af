"""Where a result comes from: versions, source commit and machine."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

__all__ = ["machine", "source_commit", "versions"]

_PACKAGES = (
    "fedpref",
    "flwr",
    "numpy",
    "torch",
    "transformers",
    "peft",
    "safetensors",
    "datasets",
    "ray",
    "hydra-core",
)


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that can change a result."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


@cache
def source_commit() -> dict[str, Any] | None:
    """Commit of the checkout that fedpref runs from, and whether it was changed since; None outside one.

    As it was when this process asked first: what it writes into the checkout is no change of its source.
    """
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None
    commit, changes = _git(checkout, "rev-parse", "HEAD"), _git(checkout, "status", "--porcelain")
    if not commit or changes is None:
        return None
    return {"commit": commit, "is_changed": bool(changes)}


def machine() -> dict[str, Any]:
    """The machine, as far as it can change speed or bits; nothing that tells whose it is."""
    return {
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }


def _git(checkout: Path, *arguments: str) -> str | None:
    """Output of a git command; None where git is absent or refuses."""
    command = ["git", "-C", str(checkout), *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
