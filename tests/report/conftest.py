"""A run as the loop would leave it, with numbers drawn by address."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fedpref.report import RunDirectory
from fedpref.report.runs import best_round, read_run
from fedpref.seeds import generator


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a finished run below ``tmp_path`` and returns its directory."""

    def make(**options: Any) -> Path:
        return write_sample_run(tmp_path / "runs", **options)

    return make


@pytest.fixture
def make_timed_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a finished asynchronous run on two device classes and returns its directory."""

    def make(**options: Any) -> Path:
        return write_timed_run(tmp_path / "runs", **options)

    return make


@pytest.fixture
def create_run() -> Callable[..., RunDirectory]:
    """Makes a new run directory with nothing but a configuration: ``create_run(out, name, now)``."""
    return new_run


def write_sample_run(
    out: Path,
    rounds: int = 40,
    people: int = 100,
    has_truth: bool = False,
    has_failures: bool = True,
    names: Callable[[int], str] = lambda index: f"annotator {index:03d}",
    selectors: int = 0,
) -> Path:
    run = new_run(out)
    with run:
        run.write_notes(
            ["3,320 rows from 1 file: 3,301 pairs kept.", "19 rows dropped: both texts are equal."]
        )
        noise = generator(0, "sample")
        total, clock_s = {"up": 0, "down": 0}, 0.0
        for number in range(1, rounds + 1):
            failed = int(noise.integers(0, 3)) if has_failures and number % 4 == 0 else 0
            total["down"] += 12 * 41_000
            total["up"] += (12 - failed) * 41_000
            clock_s += 95.0 + 60.0 * float(noise.uniform())
            accuracy = 0.735 - 0.22 * math.exp(-number / 7) + 0.004 * float(noise.normal())
            record = {
                "round": number,
                "version": number,
                "clock_s": clock_s,
                "wall_s": 0.9 * number,
                "clients_ok": 12 - failed,
                "clients_failed": failed,
                "bytes_up": total["up"],
                "bytes_down": total["down"],
                "fold": {"delta_norm": 1.0 / number},
            }
            if number % 2 == 0 or number in (1, rounds):
                record["evaluation"] = evaluation(accuracy, people, has_truth)
                if selectors:
                    record["groups"] = members(number, rounds, people, selectors)
                    record["evaluation"] |= selector_scores(number, rounds, has_truth)
                    record["fold"]["broadcast_ratio"] = 0.4
            run.metrics.append(record)
            for client in range(12):
                code = "timeout" if client < failed else "ok"
                run.clients.append({"round": number, "client": client, "task": client, "code": code})
            if failed:
                event = {"round": number, "client": 7, "code": "timeout", "detail": "no reply by 155 s"}
                run.events.append(event)
        users = [person(index, noise, has_truth, names) for index in range(people)]
        if selectors:
            users = [user | {"group": i % selectors} if has_truth else user for i, user in enumerate(users)]
            final = members(rounds, rounds, people, selectors)
            users = [user | {"served_by": group} for user, group in zip(users, final, strict=True)]
        metrics = read_run(run.path).metrics
        found = best_round(metrics)
        assert found is not None
        summary = {
            **evaluation(accuracy, people, has_truth),
            "rounds": rounds,
            "bytes_up": total["up"],
            "bytes_down": total["down"],
            "virtual_s": clock_s,
            "wall_s": 0.9 * rounds,
            "weights_sha256": "5d41402abc4b2a76b9719d911017c592" * 2,
            "replies_ok": sum(record["clients_ok"] for record in metrics),
            "replies_failed": sum(record["clients_failed"] for record in metrics),
            "best_round": found[0],
            "best_pair_accuracy": found[1],
        }
        if selectors:
            summary |= selector_scores(rounds, rounds, has_truth)
        run.write_result(summary, users, agreement(selectors) if selectors else None)
        run.set_status("finished", round_number=rounds, exit_code=0)
        run.sign()
    return run.path


def write_timed_run(
    out: Path,
    counts: Mapping[str, int] = {"phone": 24, "server": 8},
    updates: int = 60,
    busy: int = 16,
    buffer: int = 4,
    wait_s: float = 0.0,
) -> Path:
    """A buffered asynchronous run with its devices: phones are about ten times as slow as servers.

    Slow phones hold the second planted group's taste. One task in eleven is lost. The first ``wait_s``
    pass before anybody is online.
    """
    devices = [name for name, count in counts.items() for _ in range(count)]
    run = new_run(out, "timed")
    with run:
        powers: dict[str, dict[str, Any]] = {
            "phone": {"kind": "cpu", "power_w": 3.0},
            "server": {"kind": "gpu", "power_w": 300.0},
        }
        run.write_fleet({name: powers[name] for name in counts}, devices)
        if wait_s:
            run.events.append({"kind": "wait", "round": 0, "waited_s": wait_s, "until_s": wait_s})
        draw = generator(0, "timed")
        clock_s, version, task = wait_s, 0, 0
        flying: list[tuple[float, int, dict[str, Any]]] = []
        buffered: list[dict[str, Any]] = []
        while version < updates:
            at_work = {record["client"] for _, _, record in flying}
            for client in draw.permutation(len(devices)):
                if len(flying) == busy or int(client) in at_work:
                    continue
                slow = 10.0 if devices[client] == "phone" else 1.0
                parts = {"down_s": 2.0 * slow, "compute_s": slow * float(draw.uniform(6, 12)), "up_s": slow}
                record: dict[str, Any] = {"client": int(client), "task": task, "sent_s": clock_s}
                record["version"] = version
                record |= {"code": "lost"} if task % 11 == 10 else {"code": "ok", **parts}
                record |= {"arrived_s": clock_s + sum(parts.values()), "device": devices[client]}
                if record["code"] == "ok":
                    record["energy_j"] = parts["compute_s"] * float(powers[devices[client]]["power_w"])
                heapq.heappush(flying, (record["arrived_s"], task, record))
                task += 1
            clock_s, _, record = heapq.heappop(flying)
            record["staleness"] = version - record.pop("version")
            buffered.append(record)
            if sum(record["code"] == "ok" for record in buffered) < buffer:
                continue
            version += 1
            for record in buffered:
                run.clients.append({"round": version, **record})
            failed = sum(record["code"] != "ok" for record in buffered)
            metrics: dict[str, Any] = {"round": version, "version": version, "clock_s": clock_s}
            metrics |= {"wall_s": 0.1 * version, "clients_ok": buffer, "clients_failed": failed, "fold": {}}
            metrics |= {"bytes_up": 41_000 * task, "bytes_down": 41_000 * task}
            metrics["evaluation"] = evaluation(0.73 - 0.22 * math.exp(-version / 12), len(devices), True)
            run.metrics.append(metrics)
            buffered = []
        users = [
            {"name": f"person {client}", "client_id": client, "num_pairs": 20, "oracle": 0.83}
            | {"group": group, "accuracy": 0.75 - 0.15 * group + 0.02 * float(draw.normal())}
            for client, device in enumerate(devices)
            for group in [int(device == "phone" and client % 3 > 0)]
        ]
        summary = dict(metrics["evaluation"]) | {"rounds": version, "virtual_s": clock_s, "wall_s": 6.0}
        summary |= {"bytes_up": metrics["bytes_up"], "bytes_down": metrics["bytes_down"], "retries": 2}
        summary |= {"replies_ok": buffer * version, "replies_failed": task // 11}
        run.write_result(summary | {"utilisation": 0.43, "energy_j": 123_456.0}, users)
        run.set_status("finished", round_number=version, exit_code=0)
        run.sign()
    return run.path


def new_run(
    out: Path, name: str = "llmfao_fedavg", now: datetime = datetime(2026, 11, 21, 10, 15)
) -> RunDirectory:
    return RunDirectory.create(
        out,
        name,
        config="strategy:\n  _target_: fedpref.strategies.fedavg.FedAvg\nrounds: 40\nseed: 0\n",
        overrides="- strategy=fedavg\n- rounds=40\n",
        config_hash="3f9a1c2e" * 8,
        seed=0,
        command=["fedpref", "run", "strategy=fedavg", "rounds=40", "data.path=my rows.jsonl"],
        now=now,
    )


def evaluation(accuracy: float, people: int, has_truth: bool) -> dict[str, float]:
    values = {
        "pair_accuracy": accuracy,
        "user_accuracy": accuracy - 0.006,
        "worst_decile": max(accuracy - 0.17, 0.2),
        "gini": 0.061,
        "loss": 0.693 - 0.9 * (accuracy - 0.515),
        "brier": 0.25 - 0.3 * (accuracy - 0.515),
        "ece": 0.021,
    }
    if people > 1:
        values |= {"pair_accuracy_low": accuracy - 0.017, "pair_accuracy_high": accuracy + 0.016}
        values |= {"user_accuracy_low": accuracy - 0.021, "user_accuracy_high": accuracy + 0.02}
    if has_truth:
        values |= {"worst_group": accuracy - 0.05, "oracle": 0.829, "regret": 0.829 - accuracy + 0.006}
    return values


def members(number: int, rounds: int, people: int, selectors: int) -> list[int | None]:
    """Nobody in a warm-up of a fifth of the rounds; then groups that settle, regrouped every fifth."""
    regroupings = 5 * number // rounds
    if regroupings == 0:
        return [None] * people
    draw = generator(0, "members", regroupings)
    strays = draw.uniform(size=people) < 0.5 / regroupings
    anywhere = draw.integers(0, selectors, size=people)
    return [int(anywhere[i]) if strays[i] else i % selectors for i in range(people)]


def selector_scores(number: int, rounds: int, has_truth: bool) -> dict[str, float]:
    values = {"position_bias": -0.31, "position_bias_sd": 0.22, "order_consistency": 0.93}
    if has_truth and 5 * number >= rounds:
        values |= {"ari": 0.95 - 0.9 * math.exp(-4 * number / rounds), "nmi": 0.9 - 0.7 * rounds / 5 / number}
    return values


def agreement(selectors: int) -> dict[str, Any]:
    shares = [
        [1.0 if i == j else 0.3 + 0.55 / (1 + abs(i - j)) ** 1.5 for i in range(selectors)]
        for j in range(selectors)
    ]
    return {"models": [f"selector/{u}" for u in range(selectors)], "shares": shares}


def person(index: int, noise: Any, has_truth: bool, names: Callable[[int], str]) -> dict[str, Any]:
    accuracy = min(max(0.73 + 0.09 * float(noise.normal()), 0.0), 1.0)
    row = {"name": names(index), "num_pairs": 20 + int(noise.integers(0, 30)), "accuracy": accuracy}
    row["client_id"] = index
    if has_truth:
        row |= {"group": int(noise.choice(4, p=[0.5, 0.25, 0.15, 0.1])), "oracle": 0.829}
    return row
