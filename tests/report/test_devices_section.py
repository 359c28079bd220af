from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedpref.report import RunDirectory, read_run
from fedpref.report.devices import Job, busy_over_time, class_rows, jobs_of, utilisation
from fedpref.report.html import write_report
from fedpref.report.participation import participation_of
from fedpref.report.systems import systems_of
from fedpref.seeds import generator

MakeRun = Callable[..., Path]
CreateRun = Callable[..., RunDirectory]


def job(client: int, sent_s: float, arrived_s: float, device: str = "slow") -> Job:
    return Job(client, 0, device, "ok", sent_s, arrived_s, 0, None, 0.0)


def text_of(run_dir: Path) -> str:
    html = write_report(run_dir).read_text(encoding="utf-8")
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html.replace("\xa0", " ").replace("&nbsp;", " ")))


def test_a_client_that_is_always_busy_has_a_utilisation_of_one() -> None:
    jobs = [job(0, 2.5 * index, 2.5 * (index + 1)) for index in range(40)]
    assert utilisation(sum(one.busy_s for one in jobs), 1, 100.0) == pytest.approx(1.0)
    assert busy_over_time(jobs, 1, np.linspace(0.0, 100.0, 8)) == pytest.approx(np.ones(7))


def test_nothing_is_busy_where_no_time_passes_or_nobody_is() -> None:
    assert utilisation(0.0, 5, 0.0) == utilisation(0.0, 0, 10.0) == 0.0


def test_utilisation_over_time_averages_to_that_of_the_whole() -> None:
    draw = generator(0, "jobs")
    starts = draw.uniform(0, 90, size=50)
    jobs = [job(client, float(start), float(start) + 10.0) for client, start in enumerate(starts)]
    edges_s = np.array([0.0, 7.0, 20.0, 21.0, 100.0])
    shares = busy_over_time(jobs, 50, edges_s)
    whole = utilisation(sum(one.busy_s for one in jobs), 50, 100.0)
    assert float(shares @ np.diff(edges_s)) / 100.0 == pytest.approx(whole)
    assert whole == pytest.approx(0.1)


def test_half_a_class_at_work_is_half_busy_just_while_it_works() -> None:
    shares = busy_over_time([job(0, 10.0, 30.0)], 2, np.array([0.0, 10.0, 20.0, 30.0, 40.0]))
    assert shares == pytest.approx([0.0, 0.5, 0.5, 0.0])


def test_rows_of_classes_add_up_to_the_run(make_timed_run: MakeRun) -> None:
    run = read_run(make_timed_run())
    jobs = jobs_of(run)
    rows = class_rows(run, jobs, 1000.0)
    assert [(row.name, row.clients) for row in rows] == [("phone", 24), ("server", 8)]
    assert sum(row.jobs for row in rows) == len(run.clients)
    assert sum(row.failed for row in rows) == sum(record["code"] != "ok" for record in run.clients)
    assert sum(row.energy_j for row in rows) == pytest.approx(
        sum(record.get("energy_j", 0.0) for record in run.clients)
    )
    assert all(row.computing < row.busy for row in rows)


def test_shares_of_clients_and_of_answers_sum_to_one(make_timed_run: MakeRun) -> None:
    found = participation_of(read_run(make_timed_run()))
    assert found is not None
    for rows in (found.devices, found.planted):
        assert len(rows) == 2
        assert sum(row.of_clients for row in rows) == pytest.approx(1.0)
        assert sum(row.of_answers for row in rows) == pytest.approx(1.0)
        assert sum(row.clients for row in rows) == 32
    phones, servers = found.devices
    assert phones.of_answers < phones.of_clients and servers.of_answers > servers.of_clients
    assert (phones.staleness or 0) > (servers.staleness or 0)


def test_a_client_whose_answers_were_all_lost_is_left_out(create_run: CreateRun, tmp_path: Path) -> None:
    with create_run(tmp_path) as run:
        run.write_fleet({name: {"kind": "cpu", "power_w": 1.0} for name in "ab"}, ["a", "a", "b"])
        for client, code in ((0, "ok"), (0, "ok"), (1, "lost"), (2, "ok")):
            run.clients.append({"client": client, "code": code, "staleness": 0})
        run.write_result({}, [{"name": "x", "client_id": 1, "accuracy": 0.6, "num_pairs": 5}])
    found = participation_of(read_run(run.path))
    assert found is not None and not found.planted and not found.has_staleness
    first, second = found.devices
    assert (first.clients, first.silent, first.answers, first.accuracy) == (2, 1, 2, 0.6)
    assert (second.clients, second.silent, second.answers, second.accuracy) == (1, 0, 1, None)
    assert first.of_answers == pytest.approx(2 / 3)


def test_the_page_shows_time_devices_and_who_takes_part(make_timed_run: MakeRun) -> None:
    text = text_of(make_timed_run(wait_s=300.0))
    for part in (
        "Accuracy over rounds",
        "Accuracy over virtual time",
        "Who worked when",
        "24 of the 32 clients that were given a task: of each device class its busiest",
        "Once, for 5 min 00 s, nobody was online (shaded).",
        "nobody was online for 5 min 00 s",
        "Utilisation of each device class",
        "Staleness of accepted answers",
        "The energy is an estimate",
        "<h2>Participation",
        "utilisation 43.0 % of all clients' virtual time",
        "energy, estimated 123 kJ computing only",
        "retries 2 begun again: a worker died",
    ):
        assert part.removeprefix("<h2>") in text.replace("&#39;", "'")


def test_many_arrivals_make_a_page_of_moderate_size_that_says_what_it_shows(make_timed_run: MakeRun) -> None:
    run_dir = make_timed_run(counts={"phone": 80, "server": 20}, updates=300, busy=50, buffer=10)
    text = text_of(run_dir)
    assert re.search(r"24 of the 100 clients that .*; the first [\d a-z]+ of [\d a-z]+\.", text)
    assert (run_dir / "report.html").stat().st_size < 1_000_000


def test_the_staleness_histogram_counts_every_accepted_answer(make_timed_run: MakeRun) -> None:
    run = read_run(make_timed_run())
    systems = systems_of(run)
    assert systems is not None
    counts = re.findall(r"<title>\w+, staleness [\d–]+: (\d+)</title>", systems.staleness)
    assert sum(map(int, counts)) == sum(record["code"] == "ok" for record in run.clients)


def test_a_run_in_step_has_no_staleness_and_one_class_no_participation(make_timed_run: MakeRun) -> None:
    run_dir = make_timed_run(counts={"server": 3}, busy=1, buffer=1, updates=5)
    systems = systems_of(read_run(run_dir))
    assert systems is not None and not systems.staleness
    assert systems.shown == "All clients that were given a task."
    text = text_of(run_dir)
    assert "Staleness" not in text and "Participation" not in text and "Who worked when" in text


def test_runs_without_a_fleet_or_without_time_have_no_devices(
    make_run: MakeRun, make_timed_run: MakeRun
) -> None:
    assert systems_of(read_run(make_run())) is None
    assert "<h2>Devices</h2>" not in write_report(make_run()).read_text(encoding="utf-8")
    run_dir = make_timed_run(updates=2)
    for log in ("clients", "metrics", "events"):
        (run_dir / f"{log}.jsonl").write_text("")
    assert systems_of(read_run(run_dir)) is None and participation_of(read_run(run_dir)) is None
    write_report(run_dir)


def test_a_run_of_which_every_task_failed_has_a_report(create_run: CreateRun, tmp_path: Path) -> None:
    with create_run(tmp_path) as run:
        run.write_fleet({"phone": {"kind": "cpu", "power_w": 3.0}}, ["phone", "phone"])
        lost = {"code": "lost", "sent_s": 0.0, "arrived_s": 9.0, "staleness": 0}
        run.clients.append({"round": 1, "client": 1, "task": 0, **lost})
    systems = systems_of(read_run(run.path))
    assert systems is not None
    assert (systems.classes[0].failed, systems.classes[0].busy, systems.energy_j) == (1, 0.5, 0.0)
    write_report(run.path)


def test_a_fleet_is_counted_by_class_and_named_in_the_list_of_runs(
    create_run: CreateRun, tmp_path: Path
) -> None:
    classes = {"server": {"kind": "gpu", "power_w": 300.0}, "phone": {"kind": "cpu", "power_w": 3.0}}
    with create_run(tmp_path) as run:
        assert read_run(run.path).as_row()["devices"] is None
        run.write_fleet(classes, ["phone", "server", "phone"])
    fleet = json.loads((run.path / "fleet.json").read_text())
    assert fleet == {
        "classes": classes,
        "clients": {"phone": 2, "server": 1},
        "devices": ["phone", "server", "phone"],
    }
    assert read_run(run.path).as_row()["devices"] == "2 phone, 1 server"


def test_a_fleet_is_signed_with_the_run(make_timed_run: MakeRun) -> None:
    assert "fleet.json" in json.loads((make_timed_run(updates=2) / "manifest.json").read_text())["sha256"]


def test_names_of_device_classes_are_text(create_run: CreateRun, tmp_path: Path) -> None:
    with create_run(tmp_path) as run:
        run.write_fleet({"<script>": {"kind": "<b>", "power_w": 1.0}}, ["<script>"])
        record = {"client": 0, "task": 0, "code": "<i>", "sent_s": 0.0, "arrived_s": 9.0, "staleness": 3}
        run.clients.append({"round": 1, **record})
    html = write_report(run.path).read_text(encoding="utf-8")
    assert "<script>" not in html and "<b>" not in html and "<i>" not in html
