"""Where a transformer computes, and how it rounds: on a processor or a GPU, in float32 or in bfloat16.

In bfloat16 the layers run under autocast: matrices multiply in bfloat16, sums that need more stay float32.
So do weights, gradients, optimisers and heads.

Source: Micikevicius et al. 2018, arXiv:1710.03740 (mixed precision); Kalamkar et al. 2019, arXiv:1905.12322
(bfloat16, whose range needs no scaling of the loss).
"""

from __future__ import annotations

from functools import wraps
from typing import Any, Literal, get_args

from fedpref.errors import ConfigurationError

__all__ = [
    "DeviceName",
    "Kept",
    "Precision",
    "check_precision",
    "multiply_in_bfloat16",
    "require_device",
    "rounding",
]

Precision = Literal["float32", "bfloat16"]
"""What the layers' matrices multiply in."""

DeviceName = Literal["cpu", "cuda"]
"""A processor, or the first GPU that the process sees; Ray shows a worker those that it reserved."""


Kept = Literal["float32", "float16"]
"""What hidden states are kept as, to start training from: float16 takes half the room, rounds by up to 1/2048
and reaches to 65,504."""


def check_precision(precision: Precision, device: DeviceName, activations: Kept) -> None:
    """Raise ConfigurationError for a precision, device or kind of activations that is unknown."""
    for option, value, known in (
        ("precision", precision, get_args(Precision)),
        ("device", device, get_args(DeviceName)),
        ("activations", activations, get_args(Kept)),
    ):
        if value not in known:
            raise ConfigurationError(f"backbone.{option}={value} must be {' or '.join(known)}")


def require_device(device: DeviceName) -> None:
    """Raise ConfigurationError if this process has no such device."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(
            "backbone.device=cuda: this process sees no GPU; set backbone.device=cpu, or give every Ray "
            "worker its share of one with executor.num_gpus=0.25"
        )


def rounding(precision: Precision, device: DeviceName) -> str:
    """What tells results from those in float32 on a processor, for fingerprints; nothing for these."""
    return "".join(f"-{name}" for name in (precision, device) if name not in ("float32", "cpu"))


def multiply_in_bfloat16(layers: Any, device: DeviceName) -> None:
    """Have a model without its head run under autocast; it still returns float32.

    A head on top is better off in float32: two rewards, or the logits of two choices, often differ by less
    than bfloat16 resolves, which is 1/128 of their size.
    """
    import torch

    forward = layers.forward

    @wraps(forward)
    def rounded(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, torch.bfloat16):
            return _as_float32(forward(*args, **kwargs))

    layers.forward = rounded


def _as_float32(output: Any) -> Any:
    """The output of a Hugging Face model, a tree of dictionaries and tuples, with float32 for bfloat16."""
    import torch

    if isinstance(output, torch.Tensor):
        return output.float() if output.dtype == torch.bfloat16 else output
    if isinstance(output, tuple):
        return tuple(map(_as_float32, output))
    if isinstance(output, dict):
        for name, value in output.items():
            output[name] = _as_float32(value)
    return output
