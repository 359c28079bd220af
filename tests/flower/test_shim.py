"""What fedpref takes of Flower's internals, and what it keeps Flower from doing."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fedpref.flower import _shim

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict  # isort: skip

ROOT = Path(__file__).resolve().parents[2]

QUIET_RUN = """
    import socket, sys
    real = socket.socket.connect
    def guarded(self, address):
        host = address[0] if isinstance(address, tuple) else "unix"
        if host not in ("127.0.0.1", "localhost", "::1", "unix"):
            print("PHONED", address, flush=True)
            raise OSError("no network")
        return real(self, address)
    socket.socket.connect = guarded
    sys.path.insert(0, {tests!r})
    import toy_federation
    {first}
    rounds = toy_federation.Toy().rounds(3{extra})
    rounds.advance()
    print("DONE", rounds.version)
    rounds.exchange.grid.close()
"""


def run_quietly(first="", extra=""):
    code = textwrap.dedent(QUIET_RUN).format(tests=str(Path(__file__).parent), first=first, extra=extra)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "DONE 1" in done.stdout, done.stderr
    return done


def test_a_run_opens_no_connection_and_prints_nothing_of_flowers():
    done = run_quietly()
    assert "PHONED" not in done.stdout and done.stderr == ""


@pytest.mark.slow
def test_a_run_on_ray_opens_no_connection_beyond_this_machine():
    first = (
        "from ray import cloudpickle; from fedpref.simulation.ray import RayPool; "
        "cloudpickle.register_pickle_by_value(toy_federation)"
    )
    done = run_quietly(first, ", executor=RayPool(num_workers=1)")
    assert "PHONED" not in done.stdout


def test_only_the_shim_imports_flowers_internals():
    public = ("flwr.app", "flwr.clientapp", "flwr.serverapp")
    for room in ("flower", "simulation"):
        for path in (ROOT / "fedpref" / room).glob("*.py"):
            for line in path.read_text().splitlines():
                if path.name != "_shim.py" and line.strip().startswith(("from flwr", "import flwr")):
                    assert line.split()[1].startswith(public), f"{path.name}: {line}"


def test_ray_is_imported_only_by_its_own_file_and_only_when_started():
    code = (
        "import sys, fedpref.simulation.ray, fedpref.simulation.grid, fedpref.flower.strategy, "
        "fedpref.flower.native; print(sorted({'ray', 'torch', 'hydra'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def fields_of(message):
    """All that a message is made of, but for when it was made."""
    fields = dict(vars(message.metadata))
    life_s = fields.pop("_created_at") + fields.pop("_ttl")
    return type(message), fields, vars(message).keys(), life_s


def test_messages_and_replies_are_those_that_flowers_constructor_makes():
    _shim.adopt_process()
    content = RecordDict({"config": ConfigRecord({"a": 1})})
    ours = _shim.stamp(_shim.message_of(content, 7, "train.resume", "3"), "m1")
    flowers = _shim.stamp(Message(content, 7, "train.resume", group_id="3"), "m1")
    pairs = [(ours, flowers), (_shim.reply_of(content, flowers), Message(content, reply_to=flowers))]
    for made, expected in pairs:
        *parts, ends_s = fields_of(made)
        *parts_expected, ends_expected_s = fields_of(expected)
        assert parts == parts_expected and abs(ends_s - ends_expected_s) < 10
        assert made.content is content and not made.has_error()
        assert _shim.message_from_bytes(_shim.message_to_bytes(made)).content == content
    assert pairs[1][0].metadata.src_node_id == 7


@pytest.mark.parametrize("kind", [RecordDict, ArrayRecord, MetricRecord, ConfigRecord])
def test_records_are_those_that_flowers_constructors_make(kind):
    made, again = _shim.record_of(kind, {}), _shim.record_of(kind, {})
    assert type(made) is kind and vars(made) == vars(kind())
    with pytest.raises(TypeError):
        made["key"] = object()
    assert len(again) == 0
