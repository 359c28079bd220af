"""A binary selector: shown two responses, it says which is better; trained on both orders of every pair.

In a causal language model it chooses between two tokens, with LoRA; on any other backbone it is a linear
head on the features of both responses. It also scores selectors, so that a server can group clients.

Source: Wu et al. 2024, "Towards Federated RLHF with Aggregated Client Preference for LLMs",
arXiv:2407.03038 (FedBis, FedBiscuit). Different here: both orders of a pair share a step, predictions use
both orders, and pairs for grouping are held back by pair, never by row.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.models.backbone import Backbone
from fedpref.models.choice import GENERIC, check_choices, check_template
from fedpref.models.kept import kept
from fedpref.models.pair_head import PairHead
from fedpref.models.selector_head import Course, Ended, SelectorHead
from fedpref.models.transformer import Checkpoint, is_causal_lm
from fedpref.objectives.batches import batches
from fedpref.objectives.grouping import grouping_split
from fedpref.objectives.least_work import LeastWork
from fedpref.objectives.local import num_steps, reported_loss, require, require_progress, steps_and_mu
from fedpref.objectives.optimizers import OptimizerName
from fedpref.objectives.scoring import num_models, scored
from fedpref.objectives.selector import right_margins, scores, slot_biases
from fedpref.types import ClientState, Pairs, Reply, Settings, Shard, Task, Weights, Workload

__all__ = ["Selector"]

MOST_MEASURED_PAIRS = 200
SGD_LR, ADAMW_LR = 0.6, 1e-3


@dataclass(frozen=True)
class Selector:
    """Trains a selector, and scores several; keeps nothing between tasks.

    A task's settings may give ``local_steps``, ``proximal_mu``, ``grouping_share`` and ``grouping_seed``, and
    those of a task to score ``num_selectors``, so that its work is known beforehand. Optimisers start afresh
    in every task.

    Attributes:
        backbone: a causal language model gets choice tokens and LoRA, any other backbone a pair head.
        local_steps: optimiser steps a task.
        batch_pairs: unordered pairs a step, each in both orders; None means all training pairs.
        lr: step size; None means 0.6 with SGD (a pair head takes the steps of a reward head of half that)
            and 0.001 with AdamW.
        optimizer: "sgd", or "adamw" (betas 0.9 and 0.95, no decay); None means AdamW for LoRA and SGD for
            the pair head.
        bias_penalty: weight of the mean squared position bias in the loss.
        init_std: standard deviation of the pair head's initial weights, or of LoRA's B.
        template: what a language model reads, with the slots {prompt}, {response_a} and {response_b}. Where
            it exceeds the backbone's ``max_tokens``, the longest of the three loses its end, the rest stays.
        choices: the two answers, as they follow the template, each one token: a leading space counts.
        rank: inner dimension of LoRA's BA.
        alpha: BA is scaled by alpha / rank.
        dropout: on the input of A while training.
        target_modules: names of linear layers; empty means PEFT's choice for the architecture.
        last_layers: how many layers, from the top, have LoRA; 0 means all.
        freeze_a: train B only; then averaging B is averaging BA, exactly.
        use_cache: keep the activations that enter the first trainable layer; False runs every layer.

    Raises:
        ConfigurationError: a value out of range, or a template without its slots.
    """

    backbone: Backbone
    local_steps: int = 30
    batch_pairs: int | None = 16
    lr: float | None = None
    optimizer: OptimizerName | None = None
    bias_penalty: float = 0.0
    init_std: float = 0.0
    template: str = GENERIC
    choices: tuple[str, ...] = (" A", " B")
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ()
    last_layers: int = 2
    freeze_a: bool = False
    use_cache: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "target_modules", tuple(self.target_modules))  # lists, when from YAML
        object.__setattr__(self, "choices", tuple(self.choices))
        require(self.local_steps >= 0, "local_steps", self.local_steps, "at least 0")
        require(
            self.batch_pairs is None or self.batch_pairs >= 1, "batch_pairs", self.batch_pairs, "at least 1"
        )
        is_rate = self.lr is None or (math.isfinite(self.lr) and self.lr > 0)
        require(is_rate, "lr", self.lr, "positive and finite")
        require(self.optimizer in (None, "sgd", "adamw"), "optimizer", self.optimizer, "sgd or adamw")
        require(self.bias_penalty >= 0, "bias_penalty", self.bias_penalty, "at least 0")
        require(self.init_std >= 0, "init_std", self.init_std, "at least 0")
        require(self.rank >= 1, "rank", self.rank, "at least 1")
        require(self.alpha > 0, "alpha", self.alpha, "positive")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")
        require(self.last_layers >= 0, "last_layers", self.last_layers, "at least 0")
        check_template(self.template)
        check_choices(self.choices)

    @property
    def head(self) -> SelectorHead:
        """The head that suits the backbone.

        Raises:
            ConfigurationError: the backbone's model cannot be read.
        """
        checkpoint: Checkpoint | None = getattr(self.backbone, "checkpoint", None)
        if checkpoint is not None and is_causal_lm(checkpoint):
            return self._choice_head(checkpoint)
        optimizer = self.optimizer or "sgd"
        return PairHead(self.backbone, self._lr(optimizer), optimizer, self.bias_penalty, self.init_std)

    def fresh(self, rng: np.random.Generator) -> Weights:
        """Initial weights, float32."""
        return self.head.fresh(rng)

    def warm(self, populations: Sequence[Pairs]) -> None:
        """Compute and keep what is frozen for all these pairs, so that no worker has to."""
        self.head.warm(populations)

    def both_orders(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        """Logits ``l(chosen, rejected)`` and ``l(rejected, chosen)``, shape (num_pairs, 2), float64."""
        return self.head.both_orders(weights, pairs, np.arange(len(pairs)))

    def margins(self, weights: Weights, pairs: Pairs) -> np.ndarray:
        """Symmetrised score ``s(chosen, rejected)`` of each pair, shape (num_pairs,), float64."""
        return scores(self.both_orders(weights, pairs))

    def export(self, weights: Weights, folder: Path) -> None:
        """Write a selector that loads without fedpref: a PEFT adapter, or the pair head's weights."""
        self.head.export(weights, folder)

    def answer(
        self, task: Task, shard: Shard, state: ClientState, rng: np.random.Generator
    ) -> tuple[Reply, ClientState]:
        """Train the selector of the task ("train"), or report the losses of several ("score").

        To score, the weights hold selector u under keys ``u/…``, and the reply no weights but ``loss_u``,
        the mean cross entropy over both orders of the grouping pairs, in nats; one that is not finite is
        left out. A client with a single pair, none of which is held back, draws its losses at random, so
        that it joins no group by preference.

        Metrics of training: ``loss_before`` and ``loss_after`` on the training pairs, the first 200 at most
        (before: at the received weights), ``position_bias``, the mean bias on them after, in logits,
        ``steps_done``, ``skipped_steps`` (a gradient was not finite). Of both: ``flops``, of all that ran:
        skipped steps, losses and padding too.

        Raises:
            ConfigurationError: another kind of task, weights that do not fit the backbone, or fewer selectors
                than the settings tell.
            FederationError: every step was skipped.
        """
        work = {"train": self._train, "score": self._score}.get(task.kind)
        if work is None:
            raise ConfigurationError(f"client: selector cannot answer a task of kind '{task.kind}'")
        return work(task, shard, rng), state

    def answer_cohort(
        self,
        tasks: Sequence[Task],
        shards: Sequence[Shard],
        states: Sequence[ClientState],
        rngs: Sequence[np.random.Generator],
    ) -> Sequence[tuple[Reply, ClientState]]:
        """As ``answer`` for each: heads that can be are trained together (``SelectorHead.train_together``).

        One by one with dropout, whose draws are a client's own.
        """
        head, replies, courses = self.head, dict[int, Reply](), dict[int, Course]()
        for i, (task, shard, state, rng) in enumerate(zip(tasks, shards, states, rngs, strict=True)):
            if task.kind != "train" or len(shard.pairs) == 0 or self.dropout > 0:
                replies[i], _ = self.answer(task, shard, state, rng)
                continue
            steps, mu = steps_and_mu(task.settings, self.local_steps, head.lr)
            rows = grouping_split(shard, task.settings).train
            drawn = list(batches(len(rows), self.batch_pairs, steps, rng))
            courses[i] = Course(task.weights, shard.pairs, rows, drawn, mu)
        found = head.train_together(list(courses.values()), MOST_MEASURED_PAIRS)
        for (i, course), ended in zip(courses.items(), found, strict=True):
            ended = ended or _trained_alone(head, *course, rngs[i])
            replies[i] = _reply(head, course.pairs, course.rows, len(course.batches), ended)
        return [(replies[i], state) for i, state in enumerate(states)]

    def workload(self, task: Task, shard: Shard) -> Workload:
        """Operations at least, and memory. A task that is refused is no work.

        For a pair head both are exact: products with kept features. For a language model the operations
        of training are a bound, since the batches are not drawn yet: texts count without padding, and those
        of a last epoch as if they were the shortest; where a batch is all training pairs it is exact, as is
        scoring with ``num_selectors`` (one, if the settings do not tell). Frozen layers whose results are
        kept take nothing. Memory of a language model: its parameters; for each trained one the gradient,
        the optimiser's moments and the received value; the kept activations of the shard; and those of a
        micro-batch of its longest texts on the way back.
        """
        work = {"train": self._training, "score": self._scoring}.get(task.kind)
        if work is None or len(shard.pairs) == 0:
            return Workload(0.0, 0.0)
        return work(task.settings, shard)

    def _training(self, settings: Settings, shard: Shard) -> Workload:
        def compute() -> tuple[LeastWork, int, int]:
            pairs, head, rows = shard.pairs, self.head, grouping_split(shard, settings).train
            least = head.least_work(pairs, rows, self.batch_pairs)
            measured = head.scoring_flops(pairs, rows[:MOST_MEASURED_PAIRS])
            return least, measured, head.training_bytes(pairs, self.batch_pairs)

        least, measured, memory = kept(shard.pairs, self._key("training", settings, shard), compute)
        steps = num_steps(settings, self.local_steps)
        return Workload(float(least.flops(self.batch_pairs, steps) + 2 * measured), float(memory))

    def _scoring(self, settings: Settings, shard: Shard) -> Workload:
        def compute() -> tuple[int, int]:
            pairs, head, rows = shard.pairs, self.head, grouping_split(shard, settings).grouping
            flops = 0 if rows is None else head.scoring_flops(pairs, rows)
            return num_selectors * flops, head.scoring_bytes(pairs, num_selectors)

        num_selectors = num_models(settings)
        key = (*self._key("scoring", settings, shard), num_selectors)
        flops, memory = kept(shard.pairs, key, compute)
        return Workload(float(flops), float(memory))

    def _key(self, what: str, settings: Settings, shard: Shard) -> tuple[Hashable, ...]:
        """All that a workload depends on but the local steps."""
        return (
            what,
            self,
            shard.client_id,
            settings.get("grouping_share"),
            settings.get("grouping_seed"),
        )

    def _train(self, task: Task, shard: Shard, rng: np.random.Generator) -> Reply:
        if len(shard.pairs) == 0:
            return Reply(dict(task.weights), 0, {})
        head, rows = self.head, grouping_split(shard, task.settings).train
        steps, mu = steps_and_mu(task.settings, self.local_steps, head.lr)
        drawn = batches(len(rows), self.batch_pairs, steps, rng)
        ended = _trained_alone(head, task.weights, shard.pairs, rows, drawn, mu, rng)
        return _reply(head, shard.pairs, rows, steps, ended)

    def _score(self, task: Task, shard: Shard, rng: np.random.Generator) -> Reply:
        head, pairs = self.head, shard.pairs

        def margins(weights: Weights, rows: np.ndarray) -> np.ndarray:
            return right_margins(head.both_orders(weights, pairs, rows))

        return scored(task, shard, rng, margins, lambda rows: head.scoring_flops(pairs, rows))

    def _choice_head(self, checkpoint: Checkpoint) -> SelectorHead:
        from fedpref.models.choice_head import ChoiceHead  # here, so that pair heads start without torch
        from fedpref.models.lora import Lora

        optimizer = self.optimizer or "adamw"
        return ChoiceHead(
            checkpoint,
            Lora(self.rank, self.alpha, self.dropout, self.target_modules, self.last_layers),
            self.template,
            self.choices,
            self._lr(optimizer),
            optimizer,
            self.bias_penalty,
            self.init_std,
            self.freeze_a,
            self.use_cache,
        )

    def _lr(self, optimizer: OptimizerName) -> float:
        return self.lr or (SGD_LR if optimizer == "sgd" else ADAMW_LR)


def _trained_alone(
    head: SelectorHead,
    weights: Weights,
    pairs: Pairs,
    rows: np.ndarray,
    places: Iterable[np.ndarray],
    mu: float,
    rng: np.random.Generator,
) -> Ended:
    """Arguments as in ``Course``, but the batches may still be to draw."""
    measured = rows[:MOST_MEASURED_PAIRS]
    before = head.both_orders(weights, pairs, measured)
    trained = head.train(weights, pairs, (rows[some] for some in places), mu, rng)
    return Ended(trained, before, head.both_orders(trained.weights, pairs, measured))


def _reply(head: SelectorHead, pairs: Pairs, rows: np.ndarray, steps: int, ended: Ended) -> Reply:
    """The answer to a task of training."""
    trained, before, after = ended
    require_progress(steps, trained.skipped)
    measured = rows[:MOST_MEASURED_PAIRS]
    metrics = {
        **reported_loss("loss_before", right_margins(before)),
        **reported_loss("loss_after", right_margins(after)),
        "steps_done": float(steps - trained.skipped),
        "skipped_steps": float(trained.skipped),
        "flops": float(trained.flops + 2 * head.scoring_flops(pairs, measured)),
    }
    if np.isfinite(after).all():
        metrics["position_bias"] = float(slot_biases(after).mean())
    return Reply(trained.weights, len(pairs), metrics)
