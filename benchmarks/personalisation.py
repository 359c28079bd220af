"""Personal heads against one head for all, and each method against its own pooled version.

The populations are Gaussian attribute vectors with 120 clients, presets clusters and conflict; all methods
see the same ones. Federated: 12 clients a round. Pooled: the same rule and strategy with everybody in every
round, for as many rounds as it takes to converge. Accuracies are expected under the truth. The share of the
gap is that between the global head and the oracle which a method closes, of the means over populations.

Options were tried on populations from 1001 on, which are not among those reported. group_dro is told the
hidden groups, and ifca their number; no other method is told anything.

    python -m fedpref.benchmarks.personalisation --out FILE [--only METHOD ...] [--populations N]
        [--pooled N] [--settings PRESET-PAIRS ...] [--executor inline]

FILE gets one line of JSON a run. Runs that it has already are not made again, so that a killed command goes
on where it was; the tables in the end are of all its lines.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedpref.benchmarks.executors import DEFAULT, EXECUTORS, add_executor
from fedpref.clients.fedrep import FedRep
from fedpref.clients.flute import Flute as FluteFactors
from fedpref.clients.linear_reward import LinearReward
from fedpref.clients.lore import Lore
from fedpref.clients.mixture_prior import MixturePrior
from fedpref.clients.p_sharelora import PShareLora
from fedpref.clients.pal import Pal
from fedpref.clients.personal_ridge import PersonalRidge
from fedpref.clients.reward_features import RewardFeatures
from fedpref.data.synthetic import Synthetic
from fedpref.federation.federation import Federation
from fedpref.models.given import Given
from fedpref.simulation.executor import Executor
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.flute import Flute
from fedpref.strategies.global_model import Share
from fedpref.strategies.group_dro import GroupDro
from fedpref.strategies.ifca import Ifca
from fedpref.strategies.mixture_prior import MixturePrior as RunningMoments
from fedpref.strategies.tail_average import TailAverage
from fedpref.types import ClientRule, Population, Strategy

__all__ = ["METHODS", "Method", "Run", "figures", "main", "population", "table"]

BACKBONE = Given(12)
COHORT = 12
SETTINGS = ("clusters-60", "conflict-60", "clusters-20")
GLOBAL = "global head"
ALLOWED = 0.01
"""How far below its pooled version a method may be, in mean accuracy over users."""

MakeStrategy = Callable[[int | None, Sequence[int]], Strategy[Any]]
"""A strategy, from the cohort size (None is everybody) and the hidden group of each client."""


class Method(NamedTuple):
    """What is run: for so many rounds with a cohort, and for so many with everybody."""

    rule: ClientRule
    strategy: MakeStrategy
    rounds: int
    pooled_rounds: int


class Run(NamedTuple):
    """A line of the file; accuracies are means over users."""

    setting: str
    seed: int
    method: str
    is_pooled: bool
    mean: float
    worst_group: float
    oracle: float
    cpu_s: float

    @property
    def key(self) -> tuple[str, int, str, bool]:
        """Which run it is."""
        return self.setting, self.seed, self.method, self.is_pooled


def averaged(share: Share = "pairs", server_lr: float = 1.0) -> MakeStrategy:
    """FedAvg, the last quarter's iterates averaged.

    Args:
        share: weight of a client.
        server_lr: with a cohort, where steps below 1 average over rounds; with everybody it is 1.
    """
    return lambda cohort, groups: TailAverage(
        FedAvg(cohort, share, 1.0 if cohort is None else server_lr), fraction=0.25
    )


def of_heads(cohort: int | None, groups: Sequence[int]) -> Ifca:
    """IFCA with as many heads as groups; small server steps, since few clients of a cohort train a head."""
    return Ifca(num_heads=max(groups) + 1, cohort_size=cohort, server_lr=0.4, last_server_lr=0.05)


def of_groups(cohort: int | None, groups: Sequence[int]) -> GroupDro:
    """Group DRO with the hidden groups declared."""
    return GroupDro(tuple(groups), cohort_size=cohort)


def of_moments(cohort: int | None, groups: Sequence[int]) -> TailAverage:
    """Running means over cohorts, the last quarter's averaged; with everybody, what the last round says."""
    return TailAverage(RunningMoments(cohort, server_lr=1.0 if cohort is None else 0.2), fraction=0.25)


HEAD = LinearReward(BACKBONE, local_steps=10, batch_pairs=None, lr=0.3)
SHARED_LORA = PShareLora(
    BACKBONE, rank=4, local_steps=10, batch_pairs=None, lr=0.3, refit_steps=30, ridge=8.0
)
IDEAL_POINTS = Pal(
    BACKBONE, num_prototypes=5, latent_dim=6, local_steps=10, batch_pairs=None, lr=0.05, spread=4.0
)

METHODS: Mapping[str, Method] = {
    GLOBAL: Method(HEAD, averaged(), 100, 12),
    # Nobody trains the global head, so it stays at zero: what is served is local, and the same when pooled.
    "local ridge": Method(PersonalRidge(BACKBONE, ridge=1.0, local_steps=0), averaged(), 1, 1),
    "personal_ridge": Method(
        PersonalRidge(BACKBONE, local_steps=10, batch_pairs=None, lr=0.3), averaged(), 100, 12
    ),
    "ifca": Method(HEAD, of_heads, 200, 40),
    "group_dro": Method(HEAD, of_groups, 200, 40),
    "lore": Method(Lore(BACKBONE, local_steps=10, lr=1.0), averaged(), 150, 50),
    "reward_features": Method(RewardFeatures(BACKBONE, local_steps=10), averaged(server_lr=0.5), 100, 60),
    "reward_features, prior learned": Method(
        RewardFeatures(BACKBONE, local_steps=10, learn_prior=True), averaged(), 150, 60
    ),
    "fedrep": Method(FedRep(BACKBONE), averaged("clients", 0.5), 100, 40),
    "flute": Method(FluteFactors(BACKBONE), lambda cohort, groups: Flute(cohort), 200, 80),
    "p_sharelora": Method(SHARED_LORA, averaged(server_lr=0.5), 100, 30),
    "pal": Method(IDEAL_POINTS, averaged(), 200, 40),
    "mixture_prior K=1": Method(MixturePrior(BACKBONE, 1), of_moments, 100, 30),
    "mixture_prior": Method(MixturePrior(BACKBONE), of_moments, 200, 60),
}


def population(setting: str, seed: int) -> Population:
    """The population of a preset with so many pairs a client on average, as in ``clusters-60``."""
    preset, pairs = setting.rsplit("-", 1)
    least = min(12, int(pairs) // 3)
    return Synthetic(preset=preset, form="attributes", mean_pairs=float(pairs), min_pairs=least).population(
        seed
    )


def figures(
    method: Method, people: Population, seed: int, is_pooled: bool, executor: Executor = DEFAULT
) -> Mapping[str, float]:
    """What one run ends with, as ``Evaluation.aggregate``."""
    rounds = method.pooled_rounds if is_pooled else method.rounds
    strategy = method.strategy(None if is_pooled else COHORT, _groups_of_clients(people))
    federation = Federation(people, method.rule, strategy, rounds, seed, executor, evaluate_every=rounds)
    return federation.run().evaluation.aggregate


def table(runs: Iterable[Run]) -> str:
    """Means over populations of all methods, and how far each is from its pooled version, in pairs."""
    found = {run.key: run for run in runs}
    lines = []
    for setting in dict.fromkeys(run.setting for run in found.values()):
        lines.append(
            f"\n{setting:31} {'n':>3} {'mean':>6} {'worst':>6} {'gap':>7}   "
            f"{'pooled':>6} {'worst':>6} {'n':>3} federated - pooled"
        )
        for name in METHODS:
            mine = [run for run in found.values() if (run.setting, run.method) == (setting, name)]
            federated = {run.seed: run for run in mine if not run.is_pooled}
            if federated:
                base = {seed: found.get((setting, seed, GLOBAL, False)) for seed in federated}
                pooled = {run.seed: run for run in mine if run.is_pooled and run.seed in federated}
                lines.append(f"{name:31} {_federated(federated, base)}   {_against(federated, pooled)}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the runs that are missing, population by population, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file of the runs")
    parser.add_argument("--only", nargs="+", default=list(METHODS), choices=METHODS, metavar="METHOD")
    parser.add_argument("--populations", type=int, default=30, help="how many")
    parser.add_argument("--pooled", type=int, default=30, help="on how many of them the pooled versions, too")
    parser.add_argument("--first", type=int, default=0, help="seed of the first; 1001 to try options")
    parser.add_argument("--settings", nargs="+", default=SETTINGS, metavar="PRESET-PAIRS")
    add_executor(parser)
    given = parser.parse_args(arguments)
    runs = _read(given.out)
    made = {run.key for run in runs}
    for setting in given.settings:
        for count in range(given.populations):
            seed = given.first + count
            people = population(setting, seed)
            for name in given.only:
                for is_pooled in (False, True) if count < given.pooled else (False,):
                    if (setting, seed, name, is_pooled) not in made:
                        run = _run(setting, people, seed, name, is_pooled, EXECUTORS[given.executor])
                        runs.append(run)
                        with given.out.open("a") as file:
                            file.write(json.dumps(run._asdict()) + "\n")
    print(table(runs))


def _run(setting: str, people: Population, seed: int, name: str, is_pooled: bool, executor: Executor) -> Run:
    started = time.process_time()
    found = figures(METHODS[name], people, seed, is_pooled, executor)
    took = time.process_time() - started
    accuracies = (found["user_accuracy"], found["worst_group"], found["oracle"])
    return Run(setting, seed, name, is_pooled, *accuracies, cpu_s=round(took, 2))


def _read(path: Path) -> list[Run]:
    if not path.exists():
        return []
    return [Run(**json.loads(line)) for line in path.read_text().splitlines()]


def _groups_of_clients(people: Population) -> list[int]:
    """The hidden group of each client."""
    if people.truth is None:
        raise ValueError("a population whose truth is known is needed")
    group_of = {
        held_out.client_id: int(group)
        for held_out, group in zip(people.held_out, people.truth.groups, strict=True)
    }
    return [group_of[shard.client_id] for shard in people.shards]


def _federated(runs: Mapping[int, Run], base: Mapping[int, Run | None]) -> str:
    mean, worst, oracle = (
        float(np.mean([getattr(run, name) for run in runs.values()]))
        for name in ("mean", "worst_group", "oracle")
    )
    known = [run.mean for run in base.values() if run is not None]
    if len(known) < len(runs):
        return f"{len(runs):3} {mean:6.4f} {worst:6.4f} {'':7}"
    share = (mean - np.mean(known)) / (oracle - np.mean(known))
    return f"{len(runs):3} {mean:6.4f} {worst:6.4f} {100 * share:5.1f} %"


def _against(federated: Mapping[int, Run], pooled: Mapping[int, Run]) -> str:
    if not pooled:
        return ""
    differences = np.array([federated[seed].mean - run.mean for seed, run in pooled.items()])
    error = differences.std(ddof=1) / np.sqrt(len(differences)) if len(differences) > 1 else np.nan
    mean, worst = (
        np.mean([getattr(run, name) for run in pooled.values()]) for name in ("mean", "worst_group")
    )
    verdict = "ok" if differences.mean() >= -ALLOWED else "BELOW"
    return f"{mean:6.4f} {worst:6.4f} {len(pooled):3} {differences.mean():+.4f} ± {error:.4f} {verdict}"


if __name__ == "__main__":
    main()
