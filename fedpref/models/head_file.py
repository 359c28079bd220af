"""A head on frozen features as a file that other tools read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from fedpref.models.backbone import Backbone
from fedpref.types import Weights

__all__ = ["write_head"]


def write_head(folder: Path, weights: Weights, backbone: Backbone) -> None:
    """Write ``head.safetensors`` and, in ``fedpref.json``, the identity of the features it is for."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {key: np.ascontiguousarray(array) for key, array in weights.items()}, folder / "head.safetensors"
    )
    facts = {"backbone": backbone.fingerprint, "dim": backbone.dim}
    (folder / "fedpref.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
