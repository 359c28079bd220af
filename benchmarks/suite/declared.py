"""A suite as it is declared: data sets, methods with the options to choose from, tiers. Plain YAML.

```yaml
title: …
about: what it asks, in a sentence or two
base: fedavg                       # all differences are against this method
words: [executor=cohort]           # of every run, as after `fedpref run`
data:
  clusters: {words: [data=synthetic, data.preset=clusters]}
  llmfao: {words: [data=jsonl, backbone=minilm], file: llmfao}
methods:                           # what is compared
  fedavg: {words: [strategy=fedavg], grid: [[client.l2=0], [client.l2=0.01]]}
  lore: {from: heterogeneity}      # as that suite has it
tiers:
  small: {data: [clusters, llmfao], seeds: [0, 1, 2], words: [rounds=100], cost: a minute}
claims:                            # what must come out; may be left out
  - {claim: …, data: clusters, method: lore, than: fedavg, metric: user_accuracy, least: 0.04}
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedpref.errors import ConfigurationError, did_you_mean

__all__ = ["Claim", "DataSet", "Method", "Suite", "Tier", "read_suite", "suite_names"]

Words = tuple[str, ...]

_BASELINES = ("pooled", "local_only", "personal_ridge")
_FOLDER = Path(__file__).parent.parent / "suites"
_KEYS = {
    "suite": ("title", "about", "base", "words", "data", "methods", "tiers", "claims"),
    "data": ("words", "file", "target"),
    "methods": ("words", "grid", "told_groups", "from"),
    "tiers": ("data", "methods", "seeds", "words", "cost"),
    "claims": ("claim", "data", "method", "than", "metric", "least", "most"),
}


@dataclass(frozen=True)
class DataSet:
    """People to learn from.

    Attributes:
        name: in tables.
        words: of a run on them.
        file: the set of real annotators whose file is to be found; None where nothing is read.
        target: user accuracy to which time and bytes are counted; None counts neither.
    """

    name: str
    words: Words
    file: str | None = None
    target: float | None = None


@dataclass(frozen=True)
class Method:
    """What is compared.

    Attributes:
        name: in tables.
        words: of a run of it, but for the options that are chosen.
        grid: settings to choose from, each some words; one empty setting where nothing is chosen.
        told_groups: the option that is told the hidden group of each client, if there is one.
    """

    name: str
    words: Words
    grid: tuple[Words, ...] = ((),)
    told_groups: str | None = None


@dataclass(frozen=True)
class Tier:
    """How much of a suite is run.

    Attributes:
        name: smoke, small or full.
        data: names of the data sets.
        methods: names of the methods.
        seeds: of the runs.
        words: of its runs, which those of data sets and methods may override.
        cost: what to expect, in words.
    """

    name: str
    data: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    words: Words
    cost: str


@dataclass(frozen=True)
class Claim:
    """What a paper or a study says will come out.

    Attributes:
        claim: in words.
        data: name of a table, mostly of a data set.
        method: whose figure.
        metric: which.
        than: method or "oracle" that is subtracted; None subtracts nothing.
        least: smallest value that bears the claim out; None where there is none.
        most: largest; likewise.
    """

    claim: str
    data: str
    method: str
    metric: str
    than: str | None = None
    least: float | None = None
    most: float | None = None

    @property
    def asked(self) -> str:
        """The criterion in words."""
        minus = f" - {self.than}" if self.than else ""
        bound = f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"
        return f"{self.metric} of {self.method}{minus} {bound}"


@dataclass(frozen=True)
class Suite:
    """A question, and the runs that answer it.

    Attributes:
        name: of its file.
        title: of its table.
        about: what it asks.
        base: method that all others are compared with.
        words: of every run.
        data: data sets by name.
        methods: by name.
        tiers: by name.
        claims: to be checked.
        path: of the file, where it is one's own; None for those that fedpref brings.
    """

    name: str
    title: str
    about: str
    base: str
    words: Words
    data: Mapping[str, DataSet]
    methods: Mapping[str, Method]
    tiers: Mapping[str, Tier]
    claims: tuple[Claim, ...] = ()
    path: Path | None = None

    def tier(self, name: str, methods: Sequence[str] = (), seeds: Sequence[int] = ()) -> Tier:
        """A tier, with other methods, beside its baselines, or seeds where some are given.

        Methods that the suite does not know are taken as names of the group ``strategy``, with their own
        defaults and nothing to choose: so a strategy of one's own joins a suite.

        Raises:
            ConfigurationError: there is no such tier.
        """
        if name not in self.tiers:
            raise ConfigurationError(
                f"--tier {name}: suite {self.name} has {', '.join(self.tiers)}."
                f"{did_you_mean(name, self.tiers)}"
            )
        tier = self.tiers[name]
        always = [one for one in tier.methods if one in (self.base, *_BASELINES)]
        wanted = tuple(dict.fromkeys((*always, *methods))) if methods else tier.methods
        return replace(tier, methods=wanted, seeds=tuple(dict.fromkeys(seeds)) or tier.seeds)

    def method(self, name: str) -> Method:
        """One of the suite's methods, or a strategy by its name."""
        return self.methods.get(name) or Method(name, (f"strategy={name}",))


def suite_names() -> list[str]:
    """Names of all suites."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def read_suite(name: str) -> Suite:
    """A suite by its name, or by the path of a YAML file of one's own.

    Raises:
        ConfigurationError: there is none, or something in it is wrong.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else _FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise ConfigurationError(
            f"suite {name} does not exist.{did_you_mean(name, suite_names())} "
            f"There are {', '.join(suite_names())}"
        )
    from omegaconf import OmegaConf
    from yaml import YAMLError

    try:
        tree = OmegaConf.to_container(OmegaConf.load(path))
    except (YAMLError, OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path} is no YAML that can be read: {str(error).splitlines()[0]}"
        ) from error
    return replace(_suite(path.stem, tree), path=None if path.parent == _FOLDER else path)


def _suite(name: str, tree: Any) -> Suite:
    _check(name, tree, "suite", ("title", "about", "base", "data", "methods", "tiers"))
    data = {key: _data(f"{name}.data.{key}", key, entry) for key, entry in tree["data"].items()}
    methods = {key: _method(f"{name}.methods.{key}", key, entry) for key, entry in tree["methods"].items()}
    budgets = {key: len(method.grid) for key, method in methods.items() if method.grid != ((),)}
    if len(set(budgets.values())) > 1:
        raise ConfigurationError(f"{name}.methods: every grid must have equally many settings, got {budgets}")
    tiers = {
        key: _tier(f"{name}.tiers.{key}", key, entry, data, methods) for key, entry in tree["tiers"].items()
    }
    base = tree["base"]
    if base not in methods:
        raise ConfigurationError(f"{name}.base={base} is not among its methods: {', '.join(methods)}")
    for tier in tiers.values():
        if base not in tier.methods:
            raise ConfigurationError(f"{name}.tiers.{tier.name}.methods must have the base, {base}")
    words = _words(name, tree.get("words", []))
    listed = enumerate(tree.get("claims", []))
    claims = tuple(_claim(f"{name}.claims[{i}]", entry, methods, data) for i, entry in listed)
    return Suite(name, tree["title"], tree["about"], base, words, data, methods, tiers, claims)


def _data(where: str, name: str, entry: Any) -> DataSet:
    _check(where, entry, "data", ("words",))
    return DataSet(name, _words(where, entry["words"]), entry.get("file"), entry.get("target"))


def _method(where: str, name: str, entry: Any) -> Method:
    _check(where, entry, "methods", () if isinstance(entry, dict) and "from" in entry else ("words",))
    if "from" in entry:
        other = read_suite(entry["from"])
        if len(entry) > 1 or name not in other.methods:
            raise ConfigurationError(f"{where}: from takes all of a method of that suite, and nothing else")
        return other.methods[name]
    grid = tuple(_words(f"{where}.grid", setting) for setting in entry.get("grid", [[]]))
    if not grid:
        raise ConfigurationError(f"{where}.grid has no setting; leave it out where nothing is to choose")
    return Method(name, _words(where, entry["words"]), grid, entry.get("told_groups"))


def _tier(
    where: str, name: str, entry: Any, data: Mapping[str, DataSet], methods: Mapping[str, Method]
) -> Tier:
    _check(where, entry, "tiers", ("seeds", "cost"))
    chosen = {}
    for kind, known in (("data", data), ("methods", methods)):
        chosen[kind] = tuple(str(each) for each in entry.get(kind, known))
        for each in chosen[kind]:
            if each not in known:
                raise ConfigurationError(f"{where}.{kind}: unknown {each}.{did_you_mean(each, known)}")
    seeds = tuple(entry["seeds"])
    if not seeds or not all(isinstance(seed, int) and seed >= 0 for seed in seeds):
        raise ConfigurationError(f"{where}.seeds={list(seeds)} must be integers from 0 on, at least one")
    return Tier(
        name, chosen["data"], chosen["methods"], seeds, _words(where, entry.get("words", [])), entry["cost"]
    )


def _claim(where: str, entry: Any, methods: Mapping[str, Method], data: Mapping[str, DataSet]) -> Claim:
    _check(where, entry, "claims", ("claim", "data", "method", "metric"))
    claim = Claim(**entry)
    if claim.least is None and claim.most is None:
        raise ConfigurationError(f"{where}: least or most is missing")
    if claim.data.partition(",")[0] not in data:  # what follows a comma tells of newcomers
        raise ConfigurationError(f"{where}: unknown data {claim.data}.{did_you_mean(claim.data, data)}")
    for name in (claim.method, claim.than):
        if name is not None and name not in (*methods, "oracle"):
            raise ConfigurationError(f"{where}: unknown method {name}.{did_you_mean(name, methods)}")
    return claim


def _check(where: str, entry: Any, kind: str, required: Sequence[str]) -> None:
    if not isinstance(entry, dict):
        raise ConfigurationError(f"{where} must be a mapping with {', '.join(required)}")
    for key in entry:
        if key not in _KEYS[kind]:
            raise ConfigurationError(f"{where}: unknown key {key}.{did_you_mean(str(key), _KEYS[kind])}")
    for key in required:
        if key not in entry:
            raise ConfigurationError(f"{where}: {key} is missing")


def _words(where: str, words: Any) -> Words:
    if not isinstance(words, list) or not all(isinstance(word, str) and "=" in word for word in words):
        raise ConfigurationError(f"{where}: words must be a list of key=value, got {words!r:.80}")
    return tuple(words)
