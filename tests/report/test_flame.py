"""Which phase a stack belongs to, and that picture and table account for every sample."""

import re

import pytest

from fedpref.report.flame import PHASES, flame_page, phase_of, phase_table

LOOP = ("fedpref.federation.run:to_the_end",)
ROUND = (*LOOP, "fedpref.flower.rounds:advance")


@pytest.mark.parametrize(
    ("stack", "phase"),
    [
        (("fedpref.cli.run:job",), "start"),
        (("fedpref.cli.build:federation_from", "fedpref.data.synthetic.population:population"), "data"),
        ((*LOOP, "fedpref.clients.lore:warm", "fedpref.models.minilm:features"), "features"),
        ((*ROUND, "fedpref.flower.exchange:_send"), "transport"),
        ((*ROUND, "fedpref.flower.app:__call__", "fedpref.clients.lore:answer", "numpy:dot"), "compute"),
        ((*ROUND, "fedpref.strategies.fedavg:fold", "fedpref.maths.weights:weighted_sum"), "aggregation"),
        ((*ROUND, "fedpref.flower.validation:validate_reply", "fedpref.maths.weights:norm"), "transport"),
        ((*LOOP, "fedpref.evaluation.evaluate:evaluate", "fedpref.clients.lore:margins"), "evaluation"),
        ((*LOOP, "fedpref.federation.run:_save", "fedpref.report.rundir:write"), "checkpoint"),
        ((*LOOP, "fedpref.report.jsonl:append"), "report"),
        (("fedpref.cli.run:job", "fedpref.clients.lore:<module>"), "start"),
        ((*ROUND, "fedpref.clientside:work"), "transport"),  # no room of that name
    ],
)
def test_a_stack_belongs_to_the_outermost_room_that_decides(stack: tuple[str, ...], phase: str) -> None:
    assert phase_of(stack) == phase


def test_modules_of_plug_ins_are_known_by_name() -> None:
    stack = (*ROUND, "mine:fold")
    assert phase_of(stack) == "transport"
    assert phase_of(stack, strategy="mine") == "aggregation"
    assert phase_of(stack, rule="mine") == "compute"
    inside = (*ROUND, "mine.server:fold")
    assert phase_of(inside, strategy="mine") == "aggregation"
    assert phase_of(inside, strategy="min") == "transport"


def test_the_table_shares_out_all_seconds_and_names_the_largest_first() -> None:
    table = phase_table({"compute": 1.0, "transport": 3.0}, rounds=10)
    lines = table.splitlines()
    assert lines[1].split()[:4] == ["transport", "3.00", "75.0%", "300.0"]
    assert lines[2].split()[:4] == ["compute", "1.00", "25.0%", "100.0"]
    assert lines[-1].split() == ["all", "4.00"]
    assert sorted(line.split()[0] for line in lines[1:-1]) == sorted(PHASES)


def test_boxes_of_one_row_are_as_wide_as_their_samples_and_asks_nothing_of_a_network() -> None:
    outer = "fedpref.a:f"
    samples: dict[tuple[str, ...], int] = {(outer, "fedpref.b:g"): 3, (outer, "fedpref.b:<h>"): 1}
    page = flame_page(samples, {stack: "compute" for stack in samples})
    widths = [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', page)]
    assert widths == pytest.approx([1199.5, 1199.5, 899.5, 299.5])
    assert "&lt;h&gt;" in page and "<h>" not in page
    assert "http" not in page and "src=" not in page


def test_every_phase_has_a_colour() -> None:
    page = flame_page({}, {})
    assert all(f".{phase} " in page for phase in PHASES)
