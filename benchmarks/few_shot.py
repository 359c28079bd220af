"""How many pairs of a newcomer it takes to beat the global head, with the population's prior and without it.

The populations are those of ``personalisation``, preset clusters, with 30 people more whom no client knows;
training is the same, 12 of 120 clients a round. Every newcomer shows k of 100 pairs, in ten shuffles, to the
finished model. The reference is the global head on the same people. k* is the smallest k that beats it by
0.005 on average, with the lower end of a 95 % bootstrap interval over people above zero: over the 30 of one
population, and over all people of all populations.

Prior at zero: the same rule with the same shared tensors, but the population's prior, as far as it is one of
a person's own weights, is replaced by one that knows nothing: mean zero and the same size in all directions,
the mean of the learned one's; for weights on the simplex the uniform ones. The law: a mixture prior that was
not learned, but has the moments of 4,000 people drawn by the very law of the population.

    python -m fedpref.benchmarks.few_shot --out FILE [--only METHOD ...] [--populations N] [--first SEED]
        [--executor inline]

FILE has one line of JSON a curve. Curves that it has already are not made again; tables are printed from it
in the end.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedpref.benchmarks.executors import DEFAULT, EXECUTORS, add_executor
from fedpref.benchmarks.personalisation import BACKBONE, COHORT, GLOBAL, METHODS
from fedpref.clients.mixture_prior import MixturePrior
from fedpref.data.synthetic import Synthetic
from fedpref.data.synthetic.annotators import draw_annotator
from fedpref.data.synthetic.truth import SyntheticTruth
from fedpref.evaluation.few_shot import FewShotCurve, curve_of, few_shot, newcomers
from fedpref.evaluation.metrics import bootstrap_interval
from fedpref.evaluation.personal import shared_accuracies
from fedpref.federation.federation import Federation
from fedpref.seeds import generator
from fedpref.simulation.executor import Executor
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.global_model import GlobalModel
from fedpref.types import ClientRule, Personal, Population, Weights

__all__ = ["AT_ZERO", "LAW", "Row", "curves", "main", "table"]

SOURCE = Synthetic(preset="clusters", form="attributes", unseen=30)
RESAMPLES = 10
LAW = "the law"
LEARNED, ZERO = "learned", "at zero"
_DRAWN, _FIRST_DRAWN = 4000, 1_000_000

Change = Callable[[Weights], Weights]


class Row(NamedTuple):
    """A line of the file: one curve.

    Attributes:
        seed: of the population and of all that follows.
        method: what was trained.
        prior: "learned" or "at zero".
        shots: pairs shown.
        accuracies: shape (num_counts, num_people).
        reference: accuracy of the global head, one a person.
    """

    seed: int
    method: str
    prior: str
    shots: list[int]
    accuracies: list[list[float]]
    reference: list[float]

    @property
    def key(self) -> tuple[int, str, str]:
        """Which curve it is."""
        return self.seed, self.method, self.prior


def without(*keys: str) -> Change:
    """The weights with zeros in these keys."""
    return lambda weights: {
        key: np.zeros_like(array) if key in keys else array for key, array in weights.items()
    }


def uninformed(weights: Weights) -> Weights:
    """A Gaussian or mixture prior of the same size, with mean zero and no direction before others."""
    second = weights["prior.second"]
    size = np.trace(second) / len(second)
    first = {key: np.zeros_like(weights[key]) for key in ("prior.mean", "prior.first") if key in weights}
    return {**weights, **first, "prior.second": (size * np.eye(len(second))).astype(np.float32)}


def uniform(weights: Weights) -> Weights:
    """Weights on the simplex that favour nobody."""
    mean = weights["prior.mean"]
    return {**weights, "prior.mean": np.full_like(mean, 1 / len(mean))}


AT_ZERO: Mapping[str, Change] = {
    "personal_ridge": without("score.weight"),
    "lore": uniform,
    "reward_features": without("prior.mean"),
    "reward_features, prior learned": uninformed,
    "flute": without("head.weight"),
    "mixture_prior K=1": uninformed,
    "mixture_prior": uninformed,
}
"""How a prior is taken away; that of fedrep is at zero anyway, those of p_sharelora and pal know nothing."""


def reference_on(people: Population, seed: int, executor: Executor = DEFAULT) -> np.ndarray:
    """Accuracy of the global head on each newcomer."""
    weights = trained(GLOBAL, people, seed, executor)
    return shared_accuracies(
        METHODS[GLOBAL].rule, FedAvg(), GlobalModel(weights, None), people, newcomers(people)
    )


def trained(name: str, people: Population, seed: int, executor: Executor = DEFAULT) -> Weights:
    """What a method serves to newcomers in the end."""
    method = METHODS[name]
    strategy = method.strategy(COHORT, [0] * len(people))
    run = Federation(
        people,
        method.rule,
        strategy,
        rounds=method.rounds,
        seed=seed,
        executor=executor,
        evaluate_every=method.rounds,
        few_shot_resamples=0,
    ).run()
    return run.models["global"]


def law_of(people: Population, seed: int) -> Weights:
    """The moments of people drawn by the law of a population, one component a group."""
    truth = people.truth
    assert isinstance(truth, SyntheticTruth)
    recipe, num_topics = SOURCE.recipe, len(truth.annotators[0].topic_weights)
    drawn = [
        draw_annotator(recipe, truth.directions, truth.delta_covariance, num_topics, seed, number)
        for number in range(_FIRST_DRAWN, _FIRST_DRAWN + _DRAWN)
    ]
    heads = np.stack([person.beta * person.theta for person in drawn])
    is_of = np.eye(len(recipe.shares))[[person.group for person in drawn]]
    return {
        "prior.weight": is_of.mean(axis=0).astype(np.float32),
        "prior.first": (is_of.T @ heads / _DRAWN).astype(np.float32),
        "prior.second": (heads.T @ heads / _DRAWN).astype(np.float32),
    }


def curves(
    name: str, people: Population, seed: int, reference: np.ndarray, executor: Executor = DEFAULT
) -> list[Row]:
    """The curve of a method, and the one with its prior at zero if there is such a thing."""
    if name == LAW:
        rule: ClientRule = MixturePrior(BACKBONE, len(SOURCE.recipe.shares))
        weights = law_of(people, seed)
    else:
        rule, weights = METHODS[name].rule, trained(name, people, seed, executor)
    served = {LEARNED: weights}
    if name in AT_ZERO:
        served[ZERO] = AT_ZERO[name](weights)
    found = []
    for prior, model in served.items():
        state = GlobalModel(model, None)
        curve = few_shot(rule, FedAvg(), state, people, seed, reference, resamples=RESAMPLES)
        accuracies, shots = np.round(curve.accuracies, 6).tolist(), list(curve.shots)
        found.append(Row(seed, name, prior, shots, accuracies, np.round(reference, 6).tolist()))
    return found


def table(rows: Iterable[Row]) -> str:
    """Mean gains over the global head in points, k*, and what the prior is worth, over all populations."""
    of: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.seed):
        of.setdefault((row.method, row.prior), []).append(row)
    if not of:
        return "no curves"
    shots = next(iter(of.values()))[0].shots
    reference = np.mean([row.reference for row in next(iter(of.values()))])
    head = " ".join(f"{count:>6}" for count in shots)
    lines = [
        f"gain over the global head ({100 * reference:.1f} %), points",
        f"{'method':31} {'prior':8} {head}   k*  k* of each population",
    ]
    for (method, prior), mine in of.items():
        each = [_none(_curve([row]).k_star) for row in mine]
        curve = _curve(mine)
        gains = " ".join(f"{100 * point.gain:+6.1f}" for point in curve.points)
        lines.append(f"{method:31} {prior:8} {gains} {_none(curve.k_star):>4}  {' '.join(each)}")
    lines += ["", "learned prior minus prior at zero, points, with 95 % interval over people"]
    for method in AT_ZERO:
        if (method, LEARNED) in of and (method, ZERO) in of:
            lines.append(f"{method:31} {_worth(of[method, LEARNED], of[method, ZERO])}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the curves that are missing, population by population, and print the tables."""
    personal = [LAW, *(name for name, method in METHODS.items() if isinstance(method.rule, Personal))]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file of the curves")
    parser.add_argument("--only", nargs="+", default=personal, choices=personal, metavar="METHOD")
    parser.add_argument("--populations", type=int, default=10, help="how many")
    parser.add_argument("--first", type=int, default=0, help="seed of the first; 1001 to try options")
    add_executor(parser)
    given = parser.parse_args(arguments)
    executor = EXECUTORS[given.executor]
    rows = _read(given.out)
    for seed in range(given.first, given.first + given.populations):
        missing = [name for name in given.only if (seed, name, LEARNED) not in {row.key for row in rows}]
        if not missing:
            continue
        people = SOURCE.population(seed)
        reference = reference_on(people, seed, executor)
        for name in missing:
            found = curves(name, people, seed, reference, executor)
            rows += found
            with given.out.open("a") as file:
                file.writelines(json.dumps(row._asdict()) + "\n" for row in found)
    print(table(rows))


def _curve(rows: Sequence[Row]) -> FewShotCurve:
    """Of all people of these populations."""
    names = [f"{row.seed}/{person}" for row in rows for person in range(len(row.reference))]
    accuracies = np.concatenate([row.accuracies for row in rows], axis=1)
    reference = np.concatenate([row.reference for row in rows])
    rng = generator(0, "benchmark", "few_shot")
    return curve_of(names, rows[0].shots, accuracies, reference, RESAMPLES, rng)


def _worth(learned: Sequence[Row], zero: Sequence[Row]) -> str:
    both = {row.seed: row for row in zero}
    differences = np.concatenate(
        [np.subtract(row.accuracies, both[row.seed].accuracies) for row in learned], axis=1
    )
    cells, ones = [], np.ones(differences.shape[1])
    for count, row in zip(learned[0].shots, differences, strict=True):
        low, high = bootstrap_interval(row, ones, generator(0, "benchmark", "worth"))
        cells.append(f"{count}: {100 * row.mean():+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]")
    return "  ".join(cells)


def _none(k_star: int | None) -> str:
    return "-" if k_star is None else str(k_star)


def _read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    return [Row(**json.loads(line)) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    main()
