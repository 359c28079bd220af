"""What a GPU saves: seconds a client update of LoRA in a transformer, by device, precision and executor.

LoRA of rank 8 in the last two layers, steps of 16 pairs of texts of up to 128 tokens, on kept activations;
messages and aggregation are included. On each device both precisions and all executors take turns, round by
round; ratios are medians over rounds. Where there is no GPU, the table has rows of the processor only.

    python -m fedpref.benchmarks.gpu [clients=4] [rounds=3] [steps=10] [table=BENCHMARKS.md]
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import get_args

import torch

from fedpref.benchmarks.sections import conditions, put_section, this_command
from fedpref.benchmarks.throughput.interleaved import ratio
from fedpref.benchmarks.throughput.table import markdown
from fedpref.clients.lora_reward import LoraReward, TransformerBackbone
from fedpref.data.synthetic import Synthetic
from fedpref.federation.federation import Federation
from fedpref.flower.fence import streams_kept
from fedpref.flower.rounds import Rounds
from fedpref.models.huggingface import HuggingFace
from fedpref.models.minilm import MiniLM
from fedpref.models.precision import DeviceName, Precision
from fedpref.models.tiny import tiny_encoder
from fedpref.models.transformer import quiet
from fedpref.simulation.cohort import Cohort
from fedpref.simulation.executor import Executor
from fedpref.simulation.inline import Inline
from fedpref.simulation.ray import RayPool
from fedpref.strategies.fedavg import FedAvg

SEED, WARM_UP, MAX_TOKENS = 0, 1, 128
REFERENCE = "float32", "inline"
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def devices() -> Sequence[DeviceName]:
    """Those of this machine; says so where the GPU is lacking."""
    if torch.cuda.is_available():
        return get_args(DeviceName)
    print("cuda: skipped, this machine has no GPU that PyTorch can use")
    return ("cpu",)


def backbones(model: str, folder: Path, device: DeviceName) -> Mapping[Precision, TransformerBackbone]:
    """A model on a device, in each precision; "tiny" has three layers of 32 features and random weights."""
    if model == "MiniLM":
        return {p: MiniLM(max_tokens=MAX_TOKENS, precision=p, device=device) for p in PRECISIONS}
    tiny = HuggingFace(str(folder), max_tokens=MAX_TOKENS)
    return {p: replace(tiny, precision=p, device=device) for p in PRECISIONS}


def executors(device: DeviceName) -> Mapping[str, Executor]:
    """All kinds. The workers of both precisions live at the same time, and share the GPU."""
    if device == "cuda":
        ray = RayPool(num_workers=4, num_cpus=0, num_gpus=0.125)
    else:
        ray = RayPool(num_workers=2, num_cpus=0)
    name = f"ray, {ray.num_workers} workers" + (f" of {ray.num_gpus:g} GPU" if ray.num_gpus else "")
    return {"inline": Inline(strict=True), "cohort": Cohort(), name: ray}


@contextmanager
def started(rule: LoraReward, executor: Executor, num_clients: int, rounds: int) -> Iterator[Rounds]:
    """A federation of synthetic annotators before its first round; nothing is evaluated or saved."""
    people = Synthetic(preset="tiny", num_clients=num_clients).population(SEED)
    rule.warm([shard.pairs for shard in people.shards])
    federation = Federation(people, rule, FedAvg(), rounds, SEED, executor)
    with federation.grid() as grid:
        yield federation.start(grid)


def measured(
    model: str, folder: Path, device: DeviceName, num_clients: int, rounds: int, steps: int
) -> list[dict[str, object]]:
    """Rows of the table: a model on a device in all precisions and executors, which take turns."""
    rules = {p: LoraReward(b, local_steps=steps) for p, b in backbones(model, folder, device).items()}
    round_s: dict[tuple[str, str], list[float]] = {}
    with streams_kept(), ExitStack() as stack:
        federations = {
            (precision, name): stack.enter_context(started(rule, executor, num_clients, WARM_UP + rounds))
            for precision, rule in rules.items()
            for name, executor in executors(device).items()
        }
        for number in range(WARM_UP + rounds):
            for variant, federation in federations.items():
                begun = time.perf_counter()
                federation.advance()
                if number >= WARM_UP:
                    round_s.setdefault(variant, []).append(time.perf_counter() - begun)
    return [
        {
            "model": model,
            "device": device,
            "precision": precision,
            "executor": name,
            "s a client update": median(seconds) / num_clients,
            "of float32 inline": ratio(seconds, round_s[REFERENCE]),
        }
        for (precision, name), seconds in round_s.items()
    ]


def main(options: Mapping[str, str]) -> None:
    """Measure, print, and write."""
    num_clients, rounds, steps = (
        int(options.get(name, usual)) for name, usual in (("clients", 4), ("rounds", 3), ("steps", 10))
    )
    os.environ["RAY_worker_niceness"] = "0"  # else only those with Ray would give way to other programs
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        with quiet():
            tiny = tiny_encoder(Path(folder))
        for device in devices():
            for model in ("tiny", "MiniLM"):
                rows += measured(model, tiny, device, num_clients, rounds, steps)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    text = f"{num_clients} clients a round, {steps} steps; {conditions()}, GPU: {gpu}.\n\n{markdown(rows)}"
    print(text)
    if "table" in options:
        put_section(Path(options["table"]), "GPU", this_command("fedpref.benchmarks.gpu"), text)


if __name__ == "__main__":
    main(dict(word.split("=", 1) for word in sys.argv[1:]))
