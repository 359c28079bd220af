"""Real annotators from the command line; skipped with a notice where their files are absent."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

LLMFAO = Path(__file__).resolve().parents[3] / "shared" / "data" / "llmfao.jsonl.gz"
Run = Callable[..., tuple[int, str, str]]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not LLMFAO.is_file(), reason=f"{LLMFAO.name} is not beside the checkout"),
]


def summary(folder: Path) -> dict[str, float]:
    (path,) = (folder / "runs" / "t").iterdir()
    result: dict[str, float] = json.loads((path / "summary.json").read_text())
    return result


@pytest.mark.parametrize("strategy", ["FedAdam", "FedMedian", "Krum"])
def test_flowers_own_strategies_learn_from_real_annotators(fedpref: Run, folder: Path, strategy: str) -> None:
    words = ("data=jsonl", f"data.path={LLMFAO}", "cohort_size=30", "rounds=4", "name=t")
    code, _, err = fedpref("run", *words, f"strategy._target_=flwr.serverapp.strategy.{strategy}")
    assert (code, err) == (0, "")
    found = summary(folder)
    assert found["num_clients"] == 100 and found["replies_failed"] == 0
    assert found["pair_accuracy"] > 0.55  # a coin gives 0.50 with standard error 0.02


def test_fedavg_and_fedbis_learn_from_real_annotators(fedpref: Run, folder: Path) -> None:
    for strategy in ("fedavg", "fedbis"):
        words = ("data=jsonl", f"data.path={LLMFAO}", "rounds=10", f"name={strategy}")
        assert fedpref("run", *words, f"strategy={strategy}")[0] == 0
        (path,) = (folder / "runs" / strategy).iterdir()
        assert json.loads((path / "summary.json").read_text())["pair_accuracy"] > 0.65
