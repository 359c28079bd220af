"""Who judges: group directions, and each annotator's own reward direction and habits.

Everything about annotator i comes from addresses that hold i alone, so that it does not depend on
how many annotators there are. Source: the project's own population, after the mixture and low-rank
models of the literature.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fedpref.data.synthetic.recipe import Recipe
from fedpref.seeds import generator

__all__ = ["Annotator", "Directions", "draw_annotator", "draw_directions"]

# Steps of a Kronecker sequence: the golden ratio and the square root of 2, irrational to each other.
_STEPS = ((math.sqrt(5.0) - 1.0) / 2.0, math.sqrt(2.0) - 1.0)


@dataclass(frozen=True, eq=False)
class Directions:
    """What all annotators share.

    Attributes:
        common: unit vector c, shape (num_attributes,).
        groups: unit columns with equal cosines, orthogonal to ``common``, (num_attributes, num_groups).
        deviations: orthonormal columns U, shape (num_attributes, deviation_rank).
    """

    common: np.ndarray
    groups: np.ndarray
    deviations: np.ndarray


@dataclass(frozen=True, eq=False)
class Annotator:
    """The hidden side of one client.

    Attributes:
        group: index of the group, that of largest membership.
        membership: weight of each group, sums to 1, shape (num_groups,).
        theta: reward direction at time 0, scaled so that reward differences have sd 1.
        turn: where drift turns ``theta`` to: C_Delta-orthogonal to it, of the same scale.
        drift_rad: angle that taste has turned by at time 1.
        beta: inverse temperature.
        position_bias: added to the logit of slot one.
        flip_rate: probability that a training label is flipped.
        topic_weights: how often each topic comes up, shape (num_topics,).
        num_pairs: training pairs.
    """

    group: int
    membership: np.ndarray
    theta: np.ndarray
    turn: np.ndarray
    drift_rad: float
    beta: float
    position_bias: float
    flip_rate: float
    topic_weights: np.ndarray
    num_pairs: int

    def theta_at(self, times: np.ndarray) -> np.ndarray:
        """Reward direction at each time in [0, 1], shape (len(times), num_attributes)."""
        angles = self.drift_rad * times[:, None]
        turned: np.ndarray = np.cos(angles) * self.theta + np.sin(angles) * self.turn
        return turned


def draw_directions(recipe: Recipe, seed: int) -> Directions:
    """Common, group and deviation directions of a population."""
    num_groups, dim = len(recipe.shares), recipe.num_attributes
    basis = _orthonormal(generator(seed, "synthetic", "directions").standard_normal((dim, num_groups + 1)))
    gram = np.full((num_groups, num_groups), recipe.group_cosine)
    np.fill_diagonal(gram, 1.0)
    # The upper factor: R'R = G makes (QR)'(QR) = G, which the lower one does not.
    groups = basis[:, 1:] @ np.linalg.cholesky(gram).T
    deviations = _orthonormal(
        generator(seed, "synthetic", "deviations").standard_normal((dim, recipe.deviation_rank))
    )
    return Directions(basis[:, 0], groups, deviations)


def draw_annotator(
    recipe: Recipe,
    directions: Directions,
    delta_covariance: np.ndarray,
    num_topics: int,
    seed: int,
    number: int,
    is_unseen: bool = False,
) -> Annotator:
    """Annotator ``number`` of the clients, or of the people whom no client has seen.

    Both are drawn by one law, at addresses of their own. ``delta_covariance`` is C_Delta.
    """
    role = "unseen" if is_unseen else "annotator"
    rng = generator(seed, "synthetic", role, number)
    group_draw, reliability_draw = _spread_out(seed, number, is_unseen)
    group = int(np.searchsorted(np.cumsum(recipe.shares)[:-1], group_draw, side="right"))
    membership = np.eye(len(recipe.shares))[group]
    if recipe.membership_alpha > 0.0:
        membership = rng.dirichlet(recipe.membership_alpha * np.array(recipe.shares))
    deviation = rng.standard_normal(recipe.deviation_rank) / math.sqrt(recipe.deviation_rank)
    theta = _unit(
        math.sqrt(recipe.common_share) * directions.common
        + math.sqrt(1.0 - recipe.common_share) * directions.groups @ membership
        + recipe.deviation_scale * directions.deviations @ deviation,
        delta_covariance,
    )
    aside = rng.standard_normal(recipe.num_attributes)
    turn = _unit(aside - (aside @ delta_covariance @ theta) * theta, delta_covariance)
    num_pairs = round(recipe.mean_pairs * _log_normal(recipe.pairs_spread, rng))
    if reliability_draw < recipe.adversaries:
        flip_rate = 1.0
    elif reliability_draw < recipe.adversaries + recipe.spammers:
        flip_rate = 0.5
    else:
        flip_rate = recipe.flips
    return Annotator(
        group=int(membership.argmax()),
        membership=membership,
        theta=theta,
        turn=turn,
        drift_rad=recipe.drift_rad,
        beta=recipe.beta * _log_normal(recipe.beta_spread, rng),
        position_bias=recipe.position_bias * float(rng.standard_normal()),
        flip_rate=flip_rate,
        topic_weights=rng.dirichlet(np.full(num_topics, recipe.topic_alpha)),
        num_pairs=min(max(num_pairs, recipe.min_pairs), recipe.max_pairs),
    )


def _spread_out(seed: int, number: int, is_unseen: bool) -> tuple[float, float]:
    """Two uniform draws, each and jointly evenly spread over the people of a role.

    So any first M of them hold each group in about its share; small groups are not empty by bad luck.
    """
    start = generator(seed, "synthetic", "spread", *(["unseen"] if is_unseen else [])).random(2)
    first, second = (start + (number + 1) * np.array(_STEPS)) % 1.0
    return float(first), float(second)


def _orthonormal(columns: np.ndarray) -> np.ndarray:
    # Signs by the diagonal of R make the basis uniform over rotations.
    q, r = np.linalg.qr(columns)
    basis: np.ndarray = q * np.sign(np.diag(r))
    return basis


def _unit(direction: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    unit: np.ndarray = direction / math.sqrt(direction @ covariance @ direction)
    return unit


def _log_normal(spread: float, rng: np.random.Generator) -> float:
    """Mean 1, log standard deviation ``spread``."""
    return math.exp(spread * float(rng.standard_normal()) - spread**2 / 2.0)
