"""The synthetic population: a recipe and a seed become shards, held-out pairs and the hidden truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedpref.data.synthetic import cache
from fedpref.data.synthetic.annotators import Annotator, Directions, draw_annotator, draw_directions
from fedpref.data.synthetic.candidates import FORMS, Candidates, delta_covariance, draw_candidates
from fedpref.data.synthetic.judging import Judgement, judge, margins
from fedpref.data.synthetic.phrases import phrases
from fedpref.data.synthetic.recipe import Recipe, resolve
from fedpref.data.synthetic.storage import generator_version, pack, unpack
from fedpref.data.synthetic.truth import SyntheticTruth
from fedpref.errors import ConfigurationError, did_you_mean
from fedpref.seeds import generator
from fedpref.types import HeldOut, Pairs, Population, Shard

__all__ = ["Synthetic"]

_PARTS = ("train", "test", "shots", "unseen")
"""What clients train on and are asked, what unseen people may show and are asked; words of addresses."""

_CLEAN = ("test", "unseen")
"""The parts with labels free of noise, in the order of the held-out sets."""

_NUM_SHOTS = 100


class _Request(NamedTuple):
    """One part of one person: ``num_pairs`` pairs that ``annotator`` judges."""

    part: str
    number: int
    annotator: Annotator
    num_pairs: int


@dataclass(frozen=True)
class Synthetic:
    """A source of populations whose truth is known.

    Every parameter that is None keeps the value of the preset; ``Recipe`` says what each means.
    What user i holds depends on the recipe, the seed and i, not on the number of users.

    Attributes:
        preset: "clusters", "homog", "conflict", "lowrank", "outlier", "unreliable", "cyclic",
            "drift" or "tiny".
        form: "text" is real text whose attributes are measured, "embedding" vectors of 64 numbers,
            "attributes" the Gaussian attribute vectors themselves.
        num_groups: that many groups of equal share, unless ``shares`` says which.
        cache_dir: where written texts are kept; by default ``$FEDPREF_CACHE`` or ``~/.cache/fedpref``.

    Raises:
        ConfigurationError: an unknown preset or form, or a value out of range; names the key.
    """

    preset: str = "clusters"
    form: str = "text"
    num_clients: int | None = None
    shares: Sequence[float] | None = None
    num_groups: int | None = None
    group_cosine: float | None = None
    common_share: float | None = None
    deviation_rank: int | None = None
    deviation_scale: float | None = None
    membership_alpha: float | None = None
    beta: float | None = None
    beta_spread: float | None = None
    flips: float | None = None
    adversaries: float | None = None
    spammers: float | None = None
    top_flips: float | None = None
    position_bias: float | None = None
    mean_pairs: float | None = None
    pairs_spread: float | None = None
    min_pairs: int | None = None
    max_pairs: int | None = None
    test_pairs: int | None = None
    unseen: int | None = None
    topic_alpha: float | None = None
    candidates: str | None = None
    cyclic_share: float | None = None
    drift_rad: float | None = None
    num_attributes: int | None = None
    cache_dir: str | Path | None = None

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ConfigurationError(
                f"data.form={self.form} is unknown; choose from {', '.join(FORMS)}."
                + did_you_mean(str(self.form), FORMS)
            )
        _ = self.recipe

    @property
    def recipe(self) -> Recipe:
        """The preset with the given parameters put in."""
        given = {field.name: getattr(self, field.name) for field in fields(Recipe)}
        given["shares"] = _shares(self.shares, self.num_groups)
        return resolve(self.preset, {key: value for key, value in given.items() if value is not None})

    def population(self, seed: int) -> Population:
        """Draw the population of a seed.

        Raises:
            StorageError: written texts cannot be kept in ``cache_dir``.
        """
        recipe = self.recipe
        covariance = delta_covariance(self.form, recipe.candidates, recipe.num_attributes)
        directions = draw_directions(recipe, seed)
        requests = _requests(recipe, directions, covariance, seed)
        drawn, notes = self._candidates(recipe, requests, seed)
        visible: dict[str, list[Pairs]] = {part: [] for part in _PARTS}
        hidden: dict[str, list[Judgement]] = {part: [] for part in _PARTS}
        for (part, number, annotator, num_pairs), candidates in zip(requests, drawn, strict=True):
            is_clean = part in _CLEAN
            times = np.ones(num_pairs) if is_clean else np.arange(num_pairs) / num_pairs
            margin = margins(annotator, candidates, times, recipe.cyclic_share, covariance)
            labels = generator(seed, "synthetic", "labels", part, number)
            judgement = judge(annotator, candidates, margin, is_clean, recipe.top_flips, labels)
            visible[part].append(_visible(candidates, judgement, f"{_name(part, number)}/{part}"))
            hidden[part].append(judgement)
        shards = [Shard(i, _name("train", i), pairs) for i, pairs in enumerate(visible["train"])]
        held_out = [HeldOut(_name("test", i), i, pairs) for i, pairs in enumerate(visible["test"])]
        for i, (asked, shots) in enumerate(zip(visible["unseen"], visible["shots"], strict=True)):
            held_out.append(HeldOut(_name("unseen", i), None, asked, shots))
        people = [request.annotator for part in _CLEAN for request in requests if request.part == part]
        truth = SyntheticTruth(
            directions,
            covariance,
            annotators=people,
            training=hidden["train"],
            held_out=[*hidden["test"], *hidden["unseen"]],
            shots=hidden["shots"],
            form=self.form,
        )
        summary = (
            f"Synthetic population {self.preset} in the form {self.form}, seed {seed}: "
            f"{len(shards)} annotators, "
            f"{sum(len(shard.pairs) for shard in shards)} training pairs, "
            f"{sum(len(held.pairs) for held in held_out)} held-out pairs with clean labels."
        )
        if recipe.unseen:
            notes = [
                f"Unseen people: {recipe.unseen}, each with {_NUM_SHOTS} pairs to adapt to; no client is one "
                "of them, and the evaluation of the run leaves them out.",
                *notes,
            ]
        return Population(shards, held_out, truth, (summary, *notes))

    def _candidates(
        self, recipe: Recipe, requests: Sequence[_Request], seed: int
    ) -> tuple[list[Candidates], list[str]]:
        """Candidates of each request in turn, and notes.

        Only texts are kept on disk: vectors are quicker to draw than to read.
        """
        if self.form != "text":
            return _draw_all(self.form, recipe, requests, seed), []
        identity: dict[str, Any] = {"version": generator_version(), "seed": int(seed), **asdict(recipe)}
        folder = Path(self.cache_dir) if self.cache_dir is not None else cache.default_cache_dir()
        path = folder / "synthetic" / cache.entry_name(identity)
        notes = []
        if path.exists():
            stored = cache.read(path)
            if stored is not None:
                return unpack(stored), []
            notes.append(f"The cached texts {path.name} were damaged and have been written anew.")
        drawn = _draw_all(self.form, recipe, requests, seed)
        cache.write(path, pack(drawn))
        return drawn, notes


def _requests(recipe: Recipe, directions: Directions, covariance: np.ndarray, seed: int) -> list[_Request]:
    """Two parts for each client, then two for each unseen person."""
    num_topics = len(phrases().topics)
    requests = []
    for is_unseen, count in ((False, recipe.num_clients), (True, recipe.unseen)):
        for number in range(count):
            annotator = draw_annotator(recipe, directions, covariance, num_topics, seed, number, is_unseen)
            learnt, asked = ("shots", "unseen") if is_unseen else ("train", "test")
            num_learnt = _NUM_SHOTS if is_unseen else annotator.num_pairs
            requests.append(_Request(learnt, number, annotator, num_learnt))
            requests.append(_Request(asked, number, annotator, recipe.test_pairs))
    return requests


def _draw_all(form: str, recipe: Recipe, requests: Sequence[_Request], seed: int) -> list[Candidates]:
    drawn = []
    for part, number, annotator, num_pairs in requests:
        rng = generator(seed, "synthetic", "pairs", part, number)
        topics = rng.choice(len(annotator.topic_weights), size=num_pairs, p=annotator.topic_weights)
        drawn.append(draw_candidates(form, topics, recipe.candidates, recipe.num_attributes, seed, rng))
    return drawn


def _name(part: str, number: int) -> str:
    """Of the owner of a part."""
    return f"{'unseen' if part in ('shots', 'unseen') else 'user'}-{number:03d}"


def _visible(candidates: Candidates, judgement: Judgement, prefix: str) -> Pairs:
    """The pairs without what is hidden about them."""
    names = [topic.name for topic in phrases().topics]
    takes_first = judgement.takes_first
    return Pairs(
        prompts=candidates.prompts,
        chosen=_pick(takes_first, candidates.first, candidates.second),
        rejected=_pick(~takes_first, candidates.first, candidates.second),
        pair_ids=tuple(f"{prefix}-{row:04d}" for row in range(len(candidates))),
        topics=tuple(names[topic] for topic in candidates.topics.tolist()),
    )


def _pick(
    takes_first: np.ndarray, first: Sequence[str] | np.ndarray, second: Sequence[str] | np.ndarray
) -> Sequence[str] | np.ndarray:
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return np.where(takes_first[:, None], first, second)
    return tuple(a if take else b for take, a, b in zip(takes_first.tolist(), first, second, strict=True))


def _shares(shares: Sequence[float] | None, num_groups: int | None) -> tuple[float, ...] | None:
    """The shares that were asked for, or None if neither parameter was given."""
    if shares is not None and (isinstance(shares, str) or not all(_is_number(share) for share in shares)):
        raise ConfigurationError(
            f"data.shares={shares} is not a list of numbers; write data.shares=[0.8,0.2]"
        )
    if num_groups is None:
        return None if shares is None else tuple(shares)
    if isinstance(num_groups, bool) or not isinstance(num_groups, int) or num_groups < 1:
        raise ConfigurationError(f"data.num_groups={num_groups} must be a whole number, at least 1")
    if shares is None:
        return (1.0 / num_groups,) * num_groups
    if len(shares) != num_groups:
        raise ConfigurationError(
            f"data.num_groups={num_groups}, but data.shares has {len(shares)} entries; leave one of them out"
        )
    return tuple(shares)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
