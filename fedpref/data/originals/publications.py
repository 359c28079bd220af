"""The four published sets of real preferences: where their files lie, whose they are, how they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedpref.data.originals import llmfao, mtbench, polis, ukpconvarg
from fedpref.data.originals.rows import Figures, Row
from fedpref.errors import ConfigurationError, did_you_mean

__all__ = ["PUBLICATIONS", "Publication", "publication"]


@dataclass(frozen=True)
class Publication:
    """A published set.

    Attributes:
        files: name in the folder of originals -> public address at a pinned revision.
        digest: SHA-256 of the checksums of all files, as ``checksums`` of ``get`` writes them; None where
            nobody has pinned it yet, so that the user has to accept what was fetched.
        read: the rows of a folder of originals.
        at_least: counts of a selection of the same originals; fewer rows cannot be right.
        origin: one line.
        licence: one line.
        citation: one line.
        changes: what conversion does, one line.
    """

    files: Mapping[str, str]
    read: Callable[[Path], list[Row]]
    at_least: Figures
    origin: str
    licence: str
    citation: str
    changes: str
    digest: str | None = None


_LLMFAO = "https://github.com/dustalov/llmfao/raw/9e224e94"
_UKP = "https://github.com/UKPLab/acl2016-convincing-arguments/raw/ca9d24e4/data/UKPConvArg1-full-XML"
_MTBENCH = (
    "https://huggingface.co/datasets/lmsys/mt_bench_human_judgments/resolve/"
    "f7d2896d2cc5d80f8b55c2bbc722613555233c25/data"
)
_POLIS = "https://github.com/compdemocracy/openData/raw/0bc2ce0f32c673f68da20b57bce15c457aa787b5"
_IDS = "ids of persons replaced by pseudonyms, texts trimmed, judgements turned into chosen and rejected"

PUBLICATIONS: Mapping[str, Publication] = {
    "llmfao": Publication(
        files={name: f"{_LLMFAO}/{name}" for name in ("crowd-comparisons.csv", "pairs-crowd.jsonl")},
        read=llmfao.read,
        at_least=Figures(rows=3320, annotators=100, text_pairs=1261, domains=12),
        origin="https://github.com/dustalov/llmfao at 9e224e94; prompts and answers by llmonitor.com "
        '("Crowdsourced LLM Benchmark")',
        licence="CC BY 4.0 (the data; the code there is not used)",
        citation="D. Ustalov, LLMFAO: Large Language Model Feedback Analysis and Optimization, 2023, "
        "https://huggingface.co/datasets/dustalov/llmfao",
        changes=f"ties, empty and equal answers dropped, workers with fewer than {llmfao.MIN_CHOICES} "
        f"choices left out; {_IDS}",
    ),
    "ukpconvarg": Publication(
        files={f"{debate}.xml": f"{_UKP}/{debate}.xml" for debate in ukpconvarg.DEBATES},
        read=ukpconvarg.read,
        at_least=Figures(rows=36120, annotators=699, text_pairs=12401, domains=28),
        origin="https://github.com/UKPLab/acl2016-convincing-arguments at ca9d24e4, UKPConvArg1-full-XML; "
        "arguments from createdebate.com (CC BY 3.0) and convinceme.net (public domain)",
        licence="CC BY 4.0",
        citation="I. Habernal and I. Gurevych, Which argument is more convincing? Analyzing and predicting "
        "convincingness of Web arguments using bidirectional LSTM, ACL 2016, P16-1150",
        changes="two debates left out, ties dropped, workers with fewer than "
        f"{ukpconvarg.MIN_CHOICES} choices left out, no authors, stances or reasons carried over; {_IDS}",
    ),
    "mtbench": Publication(
        files={mtbench.FILE: f"{_MTBENCH}/{mtbench.FILE}"},
        read=mtbench.read,
        at_least=Figures(rows=1876, annotators=55, text_pairs=1160, domains=8),
        origin="https://huggingface.co/datasets/lmsys/mt_bench_human_judgments at f7d2896d, split human",
        licence="CC BY 4.0",
        citation="L. Zheng et al., Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena, NeurIPS 2023, "
        "arXiv:2306.05685",
        changes=f"ties and contradictions dropped, judges with fewer than {mtbench.MIN_CHOICES} choices left "
        f"out; {_IDS}",
    ),
    "polis": Publication(
        files={
            f"{one.folder}/{name}": f"{_POLIS}/{one.folder}/{name}"
            for one in polis.CONVERSATIONS
            for name in ("comments.csv", "participants-votes.csv")
        },
        read=polis.read,
        at_least=Figures(rows=30349, annotators=2240, text_pairs=17986, domains=11),
        origin="https://github.com/compdemocracy/openData at 0bc2ce0f",
        licence="CC BY 4.0. Data was gathered using the Polis software (see "
        "https://compdemocracy.org/polis) and is sub-licensed under CC BY 4.0 with Attribution to The "
        "Computational Democracy Project",
        citation="The data and more information about how the data was collected can be found at "
        "https://compdemocracy.org/case-studies/ 2014-seattle-15-per-hour, 2018-kentucky, "
        "2017-brexit-consensus, 2016-canadian-electoral-reform, 2017-scoop-hivemind-affordable-housing, "
        "2019-scoop-hivemind-biodiversity, 2017-scoop-hivemind-freshwater, 2018-scoop-hivemind-taxes, "
        "2017-scoop-hivemind-ubi, 2021-san-juan-island, and in the folder bg2050-volunteers",
        changes="opinions let pass by the moderators, of 20 to 500 characters and without addresses; "
        "a person's agreed and disagreed opinions matched at random, each vote used at most once; "
        f"people with fewer than {polis.MIN_PAIRS} pairs left out; {_IDS}",
    ),
}


def publication(name: str) -> Publication:
    """The set of that name.

    Raises:
        ConfigurationError: there is none.
    """
    if name not in PUBLICATIONS:
        raise ConfigurationError(
            f"{name}: no set of that name.{did_you_mean(name, PUBLICATIONS)} "
            f"Choose one of {', '.join(PUBLICATIONS)}"
        )
    return PUBLICATIONS[name]
