"""Split training: the frozen layers run once a text, a training step runs the trainable layers only.

The model's own ``forward`` builds masks and positions as ever. Its frozen layers are told to pass their
input on, and the first trainable layer receives the cached hidden states in place of its input, so one
mechanism serves every architecture that keeps its layers in a list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from fedpref.errors import ConfigurationError

__all__ = ["capture", "injected", "layer_list"]


class _Reached(Exception):
    """The hidden states have reached the first trainable layer; what follows is not wanted."""


def layer_list(model: torch.nn.Module, num_layers: int) -> Sequence[torch.nn.Module]:
    """The transformer's layers, in order.

    Raises:
        ConfigurationError: there is not exactly one list of ``num_layers`` modules.
    """
    lists = [
        module
        for module in model.modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == num_layers
    ]
    if len(lists) != 1:
        raise ConfigurationError(
            f"backbone.model: found {len(lists)} lists of {num_layers} layers instead of one; "
            "this architecture cannot be split, set client.use_cache=false"
        )
    return list(lists[0])


def capture(model: torch.nn.Module, first: torch.nn.Module, ids: torch.Tensor) -> np.ndarray:
    """Hidden states of one text as they enter ``first``, shape (num_tokens, hidden_size), float32.

    Args:
        model: takes ``input_ids`` and ``attention_mask``.
        first: its first trainable layer.
        ids: token ids of one text, shape (num_tokens,).
    """
    kept: list[torch.Tensor] = []

    def keep(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kept.append(args[0] if args else kwargs["hidden_states"])
        raise _Reached

    hook = first.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with torch.no_grad():
            model(input_ids=ids[None], attention_mask=torch.ones_like(ids)[None])
    except _Reached:
        pass
    finally:
        hook.remove()
    states: np.ndarray = kept[0][0].float().cpu().numpy()  # NumPy has no bfloat16
    return states


@contextmanager
def injected(
    frozen: Sequence[torch.nn.Module], first: torch.nn.Module, states: torch.Tensor
) -> Iterator[None]:
    """Within this context a forward pass skips ``frozen`` and ``first`` starts from ``states``.

    Args:
        frozen: the layers before ``first``.
        first: the first trainable layer.
        states: hidden states, padded on the right, shape (num_texts, num_tokens, hidden_size).
    """

    def replace(
        _: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return ((states, *args[1:]), kwargs) if args else ((), {**kwargs, "hidden_states": states})

    def skip(hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return hidden_states

    hook = first.register_forward_pre_hook(replace, with_kwargs=True)
    for layer in frozen:
        layer.forward = skip
    try:
        yield
    finally:
        hook.remove()
        for layer in frozen:
            del layer.forward
