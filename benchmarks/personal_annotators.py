"""Personal heads against one head for all, on real annotators, with paired figures.

MiniLM features; 50 people a round, for 20 rounds with the 100 people of llmfao, for 40 with the others' more.
Split 0 is the one that the data has. The other splits hold out text pairs at random, never one pair on both
sides: 30 % of them, of polis half, since nobody there has more than 22 rows. Options are chosen on training
pairs alone, a quarter of which is held out for that in the same way; each method has two settings to choose
from. Everybody is asked; those without a training pair as newcomers.

Over pairs, every row counts alike; over people, everybody with ten held-out rows or more. Gains are over
FedAvg on the same rows, their 95 % intervals from drawing people anew; over several random splits a person
counts once, with the mean. "Loses" is a mean loss of more than 0.02. "Worse" and "better" are significant at
5 % for the person, by the exact sign test on the pairs of one split where the two models differ (McNemar, one
side): of people for whom nothing changes at most 5 % are worse by chance, and at most 5 % better.

    python -m fedpref.benchmarks.personal_annotators FOLDER --out FILE [--sets NAME ...] [--splits N ...]
        [--only METHOD ...]

FOLDER holds llmfao.jsonl.gz, ukpconvarg.jsonl.gz and polis.jsonl.gz. FILE has one line of JSON for each set,
split and method; lines that are there are not made again. Tables are printed from it in the end.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedpref.clients.fedrep import FedRep
from fedpref.clients.flute import Flute as FluteFactors
from fedpref.clients.linear_reward import LinearReward
from fedpref.clients.lore import Lore
from fedpref.clients.mixture_prior import MixturePrior
from fedpref.clients.p_sharelora import PShareLora
from fedpref.clients.pal import Pal
from fedpref.clients.personal_ridge import PersonalRidge
from fedpref.clients.reward_features import RewardFeatures
from fedpref.data.assembly import population
from fedpref.data.partition import Natural
from fedpref.data.rows import Rows
from fedpref.data.sources import PreferenceFile
from fedpref.data.split import PairSplit
from fedpref.errors import ConfigurationError
from fedpref.evaluation.answers import answers_of
from fedpref.evaluation.metrics import correctness
from fedpref.evaluation.paired import Marks, compared
from fedpref.federation.federation import Federation
from fedpref.models.backbone import Backbone
from fedpref.models.frozen import Frozen
from fedpref.models.minilm import MiniLM
from fedpref.seeds import generator
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.flute import Flute
from fedpref.strategies.global_model import Share
from fedpref.strategies.ifca import Ifca
from fedpref.strategies.mixture_prior import MixturePrior as RunningMoments
from fedpref.strategies.tail_average import TailAverage
from fedpref.types import ClientRule, Population, Strategy

__all__ = ["METHODS", "SETS", "Method", "Run", "made", "main", "marks", "populations", "table"]


class Setup(NamedTuple):
    """Share of the pairs that a random split holds out, and rounds of 50 people."""

    held_out_fraction: float
    rounds: int


SETS: Mapping[str, Setup] = {
    "llmfao": Setup(0.3, 20),
    "ukpconvarg": Setup(0.3, 40),
    "polis": Setup(0.5, 40),
}

COHORT = 50
BASE = "fedavg"

_COLUMNS = (
    *("method", "splits", "over pairs", "gain [95 %]", "over people", "gain [95 %]"),
    *("loses", "worse", "better", "chosen"),
)

Options = Mapping[str, float]


Make = Callable[[Backbone, int, Any], tuple[ClientRule, Strategy[Any]]]
"""A rule and a strategy, from the features, the cohort size and a setting."""


class Method(NamedTuple):
    """What is run, and the settings to choose from."""

    make: Make
    settings: Sequence[Options]


class Run(NamedTuple):
    """A line of the file.

    Attributes:
        data: name of the set.
        split: 0 is the data's own.
        method: one of ``METHODS``.
        options: the setting that was chosen.
        tried: accuracy of each setting over the pairs that were held out of training for the choice.
        marks: of each person, one digit a pair: 2 is right, 1 a tie, 0 wrong.
        cpu_s: of the choice and the run.
    """

    data: str
    split: int
    method: str
    options: Options
    tried: Sequence[float]
    marks: Mapping[str, str]
    cpu_s: float


def averaged(cohort: int, share: Share = "pairs") -> TailAverage:
    """FedAvg, the last quarter's iterates averaged."""
    return TailAverage(FedAvg(cohort, share), fraction=0.25)


def under(rule: Callable[..., ClientRule], strategy: Callable[[int], Strategy[Any]] = averaged) -> Make:
    """A rule that takes the settings, under a strategy that takes none."""
    return lambda backbone, cohort, options: (rule(backbone, **options), strategy(cohort))


def of_heads(backbone: Backbone, cohort: int, options: Any) -> tuple[ClientRule, Strategy[Any]]:
    """IFCA, whose settings are the strategy's."""
    return LinearReward(backbone, l2=0.003), Ifca(cohort_size=cohort, **options)


# Equal components at first: the strategy draws them apart.
MIXTURE = partial(MixturePrior, covariance="diagonal")

METHODS: Mapping[str, Method] = {
    BASE: Method(under(LinearReward), [{"l2": 0.001}, {"l2": 0.01}]),
    # Nobody trains a global head, so everybody's prior stays at zero.
    "local_only": Method(under(partial(PersonalRidge, local_steps=0)), [{"ridge": 2.0}, {"ridge": 8.0}]),
    "personal_ridge": Method(under(partial(PersonalRidge, l2=0.003)), [{"ridge": 2.0}, {"ridge": 8.0}]),
    "reward_features": Method(under(RewardFeatures), [{"num_features": 5}, {"num_features": 20}]),
    "reward_features, prior learned": Method(
        under(partial(RewardFeatures, learn_prior=True)), [{"num_features": 5}, {"num_features": 20}]
    ),
    "lore": Method(
        under(partial(Lore, ridge=0.3, lr=1.0, init_std=0.1)), [{"num_heads": 5}, {"num_heads": 20}]
    ),
    "mixture_prior K=1": Method(
        under(partial(MIXTURE, num_components=1), RunningMoments),
        [{"init_variance": 0.1}, {"init_variance": 0.3}],
    ),
    "mixture_prior K=2": Method(
        under(partial(MIXTURE, num_components=2), RunningMoments),
        [{"init_variance": 0.1}, {"init_variance": 0.3}],
    ),
    "fedrep": Method(under(FedRep, partial(averaged, share="clients")), [{"rank": 4}, {"rank": 16}]),
    "flute": Method(under(FluteFactors, Flute), [{"rank": 4}, {"rank": 16}]),
    "ifca": Method(of_heads, [{"num_heads": 2}, {"num_heads": 4}]),
    "p_sharelora": Method(under(partial(PShareLora, precision=1.0)), [{"rank": 4}, {"rank": 16}]),
    "pal": Method(under(partial(Pal, lr=0.01, spread=2.0)), [{"latent_dim": 4}, {"latent_dim": 16}]),
}


def populations(rows: Rows, name: str, split: int) -> tuple[Population, Population]:
    """The population of a split, and one of its training rows alone, to choose options on."""
    fraction = SETS[name].held_out_fraction
    rows = rows if split == 0 else _unsplit(rows)
    training = np.flatnonzero(~PairSplit(fraction).is_held_out(rows, split))
    for_choice = population(_unsplit(rows.take(training)), Natural(), PairSplit(0.25), seed=1000 + split)
    return population(rows, Natural(), PairSplit(fraction), seed=split), for_choice


def marks(people: Population, rule: ClientRule, strategy: Strategy[Any], rounds: int, seed: int) -> Marks:
    """How right what is served is, after a run."""
    federation = Federation(people, rule, strategy, rounds, seed)
    with federation.grid() as grid:
        loop = federation.start(grid)
        while loop.version < rounds:
            loop.advance()
        asked = range(len(people.held_out))
        answers = answers_of(rule, strategy, loop.state, people, asked, loop.exchange.kept)
    return {people.held_out[index].name: correctness(answers[index].margins) for index in asked}


def made(data: str, split: int, name: str, both: tuple[Population, Population], backbone: Backbone) -> Run:
    """Choose the options on the second population, and run with them on the first."""
    started, method, rounds = time.process_time(), METHODS[name], SETS[data].rounds
    people, for_choice = both

    def after(population: Population, options: Options) -> Marks:
        rule, strategy = method.make(backbone, COHORT, options)
        return marks(population, rule, strategy, rounds, split)

    tried = [
        float(np.concatenate([*after(for_choice, options).values()]).mean()) for options in method.settings
    ]
    options = method.settings[int(np.argmax(tried))]
    digits = {
        person: "".join(str(round(2 * mark)) for mark in right)
        for person, right in after(people, options).items()
    }
    return Run(data, split, name, options, tried, digits, round(time.process_time() - started, 1))


def table(runs: Iterable[Run]) -> str:
    """Markdown: of each set the data's own split, and the random ones together."""
    found = {(run.data, run.split, run.method): run for run in runs}
    lines = []
    for data in dict.fromkeys(run.data for run in found.values()):
        splits = sorted({run.split for run in found.values() if run.data == data and run.method == BASE})
        for title, part in (("the given split", [0]), ("random splits", [s for s in splits if s > 0])):
            chosen = [split for split in part if split in splits]
            if chosen:
                lines += _rows(f"{data}, {title}", data, chosen, found)
    return "\n".join(lines)


def _rows(
    title: str, data: str, splits: Sequence[int], found: Mapping[tuple[str, int, str], Run]
) -> list[str]:
    lines: list[str] = []
    for name in METHODS:
        mine = [split for split in splits if (data, split, name) in found]
        if not mine:
            continue
        own, base = ([_marks(found[data, split, one]) for split in mine] for one in (name, BASE))
        of = compared(own, base, generator(0, "bootstrap"))
        if not lines:
            lines = [
                f"\n{title}: {len(splits)} in all, {of.num_people} people with ten rows or more\n",
                f"| {' | '.join(_COLUMNS)} |",
                "|---" * len(_COLUMNS) + "|",
            ]
        chosen = ", ".join(_short(found[data, split, name].options) for split in mine)
        over_people = (f"{of.accuracy:.4f}", _gain(of.gain, of.interval), *map(_percent, of[-3:]))
        cells = [
            *(name, str(len(mine)), f"{of.pair_accuracy:.4f}", _gain(of.pair_gain, of.pair_interval)),
            *(over_people if of.num_people else "–" * len(over_people)),
            chosen,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the runs that are missing, and print the tables.

    Raises:
        ConfigurationError: a set is not in the folder.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="file of the runs")
    parser.add_argument("--sets", nargs="+", default=list(SETS), metavar="NAME")
    parser.add_argument("--splits", nargs="+", type=int, default=range(6), help="0 is the data's own")
    parser.add_argument("--only", nargs="+", default=list(METHODS), choices=METHODS, metavar="METHOD")
    given = parser.parse_args(arguments)
    runs, backbone = _read(given.out), Frozen(MiniLM())
    there = {(run.data, run.split, run.method) for run in runs}
    for data in given.sets:
        path = given.folder / f"{data}.jsonl.gz"
        if not path.is_file():
            raise ConfigurationError(f"{path} is absent; name the folder that holds {', '.join(given.sets)}")
        rows = PreferenceFile(str(path)).rows()
        for split in given.splits:
            missing = [name for name in given.only if (data, split, name) not in there]
            both = populations(rows, data, split) if missing else None
            for name in missing:
                assert both is not None
                runs.append(made(data, split, name, both, backbone))
                with given.out.open("a") as file:
                    file.write(json.dumps(runs[-1]._asdict()) + "\n")
    print(table(runs))


def _unsplit(rows: Rows) -> Rows:
    return replace(rows, splits=("",) * len(rows))


def _read(path: Path) -> list[Run]:
    if not path.exists():
        return []
    return [Run(**json.loads(line)) for line in path.read_text().splitlines()]


def _marks(run: Run) -> Marks:
    return {person: np.array([int(digit) / 2 for digit in digits]) for person, digits in run.marks.items()}


def _short(options: Options) -> str:
    return " ".join(f"{value:g}" for value in options.values())


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _gain(gain: float, interval: tuple[float, float]) -> str:
    return f"{gain:+.4f} [{interval[0]:+.3f}, {interval[1]:+.3f}]"


if __name__ == "__main__":
    main()
