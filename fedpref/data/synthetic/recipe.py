"""What a synthetic population is made of: every default once, presets as differences, and checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fedpref.data.synthetic.pairing import MODES
from fedpref.errors import ConfigurationError, did_you_mean

__all__ = ["PRESETS", "Recipe", "resolve"]


@dataclass(frozen=True)
class Recipe:
    """All parameters of a population; the defaults are the preset ``clusters``.

    Attributes:
        num_clients: annotators, M.
        shares: share of each group, pi; their number is the number of groups, K.
        group_cosine: cosine rho_g between any two group directions, above -1/(K-1).
        common_share: kappa, weight of the direction that all groups share.
        deviation_rank: q, dimension of the personal deviations.
        deviation_scale: sigma_dev, their size.
        membership_alpha: above 0, annotators mix groups, m ~ Dir(membership_alpha · pi).
        beta: mean inverse temperature of the annotators' choices.
        beta_spread: s_beta, log standard deviation of beta over annotators.
        flips: epsilon, probability that a label is flipped.
        adversaries: share of annotators who flip every label.
        spammers: share of annotators who label at random.
        top_flips: share of an annotator's pairs, those of largest |reward difference|, flipped.
        position_bias: s_b, standard deviation over annotators of the bias towards slot one.
        mean_pairs: n̄, mean training pairs per annotator before clipping.
        pairs_spread: s_n, log standard deviation of the number of pairs.
        min_pairs: smallest shard, pairs.
        max_pairs: largest shard, pairs.
        test_pairs: held-out pairs per annotator.
        unseen: people by the same law who are no clients: newcomers with held-out pairs, and with 100
            pairs labelled as training pairs are, for a finished model to adapt to; at most 100,000.
        topic_alpha: concentration of an annotator's topics; small is few topics.
        candidates: how two responses relate: "iid", "neg" or "near".
        cyclic_share: eta_cyc, share of the variance of the margin that no reward can express.
        drift_rad: omega_max, angle by which taste turns from the first training pair to the
            held-out pairs; the pairs of a shard are in order of time.
        num_attributes: d, how many attributes count, at most 12.

    Raises:
        ConfigurationError: a value is out of range; the message names ``data.<parameter>``.
    """

    num_clients: int = 120
    shares: tuple[float, ...] = (0.5, 0.25, 0.15, 0.1)
    group_cosine: float = 0.0
    common_share: float = 0.5
    deviation_rank: int = 2
    deviation_scale: float = 0.3
    membership_alpha: float = 0.0
    beta: float = 3.0
    beta_spread: float = 0.3
    flips: float = 0.05
    adversaries: float = 0.0
    spammers: float = 0.0
    top_flips: float = 0.0
    position_bias: float = 0.0
    mean_pairs: float = 60.0
    pairs_spread: float = 0.8
    min_pairs: int = 12
    max_pairs: int = 600
    test_pairs: int = 60
    unseen: int = 0
    topic_alpha: float = 0.3
    candidates: str = "iid"
    cyclic_share: float = 0.0
    drift_rad: float = 0.0
    num_attributes: int = 12

    def __post_init__(self) -> None:
        for key, (low, high) in _RANGES.items():
            _check_range(key, getattr(self, key), low, high)
        self._check_groups()
        if self.candidates not in MODES:
            raise ConfigurationError(
                f"data.candidates={self.candidates} is not one of {', '.join(MODES)}."
                + did_you_mean(str(self.candidates), MODES)
            )
        if self.adversaries + self.spammers > 1.0:
            raise ConfigurationError(
                f"data.adversaries={self.adversaries} and data.spammers={self.spammers} exceed 1 together; "
                "lower one of them"
            )
        if self.min_pairs > self.max_pairs:
            raise ConfigurationError(
                f"data.min_pairs={self.min_pairs} is above data.max_pairs={self.max_pairs}; lower it"
            )
        if self.deviation_rank > self.num_attributes:
            raise ConfigurationError(
                f"data.deviation_rank={self.deviation_rank} is above "
                f"data.num_attributes={self.num_attributes}; lower it"
            )
        if self.cyclic_share > 0.0 and self.candidates != "iid":
            raise ConfigurationError(
                f"data.cyclic_share={self.cyclic_share} needs data.candidates=iid, got {self.candidates}"
            )

    def _check_groups(self) -> None:
        num_groups, total = len(self.shares), math.fsum(self.shares)
        if any(not share > 0.0 for share in self.shares) or not math.isclose(total, 1.0, abs_tol=1e-6):
            listed = ", ".join(f"{share:g}" for share in self.shares)
            raise ConfigurationError(
                f"data.shares=[{listed}] sums to {total:g}; give positive shares that sum to 1"
            )
        if num_groups >= self.num_attributes:
            raise ConfigurationError(
                f"data.shares has {num_groups} groups; with data.num_attributes={self.num_attributes} "
                f"at most {self.num_attributes - 1} groups have directions of their own"
            )
        if num_groups > 1 and self.group_cosine <= -1.0 / (num_groups - 1):
            raise ConfigurationError(
                f"data.group_cosine={self.group_cosine} is impossible for {num_groups} groups; "
                f"it must be above {-1.0 / (num_groups - 1):.3g}"
            )


_RANGES: Mapping[str, tuple[float, float]] = {
    "num_clients": (1, math.inf),
    "group_cosine": (-1, 1),
    "common_share": (0, 1),
    "deviation_rank": (1, math.inf),
    "deviation_scale": (0, math.inf),
    "membership_alpha": (0, math.inf),
    "beta": (0, math.inf),
    "beta_spread": (0, math.inf),
    "flips": (0, 1),
    "adversaries": (0, 1),
    "spammers": (0, 1),
    "top_flips": (0, 1),
    "position_bias": (0, math.inf),
    "mean_pairs": (1, math.inf),
    "pairs_spread": (0, math.inf),
    "min_pairs": (1, math.inf),
    "max_pairs": (1, math.inf),
    "test_pairs": (1, math.inf),
    "unseen": (0, 100_000),  # all are made at once: gigabytes of vectors, hours of writing texts
    "topic_alpha": (1e-3, math.inf),
    "cyclic_share": (0, 1),
    "drift_rad": (0, math.pi),
    "num_attributes": (2, 12),
}
_COUNTS = (
    "num_clients",
    "deviation_rank",
    "min_pairs",
    "max_pairs",
    "test_pairs",
    "unseen",
    "num_attributes",
)

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "clusters": {},
        "homog": {"shares": (1.0,), "common_share": 0.0, "deviation_scale": 0.0},
        "conflict": {"shares": (0.8, 0.2), "group_cosine": -0.6, "common_share": 0.0},
        "lowrank": {"shares": (0.2,) * 5, "membership_alpha": 0.3},
        "outlier": {
            "shares": (1.0,),
            "common_share": 0.0,
            "deviation_scale": 0.0,
            "flips": 0.0,
            "top_flips": 0.1,
        },
        "unreliable": {"shares": (1.0,), "common_share": 0.0, "deviation_scale": 0.0, "adversaries": 0.3},
        "cyclic": {"cyclic_share": 1.0},
        "drift": {"drift_rad": math.pi / 3},
        "tiny": {"num_clients": 16, "mean_pairs": 20.0, "min_pairs": 6, "num_attributes": 6},
    }
)
"""What each preset changes about ``clusters``."""


def resolve(preset: str, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe of a preset with some parameters given.

    Raises:
        ConfigurationError: the preset is unknown or a value is out of range.
    """
    if preset not in PRESETS:
        raise ConfigurationError(
            f"data.preset={preset} is unknown; choose from {', '.join(PRESETS)}."
            + did_you_mean(str(preset), PRESETS)
        )
    return Recipe(**{**PRESETS[preset], **overrides})


def _check_range(key: str, value: Any, low: float, high: float) -> None:
    kind = "a whole number" if key in _COUNTS else "a number"
    is_number = isinstance(value, int if key in _COUNTS else (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or not math.isfinite(value):
        upper = "" if high == math.inf else f" and at most {high:,.6g}"
        raise ConfigurationError(f"data.{key}={value} must be {kind}, at least {low:g}{upper}")
