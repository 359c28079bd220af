"""``fedpref label RUN FILE``: what the trained models say of pairs that nobody has judged."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fedpref.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np

    from fedpref.evaluation.labels import Labels, Vote
    from fedpref.types import ClientRule, Pairs, Weights

__all__ = ["Orders", "as_text", "label_run"]

Orders = Literal["both", "single"]
_UNTRAINED = "initial"


def label_run(
    directory: Path,
    file: Path,
    out: Path | None = None,
    orders: Orders = "both",
    vote: Vote = "majority",
    bad_rows: str = "error",
    allow: Sequence[str] = (),
) -> dict[str, Any]:
    """Label the pairs of a file by all trained models of a run.

    The result is preference rows with an explicit prompt, which training reads as it reads any others.

    Args:
        directory: the run.
        file: rows with ``prompt``, ``response_a`` and ``response_b``, or preference rows, whose label
            plays no part.
        out: file to write; None writes the rows to the standard output.
        orders: "both" scores by half the difference of the logits in both orders, free of position bias;
            "single" by the logit with the first response in slot A, as the released code of FedBiscuit
            does. A reward head scores each response alone, so that both are the same.
        vote: see ``fedpref.evaluation.labels.label``.
        bad_rows: "error" or "drop", for rows that cannot be used.
        allow: further packages of classes.

    Returns:
        Figures about the labels.

    Raises:
        CheckpointError: the run has no valid checkpoint.
        ConfigurationError: the file or ``out`` is wrong, or the run has no text backbone.
        StorageError: ``out`` cannot be written.
    """
    if out is not None and out.resolve() == file.resolve():
        raise ConfigurationError(f"-o {out} is the file to label; name another one")

    from fedpref.cli.trained import load_run
    from fedpref.data.unlabelled import unlabelled_rows
    from fedpref.evaluation.labels import label
    from fedpref.flower.fence import rng_fence
    from fedpref.report.storage import to_json, write_text
    from fedpref.seeds import number

    try:
        rows = unlabelled_rows(str(file), bad_rows)
    except ConfigurationError as error:  # reading is shared with `run`, whose option has another name
        raise ConfigurationError(
            str(error).replace("set data.bad_rows=drop", "pass --bad-rows drop")
        ) from None
    run = load_run(directory, allow)
    models = dict(run.strategy.models(run.state))
    if len(models) > 1:
        models.pop(_UNTRAINED, None)  # what local_only keeps for newcomers has learned nothing
    with rng_fence(number(run.seed, "fence", "label")):
        margins = _margins(run.rule, list(models.values()), rows.pairs, orders)
    given = label(margins, vote)
    text = "".join(to_json(row) + "\n" for row in _rows(rows.pairs, given))
    if out is None:
        sys.stdout.write(text)
    else:
        write_text(out, text)
    return {
        "run": str(run.path),
        "round": run.round,
        "file": str(file),
        "out": None if out is None else str(out),
        "models": list(models),
        "orders": orders,
        "vote": vote,
        "num_pairs": len(rows),
        "mean_agreement": float(given.agreement.mean()),
        "unanimous": float((given.votes == len(models)).mean()),
        "undecided": int((given.margins == 0).sum()),
        "notes": [*rows.notes, *run.warnings],
    }


def as_text(figures: Mapping[str, Any]) -> str:
    """The figures as lines."""
    num_models = len(figures["models"])
    lines = [
        f"{figures['out'] or 'labels'}: {figures['num_pairs']} pairs of {figures['file']}, labelled by "
        f"{num_models} model{'s' if num_models > 1 else ''} of round {figures['round']} "
        f"(vote: {figures['vote']}, orders: {figures['orders']})",
        f"  mean agreement {figures['mean_agreement']:.3f}   unanimous {figures['unanimous']:.3f}   "
        f"undecided {figures['undecided']}",
    ]
    return "\n".join([*lines, *(f"  note: {note}" for note in figures["notes"])])


def _margins(rule: ClientRule, models: Sequence[Weights], pairs: Pairs, orders: Orders) -> np.ndarray:
    """Margin of the first response by each model, shape (num_models, num_pairs)."""
    import numpy as np

    from fedpref.evaluation.answers import answer_of

    answers = [answer_of(rule, model, pairs) for model in models]
    return np.stack(
        [
            answer.orders[:, 0] if orders == "single" and answer.orders is not None else answer.margins
            for answer in answers
        ]
    )


def _rows(pairs: Pairs, labels: Labels) -> Iterator[dict[str, Any]]:
    for i, (prompt, first, second) in enumerate(
        zip(pairs.prompts, pairs.chosen, pairs.rejected, strict=True)
    ):
        chosen, rejected = (first, second) if labels.is_first[i] else (second, first)
        yield {
            "prompt": prompt,
            "chosen": chosen,
            "rejected": rejected,
            "margin": labels.margins[i],
            "votes": labels.votes[i],
            "agreement": labels.agreement[i],
        }
