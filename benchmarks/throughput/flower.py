"""Flower's own simulation: ``run_simulation``, its FedAvg, and two Ray actors."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict
from typing import Any

from fedpref.benchmarks.throughput.job import SEED, Between, Job, Size
from fedpref.flower.rounds import fresh_from
from fedpref.types import Weights

__all__ = ["flower"]

_WORKERS = 2


def flower(job: Job, size: Size, between: Between) -> Weights:
    """Turns are taken where FedAvg lets the server evaluate: before the first round and after each."""
    os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    import torch
    from flwr.app import ArrayRecord, ConfigRecord
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    from fedpref.benchmarks.throughput.flower_client import app as client_app

    logging.getLogger("flwr").setLevel(logging.ERROR)  # else some lines a round
    final: dict[str, Any] = {}
    server_app = ServerApp()
    initial = fresh_from(job.rule(size), SEED)("global")

    def main(grid: Any, context: Any) -> None:
        strategy = FedAvg(
            fraction_train=size.cohort_size / size.num_clients,
            fraction_evaluate=0.0,
            min_train_nodes=size.cohort_size,
            min_available_nodes=size.num_clients,
        )
        result = strategy.start(
            grid,
            ArrayRecord({key: torch.from_numpy(array.copy()) for key, array in initial.items()}),
            num_rounds=size.rounds,
            train_config=ConfigRecord({"job": job.name, "size": json.dumps(asdict(size))}),
            evaluate_fn=lambda *_: between(),
        )
        final.update(result.arrays.to_torch_state_dict())

    server_app.main()(main)
    cluster = {"address": "local", "num_cpus": _WORKERS, "include_dashboard": False, "log_to_driver": False}
    backend = {"init_args": cluster, "client_resources": {"num_cpus": 1, "num_gpus": 0}}
    run_simulation(server_app, client_app, size.num_clients, backend_config=backend)
    return {key: value.numpy() for key, value in final.items()}
