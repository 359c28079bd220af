import numpy as np
import pytest

from fedpref.errors import ConfigurationError
from fedpref.seeds import generator
from fedpref.strategies.fedavg import FedAvg
from fedpref.strategies.fedprox import FedProx, straggler_steps
from fedpref.strategies.global_model import GlobalModel

STATE = GlobalModel({"w": np.zeros(2, np.float32)}, None)


def test_mu_zero_sends_exactly_what_fedavg_sends() -> None:
    plans = [
        strategy.plan(STATE, range(10), 0.0, generator(0, "plan", 0))[1]
        for strategy in (FedAvg(cohort_size=4), FedProx(mu=0.0, cohort_size=4))
    ]
    assert [(t.client_id, t.settings) for t in plans[0].tasks] == [
        (t.client_id, t.settings) for t in plans[1].tasks
    ]


def test_the_proximal_strength_reaches_every_client() -> None:
    _, plan = FedProx(mu=0.3).plan(STATE, range(5), 0.0, generator(0, "plan", 0))
    assert [task.settings for task in plan.tasks] == [{"proximal_mu": 0.3}] * 5


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_exactly_the_stated_share_does_all_steps(fraction: float) -> None:
    steps = straggler_steps(10, 20, fraction, generator(0, "plan", 0))
    assert sum(step == 20 for step in steps) == round(10 * (1 - fraction))
    assert all(1 <= step <= 20 for step in steps)


def test_partial_work_is_uniform_below_the_full_number_of_steps() -> None:
    steps = np.concatenate([straggler_steps(100, 5, 1.0, generator(0, "plan", i)) for i in range(40)])
    share = np.bincount(steps, minlength=6)[1:5] / len(steps)
    # four equal shares of 4,000 draws: sd 0.0068
    np.testing.assert_allclose(share, 0.25, atol=5 * 0.0068)
    assert len(steps) == 4000


def test_a_single_step_cannot_be_cut() -> None:
    assert straggler_steps(4, 1, 1.0, generator(0, "plan", 0)) == [1, 1, 1, 1]


def test_methods_see_the_same_stragglers_at_the_same_address() -> None:
    draws = [
        FedProx(mu=mu, straggler_fraction=0.5, local_steps=10, cohort_size=6)
        .plan(STATE, range(9), 0.0, generator(3, "plan", 2))[1]
        .tasks
        for mu in (0.0, 1.0)
    ]
    assert [(t.client_id, t.settings["local_steps"]) for t in draws[0]] == [
        (t.client_id, t.settings["local_steps"]) for t in draws[1]
    ]


def test_a_deadline_is_the_time_in_which_clients_do_what_they_can() -> None:
    strategy = FedProx(mu=0.0, cohort_size=4, deadline_s=30.0, over_selection=0.5)
    _, plan = strategy.plan(STATE, range(10), 100.0, generator(0, "plan", 0))
    assert [dict(task.settings) for task in plan.tasks] == [{"within_s": 30.0}] * 6
    assert {task.expires_s for task in plan.tasks} == {130.0}
    assert (plan.wait.count, plan.wait.drop_late) == (4, True)


def test_fedavg_with_a_deadline_asks_for_all_steps_or_nothing() -> None:
    _, plan = FedAvg(deadline_s=30.0).plan(STATE, range(3), 0.0, generator(0, "plan", 0))
    assert [dict(task.settings) for task in plan.tasks] == [{}] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mu": -1.0}, r"strategy\.mu=-1"),
        ({"straggler_fraction": 1.5}, r"straggler_fraction=1\.5"),
        ({"straggler_fraction": 0.5}, r"strategy\.local_steps"),
        ({"cohort_size": 0}, "cohort_size=0"),
        ({"deadline_s": 0.0}, r"strategy\.deadline_s=0"),
        ({"over_selection": 0.5}, "cohort_size"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        FedProx(**options)  # type: ignore[arg-type]
