"""Where a transformer comes from, and its tokenizer and weights in this process.

Weights load on first use and are kept once a process. Nothing runs code from a repository, every hub id
is pinned to a revision, and loading leaves torch's global generator as it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.models.precision import (
    DeviceName,
    Kept,
    Precision,
    check_precision,
    multiply_in_bfloat16,
    require_device,
    rounding,
)

__all__ = [
    "Checkpoint",
    "encode",
    "file_sha256",
    "is_causal_lm",
    "load_causal_lm",
    "load_model",
    "load_tokenizer",
    "quiet",
]


@dataclass(frozen=True)
class Checkpoint:
    """A transformer by name, and how it computes.

    Attributes:
        model: hub id, or a local folder.
        revision: commit of a hub id; None for a folder.
        max_tokens: longer texts lose their end.
        folder: a copy of the hub's files on this machine, already verified; else None.
        precision: of the layers' matrix products.
        device: where it lives.
        activations: what the hidden states are kept as that enter the first trainable layer.

    Raises:
        ConfigurationError: a hub id without a revision, a folder that lacks a model, no tokens, or an unknown
            precision, device or kind of activations.
    """

    model: str
    revision: str | None = None
    max_tokens: int = 512
    folder: str | None = None
    precision: Precision = "float32"
    device: DeviceName = "cpu"
    activations: Kept = "float32"

    def __post_init__(self) -> None:
        check_precision(self.precision, self.device, self.activations)
        if self.max_tokens < 1:
            raise ConfigurationError(f"backbone.max_tokens: {self.max_tokens} must be at least 1")
        if Path(self.model).is_dir():
            if not (Path(self.model) / "config.json").is_file():
                raise ConfigurationError(f"backbone.model: the folder {self.model} has no config.json")
        elif self.revision is None:
            raise ConfigurationError(
                f"backbone.model: '{self.model}' is no folder, so it is a hub id, and a hub id needs "
                "backbone.revision, the commit to pin"
            )

    @property
    def source(self) -> str:
        """What to load from: the verified copy if there is one."""
        return self.folder or self.model

    @property
    def fingerprint(self) -> str:
        """Identity of weights, tokenizer and truncation, and of what rounds results differently."""
        pinned = f"{self.model}@{self.revision}" if self.revision else _folder_sha256(self.model)[:16]
        return f"{pinned}-{self.max_tokens}{rounding(self.precision, self.device)}"

    @property
    def exact(self) -> Checkpoint:
        """The same transformer in float32 on a processor: everybody can repeat what it says."""
        return replace(self, precision="float32", device="cpu")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=16)
def _folder_sha256(folder: str) -> str:
    kept = (
        path for path in sorted(Path(folder).iterdir()) if path.suffix in {".json", ".safetensors", ".txt"}
    )
    return hashlib.sha256("".join(path.name + file_sha256(path) for path in kept).encode()).hexdigest()


@contextmanager
def quiet() -> Iterator[None]:
    """Loading and saving without progress bars, and without notices of the fresh head that we overwrite."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@lru_cache(maxsize=4)
def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The tokenizer, padding on the right, with the end-of-text token for padding where it has none.

    Raises:
        ConfigurationError: it cannot be loaded, or has neither a padding nor an end-of-text token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            checkpoint.source,
            revision=checkpoint.revision or "main",
            trust_remote_code=False,
            padding_side="right",
        )
    except (OSError, ValueError) as error:
        raise _not_loaded(checkpoint, error) from error
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ConfigurationError(
                f"backbone.model: the tokenizer of '{checkpoint.model}' has neither padding nor end of text"
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@lru_cache(maxsize=16)
def is_causal_lm(checkpoint: Checkpoint) -> bool:
    """True if the saved model predicts the next token; reads its configuration only.

    Raises:
        ConfigurationError: it cannot be loaded.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(
            checkpoint.source, revision=checkpoint.revision or "main", trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise _not_loaded(checkpoint, error) from error
    return any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in config.architectures or ())


def load_model(checkpoint: Checkpoint, reward: bool = False) -> Any:
    """A fresh copy of the frozen model, float32, without dropout, on its device and in its precision.

    Args:
        checkpoint: which.
        reward: with a head of one output (``num_labels=1``), to be overwritten, instead of none.

    Raises:
        ConfigurationError: it cannot be loaded, or there is no such device.
    """
    from transformers import AutoModel, AutoModelForSequenceClassification

    if reward:
        return _load(checkpoint, AutoModelForSequenceClassification, num_labels=1)
    return _load(checkpoint, AutoModel)


def load_causal_lm(checkpoint: Checkpoint) -> Any:
    """Like ``load_model``, with the model's own head that predicts the next token."""
    from transformers import AutoModelForCausalLM

    return _load(checkpoint, AutoModelForCausalLM)


def _load(checkpoint: Checkpoint, kind: Any, **options: Any) -> Any:
    import torch

    require_device(checkpoint.device)
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = kind.from_pretrained(
                checkpoint.source,
                revision=checkpoint.revision or "main",  # ignored for a folder
                trust_remote_code=False,
                dtype=torch.float32,
                **options,
            )
    except (OSError, ValueError) as error:
        raise _not_loaded(checkpoint, error) from error
    model.config.pad_token_id = load_tokenizer(checkpoint).pad_token_id
    model.config.use_cache = False
    model.name_or_path = checkpoint.model  # what adapters name as their base: never a folder of this machine
    if checkpoint.precision == "bfloat16":
        multiply_in_bfloat16(model.base_model, checkpoint.device)
    return model.to(checkpoint.device).eval().requires_grad_(False)


def encode(checkpoint: Checkpoint, text: str) -> np.ndarray:
    """Token ids of a text, special tokens included, shape (at most max_tokens,), int64.

    An empty text gets the padding token where the tokenizer would give nothing.
    """
    tokenizer = load_tokenizer(checkpoint)
    ids = tokenizer(text, truncation=True, max_length=checkpoint.max_tokens)["input_ids"]
    return np.array(ids or [tokenizer.pad_token_id], dtype=np.int64)


def _not_loaded(checkpoint: Checkpoint, error: Exception) -> ConfigurationError:
    reason = str(error).strip().split("\n")[0]
    return ConfigurationError(
        f"backbone.model: '{checkpoint.model}' (revision {checkpoint.revision}) cannot be loaded: {reason}"
    )
