"""FedBiscuit against FedBis where the groups are known: what clustering, capacity and grouping pairs do.

Populations are Gaussian attribute vectors; all methods see the same ones, and differences are paired.

    python -m fedpref.benchmarks.selectors [number of populations] [--executor inline]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fedpref.benchmarks.executors import DEFAULT, EXECUTORS, add_executor
from fedpref.clients.selector import Selector
from fedpref.data.synthetic import Synthetic
from fedpref.federation.federation import Federation
from fedpref.models.given import Given
from fedpref.simulation.executor import Executor
from fedpref.strategies.fedbis import FedBis
from fedpref.strategies.fedbiscuit import FedBiscuit
from fedpref.types import Population, Strategy

DIM, COHORT, ROUNDS = 12, 24, 120
RULE = Selector(Given(DIM), local_steps=10, batch_pairs=None, lr=0.3, optimizer="sgd", init_std=0.5)
FIGURES = ("user_accuracy", "worst_group", "regret", "ari")

CASES: Mapping[str, tuple[Mapping[str, Any], int]] = {
    "conflict, shares 0.5/0.5": ({"preset": "conflict", "shares": (0.5, 0.5)}, 2),
    # As far from equal as a fair draw of 120 people is with one standard deviation.
    "conflict, shares 0.55/0.45": ({"preset": "conflict", "shares": (0.55, 0.45)}, 2),
    "conflict, shares 0.8/0.2": ({"preset": "conflict"}, 2),
    "clusters, shares 0.5/0.25/0.15/0.1": ({"preset": "clusters"}, 4),
}


def methods(num_selectors: int) -> Mapping[str, Strategy[Any]]:
    """FedBis, and FedBiscuit in the ways that are compared."""
    all_pairs = FedBiscuit(
        num_selectors,
        warmup_rounds=0,
        regroup_every=5,
        agg_norm="repliers",
        grouping_pairs="all",
        cohort_size=COHORT,
    )
    return {
        "fedbis": FedBis(cohort_size=COHORT),
        "fedbiscuit, all training pairs": all_pairs,
        "  without capacity": replace(all_pairs, capacity=False),
        "  agg_norm=all_clients": replace(all_pairs, agg_norm="all_clients"),
        "  5 % validation pairs (published)": replace(all_pairs, grouping_pairs=0.05),
    }


def figures(
    population: Population, strategy: Strategy[Any], seed: int, executor: Executor = DEFAULT
) -> list[float]:
    """``FIGURES`` of one run; ARI is NaN where there are no groups."""
    federation = Federation(population, RULE, strategy, ROUNDS, seed, executor, evaluate_every=ROUNDS)
    summary = federation.run().summary
    return [float(summary.get(name, np.nan)) for name in FIGURES]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print means over populations and paired differences from FedBis with standard errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("populations", type=int, nargs="?", default=10, help="how many")
    add_executor(parser)
    given = parser.parse_args(arguments)
    num_populations, executor = given.populations, EXECUTORS[given.executor]
    for name in CASES:
        recipe, num_selectors = CASES[name]
        found: dict[str, list[list[float]]] = {}
        for seed in range(num_populations):
            population = Synthetic(form="attributes", **recipe).population(seed)
            for method, strategy in methods(num_selectors).items():
                found.setdefault(method, []).append(figures(population, strategy, seed, executor))
        print(f"{name}: {num_populations} populations, {ROUNDS} rounds of {COHORT} of 120 clients")
        base = np.array(found["fedbis"])
        for method, rows in found.items():
            values = np.array(rows)
            mean, difference = values.mean(axis=0), (values - base)[:, 1]
            error = difference.std(ddof=1) / np.sqrt(num_populations) if num_populations > 1 else np.nan
            print(
                f"  {method:34} mean {mean[0]:.3f}  worst group {mean[1]:.3f}  regret {mean[2]:.3f}  "
                f"ARI {mean[3]:.2f}  worst group - fedbis {difference.mean():+.3f} ± {error:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
