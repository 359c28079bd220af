"""From a plain configuration to a ``Federation``. Cheap parts are built first, so that errors come early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedpref.cli.targets import ALLOWED, build, check, check_role, resolve
from fedpref.errors import ConfigurationError

if TYPE_CHECKING:
    from fedpref.federation.federation import Federation
    from fedpref.models.backbone import Backbone
    from fedpref.types import ClientRule, Population, Strategy

__all__ = [
    "backbone_from",
    "check_config",
    "federation_from",
    "population_from",
    "rule_from",
    "strategy_from",
    "supplied",
]

CHEAP = ("data", "partition", "split", "combine", "executor", "fleet", "limits")
EVALUATION = ("every", "every_s", "few_shot_resamples")
GIVEN = "fedpref.models.given.Given"
SYNTHETIC = "fedpref.data.synthetic.Synthetic"
FLOWER = "flwr."


def check_config(config: Mapping[str, Any], allow: Sequence[str] = ()) -> None:
    """Check every key, value and target of a configuration; loads no data and no model.

    Raises:
        ConfigurationError: the first thing that is wrong.
    """
    for key, least in (("rounds", 1), ("seed", 0)):
        if not isinstance(config[key], int) or isinstance(config[key], bool) or config[key] < least:
            raise ConfigurationError(f"{key}={config[key]!r:.80} must be an integer, at least {least}")
    if config["seed"] >= 2**63:
        raise ConfigurationError(f"seed={config['seed']} must be below 2**63, so that it can travel")
    for key in ("name", "out"):
        if not isinstance(config[key], str):
            raise ConfigurationError(f"{key}={config[key]!r:.80} must be text; quote it: \"{key}='TEXT'\"")
    if not config["out"]:
        raise ConfigurationError("out='' must name a folder, such as out=runs")
    if config["cohort_size"] is not None and not isinstance(config["cohort_size"], int):
        raise ConfigurationError(f"cohort_size={config['cohort_size']!r:.80} must be an integer or null")
    for name, may_be_null in (("evaluation.every_s", True), ("max_wait_s", False)):
        value = config["evaluation"].get("every_s") if may_be_null else config["max_wait_s"]
        if isinstance(value, bool) or not (
            isinstance(value, (int, float)) or (value is None and may_be_null)
        ):
            null = " or null" if may_be_null else ""
            raise ConfigurationError(f"{name}={value!r:.80} must be a number of virtual seconds{null}")
    for node, known in (("checkpoint", ("every", "keep")), ("evaluation", EVALUATION)):
        for name, value in config[node].items():
            if name not in known:
                raise ConfigurationError(f"unknown option '{node}.{name}'; there are {', '.join(known)}")
            if name == "every_s":
                continue
            least = 0 if name == "few_shot_resamples" else 1
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigurationError(f"{node}.{name}={value!r:.80} must be an integer, at least {least}")
    allowed = (*ALLOWED, *allow)
    for node, role in _roles(config["data"]).items():
        check_role(
            resolve(config[node].get("_target_"), f"{node}._target_", allowed), role, f"{node}._target_"
        )
    for node in CHEAP:  # building them runs the checks of their classes too
        build(config[node], node, allowed)
    check(config["backbone"], "backbone", supplied(config["backbone"]), allowed)
    check(config["client"], "client", ("backbone",), allowed)
    strategy_from(config, allow)


def _roles(data: Mapping[str, Any]) -> dict[str, Any]:
    """What the class of each node must be; of the strategy ``strategy_from`` knows."""
    from fedpref.data.partition import Partition
    from fedpref.data.sources import Source
    from fedpref.data.split import PairSplit
    from fedpref.data.synthetic import Synthetic
    from fedpref.flower.validation import ReplyLimits
    from fedpref.models.backbone import Backbone
    from fedpref.simulation.executor import Executor
    from fedpref.simulation.fleet import Fleet
    from fedpref.types import ClientRule, Combine

    return {
        "data": Synthetic if data.get("_target_") == SYNTHETIC else Source,
        "partition": Partition,
        "split": PairSplit,
        "backbone": Backbone,
        "client": ClientRule,
        "combine": Combine,
        "executor": Executor,
        "fleet": Fleet,
        "limits": ReplyLimits,
    }


def federation_from(
    config: Mapping[str, Any], allow: Sequence[str] = (), population: Population | None = None
) -> Federation:
    """The federation of a configuration.

    Args:
        config: resolved.
        allow: further packages of classes.
        population: in place of the configuration's, which is not read then.

    Raises:
        ConfigurationError: something is wrong, or two parts cannot work together.
    """
    check_config(config, allow)
    from fedpref.federation.federation import Federation

    allowed = (*ALLOWED, *allow)
    strategy = strategy_from(config, allow)
    executor, fleet, limits = (build(config[node], node, allowed) for node in ("executor", "fleet", "limits"))
    if population is None:
        population = population_from(config, allow)
    return Federation(
        population=population,
        rule=rule_from(config, backbone_from(config, population, allow), allow),
        strategy=strategy,
        rounds=config["rounds"],
        seed=config["seed"],
        executor=executor,
        fleet=fleet,
        limits=limits,
        evaluate_every=config["evaluation"]["every"],
        evaluate_every_s=config["evaluation"]["every_s"],
        few_shot_resamples=config["evaluation"]["few_shot_resamples"],
        checkpoint_every=config["checkpoint"]["every"],
        checkpoint_keep=config["checkpoint"]["keep"],
        max_wait_s=config["max_wait_s"],
    )


def strategy_from(config: Mapping[str, Any], allow: Sequence[str] = ()) -> Strategy[Any]:
    """The strategy; one of Flower's own is wrapped, unmodified."""
    node = config["strategy"]
    allowed = (*ALLOWED, *allow)
    cls = resolve(node.get("_target_"), "strategy._target_", allowed)
    strategy: Strategy[Any]
    if not cls.__module__.startswith(FLOWER):
        from fedpref import types

        check_role(cls, types.Strategy, "strategy._target_")
        strategy = build(node, "strategy", allowed)
        return strategy
    from flwr.serverapp.strategy import Strategy as NativeStrategy

    from fedpref.flower.native import FlowerStrategy

    check_role(cls, NativeStrategy, "strategy._target_")
    # Options of the strategy that the command line replaced by a Flower class do not concern it.
    ours = ("cohort_size", "combine", "inner")
    options = {name: value for name, value in node.items() if name not in ours}
    strategy = FlowerStrategy(build(options, "strategy", allowed), config["cohort_size"])
    return strategy


def population_from(config: Mapping[str, Any], allow: Sequence[str] = ()) -> Population:
    """The population: data, partition and split."""
    allowed = (*ALLOWED, *allow)
    source, partition, split = (build(config[node], node, allowed) for node in ("data", "partition", "split"))
    from fedpref.data.assembly import pool, population
    from fedpref.data.synthetic import Synthetic

    result: Population
    if isinstance(source, Synthetic):
        from fedpref.data.partition import Natural, Pooled

        if isinstance(partition, Pooled):
            return pool(source.population(config["seed"]))
        if not isinstance(partition, Natural):
            raise ConfigurationError(
                f"partition={type(partition).__name__} cannot deal out data=synthetic, whose people have "
                "tastes of their own; use partition=natural or partition=pooled"
            )
        result = source.population(config["seed"])
        return result
    result = population(source.rows(), partition, split, config["seed"])
    return result


def backbone_from(config: Mapping[str, Any], population: Population, allow: Sequence[str] = ()) -> Backbone:
    """The backbone; feature vectors in the data need none, so ``hashing``, the default, gives way.

    Raises:
        ConfigurationError: a text backbone was chosen for vectors, or the other way round.
    """
    from fedpref.models.given import Given

    pairs = population.shards[0].pairs
    node = config["backbone"]
    allowed = (*ALLOWED, *allow)
    cls = resolve(node.get("_target_"), "backbone._target_", allowed)
    backbone: Backbone
    if pairs.is_text:
        if cls is Given:
            raise ConfigurationError(
                "backbone=given needs feature vectors, but the data holds text; "
                "use backbone=hashing or backbone=minilm"
            )
        backbone = build(node, "backbone", allowed)
        return backbone
    is_default = node == {"_target_": "fedpref.models.hashing.Hashing"}
    if cls is not Given and not is_default:
        raise ConfigurationError(
            f"backbone={cls.__name__} reads text, but the data holds feature vectors; leave backbone out, "
            "or choose data.form=text"
        )
    return Given(dim=int(pairs.chosen.shape[1]))  # type: ignore[union-attr]


def supplied(backbone: Mapping[str, Any]) -> Sequence[str]:
    """Parameters of a backbone that the data decides: the dimension of given feature vectors."""
    return ("dim",) if backbone.get("_target_") == GIVEN else ()


def rule_from(config: Mapping[str, Any], backbone: Backbone, allow: Sequence[str] = ()) -> ClientRule:
    """The client rule on its backbone."""
    rule: ClientRule = build(config["client"], "client", (*ALLOWED, *allow), backbone=backbone)
    from fedpref.maths.lora import FreezeA

    combine = resolve(config["combine"]["_target_"], "combine._target_", (*ALLOWED, *allow))
    if combine is FreezeA and getattr(rule, "freeze_a", True) is False:
        raise ConfigurationError(
            "combine=freeze_a averages B over a common A, but clients train A; set client.freeze_a=true"
        )
    return rule
