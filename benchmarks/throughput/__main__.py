"""Milliseconds a client update, transport and aggregation included, of every simulator on the same job.

30 steps of 16 of a client's 64 pairs, cohorts of 100; of the slow job ``minilm`` a few clients with 20 pairs.
Variants run in processes of their own, one thread a worker, and take turns round by round; ratios are medians
over rounds of the same turn. Evaluation, log and checkpoint are apart. Before measuring, all variants train
the same small federation, where nothing is left to chance, and must end at the same weights.

    python -m fedpref.benchmarks.throughput [job …] [clients=200,1000] [cohort=100] [rounds=12]
        [without=NAMES] [json=FILE] [table=BENCHMARKS.md]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fedpref.benchmarks.sections import conditions, put_section, this_command
from fedpref.benchmarks.throughput.apart import apart
from fedpref.benchmarks.throughput.interleaved import measure
from fedpref.benchmarks.throughput.job import Scale, Size
from fedpref.benchmarks.throughput.table import as_json, as_text
from fedpref.benchmarks.throughput.variants import JOBS, able
from fedpref.types import Weights

MOST_GAP = 1e-3


def gap(first: Weights, second: Weights) -> float:
    """Largest difference of two models.

    Raises:
        ValueError: they have other keys or shapes.
    """
    shapes = [{key: array.shape for key, array in weights.items()} for weights in (first, second)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"different weights: {shapes[0]} and {shapes[1]}")
    return max(float(np.abs(first[key] - second[key]).max()) for key in first)


def agreement(job: str, variants: Sequence[str]) -> Mapping[str, float]:
    """How far each variant ends from fedpref's cohort executor; steps take whole shards, rounds everybody."""
    courses = measure(job, variants, JOBS[job].scale.agreement)
    return {name: gap(course.weights, courses["cohort"].weights) for name, course in courses.items()}


def measured(name: str, scale: Scale, without: Sequence[str]) -> dict[str, Any]:
    """All figures of a job.

    Raises:
        RuntimeError: the variants do not train the same.
    """
    job = JOBS[name]
    variants = [variant for variant in able(job) if variant not in without]
    gaps = agreement(name, variants)
    if not max(gaps.values()) < MOST_GAP:
        raise RuntimeError(f"{name}: variants end at different weights: {gaps}")
    found: dict[str, Any] = {"job": name, "title": job.title, "gap": gaps, "sizes": []}
    cohort = scale.cohort_size
    found["apart_ms"] = dict(apart(job, Size(min(scale.clients), cohort, 10))) if scale.is_apart else {}
    for num_clients in scale.clients:
        courses = measure(name, variants, Size(num_clients, cohort, scale.rounds), scale.warm_up)
        size = {"clients": num_clients, "conditions": conditions(), "variants": as_json(courses, cohort)}
        found["sizes"].append(size)
        print(f"{job.title}\n\n{as_text({**found, 'sizes': [size]})}\n", flush=True)
    return found


def asked(usual: Scale, options: Mapping[str, str]) -> Scale:
    """What is measured, with these options."""
    clients = options["clients"].split(",") if "clients" in options else usual.clients
    return replace(
        usual,
        clients=[int(number) for number in clients],
        cohort_size=int(options.get("cohort", usual.cohort_size)),
        rounds=int(options.get("rounds", usual.rounds)),
    )


def main(names: Sequence[str], options: Mapping[str, str]) -> None:
    """Measure, print, and write."""
    jobs = []
    for name in names or JOBS:
        jobs.append(measured(name, asked(JOBS[name].scale, options), options.get("without", "").split(",")))
        if "json" in options:  # after each job: the next may take long
            Path(options["json"]).write_text(json.dumps(jobs, indent=1) + "\n", encoding="utf-8")
        if "table" in options:
            title = f"Throughput: {jobs[-1]['title']}"
            command = this_command("fedpref.benchmarks.throughput")
            put_section(Path(options["table"]), title, command, as_text(jobs[-1]))


if __name__ == "__main__":
    words = sys.argv[1:]
    main(
        [word for word in words if "=" not in word],
        dict(word.split("=", 1) for word in words if "=" in word),
    )
