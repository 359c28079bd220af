"""What aggregation costs: gigabytes a second beside those of reading memory, and memory beside a model's.

Speed: the weighted mean of updates, as FedAvg combines them, in turn with reading the same bytes once (their
maximum) by one thread and by as many as there are cores; the best of some turns. Updates travel as float32;
their deltas would be twice as many bytes of float64, so both counts are given.
Memory: replies are judged, then folded by FedAvg; the peak beside the replies is counted by tracemalloc. The
last column is what the deltas would take if all were made first.

    python -m fedpref.benchmarks.aggregation [updates=1000] [clients=100] [repeats=10]
        [json=FILE] [table=BENCHMARKS.md]
"""

from __future__ import annotations

import json
import sys
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedpref.benchmarks.sections import conditions, granted_cores, put_section, this_command
from fedpref.flower.records import Contents, read
from fedpref.flower.validation import ReplyLimits, validate_reply
from fedpref.flower.wire import FLAT, NUM_EXAMPLES, pack
from fedpref.maths.combine import WeightedMean
from fedpref.seeds import generator
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.global_model import GlobalModel
from fedpref.types import OK, Arrival, Task, Update, Weights

MEGABYTE = 10**6
SIZES = (MEGABYTE // 8, MEGABYTE // 4)
"""Entries of an update whose delta is a megabyte of float64, and of one that travels as a megabyte."""

MODEL_BYTES = 10 * MEGABYTE


def model(num_entries: int, *address: int | str) -> Weights:
    """Weights with normally distributed entries."""
    return {"w": generator(0, *address).standard_normal(num_entries, np.float32)}


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def highest(arrays: Sequence[np.ndarray]) -> int:
    """The greatest entry: every byte is read once."""
    return max(int(array.max()) for array in arrays)


def speed(num_updates: int, num_entries: int, repeats: int) -> dict[str, float]:
    """Gigabytes a second of the weighted mean, counted as sent and as float64, and of reading."""
    base, rng = model(num_entries, "base"), generator(0, "unused")
    answers = [model(num_entries, "answer", client) for client in range(num_updates)]
    updates = [Update(weights, base, 1, {}, client) for client, weights in enumerate(answers)]
    words, cores = [weights["w"].view(np.int64) for weights in answers], granted_cores()
    ones, combine = [1.0] * num_updates, WeightedMean()
    read_s, read_together_s, mean_s = [], [], []
    with ThreadPoolExecutor(cores) as pool:
        for _ in range(repeats):
            read_s.append(seconds(lambda: highest(words)))
            read_together_s.append(
                seconds(lambda: list(pool.map(highest, [words[i::cores] for i in range(cores)])))
            )
            mean_s.append(seconds(lambda: combine(base, updates, ones, range(num_updates), rng)))
    combined = combine(base, updates, ones, range(num_updates), rng).delta["w"]
    expected = np.mean([weights["w"][:100].astype(np.float64) for weights in answers], axis=0)
    assert np.allclose(combined[:100], expected - base["w"][:100]), "the mean is wrong"
    sent_gb = sum(weights["w"].nbytes for weights in answers) / 1e9
    return {
        "updates": num_updates,
        "mb_sent": 4 * num_entries / MEGABYTE,
        "read_gb_per_s": sent_gb / min(read_s),
        "read_together_gb_per_s": sent_gb / min(read_together_s),
        "mean_gb_per_s": sent_gb / min(mean_s),
        "mean_float64_gb_per_s": 2 * sent_gb / min(mean_s),
    }


def reply(number: int) -> Contents:
    """What a client sends back, as it comes off the wire."""
    packed = pack(model(MODEL_BYTES // 4, "answer", number))
    records = {
        "arrays": ArrayRecord({FLAT: packed.array}),
        "metrics": MetricRecord({NUM_EXAMPLES: 1}),
        "config": ConfigRecord({"manifest": packed.manifest, "task": number}),
    }
    return read(RecordDict(records))


def memory(num_clients: int) -> dict[str, float]:
    """Peaks of judging and folding the replies of a cohort, in megabytes above the replies."""
    base = model(MODEL_BYTES // 4, "base")
    tasks = [Task(client, base, number=client) for client in range(num_clients)]
    contents, limits, strategy = [reply(task.number) for task in tasks], ReplyLimits(1e9), FedAvg()
    tracemalloc.start()
    arrivals = []
    for task, content in zip(tasks, contents, strict=True):
        update = validate_reply(content, task, limits)
        assert isinstance(update, Update), update
        arrivals.append(Arrival(task, update, OK, 0, 0.0, 1.0))
    judged_bytes, judging_bytes = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    strategy.fold(GlobalModel(base, None), arrivals, 1.0, generator(0, "unused"))
    folding_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {
        "clients": num_clients,
        "model_mb": MODEL_BYTES / MEGABYTE,
        "replies_mb": num_clients * MODEL_BYTES / MEGABYTE,
        "judging_mb": judging_bytes / MEGABYTE,
        "kept_mb": judged_bytes / MEGABYTE,
        "folding_mb": folding_bytes / MEGABYTE,
        "deltas_mb": 2 * num_clients * MODEL_BYTES / MEGABYTE,
    }


def as_text(speeds: Sequence[Mapping[str, float]], peaks: Sequence[Mapping[str, float]]) -> str:
    """Both tables, as Markdown."""
    lines = ["| updates | reading by one thread, GB/s | by all | mean, GB/s as sent | as float64 |"]
    lines += ["| --- | ---: | ---: | ---: | ---: |"]
    lines += [
        f"| {row['updates']:,.0f} of {row['mb_sent']:g} MB | {row['read_gb_per_s']:.1f} "
        f"| {row['read_together_gb_per_s']:.1f} | {row['mean_gb_per_s']:.1f} "
        f"| {row['mean_float64_gb_per_s']:.1f} |"
        for row in speeds
    ]
    lines += [
        "",
        "| replies | judging, MB above them | kept | folding, MB above them | all deltas |",
    ]
    lines += ["| --- | ---: | ---: | ---: | ---: |"]
    lines += [
        f"| {row['clients']:,.0f} of {row['model_mb']:g} MB | {row['judging_mb']:.1f} | {row['kept_mb']:.1f} "
        f"| {row['folding_mb']:.1f} | {row['deltas_mb']:,.0f} |"
        for row in peaks
    ]
    return "\n".join(lines)


def main(options: Mapping[str, str]) -> None:
    """Measure, print, and write."""
    num_updates, repeats = int(options.get("updates", "1000")), int(options.get("repeats", "10"))
    speeds = [speed(num_updates, num_entries, repeats) for num_entries in SIZES]
    num_clients = int(options.get("clients", "100"))
    peaks = [memory(number) for number in (max(1, num_clients // 10), num_clients)]
    text = f"{conditions()}\n\n{as_text(speeds, peaks)}"
    print(text)
    if "json" in options:
        found = {"conditions": conditions(), "speed": speeds, "memory": peaks}
        Path(options["json"]).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if "table" in options:
        put_section(
            Path(options["table"]), "Aggregation", this_command("fedpref.benchmarks.aggregation"), text
        )


if __name__ == "__main__":
    main(dict(word.split("=", 1) for word in sys.argv[1:]))
