"""Federated preference learning, simulated.

The same federation that ``fedpref run`` launches, in ten lines of Python::

    import fedpref

    population = fedpref.Synthetic(preset="tiny").population(seed=0)
    rule = fedpref.LinearReward(fedpref.Hashing())
    strategy = fedpref.FedAvg(cohort_size=8)
    result = fedpref.Federation(population, rule, strategy, rounds=10, seed=0).run()
    print(result.summary["pair_accuracy"])

``__all__`` is what is public; everything else may move. Names load on first use, so that
``import fedpref`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedpref.clients.linear_reward import LinearReward as LinearReward
    from fedpref.clients.lora_head import LoraHead as LoraHead
    from fedpref.clients.lora_reward import LoraReward as LoraReward
    from fedpref.clients.selector import Selector as Selector
    from fedpref.data.assembly import pool as pool
    from fedpref.data.assembly import population as population
    from fedpref.data.partition import Dirichlet as Dirichlet
    from fedpref.data.partition import Iid as Iid
    from fedpref.data.partition import Natural as Natural
    from fedpref.data.partition import Pooled as Pooled
    from fedpref.data.partition import SizeSkew as SizeSkew
    from fedpref.data.shp import StanfordPreferences as StanfordPreferences
    from fedpref.data.sources import HubDataset as HubDataset
    from fedpref.data.sources import PreferenceFile as PreferenceFile
    from fedpref.data.split import PairSplit as PairSplit
    from fedpref.data.synthetic import Synthetic as Synthetic
    from fedpref.data.tldr import TldrComparisons as TldrComparisons
    from fedpref.federation.federation import Federation as Federation
    from fedpref.federation.run import Result as Result
    from fedpref.flower.native import FlowerStrategy as FlowerStrategy
    from fedpref.flower.strategy import as_flower as as_flower
    from fedpref.maths.combine import WeightedMean as WeightedMean
    from fedpref.maths.lora import FreezeA as FreezeA
    from fedpref.maths.lora import SvdMean as SvdMean
    from fedpref.models.given import Given as Given
    from fedpref.models.hashing import Hashing as Hashing
    from fedpref.models.huggingface import HuggingFace as HuggingFace
    from fedpref.models.minilm import MiniLM as MiniLM
    from fedpref.simulation.availability import Always as Always
    from fedpref.simulation.availability import Daily as Daily
    from fedpref.simulation.availability import Markov as Markov
    from fedpref.simulation.device_classes import DeviceClass as DeviceClass
    from fedpref.simulation.device_classes import Mix as Mix
    from fedpref.simulation.inline import Inline as Inline
    from fedpref.simulation.ray import RayPool as RayPool
    from fedpref.simulation.traces import Traces as Traces
    from fedpref.strategies.fedavg import FedAvg as FedAvg
    from fedpref.strategies.fedbis import FedBis as FedBis
    from fedpref.strategies.fedbiscuit import FedBiscuit as FedBiscuit
    from fedpref.strategies.fedprox import FedProx as FedProx
    from fedpref.strategies.local_only import LocalOnly as LocalOnly
    from fedpref.strategies.tail_average import TailAverage as TailAverage

_HOMES = {
    "clients.linear_reward": ["LinearReward"],
    "clients.lora_head": ["LoraHead"],
    "clients.lora_reward": ["LoraReward"],
    "clients.selector": ["Selector"],
    "data.assembly": ["pool", "population"],
    "data.partition": ["Dirichlet", "Iid", "Natural", "Pooled", "SizeSkew"],
    "data.shp": ["StanfordPreferences"],
    "data.sources": ["HubDataset", "PreferenceFile"],
    "data.split": ["PairSplit"],
    "data.synthetic": ["Synthetic"],
    "data.tldr": ["TldrComparisons"],
    "federation.federation": ["Federation"],
    "federation.run": ["Result"],
    "flower.native": ["FlowerStrategy"],
    "flower.strategy": ["as_flower"],
    "maths.combine": ["WeightedMean"],
    "maths.lora": ["FreezeA", "SvdMean"],
    "models.given": ["Given"],
    "models.hashing": ["Hashing"],
    "models.huggingface": ["HuggingFace"],
    "models.minilm": ["MiniLM"],
    "simulation.availability": ["Always", "Daily", "Markov"],
    "simulation.device_classes": ["DeviceClass", "Mix"],
    "simulation.inline": ["Inline"],
    "simulation.ray": ["RayPool"],
    "simulation.traces": ["Traces"],
    "strategies.fedavg": ["FedAvg"],
    "strategies.fedbis": ["FedBis"],
    "strategies.fedbiscuit": ["FedBiscuit"],
    "strategies.fedprox": ["FedProx"],
    "strategies.local_only": ["LocalOnly"],
    "strategies.tail_average": ["TailAverage"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "__version__",
    *sorted(_HOME_OF),
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'fedpref' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fedpref.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
