"""Any encoder or causal language model as a frozen backbone: pooled hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.models.cache import ActivationCache
from fedpref.models.precision import DeviceName, Kept, Precision, require_device
from fedpref.models.text import NUM_LENGTH_FEATURES, join, length_features, require_text, scaled
from fedpref.models.transformer import Checkpoint, encode, load_model

if TYPE_CHECKING:
    import torch

__all__ = ["HuggingFace", "Pooling"]

Pooling = Literal["mean", "last", "cls"]
"""Mean over tokens, the last token (causal models), or the first (BERT's classification token)."""


@dataclass(frozen=True)
class HuggingFace:
    """Hidden states of some layers, pooled over the tokens of prompt and response, side by side.

    Each text runs alone, without padding: its features depend on nothing else in the call, so every
    process that computes them gets the same bits. They are kept on disk.

    Attributes:
        model: hub id, or a local folder.
        revision: commit of a hub id; none for a folder.
        max_tokens: longer texts lose their end.
        pooling: "mean", "last" or "cls".
        layers: which hidden states: 0 is the embedding, 1 the first layer, -1 the last.
        length: append two features of the response's length.
        folder: a verified local copy of the hub's files, else None.
        precision: "float32", or "bfloat16" for the layers' matrix products.
        device: "cpu", or "cuda" for the first GPU that the process sees.
        activations: "float32", or "float16" to keep hidden states for training in half the room.

    Raises:
        ConfigurationError: an unknown pooling, no layers, or what ``Checkpoint`` refuses.
    """

    model: str
    revision: str | None = None
    max_tokens: int = 512
    pooling: Pooling = "mean"
    layers: tuple[int, ...] = (-1,)
    length: bool = True
    folder: str | None = None
    precision: Precision = "float32"
    device: DeviceName = "cpu"
    activations: Kept = "float32"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))  # a list, when it comes from YAML
        if self.pooling not in get_args(Pooling):
            raise ConfigurationError(
                f"backbone.pooling: '{self.pooling}' is unknown; use one of {', '.join(get_args(Pooling))}"
            )
        if not self.layers:
            raise ConfigurationError("backbone.layers: [] must name at least one layer, such as [-1]")
        self.checkpoint  # noqa: B018 - refuses a bad model now, not in the first round

    @property
    def checkpoint(self) -> Checkpoint:
        """The transformer, for rules that train inside it."""
        return Checkpoint(
            self.model,
            self.revision,
            self.max_tokens,
            self.folder,
            self.precision,
            self.device,
            self.activations,
        )

    @property
    def dim(self) -> int:
        """Length of a feature vector; loads the model."""
        hidden = int(_frozen(self.checkpoint).config.hidden_size)
        return hidden * len(self.layers) + NUM_LENGTH_FEATURES * self.length

    @property
    def fingerprint(self) -> str:
        """Identity of the function."""
        layers = "+".join(map(str, self.layers))
        return f"hf-{self.checkpoint.fingerprint}-{self.pooling}-{layers}-{int(self.length)}"

    def check_device(self) -> None:
        """Raise ConfigurationError if this process has no such device."""
        require_device(self.device)

    def features(self, prompts: Sequence[str], responses: Sequence[str] | np.ndarray) -> np.ndarray:
        """Features of (prompt, response), shape (num_responses, dim), float32.

        Raises:
            ConfigurationError: the responses are feature vectors.
        """
        texts = require_text("hf", responses)
        if not texts:
            return np.empty((0, self.dim), np.float32)
        joined = [join(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
        pooled = ActivationCache(f"pooled-{self.fingerprint}").recall(joined, self._pool)
        parts = [np.stack([pooled[text] for text in joined])]
        if self.length:
            parts.append(np.stack([length_features(text) for text in texts]))
        return np.concatenate(parts, axis=1)

    def _pool(self, text: str) -> np.ndarray:
        import torch

        model = _frozen(self.checkpoint)
        ids = torch.from_numpy(encode(self.checkpoint, text))[None].to(model.device)
        with torch.no_grad():
            states = model(
                input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True
            ).hidden_states
        if not all(-len(states) <= layer < len(states) for layer in self.layers):
            raise ConfigurationError(
                f"backbone.layers: {list(self.layers)} is out of range: the model has {len(states) - 1}"
            )
        # Layers differ in size by far; at equal norm each has its say.
        parts = [scaled(_pooled(states[layer][0], self.pooling).cpu().numpy()) for layer in self.layers]
        return scaled(np.concatenate(parts))


def _pooled(states: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    if pooling == "mean":
        return states.mean(dim=0)
    return states[-1 if pooling == "last" else 0]


@lru_cache(maxsize=2)
def _frozen(checkpoint: Checkpoint) -> Any:
    return load_model(checkpoint)
