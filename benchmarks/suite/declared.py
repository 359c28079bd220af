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
  pooled: {words: […], federated: false} # nobody exchanges anything: no bytes, no virtual time
tiers:
  small: {data: [clusters, llmfao], seeds: [0, 1, 2], words: [rounds=100], cost: a minute}
claims:                            # what must come out; may be left out
  - {claim: …, data: clusters, method: lore, than: fedavg, metric: user_accuracy, least: 0.04}
  - {claim: …, data: clusters, method: lore, metric: k_star, most: 20, why: One person has 9 pairs.}
```

``why`` is a sentence, shown where the claim does not hold: why that is so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedpref.benchmarks.suite import keys
from fedpref.benchmarks.suite.keys import Words
from fedpref.benchmarks.suite.metrics import (
    COSTS,
    EXTRA,
    HIDDEN,
    METRICS,
    OF_NEWCOMERS,
    SHOTS,
    newcomers_table,
)
from fedpref.errors import ConfigurationError, did_you_mean

__all__ = ["Claim", "DataSet", "Method", "Suite", "Tier", "read_suite", "suite_names"]

_BASELINES = ("pooled", "local_only", "personal_ridge")
_FOLDER = Path(__file__).parent.parent / "suites"
_KEYS = {
    "suite": ("title", "about", "base", "words", "data", "methods", "tiers", "claims"),
    "data": ("words", "file", "target"),
    "methods": ("words", "grid", "told_groups", "federated", "from"),
    "tiers": ("data", "methods", "seeds", "words", "cost"),
    "claims": ("claim", "data", "method", "than", "metric", "least", "most", "why"),
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
        is_federated: False where nobody exchanges anything as in a federation, such as pairs in one place or
            everybody alone: what exchange costs is then not told.
    """

    name: str
    words: Words
    grid: tuple[Words, ...] = ((),)
    told_groups: str | None = None
    is_federated: bool = True


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
        why: a sentence on why it does not hold, for where it does not; may be empty.
    """

    claim: str
    data: str
    method: str
    metric: str
    than: str | None = None
    least: float | None = None
    most: float | None = None
    why: str = ""

    @property
    def asked(self) -> str:
        """The criterion in words."""
        minus = f" - {self.than}" if self.than else ""
        ends = {"at least": self.least, "at most": self.most}
        bounds = " and ".join(f"{words} {end:g}" for words, end in ends.items() if end is not None)
        return f"{self.metric} of {self.method}{minus} {bounds}"


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
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        tree = OmegaConf.to_container(OmegaConf.load(path))
    except (YAMLError, OSError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise ConfigurationError(
            f"{path} is no YAML that can be read: {str(error).splitlines()[0]}"
        ) from error
    try:
        return replace(_suite(path.stem, tree), path=None if path.parent == _FOLDER else path)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _suite(name: str, tree: Any) -> Suite:
    keys.keys("the suite", tree, _KEYS["suite"], ("title", "about", "base", "data", "methods", "tiers"))
    title, about = (keys.text(key, tree[key]) for key in ("title", "about"))
    data = {key: _data(f"data.{key}", key, one) for key, one in keys.entries("data", tree["data"]).items()}
    listed = keys.entries("methods", tree["methods"])
    methods = {key: _method(f"methods.{key}", key, one) for key, one in listed.items()}
    budgets = {key: len(method.grid) for key, method in methods.items() if method.grid != ((),)}
    if len(set(budgets.values())) > 1:
        raise ConfigurationError(f"methods: every grid must have equally many settings, got {budgets}")
    base = keys.one_of("base", tree["base"], methods)
    listed = keys.entries("tiers", tree["tiers"])
    tiers = {key: _tier(f"tiers.{key}", key, one, data, methods) for key, one in listed.items()}
    for tier in tiers.values():
        if base not in tier.methods:
            raise ConfigurationError(f"tiers.{tier.name}.methods must have the base, {base}")
    words = keys.words("words", tree.get("words", []))
    claimed = enumerate(keys.listed("claims", tree.get("claims", [])))
    claims = tuple(_claim(f"claims[{i}]", entry, methods, data) for i, entry in claimed)
    return Suite(name, title, about, base, words, data, methods, tiers, claims)


def _data(where: str, name: str, entry: Any) -> DataSet:
    keys.keys(where, entry, _KEYS["data"], ("words",))
    return DataSet(
        name,
        keys.words(f"{where}.words", entry["words"]),
        keys.optional(where, entry, "file", keys.text, None),
        keys.optional(where, entry, "target", keys.number, None),
    )


def _method(where: str, name: str, entry: Any) -> Method:
    keys.keys(
        where, entry, _KEYS["methods"], () if isinstance(entry, dict) and "from" in entry else ("words",)
    )
    if "from" in entry:
        other = read_suite(keys.text(f"{where}.from", entry["from"]))
        if len(entry) > 1 or name not in other.methods:
            raise ConfigurationError(f"{where}: from takes all of a method of that suite, and nothing else")
        return other.methods[name]
    return Method(
        name,
        keys.words(f"{where}.words", entry["words"]),
        keys.optional(where, entry, "grid", keys.grid, ((),)),
        keys.optional(where, entry, "told_groups", keys.text, None),
        keys.optional(where, entry, "federated", keys.is_true, True),
    )


def _tier(
    where: str, name: str, entry: Any, data: Mapping[str, DataSet], methods: Mapping[str, Method]
) -> Tier:
    keys.keys(where, entry, _KEYS["tiers"], ("seeds", "cost"))
    return Tier(
        name,
        keys.names(f"{where}.data", entry.get("data", list(data)), data),
        keys.names(f"{where}.methods", entry.get("methods", list(methods)), methods),
        keys.seeds(f"{where}.seeds", entry["seeds"]),
        keys.words(f"{where}.words", entry.get("words", [])),
        keys.text(f"{where}.cost", entry["cost"]),
    )


def _claim(where: str, entry: Any, methods: Mapping[str, Method], data: Mapping[str, DataSet]) -> Claim:
    keys.keys(where, entry, _KEYS["claims"], ("claim", "data", "method", "metric"))
    on_tables = [*data, *(newcomers_table(name, shots) for name in data for shots in SHOTS)]
    on = keys.one_of(f"{where}.data", entry["data"], on_tables)
    metrics = (*METRICS, *EXTRA, *HIDDEN) if on in data else OF_NEWCOMERS
    has_oracle = on in data and data[on].file is None  # of real annotators nobody knows the law
    others = (*methods, "oracle") if has_oracle else tuple(methods)
    claim = Claim(
        claim=keys.text(f"{where}.claim", entry["claim"]),
        data=on,
        method=keys.one_of(f"{where}.method", entry["method"], methods),
        metric=keys.one_of(f"{where}.metric", entry["metric"], metrics),
        than=keys.one_of(f"{where}.than", entry["than"], others) if "than" in entry else None,
        least=keys.optional(where, entry, "least", keys.number, None),
        most=keys.optional(where, entry, "most", keys.number, None),
        why=keys.optional(where, entry, "why", keys.text, ""),
    )
    if claim.least is None and claim.most is None:
        raise ConfigurationError(f"{where}: least or most is missing")
    if claim.least is not None and claim.most is not None and claim.least > claim.most:
        raise ConfigurationError(f"{where}: least={claim.least:g} must not be above most={claim.most:g}")
    for name in (claim.method, claim.than):
        if claim.metric in COSTS and name in methods and not methods[str(name)].is_federated:
            raise ConfigurationError(f"{where}.metric: {name} is not federated and has no {claim.metric}")
    return claim
