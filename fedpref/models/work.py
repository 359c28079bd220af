"""What a pass through a transformer costs, counted from the matrices that a text meets on its way.

Every multiplication by a matrix takes two operations a weight: forward, once more where a gradient passes
back through it, and once more where it is trained. Attention takes 4 T^2 w operations a layer forward and
8 T^2 w back, for T tokens and w = heads times size of a head. Padding is computed, so it counts. What is
elementwise does not, nor does choosing among experts: a mixture of them is counted too low.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

__all__ = ["Cost", "Matrix", "cost", "matrices_met"]

_PROBE_TOKENS = 3


class Matrix(NamedTuple):
    """A matrix that a text meets.

    Attributes:
        inputs: features in.
        outputs: features out.
        is_per_token: every token meets it; else it is met once an output, as a pooler or a head is.
        is_kept: it is in a frozen layer, whose results can be kept.
        is_passed_back: its input needs a gradient.
        is_trained: it needs a gradient itself.
    """

    inputs: int
    outputs: int
    is_per_token: bool
    is_kept: bool
    is_passed_back: bool
    is_trained: bool


class Cost(NamedTuple):
    """Operations of a pass.

    Attributes:
        per_token: of each token, padding included.
        per_square: of each token and token that it attends to.
        per_output: of each position at which the head runs.
    """

    per_token: int
    per_square: int
    per_output: int

    def flops(self, num_texts: int, num_tokens: int, num_outputs: int) -> int:
        """Operations for texts padded to ``num_tokens``, with ``num_outputs`` in all."""
        per_text = num_tokens * (self.per_token + num_tokens * self.per_square)
        return num_texts * per_text + num_outputs * self.per_output


def matrices_met(
    model: torch.nn.Module, frozen: Sequence[torch.nn.Module], **options: Any
) -> Sequence[Matrix]:
    """All matrices on the way of a text, found by sending one of three tokens.

    Args:
        model: takes ``input_ids`` and ``attention_mask``.
        frozen: its frozen layers.
        options: what else it takes, so that the head runs as in use.
    """
    kept = {module for layer in frozen for module in layer.modules()}
    met: list[Matrix] = []

    def note(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        features = args[0]
        # Of the module itself: PEFT's wrappers show the weight of what they wrap as theirs.
        weight = module._parameters["weight"]
        assert weight is not None
        inputs = features.shape[-1]
        met.append(
            Matrix(
                inputs,
                weight.numel() // inputs,
                features.numel() // inputs > 1,
                module in kept,
                features.requires_grad,
                weight.requires_grad,
            )
        )

    hooks = [
        module.register_forward_pre_hook(note) for module in model.modules() if _multiplies_by_matrix(module)
    ]
    try:
        ids = torch.zeros((1, _PROBE_TOKENS), dtype=torch.int64, device=next(model.parameters()).device)
        with torch.enable_grad():
            model(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
    finally:
        for hook in hooks:
            hook.remove()
    return met


def _multiplies_by_matrix(module: torch.nn.Module) -> bool:
    weight = module._parameters.get("weight")
    return weight is not None and weight.ndim == 2 and not isinstance(module, torch.nn.Embedding)


def cost(
    matrices: Sequence[Matrix],
    attention_width: int,
    num_frozen: int,
    num_trainable: int,
    use_cache: bool,
    backward: bool,
) -> Cost:
    """Operations of a pass over texts.

    Args:
        matrices: that a text meets.
        attention_width: heads times size of a head.
        num_frozen: frozen layers.
        num_trainable: layers with trainable weights.
        use_cache: the results of the frozen layers are kept, so they do not run.
        backward: with the way back, as in training.
    """

    def total(is_per_token: bool) -> int:
        return sum(
            m.inputs
            * m.outputs
            * (2 * (not (use_cache and m.is_kept)) + 2 * backward * (m.is_passed_back + m.is_trained))
            for m in matrices
            if m.is_per_token == is_per_token
        )

    layers = num_trainable + num_frozen * (not use_cache)
    per_square = 4 * attention_width * (layers + 2 * num_trainable * backward)
    return Cost(total(True), per_square, total(False))
