"""The Ray executor: equal bytes, dead actors replaced, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from fedpref.errors import ConfigurationError
from fedpref.simulation.ray import RayPool

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def by_value(toy):
    """Ship the toy by value: actors cannot import a test file."""
    from ray import cloudpickle

    module = sys.modules["toy_federation"]
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


def run(rounds, n):
    return [rounds.advance() for _ in range(n)]


def codes(outcomes):
    return [[arrival.code for arrival in outcome.arrivals] for outcome in outcomes]


def test_an_address_that_ray_would_choose_itself_is_refused():
    with pytest.raises(ConfigurationError, match=r"executor\.address=auto"):
        RayPool(address="auto")


@pytest.mark.parametrize("options", [{"num_workers": 0}, {"max_retries": -1}])
def test_a_pool_that_cannot_exist_is_refused(options):
    with pytest.raises(ConfigurationError, match=f"executor.{next(iter(options))}"):
        RayPool(**options)


@pytest.mark.parametrize("num_workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_ray_and_inline_give_equal_bytes(toy, by_value, num_workers):
    rule = toy.PullRule(noise=0.1)
    inline = toy.rounds(5, rule, toy.ToyAvg(3))
    ray = toy.rounds(5, rule, toy.ToyAvg(3), executor=RayPool(num_workers=num_workers))
    outcomes, others = run(inline, 3), run(ray, 3)
    assert toy.same(inline.state, ray.state)
    assert inline.exchange.traffic == ray.exchange.traffic
    assert [o.clock_s for o in outcomes] == [o.clock_s for o in others]


@pytest.mark.slow
def test_an_actor_killed_at_work_changes_nothing(toy, by_value, tmp_path):
    marker = tmp_path / "killed"
    rule = toy.PullRule(noise=0.1, faults={1: "kill once"}, marker=str(marker))
    ray = toy.rounds(4, rule, executor=RayPool(num_workers=2))
    outcomes = run(ray, 2)
    undisturbed = toy.rounds(4, toy.PullRule(noise=0.1))
    run(undisturbed, 2)
    assert marker.exists() and codes(outcomes) == [["ok"] * 4] * 2
    assert toy.same(ray.state, undisturbed.state)


@pytest.mark.slow
def test_a_client_that_always_kills_its_actor_fails_alone_and_all_actors_live_on(toy, by_value):
    rounds = toy.rounds(3, toy.PullRule(faults={1: "kill"}), executor=RayPool(num_workers=2, max_retries=1))
    outcomes = run(rounds, 2)
    assert codes(outcomes) == [["ok", "client_failed", "ok"]] * 2
    assert "the worker process died" in outcomes[0].arrivals[1].detail


@pytest.mark.slow
def test_a_client_that_raises_in_an_actor_brings_its_own_traceback(toy, by_value):
    rounds = toy.rounds(2, toy.PullRule(faults={0: "raise"}), executor=RayPool(num_workers=1))
    detail = rounds.advance().arrivals[0].detail
    assert detail.strip().endswith("RuntimeError: the dog ate it")


@pytest.mark.slow
def test_more_than_the_cluster_has_is_refused_with_the_figures(toy, by_value):
    with pytest.raises(ConfigurationError, match=r"executor.num_workers=1: the actors need 99 GPU"):
        toy.grid(2, executor=RayPool(num_workers=1, num_gpus=99))


INTERRUPTED = """
    import signal, sys, time
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it
    sys.path.insert(0, {tests!r})
    import toy_federation
    from ray import cloudpickle
    from fedpref.simulation.ray import RayPool
    cloudpickle.register_pickle_by_value(toy_federation)
    class Slow(toy_federation.PullRule):
        def answer(self, *work):
            time.sleep(60)
    rounds = toy_federation.Toy().rounds(2, Slow(), executor=RayPool(num_workers=2))
    with rounds.exchange.grid:
        print("READY", flush=True)
        rounds.advance()
"""


@pytest.mark.slow
def test_ctrl_c_ends_the_run_and_leaves_no_process(toy):
    code = textwrap.dedent(INTERRUPTED).format(tests=str(ROOT / "tests" / "flower"))
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as driver:
        assert driver.stdout.readline().strip() == "READY"
        time.sleep(1.0)
        children = psutil.Process(driver.pid).children(recursive=True)
        driver.send_signal(signal.SIGINT)
        _, errors = driver.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors and driver.returncode in (130, -signal.SIGINT, 1)
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert children and not alive, [process.name() for process in alive]
    assert os.getpid() not in {process.pid for process in gone}
