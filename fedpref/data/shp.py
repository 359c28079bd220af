"""Stanford Human Preferences: a Reddit question, two answers, the one that readers voted for.

Source: Ethayarajh, Choi and Swayamdipta 2022, arXiv:2110.08420; hub set ``stanfordnlp/SHP``.
Clients by a Dirichlet draw over domains: Wu et al. 2024, arXiv:2407.03038 (FedBis).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

from fedpref.data.published import (
    HubFolder,
    LeftOut,
    Record,
    WrongLayout,
    collect_published,
    entry,
    first_or_second,
)
from fedpref.data.rows import TEST, TRAIN, Columns, Rows
from fedpref.errors import ConfigurationError

__all__ = ["HeldOutSplit", "StanfordPreferences", "shp_row"]

HUB_ID = "stanfordnlp/SHP"
COMMIT = "e94b5f32602712d78ed494fe79105b1959396686"

HeldOutSplit = Literal["validation", "test"]
"""The published split that evaluation asks; the other one is not read."""


@dataclass(frozen=True, kw_only=True)
class StanfordPreferences(Columns):
    """The pairs, which name no person: a partition rule makes clients, by domain for example.

    A post has many pairs, which share its answers. So a row's identity is its post, and whatever
    divides pairs by identity (a split, a validation share) keeps posts whole.

    Attributes:
        path: a copy of the set, in place of the hub: a folder in which every split is a file of its
            own (…/train.json), or one file.
        revision: a commit of the hub's repository.
        held_out_split: what is held out; "test" is the published one.
        max_chars: rows with more characters in question and answers together are left out; None keeps
            all. The published limit is 512 tokens, about 2,048 characters; tokens belong to a
            backbone, which the data must not depend on.

    Raises:
        ConfigurationError: an unknown split, or a limit below 1.
    """

    client_column: str | None = None
    pair_id_column: str | None = "post_id"
    bad_rows: str = "drop"
    path: str | None = None
    revision: str | None = COMMIT
    held_out_split: HeldOutSplit = "test"
    max_chars: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.held_out_split not in get_args(HeldOutSplit):
            raise ConfigurationError(
                f"data.held_out_split={self.held_out_split!r}: write 'validation' or 'test'"
            )
        if self.max_chars is not None and self.max_chars < 1:
            raise ConfigurationError(f"data.max_chars={self.max_chars}: choose at least 1, or null for all")

    def rows(self) -> Rows:
        """Download, or read from the cache of ``datasets``, or from ``path``.

        Raises:
            ConfigurationError: the set cannot be read, or its layout is another.
        """
        where = HubFolder(HUB_ID, self.revision, None, ("train", self.held_out_split))
        convert = partial(shp_row, held_out_split=self.held_out_split, max_chars=self.max_chars)
        rows = collect_published(where.records(self.path), convert, self.path or HUB_ID, self)
        if self.path is None and self.revision is None:
            return replace(rows, notes=(*rows.notes, "No revision is pinned: the newest was read."))
        return rows


def shp_row(
    record: Record, held_out_split: HeldOutSplit = "test", max_chars: int | None = None
) -> Mapping[str, str]:
    """One pair as a row.

    Raises:
        LeftOut: it is of the split that is neither trained on nor held out, or too long.
        WrongLayout: it is no pair of this set.
    """
    a_is_better = first_or_second(record, "labels")
    domain, _, split = str(entry(record, "domain")).rpartition("_")
    if not domain or split not in ("train", *get_args(HeldOutSplit)):
        raise WrongLayout(f"domain is {record['domain']!r:.40}, not a subreddit and a split")
    if split not in ("train", held_out_split):
        raise LeftOut(f"of the {split} split")
    question, a, b = (entry(record, name) or "" for name in ("history", "human_ref_A", "human_ref_B"))
    if max_chars is not None and len(question) + len(a) + len(b) > max_chars:
        raise LeftOut(f"longer than {max_chars} characters")
    return {
        "prompt": question,
        "chosen": a if a_is_better else b,
        "rejected": b if a_is_better else a,
        "domain": domain,
        "split": TRAIN if split == "train" else TEST,
        "post_id": str(entry(record, "post_id")),
    }
