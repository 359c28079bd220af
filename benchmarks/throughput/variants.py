"""All jobs and all simulators, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec

from fedpref.benchmarks.throughput import (
    fedbiscuit,
    flower,
    linear,
    lora_head,
    minilm,
    ours,
    pfl_research,
    plain,
)
from fedpref.benchmarks.throughput.job import Between, Job, Size
from fedpref.types import Weights

__all__ = ["JOBS", "PEERS", "VARIANTS", "able"]

JOBS: Mapping[str, Job] = {job.name: job for job in (linear.JOB, lora_head.JOB, minilm.JOB, fedbiscuit.JOB)}

PEERS: Mapping[str, Callable[[Job, Size, Between], Weights]] = {
    "flower": flower.flower,
    "pfl-research": pfl_research.pfl_research,
    "pytorch": plain.plain,
}
SPLIT: Mapping[str, Callable[[Job, Size, Between], Weights]] = {"uncached": ours.uncached}
OURS: Mapping[str, Callable[[Job, Size, Between], Weights]] = {
    "inline": ours.inline,
    "ray": ours.ray,
    "cohort": ours.cohort,
}
VARIANTS: Mapping[str, Callable[[Job, Size, Between], Weights]] = {**PEERS, **SPLIT, **OURS}


def able(job: Job) -> list[str]:
    """Names of the simulators that can do a job here; says which is not installed."""
    names = [*(PEERS if job.peer else ()), *(SPLIT if job.is_split else ()), *OURS]
    if "pfl-research" in names and find_spec("pfl") is None:
        print("pfl-research: skipped, it is not installed; pip install 'fedpref[peers]'")
        names.remove("pfl-research")
    return names
