"""FedAvg against the pooled baseline on real annotators, with the same number of pair-gradients.

Default options of `fedpref run`: MiniLM features, linear reward head, everybody in every round. The
pooled baseline is the same rule on one client that holds all pairs, its local steps raised until it has
computed as many pair-gradients as the whole federation. The data's own split is used; seeds change the
batches. Both methods are shown without ridge, the default, and with ``client.l2=0.003``, chosen among 0,
0.003 and 0.01 on pairs of the training side: after so many steps the pooled baseline overfits without it.

    python -m fedpref.benchmarks.real_annotators FOLDER [backbone] [number of seeds]

FOLDER holds llmfao.jsonl.gz and ukpconvarg.jsonl.gz.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np

from fedpref.clients.linear_reward import LinearReward
from fedpref.data.assembly import pool, population
from fedpref.data.partition import Natural
from fedpref.data.sources import PreferenceFile
from fedpref.data.split import PairSplit
from fedpref.errors import ConfigurationError
from fedpref.federation.federation import Federation
from fedpref.models.backbone import Backbone
from fedpref.models.hashing import Hashing
from fedpref.models.minilm import MiniLM
from fedpref.strategies.fedavg import FedAvg
from fedpref.types import Population

SETS = ("llmfao", "ukpconvarg")
BACKBONES: dict[str, Backbone] = {"minilm": MiniLM(), "hashing": Hashing()}
ROUNDS = 20
RIDGES = (0.0, 0.003)


def main(folder: Path, backbone: str = "minilm", num_seeds: int = 5) -> None:
    """Print pair accuracy on held-out pairs, mean and range over seeds.

    Raises:
        ConfigurationError: a set is not in ``folder``.
    """
    for name in SETS:
        path = folder / f"{name}.jsonl.gz"
        if not path.is_file():
            raise ConfigurationError(f"{path} is absent; name the folder that holds {', '.join(SETS)}")
        people = population(PreferenceFile(str(path)).rows(), Natural(), PairSplit(), seed=0)
        for l2 in RIDGES:
            compare(name, people, LinearReward(BACKBONES[backbone], l2=l2), num_seeds)


def compare(name: str, people: Population, rule: LinearReward, num_seeds: int) -> None:
    """Print FedAvg beside pooled training with one rule."""
    assert rule.batch_pairs is not None
    gradients = ROUNDS * rule.local_steps * sum(min(rule.batch_pairs, len(s.pairs)) for s in people.shards)
    central_rule = dataclasses.replace(rule, local_steps=round(gradients / rule.batch_pairs / ROUNDS))
    figures = []
    for seed in range(num_seeds):
        federated = Federation(people, rule, FedAvg(), ROUNDS, seed, evaluate_every=ROUNDS).run()
        central = Federation(pool(people), central_rule, FedAvg(), ROUNDS, seed, evaluate_every=ROUNDS).run()
        figures.append(
            [r.summary[key] for r in (federated, central) for key in ("pair_accuracy", "user_accuracy")]
        )
    values = np.array(figures)
    mean, low, high = values.mean(axis=0), values.min(axis=0), values.max(axis=0)
    print(f"{name}, {len(people)} clients, l2 {rule.l2}, {gradients} pair-gradients, {num_seeds} seeds")
    for row, label in ((0, "fedavg"), (2, "pooled")):
        print(
            f"  {label}  pair accuracy {mean[row]:.4f} [{low[row]:.4f}, {high[row]:.4f}]"
            f"  user accuracy {mean[row + 1]:.4f}"
        )
    print(f"  fedavg - pooled  {mean[0] - mean[2]:+.4f}", flush=True)


if __name__ == "__main__":
    main(
        Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data"),
        sys.argv[2] if len(sys.argv) > 2 else "minilm",
        int(sys.argv[3]) if len(sys.argv) > 3 else 5,
    )
