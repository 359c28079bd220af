"""Local steps on the LoRA weights of a model, whatever its loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack

import numpy as np
import torch

from fedpref.models.lora import LoraModel
from fedpref.objectives.optimizers import OptimizerName

__all__ = ["optimizer_of", "take_steps"]


def take_steps(
    model: LoraModel,
    batches: Iterable[np.ndarray],
    backward: Callable[[np.ndarray], int],
    rng: np.random.Generator,
    *,
    lr: float,
    optimizer: OptimizerName = "adamw",
    mu: float = 0.0,
    freeze_a: bool = False,
    part: str = "",
    dropout: float = 0.0,
) -> tuple[int, int]:
    """Change ``model`` by one step a batch; a step whose gradient is not finite is skipped.

    Args:
        model: with the received weights, which are the anchor of the proximal term too.
        batches: row numbers.
        backward: adds the gradient of a batch's loss, and returns the operations that it took.
        rng: gives the seed of the dropout, where there is one.
        lr: step size.
        optimizer: "adamw" (betas 0.9 and 0.95, no decay), or plain "sgd".
        mu: weight of the proximal term; 0 leaves it out.
        freeze_a: train all but A.
        part: train only keys that contain this.
        dropout: above 0 switches LoRA's dropout on.

    Returns:
        Skipped steps, and operations of all steps: the gradient of a skipped one was computed too.
    """
    trained = _trained(model, freeze_a, part)
    anchors = {key: parameter.detach().clone() for key, parameter in trained.items()}
    stepper = optimizer_of(optimizer, list(trained.values()), lr)
    skipped = flops = 0
    with ExitStack() as stack:
        if dropout > 0:
            stack.enter_context(torch.random.fork_rng())
            torch.manual_seed(int(rng.integers(2**63)))
            model.train_dropout(True)
            stack.callback(model.train_dropout, False)
        for rows in batches:
            stepper.zero_grad()
            flops += backward(rows)
            if not all(torch.isfinite(_gradient(p)).all() for p in trained.values()):
                skipped += 1
                continue
            if mu > 0:
                for key, parameter in trained.items():
                    _gradient(parameter).add_(parameter.detach() - anchors[key], alpha=mu)
            stepper.step()
    return skipped, flops


def optimizer_of(
    name: OptimizerName, parameters: list[torch.nn.Parameter], lr: float
) -> torch.optim.Optimizer:
    """PyTorch's optimiser of a name: "adamw" (betas 0.9 and 0.95, no decay), or plain "sgd"."""
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=lr)
    return torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.95), weight_decay=0.0)


def _trained(model: LoraModel, freeze_a: bool, part: str) -> Mapping[str, torch.nn.Parameter]:
    trained = {}
    for key, parameter in model.trainable.items():
        parameter.requires_grad_(part in key and not (freeze_a and "lora_A" in key))
        if parameter.requires_grad:
            trained[key] = parameter
    return trained


def _gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    assert parameter.grad is not None  # every trained parameter is on the path to the loss
    return parameter.grad
