from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fedpref.errors import ConfigurationError
from fedpref.maths.lora import SvdMean
from fedpref.seeds import generator
from fedpref.strategies.cohort import draw_cohort
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.fedbuff import FedBuff
from fedpref.strategies.fedfix import FedFix
from fedpref.strategies.fedprox import FedProx
from fedpref.strategies.global_model import GlobalModel
from fedpref.types import Arrival, Task, Update, Weights

MODEL: Weights = {"w": np.array([1.0, -1.0], np.float32)}
STATE = GlobalModel(MODEL, None)
RNG = generator(0, "unused")


def arrivals(*answers: tuple[Sequence[float], int]) -> list[Arrival]:
    out = []
    for client, (values, num_pairs) in enumerate(answers):
        weights = {"w": np.array(values, np.float32)}
        update = Update(weights, MODEL, num_pairs, {}, client)
        out.append(Arrival(Task(client, MODEL, number=client), update, "ok", 0, 0.0, 1.0))
    return out


@pytest.mark.parametrize(
    ("share", "expected"),
    [("pairs", [1 * 0.1 + 5 * 0.9, 0]), ("clients", [3, 0]), ("sqrt", [1 * 0.25 + 5 * 0.75, 0])],
)
def test_the_new_model_is_the_weighted_mean_of_the_answers(share: str, expected: list[float]) -> None:
    fold = FedAvg(share=share).fold(STATE, arrivals(([1, 0], 1), ([5, 0], 9)), 0.0, RNG)  # type: ignore[arg-type]
    np.testing.assert_allclose(fold.state.weights["w"], expected, rtol=1e-6)
    assert fold.updated


def test_one_answer_becomes_the_model_to_the_bit() -> None:
    values = generator(0, "values").normal(size=2).astype(np.float32)
    fold = FedAvg().fold(STATE, arrivals((values.tolist(), 3)), 0.0, RNG)
    assert fold.state.weights["w"].tobytes() == values.tobytes()


def test_server_lr_scales_the_step() -> None:
    fold = FedAvg(server_lr=0.5).fold(STATE, arrivals(([3, -1], 1)), 0.0, RNG)
    np.testing.assert_array_equal(fold.state.weights["w"], [2, -1])


def test_answers_without_pairs_advance_the_round_and_leave_the_model() -> None:
    fold = FedAvg().fold(STATE, arrivals(([3, 3], 0)), 0.0, RNG)
    assert fold.updated and fold.state is STATE


def test_cohorts_cover_all_clients_evenly() -> None:
    counts = np.zeros(10)
    for step in range(2000):
        cohort = draw_cohort(range(10), 3, generator(0, "plan", step))
        assert len(set(cohort)) == 3
        counts[cohort] += 1
    # Binomial(2000, 0.3): sd 20.5; five of them either way
    assert np.all(np.abs(counts - 600) < 5 * np.sqrt(2000 * 0.3 * 0.7))


@pytest.mark.parametrize(
    ("cohort_size", "message"), [(0, "at least 1"), (-3, "at least 1"), (8, "population of 7")]
)
def test_an_impossible_cohort_is_refused(cohort_size: int, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        FedAvg(cohort_size=cohort_size).init(lambda *a: MODEL, range(7), 1, RNG)


def test_a_combine_that_cannot_work_is_refused_before_the_first_round() -> None:
    with pytest.raises(ConfigurationError, match="LoRA"):
        FedAvg(combine=SvdMean()).init(lambda *a: MODEL, range(7), 1, RNG)


@pytest.mark.parametrize(
    ("cohort_size", "over_selection", "asked"), [(50, 0.1, 55), (25, 0.12, 28), (10, 0.25, 13), (7, 0.0, 7)]
)
def test_over_selection_asks_the_share_more_rounded_up_and_no_more(
    cohort_size: int, over_selection: float, asked: int
) -> None:
    # 50 * (1 + 0.1) is 55.00000000000001 to a computer.
    assert FedAvg(cohort_size=cohort_size, over_selection=over_selection).num_asked == asked


@pytest.mark.parametrize("kind", [FedAvg, FedBuff, FedFix, FedProx])
@pytest.mark.parametrize("server_lr", [0.0, -1.0, float("nan"), float("inf")])
def test_a_server_step_that_leads_nowhere_or_away_is_refused(kind: Any, server_lr: float) -> None:
    with pytest.raises(ConfigurationError, match=f"strategy.server_lr={server_lr}"):
        kind(server_lr=server_lr)


def test_the_name_of_a_combine_is_refused_with_the_mend() -> None:
    with pytest.raises(ConfigurationError, match="'svd' is no combine; name one with combine=svd"):
        FedAvg(combine="svd").init(lambda *a: MODEL, range(7), 1, RNG)  # type: ignore[arg-type]
