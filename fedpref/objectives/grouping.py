"""Which of a client's pairs choose its group, and which models they are to choose from.

Source: Wu et al. 2024, arXiv:2407.03038. The released code splits rows after every pair was doubled by
swapping, so that twins of held-back rows are trained on; this split is by pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fedpref.errors import ConfigurationError
from fedpref.seeds import generator
from fedpref.types import Settings, Shard, Weights

__all__ = ["MOST_GROUPING_PAIRS", "GroupingSplit", "grouping_split", "models_to_score"]

MOST_GROUPING_PAIRS = 200


class GroupingSplit(NamedTuple):
    """Rows of a shard.

    Attributes:
        train: rows to train on.
        grouping: rows whose loss chooses the group; None where a single pair leaves none to hold back.
    """

    train: np.ndarray
    grouping: np.ndarray | None


def grouping_split(shard: Shard, settings: Settings) -> GroupingSplit:
    """Split a shard as the settings of a task ask; the same in every round.

    ``grouping_share`` of the distinct pairs, at least 1 and at most 200, are held back; a share of 0, or
    none, holds nothing back, and all pairs are grouping pairs. Rows of one ``pair_id`` stay together.

    Args:
        shard: of one client.
        settings: ``grouping_share`` and ``grouping_seed``.

    Raises:
        ConfigurationError: the share is not in [0, 1).
    """
    share = float(settings.get("grouping_share", 0.0))
    if not 0 <= share < 1:
        raise ConfigurationError(f"strategy.grouping_pairs: {share} must be a share below 1, or all")
    rows = np.arange(len(shard.pairs))
    if share == 0:
        return GroupingSplit(rows, rows)
    distinct = sorted(set(shard.pairs.pair_ids))
    if len(distinct) < 2:
        return GroupingSplit(rows, None)
    rng = generator(int(settings.get("grouping_seed", 0)), "grouping", shard.client_id)
    held = _held_back(distinct, share, rng)
    is_held = np.array([pair_id in held for pair_id in shard.pairs.pair_ids])
    return GroupingSplit(rows[~is_held], rows[is_held])


def models_to_score(weights: Weights) -> Mapping[int, Weights]:
    """The models of a task to score, by number: model u has the keys ``u/…``, such as ``0/score.weight``.

    Raises:
        ConfigurationError: a key has no number.
    """
    found: dict[int, dict[str, np.ndarray]] = {}
    for name, array in weights.items():
        number, _, key = name.partition("/")
        if not number.isdecimal() or not key:
            raise ConfigurationError(f"client: a model to score has keys such as 0/{name}, not {name}")
        found.setdefault(int(number), {})[key] = array
    return dict(sorted(found.items()))


def _held_back(distinct: Sequence[str], share: float, rng: np.random.Generator) -> set[str]:
    count = min(max(int(share * len(distinct)), 1), MOST_GROUPING_PAIRS)
    return {distinct[place] for place in rng.permutation(len(distinct))[:count]}
