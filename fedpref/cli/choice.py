"""The people of a configuration, asked about training pairs: what options may be chosen on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedpref.types import Population

__all__ = ["population_for_choice"]

_NATURAL = {"_target_": "fedpref.data.partition.Natural"}


def population_for_choice(config: Mapping[str, Any], allow: Sequence[str] = ()) -> Population:
    """The population of a configuration as ``evaluation.validation.for_choice`` divides it.

    A pooled population is divided before it is pooled, so that everybody is asked, not one crowd: the pooled
    baseline is chosen by the same figure as all others.

    Raises:
        ConfigurationError: the data is wrong, or nobody has a pair to spare.
    """
    from fedpref.cli.build import population_from
    from fedpref.cli.targets import ALLOWED, resolve
    from fedpref.data.assembly import pool
    from fedpref.data.partition import Pooled
    from fedpref.evaluation.validation import for_choice

    partition = resolve(config["partition"]["_target_"], "partition._target_", (*ALLOWED, *allow))
    if partition is not Pooled:
        return for_choice(population_from(config, allow), seed=config["seed"])
    people = population_from({**config, "partition": _NATURAL}, allow)
    return pool(for_choice(people, seed=config["seed"]))
