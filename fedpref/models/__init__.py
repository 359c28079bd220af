"""Frozen backbones, the cache of what they compute, LoRA through PEFT, and adapters for elsewhere.

May import torch, transformers, peft, ``fedpref.types``, ``errors`` and ``seeds``; torch is imported where
weights are first needed, so that a backbone costs nothing to build, to pickle, or to refuse. Instances
hold options only: weights live in the process that uses them.
"""

from __future__ import annotations

from fedpref.models.backbone import Backbone
from fedpref.models.given import Given
from fedpref.models.hashing import Hashing
from fedpref.models.huggingface import HuggingFace
from fedpref.models.minilm import MiniLM

__all__ = ["Backbone", "Given", "Hashing", "HuggingFace", "MiniLM"]
