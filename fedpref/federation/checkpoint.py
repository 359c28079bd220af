"""Checkpoints: an atomic directory of safetensors and JSON with a SHA-256 manifest.

A flipped bit in tensor data loads silently; only the manifest catches it. A checkpoint is written
beside its final name, synced, and renamed, so that a kill at any moment leaves the old one whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedpref.errors import CheckpointError, StorageError

__all__ = ["Checkpoint", "latest", "load", "save"]

PREFIX = "round_"
FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on.

    Attributes:
        round: rounds done.
        tree: plain data, JSON.
        arrays: arrays that the tree names.
        path: directory it came from.
    """

    round: int
    tree: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    path: Path


def save(
    root: Path, round_: int, tree: Mapping[str, Any], arrays: Mapping[str, np.ndarray], keep: int = 2
) -> Path:
    """Write the checkpoint of a round below ``root`` and delete all but the newest ``keep``.

    Raises:
        StorageError: the disk is full or not writable; older checkpoints are untouched.
    """
    from safetensors.numpy import save as to_bytes

    final = root / f"{PREFIX}{round_:05d}"
    temporary = root / f"{final.name}.tmp"
    files = {
        "state.json": (json.dumps(tree, sort_keys=True, allow_nan=False) + "\n").encode(),
        "arrays.safetensors": to_bytes(
            {name: np.asarray(array, order="C") for name, array in arrays.items()}
        ),
    }
    manifest = {
        "format": FORMAT,
        "round": round_,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    files["manifest.json"] = (json.dumps(manifest, sort_keys=True, indent=2) + "\n").encode()
    try:
        root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name, content in files.items():
            with open(temporary / name, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _sync_directory(temporary)
        if final.exists():  # left by a run that was killed after this round and resumed before it
            shutil.rmtree(final)
        temporary.rename(final)
        _sync_directory(root)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StorageError(
            f"cannot write the checkpoint of round {round_} to {final} "
            f"({sum(map(len, files.values()))} bytes): {error.strerror or error}; the older ones are intact"
        ) from error
    for old in list(_rounds(root))[keep:]:
        shutil.rmtree(old)
    return final


def latest(root: Path) -> tuple[Checkpoint, list[str]]:
    """The newest valid checkpoint, and a warning for each newer one that is damaged.

    Raises:
        CheckpointError: there is none, or none is valid.
    """
    warnings: list[str] = []
    for path in _rounds(root):
        try:
            return load(path), warnings
        except CheckpointError as error:
            warnings.append(f"{error}; falling back to an older checkpoint")
    reason = f"no valid checkpoint in {root}"
    raise CheckpointError("; ".join([reason, *warnings]) + "; start the run anew")


def load(path: Path) -> Checkpoint:
    """Read one checkpoint and check every byte against its manifest.

    Raises:
        CheckpointError: a file is missing or differs from the manifest.
    """
    from safetensors.numpy import load as from_bytes

    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        content = {name: (path / name).read_bytes() for name in ("state.json", "arrays.safetensors")}
        for name, data in content.items():
            if hashlib.sha256(data).hexdigest() != manifest["sha256"][name]:
                raise CheckpointError(f"{path / name} is damaged (its SHA-256 differs from the manifest)")
        return Checkpoint(
            round=int(manifest["round"]),
            tree=json.loads(content["state.json"]),
            arrays=from_bytes(content["arrays.safetensors"]),
            path=path,
        )
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error!r:.200}") from error


def _rounds(root: Path) -> Iterator[Path]:
    """Checkpoint directories below ``root``, newest first; half-written ones are not among them."""
    if not root.is_dir():
        return iter(())
    found = [path for path in root.iterdir() if path.name.startswith(PREFIX) and path.suffix != ".tmp"]
    return iter(sorted(found, key=lambda path: (len(path.name), path.name), reverse=True))


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
