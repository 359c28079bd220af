"""A trained run, loaded back: its strategy, its client rule, the newest valid state, what clients keep."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpref.errors import ConfigurationError

if TYPE_CHECKING:
    from fedpref.evaluation.answers import Kept
    from fedpref.types import ClientId, ClientRule, ClientState, Shard, Strategy

__all__ = ["TrainedRun", "clients_states", "load_run", "training_shards"]

_STATES = "clients.db"
"""What clients keep, in a run's directory."""


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
        config: its configuration.
        store_mark: up to where the clients' store belongs to the checkpoint.
        acknowledged: number of the last accepted task of each client that has one.
        warnings: newer checkpoints that are damaged, rounds that are still to come; one sentence each.
    """

    path: Path
    round: int
    seed: int
    clients: Sequence[str]
    strategy: Strategy[Any]
    rule: ClientRule
    state: Any
    config: Mapping[str, Any]
    store_mark: int
    acknowledged: Mapping[ClientId, int]
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
    from fedpref.flower.exchange import acknowledged_in
    from fedpref.flower.timed import below
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
        config=config,
        store_mark=found.tree["rounds"]["exchange"]["grid"]["kept"],
        acknowledged=acknowledged_in(below("rounds/", found.arrays)),
        warnings=warnings,
    )


def training_shards(run: TrainedRun, allow: Sequence[str] = ()) -> Sequence[Shard]:
    """What the clients of a run trained on, read anew from where its configuration says.

    Raises:
        ConfigurationError: the data is gone, or is not that of the run any more.
    """
    from fedpref.cli.build import population_from

    shards = population_from(run.config, allow).shards
    if [shard.name for shard in shards] != list(run.clients):
        common = len({shard.name for shard in shards} & set(run.clients))
        raise ConfigurationError(
            f"the data of {run.path} has changed: the run knew {common} of its {len(shards)} clients; put "
            "back the file that it trained on"
        )
    return shards


@contextlib.contextmanager
def clients_states(run: TrainedRun) -> Iterator[Kept]:
    """What each client of a run kept at its checkpoint, as far as the server had accepted it.

    Nothing where the rule is not personal: nobody asks then.

    Raises:
        StorageError: the file of the states cannot be read.
    """
    from fedpref.evaluation.answers import nothing_kept
    from fedpref.flower import _shim
    from fedpref.flower.client_state import settle
    from fedpref.flower.wire import NOT_ACKNOWLEDGED
    from fedpref.simulation.client_store import ClientStore
    from fedpref.types import Personal

    if not isinstance(run.rule, Personal) or not (run.path / _STATES).exists():
        yield nothing_kept
        return

    def kept(client_id: int) -> ClientState:
        state = store.get(client_id, run.store_mark)
        if state is None:
            return nothing_kept(client_id)
        records = _shim.records_from_bytes(state)
        return settle(records, run.acknowledged.get(client_id, NOT_ACKNOWLEDGED))

    with contextlib.closing(ClientStore(run.path / _STATES)) as store:
        yield kept
