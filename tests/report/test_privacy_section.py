from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fedpref.report import RunDirectory, read_run
from fedpref.report.html import write_report
from fedpref.report.privacy import privacy_of

MakeRun = Callable[..., Path]
COUNTS = {"messages": 480, "clients": 12}


def text_of(run_dir: Path) -> str:
    html = write_report(run_dir).read_text(encoding="utf-8")
    html = re.sub(r"<style>.*</style>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html.replace("\xa0", " ").replace("&nbsp;", " ")))


def tensor(name: str, *shape: int) -> dict[str, Any]:
    return {
        "name": name,
        "dtype": "float32",
        "shape": list(shape),
        "bytes_per_message": 4 * shape[0],
    } | COUNTS


def card(*tensors: Mapping[str, Any], kept: tuple[str, ...] = (), **changes: Any) -> dict[str, Any]:
    sent = {
        "replies": 480,
        "clients": 12,
        "tensor_bytes": 19_700_000,
        "unlisted_replies": 0,
        "tensors": list(tensors),
        "numbers": [{"name": "num-examples", "low": 20, "high": 1234, **COUNTS}],
        "entries": [{"name": "manifest", **COUNTS}, {"name": "task", **COUNTS}],
        "failures": {"messages": 0, "clients": 0, "longest_reason_characters": 0},
    }
    arrays = [{"name": name, "dtype": "float32", "shape": [4], "clients": 12} for name in kept]
    stays = {"clients": 12 if kept else 0, "bytes": 960, "examined": 12, "arrays": arrays, "numbers": []}
    return {"sent": sent | changes, "kept": stays}


def with_card(run_dir: Path, privacy: Mapping[str, Any]) -> Path:
    with RunDirectory.reopen(run_dir) as run:
        run.write_privacy(privacy)
    return run_dir


def test_every_tensor_and_number_that_left_is_in_the_section(make_run: MakeRun) -> None:
    text = text_of(with_card(make_run(), card(tensor("basis.B", 8, 3), tensor("score", 3))))
    assert "480 replies of 12 clients reached the server, with 19.7 MB of tensors" in text
    assert "basis.B 8 × 3 float32 32 B 480 12" in text.replace("\u202f", " ")
    assert "num-examples 20 1,234 480 12" in text
    assert "keep nothing between their tasks" in text


def test_what_stayed_says_if_a_tensor_of_that_name_has_left_and_that_comes_first(make_run: MakeRun) -> None:
    run_dir = with_card(make_run(), card(tensor("score", 3), kept=("factors.A", "score")))
    section = privacy_of(read_run(run_dir))
    assert section is not None
    assert [(row["name"], row["is_sent"]) for row in section.kept_arrays] == [
        ("score", True),
        ("factors.A", False),
    ]
    assert "factors.A 4 float32 12 never" in text_of(run_dir)


def test_of_many_tensors_some_are_shown_and_the_others_counted(make_run: MakeRun) -> None:
    text = text_of(with_card(make_run(), card(*(tensor(f"layer.{i}", 2) for i in range(50)))))
    assert "layer.19" in text and "layer.20" not in text
    assert "30 more tensors are in privacy.json" in text


def test_a_failure_is_told_as_the_text_that_it_is(make_run: MakeRun) -> None:
    failures = {"messages": 3, "clients": 2, "longest_reason_characters": 1540}
    text = text_of(with_card(make_run(), card(failures=failures)))
    assert "No tensor left a client." in text
    assert "3 tasks of 2 clients ended with a message of failure, a text of at most 1,540 characters" in text


def test_what_became_of_the_answers_is_told(make_run: MakeRun) -> None:
    run_dir = make_run()
    passed_on = [{"name": "score", "messages": 35, "sources": 3, "receivers": 11}]
    known = {"passed_on": passed_on, "held": [{"name": "head", "clients": 12}]}
    text = text_of(with_card(run_dir, card(tensor("score", 3)) | known))
    assert "serves single clients with tensors of their own: head of 12 clients." in text
    assert "hidden in no average. Tensor Clients whose it was" in text
    assert "score 3 35 11" in text
    text = text_of(with_card(run_dir, card(tensor("score", 3)) | {"passed_on": [], "held": []}))
    assert "the server holds no tensor that serves one client alone" in text
    assert "No client got a tensor as another one had sent it." in text


def test_a_card_of_an_older_run_does_not_claim_what_nobody_measured(make_run: MakeRun) -> None:
    assert "What became of it" not in text_of(with_card(make_run(), card(tensor("score", 3))))


def test_an_unfinished_run_tells_what_its_log_knows(make_run: MakeRun) -> None:
    run_dir = make_run()
    log = [
        {"round": 1, "client": 3, "code": "ok", "bytes_up": 40, "num_pairs": 7, "norm": 0.1, "loss": 0.6},
        {"round": 1, "client": 4, "code": "nan", "bytes_up": 40, "device": "phone", "down_s": 0.1},
        {"round": 2, "client": 3, "code": "ok", "bytes_up": 40, "num_pairs": 7, "norm": 0.1, "loss": 0.4},
    ]
    (run_dir / "clients.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    section = privacy_of(read_run(run_dir))
    assert section is not None and not section.is_measured and section.kept is None
    assert (section.sent["replies"], section.sent["clients"], section.sent["tensor_bytes"]) == (3, 2, 120)
    assert list(section.numbers) == [
        {"name": "loss", "low": 0.4, "high": 0.6, "messages": 2, "clients": 1},
        {"name": "num-examples", "low": 7, "high": 7, "messages": 2, "clients": 1},
    ]
    assert "has written no privacy card" in text_of(run_dir)


def test_a_run_of_which_nothing_was_noted_has_no_section(make_run: MakeRun) -> None:
    run_dir = make_run()
    assert privacy_of(read_run(run_dir)) is None
    assert "What left the clients" not in text_of(run_dir)


@pytest.mark.parametrize("where", ["tensor", "number", "entry", "kept", "passed_on", "held"])
def test_names_that_clients_chose_are_text(make_run: MakeRun, where: str) -> None:
    evil = "<script>alert(1)</script>"
    row = {"name": evil, "low": None, "high": None, **COUNTS}
    changes = {"number": {"numbers": [row]}, "entry": {"entries": [row]}}.get(where, {})
    tensors = [tensor(evil, 2)] if where == "tensor" else []
    privacy = card(*tensors, kept=(evil,) if where == "kept" else (), **changes)
    if where in ("passed_on", "held"):
        privacy[where] = [row | {"sources": 1, "receivers": 2}]
    html = write_report(with_card(make_run(), privacy)).read_text(encoding="utf-8")
    assert "<script" not in html and "&lt;script&gt;" in html
