"""A selector inside a causal language model: the logits of two choice tokens, with LoRA through PEFT.

Both orders of a pair run in the same micro-batch, whose size bounds memory; the gradients of a batch's
micro-batches add up to one optimiser step.

Source: Wu et al. 2024, arXiv:2407.03038; Hu et al. 2021, arXiv:2106.09685 (LoRA).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from fedpref.models import lora_cohort
from fedpref.models.choice import both_texts, choice_tokens
from fedpref.models.kept import kept
from fedpref.models.lora import TEXTS_A_PASS, Lora, LoraModel
from fedpref.models.lora_steps import take_steps
from fedpref.models.selector_head import Course, Ended, Trained
from fedpref.models.text import require_text
from fedpref.models.transformer import Checkpoint, load_causal_lm
from fedpref.objectives.batches import batch_size
from fedpref.objectives.least_work import LeastWork
from fedpref.objectives.optimizers import OptimizerName, copies_held
from fedpref.objectives.selector import two_order_loss
from fedpref.types import Pairs, Weights

__all__ = ["ChoiceHead", "ChoiceModel", "choice_model"]


@lru_cache(maxsize=2)
def choice_model(checkpoint: Checkpoint, lora: Lora, template: str, choices: tuple[str, ...]) -> ChoiceModel:
    """The model of this process for these options; built once.

    Raises:
        ConfigurationError: see ``choice_tokens`` and ``LoraModel``.
    """
    tokens = choice_tokens(checkpoint, template, choices)  # before the weights are loaded: it may refuse
    return ChoiceModel(LoraModel(checkpoint, lora, load_causal_lm(checkpoint)), tokens)


@dataclass(frozen=True, eq=False)
class ChoiceModel:
    """A LoRA model that chooses.

    Attributes:
        lora: the model and its weights.
        tokens: ids of the two choices.
    """

    lora: LoraModel
    tokens: tuple[int, int]

    def logits(self, texts: Sequence[str], use_cache: bool) -> torch.Tensor:
        """``logit_A - logit_B`` at the last token of each text, shape (num_texts,), differentiable."""
        return self.lora.read(texts, self.difference, use_cache)

    def difference(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """``logit_A - logit_B`` at the last token of each row of padded inputs."""
        ends = inputs["attention_mask"].sum(dim=1) - 1
        # Logits at all positions would take gigabytes; the texts of a pass end at a few.
        positions, place = torch.unique(ends, return_inverse=True)
        logits = self.lora.peft(**inputs, logits_to_keep=positions).logits
        answers = logits[torch.arange(len(place), device=place.device), place]
        difference: torch.Tensor = answers[:, self.tokens[0]] - answers[:, self.tokens[1]]
        return difference


@dataclass(frozen=True)
class ChoiceHead:
    """The head of a causal language model.

    Attributes:
        checkpoint: the frozen model.
        lora: where the low-rank weights sit.
        template: with slots {prompt}, {response_a} and {response_b}, and a cue at its end.
        choices: the two answers, as they follow the cue.
        lr: step size.
        optimizer: "adamw" or "sgd".
        bias_penalty: weight of the mean squared position bias in the loss.
        init_std: standard deviation of B's initial weights; 0 starts with the frozen model's choices.
        freeze_a: train B only.
        use_cache: keep the activations that enter the first trainable layer.
    """

    checkpoint: Checkpoint
    lora: Lora
    template: str
    choices: tuple[str, ...]
    lr: float
    optimizer: OptimizerName = "adamw"
    bias_penalty: float = 0.0
    init_std: float = 0.0
    freeze_a: bool = False
    use_cache: bool = True

    def fresh(self, rng: np.random.Generator) -> Weights:
        """Initial weights, float32."""
        return self._model().lora.fresh(rng, head_std=0.0, b_std=self.init_std)

    def warm(self, populations: Sequence[Pairs]) -> None:
        """Compute and keep the activations of all these pairs in both orders."""
        texts = [text for pairs in populations for both in self.texts(pairs) for text in both]
        if self.use_cache:
            self._model().lora.warm(texts)

    def both_orders(self, weights: Weights, pairs: Pairs, rows: np.ndarray) -> np.ndarray:
        """Logits of both orders of the pairs at ``rows``, shape (num_rows, 2), float64."""
        model = self._model()
        model.lora.load(weights)
        if len(rows) == 0:
            return np.empty((0, 2))
        asked = self._asked(pairs, rows)
        with torch.no_grad():
            logits: np.ndarray = model.logits(asked, self.use_cache).double().cpu().numpy()
        return logits.reshape(-1, 2)

    def scoring_flops(self, pairs: Pairs, rows: np.ndarray) -> int:
        """Counted work of ``both_orders``; see ``fedpref.models.work``."""
        return self._model().lora.flops(self._asked(pairs, rows), self.use_cache, backward=False)

    def least_work(self, pairs: Pairs, rows: np.ndarray, batch_pairs: int | None) -> LeastWork:
        """What ``train`` counts at least: as if nothing were padded, unless a batch is all there is."""
        is_whole = batch_size(len(rows), batch_pairs) == len(rows)
        whole = self._step_flops(pairs, rows) if is_whole else None
        texts = self.texts(pairs)
        return self._model().lora.least_work([texts[row] for row in rows], self.use_cache, whole)

    def training_bytes(self, pairs: Pairs, batch_pairs: int | None) -> int:
        """The model, what its steps hold, kept activations, and those of a micro-batch on the way back."""
        asked, lora = self._asked(pairs, np.arange(len(pairs))), self._model().lora
        texts = min(TEXTS_A_PASS, 2 * batch_size(len(pairs), batch_pairs))
        held = lora.memory_bytes(asked, self.use_cache, copies_held(self.optimizer))
        return held + lora.activation_bytes(asked, texts)

    def scoring_bytes(self, pairs: Pairs, num_selectors: int) -> int:
        """The model, the selectors to be loaded into it, and kept activations."""
        asked = self._asked(pairs, np.arange(len(pairs)))
        return self._model().lora.memory_bytes(asked, self.use_cache, copies=num_selectors)

    def train(
        self,
        weights: Weights,
        pairs: Pairs,
        batches: Iterable[np.ndarray],
        mu: float,
        rng: np.random.Generator,
    ) -> Trained:
        """One step on each batch of rows; ``rng`` gives the dropout its seed."""
        model = self._model()
        model.lora.load(weights)

        def backward(rows: np.ndarray) -> int:
            for micro in self.micro_batches(pairs, rows):
                both = model.logits(self._asked(pairs, micro), self.use_cache).reshape(-1, 2)
                loss = two_order_loss(both, self.bias_penalty) * (len(micro) / len(rows))
                loss.backward()  # type: ignore[no-untyped-call]
            return self._step_flops(pairs, rows)

        skipped, flops = take_steps(
            model.lora,
            batches,
            backward,
            rng,
            lr=self.lr,
            optimizer=self.optimizer,
            mu=mu,
            freeze_a=self.freeze_a,
            dropout=self.lora.dropout,
        )
        return Trained(model.lora.weights(), skipped, flops)

    def train_together(self, courses: Sequence[Course], num_measured: int) -> Sequence[Ended | None]:
        """Rows of several clients run in one pass; see ``fedpref.models.lora_cohort``."""
        model, asked = self._model(), []
        for course in courses:
            texts = self.texts(course.pairs)
            own, measured = [texts[row] for row in course.rows], np.arange(len(course.rows))[:num_measured]
            asked.append(lora_cohort.Course(course.weights, own, course.batches, measured, course.mu))
        found = lora_cohort.train_together(
            model.lora,
            asked,
            model.difference,
            lambda both: two_order_loss(both, self.bias_penalty),
            lr=self.lr,
            optimizer=self.optimizer,
            freeze_a=self.freeze_a,
            use_cache=self.use_cache,
        )
        ends: list[Ended | None] = []
        for course, ended in zip(courses, found, strict=True):
            if ended is None:
                ends.append(None)
                continue
            flops = sum(self._step_flops(course.pairs, course.rows[places]) for places in course.batches)
            ends.append(Ended(Trained(ended.weights, ended.skipped, flops), ended.before, ended.after))
        return ends

    def export(self, weights: Weights, folder: Path) -> None:
        """Write a PEFT adapter that loads without fedpref; see ``fedpref.models.export_choice``."""
        from fedpref.models.export_choice import export_selector

        export_selector(folder, self.checkpoint, self.lora, weights, self.template, self.choices)

    def texts(self, pairs: Pairs) -> Sequence[tuple[str, str]]:
        """What the model reads for each pair: the chosen response in slot A, and in slot B."""

        def compute() -> list[tuple[str, str]]:
            chosen, rejected = require_text("hf", pairs.chosen), require_text("hf", pairs.rejected)
            return [
                both_texts(self.checkpoint, self.template, *texts)
                for texts in zip(pairs.prompts, chosen, rejected, strict=True)
            ]

        return kept(pairs, ("texts", self.checkpoint, self.template), compute)

    def micro_batches(self, pairs: Pairs, rows: np.ndarray) -> Sequence[np.ndarray]:
        """The rows in parts that run at once, pairs of about one length together."""
        texts = self.texts(pairs)
        order = sorted(rows.tolist(), key=lambda row: (len(texts[row][0]), row))
        size = TEXTS_A_PASS // 2
        return [np.array(order[start : start + size]) for start in range(0, len(order), size)]

    def _asked(self, pairs: Pairs, rows: np.ndarray) -> list[str]:
        texts = self.texts(pairs)
        return [text for row in rows for text in texts[row]]

    def _step_flops(self, pairs: Pairs, rows: np.ndarray) -> int:
        lora, micros = self._model().lora, self.micro_batches(pairs, rows)
        return sum(lora.flops(self._asked(pairs, micro), self.use_cache) for micro in micros)

    def _model(self) -> ChoiceModel:
        return choice_model(self.checkpoint, self.lora, self.template, self.choices)
