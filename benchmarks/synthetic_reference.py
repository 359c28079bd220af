"""FedAvg against pooled Bradley-Terry on fresh populations whose truth is known.

The populations are Gaussian attribute vectors; both methods see the same ones, so differences are
paired. FedAvg: 12 of 120 clients a round, 100 rounds of 10 full-batch steps, step size 0.3, the last
quarter's iterates averaged. Accuracies are expected under the known truth, by enumeration.

    python -m fedpref.benchmarks.synthetic_reference [number of populations] [--executor inline]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import numpy as np

from fedpref.benchmarks.executors import DEFAULT, EXECUTORS, add_executor
from fedpref.clients.linear_reward import LinearReward
from fedpref.data.assembly import pool
from fedpref.data.synthetic import Synthetic
from fedpref.evaluation.evaluate import evaluate
from fedpref.federation.federation import Federation
from fedpref.models.given import Given
from fedpref.seeds import generator
from fedpref.simulation.executor import Executor
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.global_model import GlobalModel
from fedpref.strategies.tail_average import TailAverage
from fedpref.types import Population

PRESETS = ("homog", "clusters", "conflict")
DIM = 12
FIGURES = ("user_accuracy", "worst_group", "regret")


def federated(population: Population, seed: int, executor: Executor = DEFAULT) -> Mapping[str, float]:
    """Figures of the averaged tail of FedAvg."""
    rule = LinearReward(Given(DIM), local_steps=10, batch_pairs=None, lr=0.3)
    strategy = TailAverage(FedAvg(cohort_size=12), fraction=0.25)
    federation = Federation(
        population, rule, strategy, rounds=100, seed=seed, executor=executor, evaluate_every=100
    )
    return federation.run().evaluation.aggregate


def pooled(population: Population, seed: int) -> Mapping[str, float]:
    """Figures of the maximum-likelihood head on all pairs together."""
    from sklearn.linear_model import LogisticRegression

    pairs = pool(population).shards[0].pairs
    z = np.asarray(pairs.chosen, np.float64) - np.asarray(pairs.rejected, np.float64)
    both = np.concatenate([z, -z])
    labels = np.repeat([1, 0], len(z))
    fit = LogisticRegression(fit_intercept=False, C=1e6, tol=1e-8, max_iter=1000).fit(both, labels)
    weights = {"score.weight": fit.coef_.astype(np.float32)}
    rule = LinearReward(Given(DIM))
    return evaluate(
        rule, FedAvg(), GlobalModel(weights, None), population, generator(seed, "evaluation")
    ).aggregate


def main(arguments: Sequence[str] | None = None) -> None:
    """Print means over populations, and paired differences with their standard errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("populations", type=int, nargs="?", default=30, help="how many")
    add_executor(parser)
    given = parser.parse_args(arguments)
    num_populations = given.populations
    print(f"{num_populations} populations a preset: mean over populations ± standard error")
    for preset in PRESETS:
        figures: dict[str, list[list[float]]] = {name: [] for name in FIGURES}
        for seed in range(num_populations):
            population = Synthetic(preset=preset, form="attributes").population(seed)
            found = [federated(population, seed, EXECUTORS[given.executor]), pooled(population, seed)]
            for name in FIGURES:
                figures[name].append([aggregate[name] for aggregate in found])
        for name in FIGURES:
            values = np.array(figures[name])
            difference = values[:, 0] - values[:, 1]
            error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else np.nan
            print(
                f"{preset:9} {name:14} fedavg {values[:, 0].mean():.4f}  pooled {values[:, 1].mean():.4f}  "
                f"fedavg - pooled {difference.mean():+.4f} ± {error:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
