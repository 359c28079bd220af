"""LoRA of rank 8 in the last two of MiniLM's six layers, with a head: 30 steps of AdamW on 16 pairs of texts.

Clients are annotators of ukpconvarg, 20 pairs each, where that file lies beside the checkout; else synthetic
people, whose longer texts are cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from fedpref.benchmarks.throughput.job import Job, Peer, Scale, Size, Tensors
from fedpref.clients.lora_reward import LoraReward
from fedpref.data.assembly import population as assembled
from fedpref.data.partition import Natural
from fedpref.data.sources import PreferenceFile
from fedpref.data.split import PairSplit
from fedpref.data.synthetic import Synthetic
from fedpref.models.lora import LoraModel, lora_model
from fedpref.models.minilm import MiniLM
from fedpref.models.text import join
from fedpref.models.transformer import load_model
from fedpref.strategies.fedavg import FedAvg
from fedpref.types import HeldOut, Pairs, Population, Shard

__all__ = ["JOB"]

_FILE = Path("../shared/data/ukpconvarg.jsonl.gz")
_PAIRS, _LAYERS, _LR, _KEEP = 20, 2, 1e-3, 32


def _rule(size: Size) -> LoraReward:
    backbone = MiniLM() if _FILE.is_file() else MiniLM(max_tokens=64)
    return LoraReward(
        backbone, last_layers=_LAYERS, local_steps=size.steps, batch_pairs=size.batch_pairs, lr=_LR
    )


@lru_cache(maxsize=1)
def _people() -> Sequence[Pairs]:
    if _FILE.is_file():
        rows = PreferenceFile(str(_FILE)).rows()
        people = assembled(rows, Natural(min_pairs=_PAIRS), PairSplit(), seed=0)
    else:
        people = Synthetic("tiny", min_pairs=_PAIRS).population(seed=0)
    return [shard.pairs.take(range(_PAIRS)) for shard in people.shards]


def _pairs(client: int) -> Pairs:
    people = _people()
    return people[client % len(people)]


def _population(num_clients: int) -> Population:
    shards = [Shard(client, f"client-{client}", _pairs(client)) for client in range(num_clients)]
    return Population(shards, [HeldOut("somebody", None, _pairs(num_clients))])


class _LastLayers(torch.nn.Module):
    """PEFT's model from the kept hidden states on; its parameters are those that are trained."""

    def __init__(self) -> None:
        super().__init__()
        rule = _rule(Size(1, 1, 1))
        checkpoint = rule.backbone.checkpoint
        model = LoraModel(checkpoint, rule.lora, load_model(checkpoint, reward=True))
        for key, parameter in model.trainable.items():
            *path, name = key.split(".")
            place: torch.nn.Module = self
            for part in path:
                if part not in dict(place.named_children()):
                    place.add_module(part, torch.nn.Module())
                place = place.get_submodule(part)
            place.register_parameter(name, parameter)
        bert = model.peft.base_model.model.bert
        # A tuple hides what is frozen: it is neither trained nor sent.
        self._parts = (bert.encoder.layer[-_LAYERS:], bert.pooler, model.peft.base_model.model.classifier)

    def forward(self, states: torch.Tensor, is_token: torch.Tensor) -> torch.Tensor:
        layers, pooler, head = self._parts
        longest = int(is_token.sum(dim=1).max())
        states, is_token = states[:, :longest], is_token[:, None, None, :longest]
        for layer in layers:
            states = layer(states, is_token)
        rewards: torch.Tensor = head(pooler(states))[:, 0]
        return rewards

    def loss(self, chosen: torch.Tensor, rejected: torch.Tensor, *is_token: torch.Tensor) -> torch.Tensor:
        margins = self(chosen, is_token[0]) - self(rejected, is_token[1])
        return torch.nn.functional.softplus(-margins).mean()


@lru_cache(maxsize=_KEEP)
def _tensors(client: int) -> Tensors:
    """Hidden states of the chosen and of the rejected texts, padded, and where they are tokens."""
    pairs, rule = _pairs(client), _rule(Size(1, 1, 1))
    texts = [
        join(prompt, text)
        for side in (pairs.chosen, pairs.rejected)
        for prompt, text in zip(pairs.prompts, side, strict=True)
    ]
    kept = lora_model(rule.backbone.checkpoint, rule.lora).states(texts)
    rows = [torch.from_numpy(np.array(kept[text])) for text in texts]
    states = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    is_token = torch.arange(states.shape[1]) < lengths[:, None]
    return (*torch.split(states, len(pairs)), *torch.split(is_token, len(pairs)))


JOB = Job(
    name="minilm",
    title="MiniLM, LoRA of rank 8 in the last two of six layers",
    rule=_rule,
    strategy=lambda size: FedAvg(cohort_size=size.cohort_size),
    population=_population,
    peer=Peer(
        lru_cache(maxsize=1)(_LastLayers),  # once a process: whoever asks for it loads weights into it
        _tensors,
        partial(torch.optim.AdamW, betas=(0.9, 0.95), weight_decay=0.0),
        _LR,
        _KEEP,
    ),
    is_split=True,
    scale=Scale(
        clients=(8,),
        cohort_size=2,
        rounds=3,
        warm_up=1,
        agreement=Size(num_clients=2, cohort_size=2, rounds=1, batch_pairs=None, steps=3),
        is_apart=False,
    ),
)
