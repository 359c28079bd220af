"""Published originals, made up here in their layout, become rows: who judged what, and nothing else."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fedpref.data.originals import llmfao, mtbench, polis, ukpconvarg
from fedpref.data.originals.rows import (
    Figures,
    Judgement,
    Row,
    as_file,
    as_lines,
    finished,
    pseudonym,
    side_of,
    tidy,
)
from fedpref.data.published import WrongLayout

STUDY = Path(__file__).resolve().parents[2].parent / "shared" / "data"
NAMES = ("llmfao", "ukpconvarg", "mtbench", "polis")


# --- what all converters share


def judgement(person: str, pair: str, chosen: str, rejected: str) -> Judgement:
    return Judgement(person, pair, "topic", "train", "prompt", chosen, rejected)


def test_who_contradicts_himself_on_a_pair_has_no_say_on_it_but_keeps_his_other_choices() -> None:
    rows = finished(
        "toy",
        [
            judgement("ann", "p1", "a", "b"),
            judgement("ann", "p1", "b", "a"),
            judgement("ann", "p2", "c", "d"),
            judgement("bob", "p1", "a", "b"),
        ],
        min_choices=1,
    )

    assert {(row["annotator"], row["source_id"]) for row in rows} == {
        (pseudonym("toy", "ann"), "p2"),
        (pseudonym("toy", "bob"), "p1"),
    }


def test_a_choice_made_twice_counts_once_also_towards_the_minimum() -> None:
    twice = [judgement("ann", "p1", "a", "b"), judgement("ann", "p1", "a", "b")]

    assert len(finished("toy", twice, min_choices=1)) == 1
    assert finished("toy", twice, min_choices=2) == []


@pytest.mark.parametrize(("chosen", "rejected"), [("", "b"), ("a", ""), ("a", "a")])
def test_empty_and_equal_texts_are_dropped(chosen: str, rejected: str) -> None:
    assert finished("toy", [judgement("ann", "p1", chosen, rejected)], min_choices=1) == []


def test_rows_do_not_depend_on_the_order_of_judgements_byte_for_byte() -> None:
    judgements = [judgement(f"w{i % 3}", f"p{i}", f"a{i}", f"b{i}") for i in range(9)]

    there = as_file(finished("toy", judgements, min_choices=1))
    back = as_file(finished("toy", judgements[::-1], min_choices=1))

    assert there == back
    lines = [json.loads(line) for line in gzip.decompress(there).decode().splitlines()]
    keys = [(row["domain"], row["source_id"], row["annotator"]) for row in lines]
    assert keys == sorted(keys) and len(keys) == 9


def test_a_quarter_of_the_units_is_held_out_and_a_unit_keeps_its_side() -> None:
    sides = [side_of("toy", str(i)) for i in range(2000)]

    # Standard deviation of the share: sqrt(0.25 * 0.75 / 2000) = 0.0097; four of them either way.
    assert abs(sides.count("test") / 2000 - 0.25) < 0.04
    assert sides == [side_of("toy", str(i)) for i in range(2000)]
    assert sides != [side_of("other", str(i)) for i in range(2000)]


def test_pseudonyms_of_one_person_differ_between_sets() -> None:
    assert pseudonym("a", "w1").removeprefix("a-") != pseudonym("b", "w1").removeprefix("b-")


def test_tidy_text_keeps_paragraphs_and_drops_the_rest() -> None:
    assert tidy("  One\t two </s>\r\n \n\n\n   three  \n") == "One two\n\n three"


# --- llmfao


def crowd_pairs(number: int) -> list[dict[str, Any]]:
    return [
        {
            "id": i,
            "prompt": 4,
            "text": "Tell a joke.",
            "slug": "holidays",
            "model_x": 9,
            "result_x": f"Joke {i} of x.\n",
            "model_y": 94,
            "result_y": f"Joke {i} of y.",
        }
        for i in range(number)
    ]


def crowd_vote(number: int, worker: str, winner: str) -> dict[str, str]:
    return {"id": str(number), "worker": worker, "left": "Dolly", "right": "PaLM", "winner": winner}


def test_llmfao_gives_the_winner_with_its_model_and_drops_ties() -> None:
    votes = [crowd_vote(0, "w", "left"), crowd_vote(1, "w", "right"), crowd_vote(2, "w", "left")]
    votes += [crowd_vote(3, "w", "tie"), *(crowd_vote(i, "rare", "left") for i in range(2))]

    rows = llmfao.rows(crowd_pairs(4), votes)

    assert [(row["source_id"], row["chosen"], row["chosen_model"]) for row in rows] == [
        ("llmfao:0", "Joke 0 of x.", "Dolly"),
        ("llmfao:1", "Joke 1 of y.", "PaLM"),
        ("llmfao:2", "Joke 2 of x.", "Dolly"),
    ]
    assert {row["annotator"] for row in rows} == {pseudonym("llmfao", "w")}
    assert rows[1]["rejected"] == "Joke 1 of x." and rows[1]["domain"] == "holidays"


def test_llmfao_puts_equal_text_pairs_on_one_side_whoever_was_asked_and_in_whatever_order() -> None:
    pairs = crowd_pairs(40)
    for pair in pairs[20:]:  # the same texts under another id, x and y exchanged
        twin = pairs[pair["id"] - 20]
        pair["result_x"], pair["result_y"] = twin["result_y"], twin["result_x"]
    rows = llmfao.rows(pairs, [crowd_vote(i, "w", "left") for i in range(40)])

    sides = {row["source_id"]: row["split"] for row in rows}
    assert set(sides.values()) == {"train", "test"}
    assert all(sides[f"llmfao:{i}"] == sides[f"llmfao:{i + 20}"] for i in range(20))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"winner": "neither"}, "winner is 'neither'"),
        ({"id": "77"}, "no pair 77"),
        ({"worker": None}, "none of worker, worker_id, annotator among id, left, right, winner"),
    ],
)
def test_llmfao_refuses_votes_of_another_layout(change: dict[str, Any], message: str) -> None:
    vote = {key: value for key, value in {**crowd_vote(0, "w", "left"), **change}.items() if value}

    with pytest.raises(WrongLayout, match=message):
        llmfao.rows(crowd_pairs(1), [vote])


def test_llmfao_reads_its_two_files(tmp_path: Path) -> None:
    lines = "".join(json.dumps(pair) + "\n" for pair in crowd_pairs(3))
    (tmp_path / "pairs-crowd.jsonl").write_text(lines, encoding="utf-8")
    votes = [crowd_vote(i, "w", "right") for i in range(3)]
    write_csv(tmp_path / "crowd-comparisons.csv", votes)

    assert llmfao.read(tmp_path) == llmfao.rows(crowd_pairs(3), votes)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


# --- ukpconvarg


def arguments(number: int, votes: Iterable[tuple[str, str]]) -> ukpconvarg.ArgumentPair:
    return ukpconvarg.ArgumentPair(
        f"arg{number}_arg{number + 1}", "TV or books?", "TV", f"One {number}.", f"Two {number}.", tuple(votes)
    )


def test_ukpconvarg_drops_equal_votes_and_counts_choices_over_all_debates() -> None:
    first = [arguments(i, [("w", "a2"), ("rare", "a1"), ("w2", "equal")]) for i in range(9)]
    second = [arguments(50, [("w", "a1")]), arguments(51, [("rare", "equal")])]

    rows = ukpconvarg.rows({"tv_tv": first, "books_books": second})

    assert {row["annotator"] for row in rows} == {pseudonym("ukpconvarg", "w")}
    assert len(rows) == 10
    assert rows[0]["source_id"] == "ukp:books_books:arg50_arg51"
    assert (rows[0]["chosen"], rows[0]["rejected"]) == ("One 50.", "Two 50.")
    assert (rows[1]["chosen"], rows[1]["rejected"]) == ("Two 0.", "One 0.")
    assert (
        rows[0]["prompt"] == "Debate: TV or books?\nStance: TV\nGive a convincing argument for this stance."
    )


def test_ukpconvarg_refuses_an_unknown_vote() -> None:
    with pytest.raises(WrongLayout, match="value is 'a3'"):
        ukpconvarg.rows({"tv_tv": [arguments(0, [("w", "a3")])]})


PAIR = """<annotatedArgumentPair>
  <id>arg1_arg2</id>
  <arg1><author>secret</author><stance>TV</stance><text>It &amp; more.</text><id>arg1</id></arg1>
  <arg2><author>secret</author><stance>TV</stance><text>Less.</text><id>arg2</id></arg2>
  <debateMetaData><title>TV or books?</title></debateMetaData>
  <mTurkAssignments>
    <mTurkAssignment><turkID>A1</turkID><value>a1</value><reason>secret</reason></mTurkAssignment>
    <mTurkAssignment><turkID>A2</turkID><value>equal</value></mTurkAssignment>
  </mTurkAssignments>
</annotatedArgumentPair>"""


def test_ukpconvarg_reads_pairs_from_xml_without_authors_and_reasons(tmp_path: Path) -> None:
    path = tmp_path / "debate.xml"
    path.write_text(f'<?xml version="1.0"?>\n<list>{PAIR}</list>', encoding="utf-8")

    assert ukpconvarg.argument_pairs(path) == [
        ukpconvarg.ArgumentPair(
            "arg1_arg2", "TV or books?", "TV", "It & more.", "Less.", (("A1", "a1"), ("A2", "equal"))
        )
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<list>", "debate.xml: no XML"),
        (f"<list>{PAIR.replace('title', 'name')}</list>", "arg1_arg2 has no <debateMetaData/title>"),
    ],
)
def test_ukpconvarg_names_what_an_xml_file_lacks(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "debate.xml").write_text(content, encoding="utf-8")

    with pytest.raises(WrongLayout, match=message):
        ukpconvarg.argument_pairs(tmp_path / "debate.xml")


# --- mtbench


def verdict(question: int, turn: int, judge: str, winner: str, swapped: bool = False) -> dict[str, Any]:
    def conversation(model: str) -> list[dict[str, str]]:
        return [
            {"role": "user", "content": f"Q{question}"},
            {"role": "assistant", "content": f"{model} {question}.1"},
            {"role": "user", "content": "And?"},
            {"role": "assistant", "content": f"{model} {question}.2"},
        ]

    a, b = ("gpt", "alpaca") if swapped else ("alpaca", "gpt")
    return {
        "question_id": question,
        "model_a": a,
        "model_b": b,
        "winner": winner,
        "judge": judge,
        "conversation_a": conversation(a),
        "conversation_b": conversation(b),
        "turn": turn,
    }


def test_mtbench_shows_a_judge_of_the_second_turn_the_whole_conversation() -> None:
    rows = mtbench.rows([verdict(81 + 10 * i, 1 + i % 2, "j", "model_b") for i in range(5)])

    by_domain = {row["domain"]: row for row in rows}
    assert by_domain["writing"]["chosen"] == "gpt 81.1"
    assert by_domain["roleplay"]["chosen"] == "gpt 91.1\n\nUser: And?\n\nAssistant: gpt 91.2"
    assert by_domain["roleplay"]["turn"] == 2 and by_domain["roleplay"]["prompt"] == "Q91"
    assert by_domain["roleplay"]["source_id"] == "mtbench:91:2:alpaca|gpt"
    assert (by_domain["math"]["chosen_model"], by_domain["math"]["rejected_model"]) == ("gpt", "alpaca")


def test_mtbench_sees_that_a_judge_contradicts_himself_in_the_other_order() -> None:
    votes = [verdict(81 + i, 1, "j", "model_a") for i in range(6)]
    agreeing = [*votes, verdict(81, 1, "j", "model_b", swapped=True)]
    contrary = [*votes, verdict(81, 1, "j", "model_a", swapped=True)]

    assert mtbench.rows(agreeing) == mtbench.rows(votes)
    assert len(mtbench.rows(contrary)) == len(mtbench.rows(votes)) - 1


def test_mtbench_keeps_both_turns_of_a_question_on_one_side() -> None:
    rows = mtbench.rows([verdict(q, turn, "j", "model_a") for q in range(81, 161) for turn in (1, 2)])

    sides: dict[str, set[Any]] = {}
    for row in rows:
        sides.setdefault(str(row["source_id"]).split(":")[1], set()).add(row["split"])
    assert len(sides) == 80 and all(len(side) == 1 for side in sides.values())
    assert {side for both in sides.values() for side in both} == {"train", "test"}


def test_mtbench_drops_ties_and_judges_with_few_choices() -> None:
    assert mtbench.rows([verdict(81 + i, 1, "j", "model_a" if i < 4 else "tie") for i in range(9)]) == []


@pytest.mark.parametrize(
    "change", [{"winner": "c"}, {"turn": 3}, {"question_id": 161}, {"conversation_a": []}]
)
def test_mtbench_refuses_another_layout(change: dict[str, Any]) -> None:
    with pytest.raises(WrongLayout, match="question"):
        mtbench.rows([{**verdict(81, 1, "j", "model_a"), **change}])


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import datasets

    datasets.Dataset.from_list(list(rows)).to_parquet(path)


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_bytes(as_lines([dict(row) for row in rows]))


@pytest.mark.parametrize("write", [write_lines, pytest.param(write_parquet, marks=pytest.mark.slow)])
def test_mtbench_reads_no_other_votes_than_those_that_are_known(
    write: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    votes = [verdict(81 + i, 1 + i % 2, "j", "model_a") for i in range(6)]
    write(tmp_path / mtbench.FILE, votes)
    with pytest.raises(WrongLayout, match=f"not {mtbench.VOTES_SHA256}"):
        mtbench.read(tmp_path)

    monkeypatch.setattr(mtbench, "VOTES_SHA256", mtbench.votes_sha256(votes[::-1]))
    assert mtbench.read(tmp_path) == mtbench.rows(votes)


def test_the_checksum_of_mtbench_votes_is_that_of_their_json_lines() -> None:
    import hashlib

    line = b'{"judge":"j","model_a":"alpaca","model_b":"gpt","question_id":81,"turn":1,"winner":"model_a"}\n'

    assert mtbench.votes_sha256([verdict(81, 1, "j", "model_a")]) == hashlib.sha256(line).hexdigest()


# --- polis

PLACE = polis.Conversation("folder.2020", "place", "What should change?")


def comment(number: int, text: str | None = None, moderated: str = "1") -> dict[str, str]:
    text = text or f"Opinion number {number} is worth a vote."
    return {"comment-id": str(number), "moderated": moderated, "comment-body": text}


def voter(participant: int, votes: Mapping[int, int]) -> dict[str, str]:
    return {
        "participant": str(participant),
        "group-id": "0",
        "n-agree": str(sum(vote == 1 for vote in votes.values())),
        "n-disagree": str(sum(vote == -1 for vote in votes.values())),
        **{str(number): str(vote) for number, vote in votes.items()},
    }


def halves(number: int) -> dict[int, int]:
    """Agrees with the even opinions, disagrees with the odd ones."""
    return {i: 1 if i % 2 == 0 else -1 for i in range(number)}


def test_polis_prefers_what_was_agreed_with_and_uses_each_vote_once() -> None:
    rows = polis.rows(PLACE, [comment(i) for i in range(40)], [voter(7, halves(40)), voter(8, {0: 1, 1: 0})])

    assert {row["annotator"] for row in rows} == {pseudonym("polis", "place:7")}
    used: list[int] = []
    for row in rows:
        chosen, rejected = (int(str(row[side]).split()[2]) for side in ("chosen", "rejected"))
        assert chosen % 2 == 0 and rejected % 2 == 1
        low, high = sorted((chosen, rejected))
        assert row["source_id"] == f"polis:place:{low}-{high}"
        used += [chosen, rejected]
    assert len(used) == len(set(used))
    assert rows[0]["prompt"] == "Public consultation: What should change?\nState an opinion."


def test_polis_keeps_every_opinion_on_one_side_and_nobody_has_more_pairs_than_the_limits() -> None:
    rows = polis.rows(PLACE, [comment(i) for i in range(200)], [voter(p, halves(200)) for p in range(5)])

    texts: dict[object, set[object]] = {"train": set(), "test": set()}
    for row in rows:
        texts[row["split"]] |= {row["chosen"], row["rejected"]}
    assert not texts["train"] & texts["test"]
    sides = [(row["annotator"], row["split"]) for row in rows]
    assert {sides.count((person, "train")) for person, _ in sides} == {16}
    assert {sides.count((person, "test")) for person, _ in sides} == {6}


def test_polis_matches_at_random_but_always_alike() -> None:
    comments, people = [comment(i) for i in range(60)], [voter(p, halves(60)) for p in range(3)]

    rows = polis.rows(PLACE, comments, people)

    assert rows == polis.rows(PLACE, comments[::-1], people[::-1])
    by_person: dict[object, set[object]] = {}
    for row in rows:
        by_person.setdefault(row["annotator"], set()).add(row["source_id"])
    assert len({frozenset(pairs) for pairs in by_person.values()}) == 3  # alike votes, other pairs


def test_polis_leaves_out_opinions_that_were_refused_or_are_short_long_or_reachable() -> None:
    comments = [
        comment(0),
        comment(1, moderated="-1"),
        comment(2, moderated="0"),
        comment(3, "Too short."),
        comment(4, "x" * 501),
        comment(5, "Read more at https://example.org about it."),
        comment(6, "Read more at www.example.org about it."),
        comment(7, "Write to me@example.org about all of it."),
        comment(8, "Call 270-555-0199 and tell them about it."),
        comment(9, "Concerts @ the park at 7, 100 times a year, 2050."),
    ]

    assert list(polis.opinions(comments)) == ["0", "9"]


def test_polis_refuses_an_export_in_which_one_means_disagree() -> None:
    votes = {**halves(20), 1: 1}
    people = [voter(1, votes)]
    people[0]["n-agree"], people[0]["n-disagree"] = people[0]["n-disagree"], people[0]["n-agree"]

    with pytest.raises(WrongLayout, match="1 does not mean agree here"):
        polis.rows(PLACE, [comment(i) for i in range(20)], people)


def test_polis_reads_all_conversations_and_people_of_different_ones_differ(tmp_path: Path) -> None:
    for conversation in polis.CONVERSATIONS:
        folder = tmp_path / conversation.folder
        write_csv(folder / "comments.csv", [comment(i) for i in range(40)])
        write_csv(folder / "participants-votes.csv", [voter(1, halves(40))])

    rows = polis.read(tmp_path)

    assert Figures.of(rows).domains == Figures.of(rows).annotators == len(polis.CONVERSATIONS) == 11


# --- the extracts of the study, where they lie beside the checkout

needs_study = pytest.mark.skipif(
    not (STUDY / "STATS.json").exists(), reason="the real sets are not beside the checkout (../shared/data)"
)


def extract(name: str) -> list[Row]:
    with gzip.open(STUDY / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@needs_study
@pytest.mark.parametrize("name", NAMES)
def test_an_extract_has_our_layout_down_to_the_bytes(name: str) -> None:
    rows = extract(name)
    with gzip.open(STUDY / f"{name}.jsonl.gz") as file:
        assert as_lines(rows) == file.read()

    assert rows == sorted(rows, key=lambda row: (row["domain"], row["source_id"], row["annotator"]))
    for text in {str(row[side]) for row in rows for side in ("prompt", "chosen", "rejected")}:
        head, separator, rest = text.partition("\n\nUser: ")  # an empty first answer stays empty
        assert tidy(head) + separator + tidy(rest) == text


@needs_study
def test_the_domains_and_prompts_of_an_extract_are_those_of_our_converters() -> None:
    assert {row["domain"] for row in extract("ukpconvarg")} == set(ukpconvarg.DEBATES)
    assert {row["domain"] for row in extract("mtbench")} == set(mtbench.CATEGORIES)
    assert {(row["domain"], row["prompt"]) for row in extract("polis")} == {
        (one.domain, f"Public consultation: {one.question}\nState an opinion.") for one in polis.CONVERSATIONS
    }
    for row in extract("mtbench"):
        question = int(str(row["source_id"]).split(":")[1])
        assert mtbench.CATEGORIES[(question - 81) // 10] == row["domain"]


@needs_study
@pytest.mark.parametrize("name", NAMES)
def test_the_least_that_a_conversion_must_give_are_the_figures_of_the_extract(name: str) -> None:
    from fedpref.data.originals import PUBLICATIONS

    assert Figures.of(extract(name)) == PUBLICATIONS[name].at_least
