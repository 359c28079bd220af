"""The LoRA weights of many clients in one transformer: each row of a pass is adapted by its owner's A and B.

The frozen matrices multiply all rows at once; a linear layer that is trained multiplies each row by a matrix
of its own, which is a batched matrix product. So rows of several clients run in one pass, and a way back
gives each client its own gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch

from fedpref.models.lora import TEXTS_A_PASS, LoraModel
from fedpref.models.lora_steps import optimizer_of
from fedpref.objectives.optimizers import OptimizerName
from fedpref.types import Weights

__all__ = ["Course", "Ended", "LoraCohort", "Output", "train_together", "trained_layers"]

_MOST_BYTES = 2**30
"""What clients that are trained together may leave for the way back."""

Output: TypeAlias = Callable[[Mapping[str, torch.Tensor]], torch.Tensor]
"""Runs the model on padded inputs and picks a number from each row."""

_ROWS_A_PASS_ON_A_GPU = 256
"""A processor works fastest on few rows, which stay in its caches; a GPU needs many."""


@lru_cache(maxsize=2)
def trained_layers(model: LoraModel) -> Mapping[str, torch.nn.Linear] | None:
    """The linear layer of each trained weight, by key; None where rows cannot have weights of their own.

    That is so where something else than linear layers is trained, and where a layer with LoRA sees the
    tokens of all texts in one heap, as experts do.
    """
    owners = {id(m.weight): m for m in model.peft.modules() if isinstance(m, torch.nn.Linear)}
    layers = {key: owners[id(p)] for key, p in model.trainable.items() if id(p) in owners}
    if len(layers) < len(model.trainable):
        return None
    by_rows: dict[str, bool] = {}

    def note(key: str, _: torch.nn.Module, args: tuple[Any, ...]) -> None:
        shape = args[0].shape
        by_rows[key] = shape[0] == 2 and (len(shape) == 3 or "lora_" not in key)

    hooks = [layer.register_forward_pre_hook(partial(note, key)) for key, layer in layers.items()]
    try:
        ids = torch.zeros((2, 3), dtype=torch.int64, device=model.peft.device)  # two texts of three tokens
        with torch.no_grad():
            model.peft(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        for hook in hooks:
            hook.remove()
    return layers if by_rows.keys() == layers.keys() and all(by_rows.values()) else None


class Course(NamedTuple):
    """One client's training on pairs of texts.

    Attributes:
        weights: where to start, and the anchor of the proximal term.
        texts: the two texts of each pair.
        batches: row numbers of each step's pairs.
        measured: row numbers of the pairs whose numbers are wanted.
        mu: weight of the proximal term.
    """

    weights: Weights
    texts: Sequence[tuple[str, str]]
    batches: Sequence[np.ndarray]
    measured: np.ndarray
    mu: float


class Ended(NamedTuple):
    """What training gave: weights, skipped steps, and the numbers of both texts before and after, (n, 2)."""

    weights: Weights
    skipped: int
    before: np.ndarray
    after: np.ndarray


def train_together(
    model: LoraModel,
    courses: Sequence[Course],
    output: Output,
    loss: Callable[[torch.Tensor], torch.Tensor],
    *,
    lr: float,
    optimizer: OptimizerName = "adamw",
    freeze_a: bool = False,
    use_cache: bool = True,
) -> list[Ended | None]:
    """What each client's own steps give, to rounding; None for whoever has to train alone.

    That is everybody where the model has no ``trained_layers``, and a client for whose batches there is no
    room beside others'.

    Args:
        model: without dropout.
        courses: one a client.
        output: a number of each text.
        loss: of the numbers of a batch, shape (num_pairs, 2).
        lr: step size.
        optimizer: as in ``take_steps``.
        freeze_a: train all but A.
        use_cache: as in ``LoraModel.read``.

    Raises:
        ConfigurationError: weights do not fit the model.
    """
    found: list[Ended | None] = [None] * len(courses)
    for stack in _stacks(model, courses) if trained_layers(model) is not None else []:
        chosen = [courses[i] for i in stack]
        cohort = LoraCohort(model, [course.weights for course in chosen], lr, optimizer, freeze_a)
        before = _measured(cohort, chosen, output, use_cache)
        for step in range(len(chosen[0].batches)):
            rows = [course.batches[step] for course in chosen if len(course.batches) > step]
            numbers = _numbers(cohort, chosen, rows, output, use_cache)
            cohort.step(len(rows), torch.stack([loss(own) for own in numbers]).sum(), chosen[0].mu)
        after = _measured(cohort, chosen, output, use_cache)
        for place, i in enumerate(stack):
            skipped = int(cohort.skipped[place])
            found[i] = Ended(cohort.of(place), skipped, before[place], after[place])
    return found


def _stacks(model: LoraModel, courses: Sequence[Course]) -> list[list[int]]:
    """Who is trained together: two or more of one proximal weight, most steps first, within the memory."""
    stacks: list[list[int]] = []
    total = 0
    for i in sorted(range(len(courses)), key=lambda i: (courses[i].mu, -len(courses[i].batches))):
        texts = [text for both in courses[i].texts for text in both]
        own = model.activation_bytes(texts, 2 * max(map(len, courses[i].batches), default=0))
        total += own
        if not stacks or courses[stacks[-1][0]].mu != courses[i].mu or total > _MOST_BYTES:
            stacks.append([])
            total = own
        stacks[-1].append(i)
    return [stack for stack in stacks if len(stack) > 1]


def _numbers(
    cohort: LoraCohort, courses: Sequence[Course], rows: Sequence[np.ndarray], output: Output, use_cache: bool
) -> Sequence[torch.Tensor]:
    """Numbers of both texts of each client's pairs at its rows, of shape (num_rows, 2) each."""
    asked = [
        (text, place) for place, own in enumerate(rows) for row in own for text in courses[place].texts[row]
    ]
    found = cohort.read(asked, output, use_cache).reshape(-1, 2)
    return list(torch.split(found, [len(own) for own in rows]))


def _measured(
    cohort: LoraCohort, courses: Sequence[Course], output: Output, use_cache: bool
) -> list[np.ndarray]:
    with torch.no_grad():
        found = _numbers(cohort, courses, [course.measured for course in courses], output, use_cache)
    return [own.double().cpu().numpy() for own in found]


class LoraCohort:
    """Weights of N clients, which take their steps side by side; those with more steps come first.

    Attributes:
        gradients: of the last step, by key, shape (N, …), the pull of the proximal term included.
        skipped: steps of each client that were left out since its gradient was not finite.
    """

    def __init__(
        self,
        model: LoraModel,
        members: Sequence[Weights],
        lr: float,
        optimizer: OptimizerName = "adamw",
        freeze_a: bool = False,
    ) -> None:
        """Start from received weights.

        Args:
            model: that has ``trained_layers``; its own trainable weights do not matter.
            members: the weights of each client, which fit the model.
            lr: step size.
            optimizer: as in ``take_steps``.
            freeze_a: train all but A.
        """
        layers = trained_layers(model)
        assert layers is not None  # asked before
        for own in members:
            model.check(own)
        self._model, self._layers = model, layers
        flat = np.stack([np.concatenate([own[key].ravel() for key in layers]) for own in members])
        self._values = torch.tensor(flat, dtype=torch.float32, device=model.peft.device)
        self._received, self._gradients = self._values.clone(), torch.zeros_like(self._values)
        shapes = {key: model.trainable[key].shape for key in layers}
        self._weights, self.gradients = _parts(self._values, shapes), _parts(self._gradients, shapes)
        for key, weight in self._weights.items():
            weight.requires_grad_(not (freeze_a and "lora_A" in key))
        # A row each: PyTorch's own optimiser leaves alone whoever has no gradient, moments included.
        self._rows = [torch.nn.Parameter(row) for row in self._values]
        self._optimizer = optimizer_of(optimizer, self._rows, lr)
        self.skipped = np.zeros(len(members), dtype=int)

    def read(self, rows: Sequence[tuple[str, int]], output: Output, use_cache: bool = True) -> torch.Tensor:
        """One number of each text in its owner's eyes, shape (num_rows,), differentiable.

        Args:
            rows: texts, and places of their owners; may repeat.
            output: as in ``LoraModel.read``.
            use_cache: likewise.
        """

        def adapted(inputs: Mapping[str, torch.Tensor], owners: Sequence[int]) -> torch.Tensor:
            with self._adapting(torch.tensor(owners, device=self._values.device)):
                return output(inputs)

        on_cpu = self._values.device.type == "cpu"
        size = TEXTS_A_PASS if on_cpu else _ROWS_A_PASS_ON_A_GPU
        return self._model.read_rows(rows, adapted, use_cache, size)

    def step(self, working: int, loss: torch.Tensor, mu: float = 0.0) -> None:
        """A step of the first ``working`` clients; nothing of the others moves.

        Args:
            working: how many.
            loss: the sum of their losses, of rewards by these weights.
            mu: weight of the proximal term towards the received weights.
        """
        trained = {key: weight for key, weight in self._weights.items() if weight.requires_grad}
        found = torch.autograd.grad(loss, list(trained.values()))
        for key, gradient in zip(trained, found, strict=True):
            self.gradients[key].copy_(gradient)
        gradients = self._gradients[:working]
        is_finite = gradients.isfinite().all(dim=1).tolist()
        if mu > 0:
            gradients.add_(self._values[:working] - self._received[:working], alpha=mu)
        for place, row in enumerate(self._rows):
            moves = place < working and is_finite[place]
            row.grad = self._gradients[place] if moves else None
            self.skipped[place] += place < working and not moves
        self._optimizer.step()

    def of(self, place: int) -> dict[str, np.ndarray]:
        """A copy of one client's weights, float32."""
        return {key: weight[place].detach().cpu().numpy().copy() for key, weight in self._weights.items()}

    @contextmanager
    def _adapting(self, owners: torch.Tensor) -> Iterator[None]:
        """Within this context the trained layers multiply each row by its owner's weights."""
        for key, layer in self._layers.items():
            layer.forward = partial(_by_rows, self._weights[key], layer.bias, owners)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for layer in self._layers.values():
                del layer.forward


def _by_rows(
    weights: torch.Tensor, bias: torch.Tensor | None, owners: torch.Tensor, features: torch.Tensor
) -> torch.Tensor:
    """Each row times its owner's matrix.

    Args:
        weights: shape (N, outputs, inputs).
        bias: of all rows, shape (outputs,).
        owners: place of each row's owner, shape (rows,).
        features: shape (rows, …, inputs).
    """
    own = weights.index_select(0, owners)
    rows = features.reshape(len(owners), -1, features.shape[-1])
    found = torch.bmm(rows, own.mT).reshape(*features.shape[:-1], -1)
    return found if bias is None else found + bias


def _parts(rows: torch.Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, torch.Tensor]:
    """Views of the rows, by key, that are leaves."""
    found, start = {}, 0
    for key, shape in shapes.items():
        end = start + shape.numel()
        found[key] = rows[:, start:end].view(len(rows), *shape).detach()
        start = end
    return found
