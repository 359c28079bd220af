"""A run as the loop would leave it, with numbers drawn by address."""

from __future__ import annotations

import math
from collections.abc import Callable
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
