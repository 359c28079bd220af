"""A trained run, loaded back: its strategy, its client rule and the newest valid state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpref.errors import ConfigurationError

if TYPE_CHECKING:
    from fedpref.types import ClientRule, Strategy

__all__ = ["TrainedRun", "load_run"]


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """What a run has learned.

    Attributes:
        path: its directory.
        round: round of the checkpoint.
        seed: the run's seed.
        clients: names, by client id.
        strategy: with ``state``, says which models there are and whom they serve.
        rule: turns models and pairs into margins.
        state: the strategy's state in the checkpoint.
        warnings: newer checkpoints that are damaged, rounds that are still to come; one sentence each.
    """

    path: Path
    round: int
    seed: int
    clients: Sequence[str]
    strategy: Strategy[Any]
    rule: ClientRule
    state: Any
    warnings: Sequence[str]


def load_run(directory: Path, allow: Sequence[str] = (), reads_text: bool = True) -> TrainedRun:
    """Load a run from its configuration and its newest valid checkpoint.

    Args:
        directory: the run.
        allow: further packages of classes.
        reads_text: the run will be asked about texts.

    Raises:
        StorageError: it is no run directory.
        CheckpointError: it has no valid checkpoint.
        ConfigurationError: its configuration is wrong, or it should read texts and knows vectors only.
    """
    from omegaconf import OmegaConf

    from fedpref.cli.build import backbone_from, check_config, population_from, rule_from, strategy_from
    from fedpref.cli.compose import plain
    from fedpref.federation import checkpoint
    from fedpref.federation.run import restored_state
    from fedpref.report.runs import read_run
    from fedpref.types import Pairs, Population, Shard

    run = read_run(directory.resolve())
    config = plain(OmegaConf.create(run.config))
    check_config(config, allow)
    form = config["data"].get("form", "text")
    if reads_text and form != "text":
        raise ConfigurationError(
            f"{run.path} was trained on feature vectors (data.form={form}), "
            "which no file of texts holds; choose a run on text"
        )
    found, warnings = checkpoint.latest(run.path / "checkpoints")
    if found.round < config["rounds"]:
        warnings = [*warnings, f"The run is unfinished: round {found.round} of {config['rounds']}."]
    # A backbone asks the data only whether it is text and, if not, how long its vectors are.
    is_text = form == "text"
    no_text = Population([Shard(0, "nobody", Pairs((), (), (), (), ()))], [])
    population = no_text if is_text else population_from(config, allow)
    strategy = strategy_from(config, allow)
    return TrainedRun(
        path=run.path,
        round=found.round,
        seed=config["seed"],
        clients=found.tree["clients"],
        strategy=strategy,
        rule=rule_from(config, backbone_from(config, population, allow), allow),
        state=restored_state(strategy, found),
        warnings=warnings,
    )
