"""The parts of the GPU benchmark that need no clock, and no GPU."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch

from fedpref.benchmarks import gpu
from fedpref.models.precision import Precision
from fedpref.models.tiny import tiny_encoder
from fedpref.simulation.ray import RayPool


def test_without_a_gpu_the_processor_is_left_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.devices() == ("cpu",)
    assert capsys.readouterr().out == "cuda: skipped, this machine has no GPU that PyTorch can use\n"


def test_with_a_gpu_both_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert gpu.devices() == ("cpu", "cuda")


def test_the_workers_of_all_precisions_fit_on_one_gpu() -> None:
    pools = [executor for executor in gpu.executors("cuda").values() if isinstance(executor, RayPool)]
    shares = [pool.num_workers * pool.num_gpus for pool in pools]
    assert 0 < sum(shares) * len(get_args(Precision)) <= 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ray leaves pipes open
def test_every_precision_and_executor_has_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDPREF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RAY_worker_niceness", "0")
    rows = gpu.measured("tiny", tiny_encoder(tmp_path / "tiny"), "cpu", num_clients=2, rounds=1, steps=1)
    assert len({(row["precision"], row["executor"]) for row in rows}) == len(rows) == 6
    (reference,) = [row for row in rows if (row["precision"], row["executor"]) == gpu.REFERENCE]
    assert reference["of float32 inline"] == 1.0
