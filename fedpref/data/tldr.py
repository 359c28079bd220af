"""Comparisons of TL;DR summaries: a worker, a Reddit post, two summaries, the better one.

Source: Stiennon et al. 2020, arXiv:2009.01325; hub set ``openai/summarize_from_feedback``, comparisons.
Workers as clients: Wu et al. 2024, arXiv:2407.03038 (FedBis).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fedpref.data.formats import TextPair
from fedpref.data.published import (
    HubFolder,
    LeftOut,
    Record,
    WrongLayout,
    collect_published,
    entry,
    first_or_second,
)
from fedpref.data.rows import TEST, TRAIN, Columns, Rows, text_pair_id

__all__ = ["TldrComparisons", "tldr_row"]

HUB_ID = "openai/summarize_from_feedback"
CONVERTED = "refs/convert/parquet"


@dataclass(frozen=True, kw_only=True)
class TldrComparisons(Columns):
    """The comparisons, a client for each worker; the set's own split, by post, is kept.

    The repository holds a loading script, which no current ``datasets`` runs; what is read is the copy
    in Parquet that the hub keeps on a branch. News articles, which occur on the validation side only,
    are left out. Rows whose summaries are equal or empty are dropped and counted.

    Attributes:
        path: a copy of the set, in place of the hub: a folder with comparisons/train and
            comparisons/validation, or one file.
        revision: the hub's branch of converted files, or a commit of it.
    """

    client_column: str | None = "worker"
    topic_column: str | None = "subreddit"
    pair_id_column: str | None = "post_and_texts"
    bad_rows: str = "drop"
    path: str | None = None
    revision: str = CONVERTED

    def rows(self) -> Rows:
        """Download, or read from the cache of ``datasets``, or from ``path``.

        Raises:
            ConfigurationError: the set cannot be read, or its layout is another.
        """
        where = HubFolder(HUB_ID, self.revision, "comparisons", ("train", "validation"))
        source = self.path or f"{HUB_ID}, comparisons"
        rows = collect_published(where.records(self.path), tldr_row, source, self)
        if self.path is None and self.revision == CONVERTED:
            return replace(rows, notes=(*rows.notes, "No commit is pinned: the hub's newest copy was read."))
        return rows


def tldr_row(record: Record) -> Mapping[str, str]:
    """One comparison as a row.

    Raises:
        LeftOut: it is about a news article.
        WrongLayout: it is no comparison of this set.
    """
    info, summaries, split = entry(record, "info"), entry(record, "summaries"), entry(record, "split")
    if not isinstance(info, Mapping):
        raise WrongLayout(f"info is a {type(info).__name__}, not fields of a post")
    if not isinstance(summaries, list) or len(summaries) != 2:
        raise WrongLayout("summaries is not a list of two")
    if not entry(info, "post"):
        raise LeftOut("about a news article")
    if not isinstance(split, str) or not split.startswith(("train", "valid")):
        raise WrongLayout(f"split is {split!r:.40}, not train, valid1 or valid2")
    better = first_or_second(record, "choice")
    texts = [str(entry(summary, "text") or "").strip() for summary in summaries]
    chosen, rejected = texts[better], texts[1 - better]
    return {
        "prompt": _post(info),
        "chosen": chosen,
        "rejected": rejected,
        "worker": entry(record, "worker"),
        "subreddit": entry(info, "subreddit"),
        "split": TRAIN if split.startswith("train") else TEST,
        "post_and_texts": text_pair_id(TextPair(str(entry(info, "id")), chosen, rejected, form="")),
    }


def _post(info: Record) -> str:
    lines = [f"Subreddit: r/{info['subreddit']}"] if info.get("subreddit") else []
    lines += [f"Title: {info['title'].strip()}"] if info.get("title") else []
    return "\n".join([*lines, f"Post: {info['post'].strip()}"])
