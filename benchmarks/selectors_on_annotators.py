"""One selector, several selectors, one reward head, or everybody alone: on real annotators.

MiniLM features, pair heads for the selectors, a linear reward head for FedAvg and local_only, the same
number of local steps, rounds and clients a round for all; the data's own split. Reported is the mean
accuracy over annotators, averaged over seeds, with the user-level 95 % bootstrap interval of the first seed.

    python -m fedpref.benchmarks.selectors_on_annotators FOLDER [number of seeds] [set …]

FOLDER holds llmfao.jsonl.gz, ukpconvarg.jsonl.gz and polis.jsonl.gz.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedpref.clients.linear_reward import LinearReward
from fedpref.clients.selector import Selector
from fedpref.data.assembly import population
from fedpref.data.partition import Natural
from fedpref.data.sources import PreferenceFile
from fedpref.data.split import PairSplit
from fedpref.errors import ConfigurationError
from fedpref.federation.federation import Federation
from fedpref.models.minilm import MiniLM
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.fedbis import FedBis
from fedpref.strategies.fedbiscuit import FedBiscuit
from fedpref.strategies.local_only import LocalOnly
from fedpref.types import ClientRule, Strategy

SETS = ("llmfao", "ukpconvarg", "polis")
ROUNDS, COHORT, LOCAL_STEPS, WARMUP, REGROUP = 60, 100, 10, 5, 10


def methods(cohort: int) -> Mapping[str, tuple[ClientRule, Strategy[Any]]]:
    """Rule and strategy of every row of the table."""
    backbone = MiniLM()
    reward = LinearReward(backbone, local_steps=LOCAL_STEPS)
    selector = Selector(backbone, local_steps=LOCAL_STEPS)
    several = {
        f"fedbiscuit U={num_selectors}": (
            selector,
            FedBiscuit(
                num_selectors,
                warmup_rounds=WARMUP,
                regroup_every=REGROUP,
                agg_norm="repliers",
                grouping_pairs="all",
                cohort_size=cohort,
            ),
        )
        for num_selectors in (2, 3, 5)
    }
    return {
        "fedavg": (reward, FedAvg(cohort)),
        "local_only": (reward, LocalOnly(cohort)),
        "fedbis": (selector, FedBis(cohort)),
        **several,
    }


def main(folder: Path, num_seeds: int = 3, names: Sequence[str] = SETS) -> None:
    """Print one table a set.

    Raises:
        ConfigurationError: a set is not in ``folder``.
    """
    for name in names:
        path = folder / f"{name}.jsonl.gz"
        if not path.is_file():
            raise ConfigurationError(f"{path} is absent; name the folder that holds {', '.join(SETS)}")
        people = population(PreferenceFile(str(path)).rows(), Natural(), PairSplit(), seed=0)
        cohort = min(COHORT, len(people))
        print(f"{name}: {len(people)} clients, {cohort} a round, {ROUNDS} rounds of {LOCAL_STEPS} steps")
        for method, (rule, strategy) in methods(cohort).items():
            runs = [
                Federation(people, rule, strategy, ROUNDS, seed, evaluate_every=ROUNDS).run().summary
                for seed in range(num_seeds)
            ]
            values = np.array([[run[key] for key in ("user_accuracy", "pair_accuracy")] for run in runs])
            mean, low, high = values.mean(axis=0), values.min(axis=0), values.max(axis=0)
            print(
                f"  {method:15} user accuracy {mean[0]:.4f} (seeds {low[0]:.4f} to {high[0]:.4f}, "
                f"interval {runs[0]['user_accuracy_low']:.3f} to {runs[0]['user_accuracy_high']:.3f})  "
                f"pair accuracy {mean[1]:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main(
        Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data"),
        int(sys.argv[2]) if len(sys.argv) > 2 else 3,
        sys.argv[3:] or SETS,
    )
