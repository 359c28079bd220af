"""The data card: what standardises measured attributes, and how much they differ within a pair.

The numbers are stored in ``calibration.json`` rather than estimated from each population, so that
an attribute has one scale everywhere and a user's data do not depend on the other users. After a
change to the texts, write ``calibrate().to_json()`` to that file.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources

import numpy as np

from fedpref.data.synthetic.attributes import measure_all
from fedpref.data.synthetic.grammar import write_pairs
from fedpref.data.synthetic.pairing import MODES
from fedpref.data.synthetic.phrases import phrases
from fedpref.seeds import generator

__all__ = ["Calibration", "calibrate", "calibration"]

_NUM_PAIRS = 3000
_LIMIT = 4.0


@dataclass(frozen=True)
class Calibration:
    """Constants of the text form.

    Attributes:
        mean: mean raw attributes of a response, 12 numbers.
        sd: their standard deviations.
        delta_covariance: per candidate mode, the covariance of psi_first - psi_second, 12 x 12.
    """

    mean: list[float]
    sd: list[float]
    delta_covariance: dict[str, list[list[float]]]

    def standardise(self, raw: np.ndarray) -> np.ndarray:
        """Psi = clip((raw - mean) / sd, ±4), shape as ``raw``: (num_texts, 12)."""
        psi: np.ndarray = np.clip((raw - np.array(self.mean)) / np.array(self.sd), -_LIMIT, _LIMIT)
        return psi

    def to_json(self) -> str:
        """The data card as it is stored."""
        return json.dumps(asdict(self)) + "\n"


def calibrate() -> Calibration:
    """Measure 3,000 responses for mean and sd, and 3,000 pairs of each mode for the covariance."""
    raw = {}
    for mode in MODES:
        rng = generator(0, "synthetic", "calibration", mode)
        topics = rng.integers(len(phrases().topics), size=_NUM_PAIRS).tolist()
        _, first, second = write_pairs(topics, mode, rng)
        raw[mode] = measure_all(first), measure_all(second)
    reference = raw["iid"][0]
    scale = Calibration(reference.mean(axis=0).tolist(), reference.std(axis=0).tolist(), {})
    covariances = {
        mode: np.cov(scale.standardise(first) - scale.standardise(second), rowvar=False).tolist()
        for mode, (first, second) in raw.items()
    }
    return Calibration(scale.mean, scale.sd, covariances)


@cache
def calibration() -> Calibration:
    """The stored constants."""
    card = resources.files(__package__).joinpath("calibration.json").read_text("utf-8")
    return Calibration(**json.loads(card))
