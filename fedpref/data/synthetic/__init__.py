"""The synthetic population: annotators with known tastes, pairs they judge, and the hidden truth.

NumPy and safetensors only, so that it imports quickly everywhere; nothing here knows models,
clients or strategies. ``recipe`` holds the parameters, ``annotators`` who judges, ``candidates``
what is judged, ``judging`` how, ``population`` puts them together; ``attributes``, ``grammar``,
``phrases`` and ``calibration`` are the text form.
"""

from __future__ import annotations

from fedpref.data.synthetic.cache import default_cache_dir
from fedpref.data.synthetic.population import Synthetic
from fedpref.data.synthetic.recipe import PRESETS, Recipe
from fedpref.data.synthetic.truth import SyntheticTruth

__all__ = ["PRESETS", "Recipe", "Synthetic", "SyntheticTruth", "default_cache_dir"]
