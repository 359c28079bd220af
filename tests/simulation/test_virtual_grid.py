"""A Flower grid in virtual time."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from toy_fleet import Timed

from fedpref.flower import wire
from fedpref.simulation.device_classes import Mix
from fedpref.simulation.executor import attempt
from fedpref.simulation.inline import Inline


def messages(toy, *nodes):
    arrays = wire.named_arrays(toy.PullRule().fresh(np.random.default_rng(0)))
    content = {"arrays": arrays, "config": ConfigRecord({"server-round": 1})}
    return [Message(RecordDict(content), node, "train") for node in nodes]


def senders(replies):
    return [reply.metadata.src_node_id for reply in replies]


def test_it_is_a_flower_grid_with_equal_node_ids_in_every_run(toy):
    grid = toy.grid(3)
    assert isinstance(grid, Grid) and list(grid.get_node_ids()) == list(toy.grid(3).nodes) == [1, 2, 3]


def test_replies_come_in_order_of_arrival_and_ties_by_client(toy):
    grid = toy.grid(4, fleet=Timed(3.0, 1.0, 3.0, 2.0))
    assert senders(grid.send_and_receive(messages(toy, 3, 4, 1, 2))) == [2, 4, 1, 3]
    assert grid.clock_s == 3.0


def test_an_empty_pull_jumps_to_the_next_arrival(toy):
    grid = toy.grid(2, fleet=Timed(1.0, 4.0))
    ids = grid.push_messages(messages(toy, 1, 2))
    assert [senders(grid.pull_messages(ids)) for _ in range(3)] == [[1], [2], []]
    assert grid.clock_s == 4.0


def test_a_timeout_is_a_virtual_deadline_and_late_replies_are_gone(toy):
    grid = toy.grid(2, fleet=Timed(1.0, 1e9))
    assert senders(grid.send_and_receive(messages(toy, 1, 2), timeout=5.0)) == [1]
    assert grid.clock_s == 5.0
    assert grid.snapshot()[0]["flights"] == []
    assert senders(grid.send_and_receive(messages(toy, 1, 2), timeout=5.0)) == [1]


def test_a_client_works_on_one_message_after_the_other(toy):
    grid = toy.grid(1, fleet=Timed(2.0))
    replies = grid.send_and_receive(messages(toy, 1, 1, 1))
    assert [reply.content["metrics"]["seen"] for reply in replies] == [1.0, 2.0, 3.0]
    assert grid.clock_s == 6.0


def test_an_unknown_node_is_an_error_reply(toy):
    (reply,) = toy.grid(2).send_and_receive(messages(toy, 9))
    assert reply.has_error() and reply.error.code == 5


def test_an_offline_client_is_no_node(toy):
    fleet = Timed(1.0, is_online=lambda client_id, clock_s: client_id != 1)
    assert toy.grid(3, fleet=fleet).get_node_ids() == [1, 3]


def test_a_client_that_returns_no_message_is_a_failure_and_not_a_hang(toy):
    from flwr.clientapp import ClientApp

    from fedpref.simulation.grid import VirtualGrid

    app = ClientApp()
    app.train()(lambda message, context: None)
    with VirtualGrid(app, 1, Inline(), Mix()) as grid:
        (reply,) = grid.send_and_receive(messages(toy, 1))
    assert reply.error.code == 2 and "returned NoneType, not a Message" in reply.error.reason


def test_a_client_that_fails_halfway_keeps_its_old_state(toy):
    from flwr.clientapp import ClientApp

    from fedpref.simulation.grid import VirtualGrid

    app = ClientApp()

    @app.train()
    def train(message, context):
        context.state["half"] = ConfigRecord({"done": 1})
        raise RuntimeError("halfway")

    with VirtualGrid(app, 1, Inline(), Mix()) as grid:
        grid.send_and_receive(messages(toy, 1))
        assert grid.snapshot()[1] == {}


def test_strict_lets_a_clients_own_exception_through(toy):
    grid = toy.grid(1, toy.PullRule(faults={0: "raise"}), Inline(strict=True))
    with pytest.raises(RuntimeError, match="the dog ate it"):
        grid.send_and_receive(messages(toy, 1))


def test_ctrl_c_in_a_client_is_not_mistaken_for_its_failure(toy):
    from flwr.clientapp import ClientApp

    from fedpref.simulation.grid import VirtualGrid

    app = ClientApp()

    @app.train()
    def train(message, context):
        raise KeyboardInterrupt

    with VirtualGrid(app, 1, Inline(), Mix()) as grid, pytest.raises(KeyboardInterrupt):
        grid.send_and_receive(messages(toy, 1))


def test_client_code_sees_one_torch_thread(toy):
    torch = pytest.importorskip("torch")
    from flwr.clientapp import ClientApp

    from fedpref.simulation.grid import VirtualGrid

    app, seen, before = ClientApp(), [], torch.get_num_threads()
    torch.set_num_threads(2)
    app.train()(lambda message, context: seen.append(torch.get_num_threads()))
    with VirtualGrid(app, 1, Inline(), Mix()) as grid:
        grid.send_and_receive(messages(toy, 1))
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert seen == [1] and after == 2


def test_a_client_that_spoils_its_message_and_context_harms_nobody():
    app = ClientApp()

    @app.train()
    def spoil(message, context):
        message.content["arrays"]["w"] = Array(np.full(2, 9.0, np.float32))
        message.content["config"]["round"] = 9
        context.state["mine"] = ConfigRecord({"n": 1})
        del message.content["config"]
        raise RuntimeError("and now it fails")

    records = {
        "arrays": ArrayRecord({"w": Array(np.ones(2, np.float32))}),
        "config": ConfigRecord({"round": 1}),
    }
    message = Message(RecordDict(records), 1, "train")
    context = Context(1, 1, {}, RecordDict(), {})
    reply, after = attempt(app, message, context)
    assert reply.has_error() and after is context and not context.state
    assert message.content["config"] == {"round": 1}
    assert message.content["arrays"]["w"].numpy().tolist() == [1.0, 1.0]


def test_a_clients_failure_says_where_it_was_without_the_folders_of_this_machine(toy):
    grid = toy.grid(1, toy.PullRule(faults={0: "raise"}))
    (reply,) = grid.send_and_receive(messages(toy, 1))
    *where, what = reply.error.reason.splitlines()
    assert what == "RuntimeError: the dog ate it"
    assert where[-1].startswith("toy_federation.py:")
    assert "/" not in reply.error.reason and "\\" not in reply.error.reason
