"""One picture of a run for a README or a slide: how it learned, and how well each person is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedpref.errors import ConfigurationError
from fedpref.report.runs import Run, read_run
from fedpref.report.storage import storage_errors

__all__ = ["plot_png"]

_BLUE, _RED, _INK, _SOFT, _RULE = "#0072b2", "#c4500b", "#1d2129", "#5d6470", "#e4e1db"


def plot_png(run_dir: Path, path: Path) -> Path:
    """Draw learning curves and the distribution over people into a PNG of 1,800 x 690 pixels.

    Raises:
        ConfigurationError: the run has no evaluation yet.
        StorageError: it is no run directory, a file in it is damaged, or ``path`` is not writable.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    run = read_run(run_dir)
    if not run.evaluations:
        raise ConfigurationError(f"{run_dir} has no evaluated round yet: there is nothing to draw")
    figure = Figure(
        figsize=(10.0, 3.83),
        dpi=180,
        facecolor="white",
        layout=ConstrainedLayoutEngine(w_pad=0.14, h_pad=0.14),
    )
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1.0))
    _draw_curves(left, run)
    _draw_people(right, run)
    for axes in (left, right):
        _plain(axes)
    with storage_errors(path):
        # No software entry: the file depends on the run alone.
        figure.savefig(path, format="png", metadata={"Software": None})
    return path


def _draw_curves(axes: Any, run: Run) -> None:
    rounds = [record["round"] for record in run.evaluations]
    scores = [record["evaluation"] for record in run.evaluations]
    marker = "o" if len(rounds) <= 12 else ""
    for name, label, colour, style in (
        ("pair_accuracy", "all pairs", _BLUE, "-"),
        ("worst_decile", "worst-served tenth", _RED, "--"),
    ):
        values = [100 * score[name] for score in scores]
        axes.plot(rounds, values, style, color=colour, linewidth=2, marker=marker, markersize=4, label=label)
        axes.annotate(
            f"{values[-1]:.1f} %",
            (rounds[-1], values[-1]),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontweight="bold",
            fontsize=9,
            annotation_clip=False,
        )
    if all("pair_accuracy_low" in score for score in scores):
        lows, highs = ([100 * score[f"pair_accuracy_{end}"] for score in scores] for end in ("low", "high"))
        axes.fill_between(rounds, lows, highs, color=_BLUE, alpha=0.15, linewidth=0, label="95 % interval")
    if "oracle" in scores[-1]:
        axes.axhline(
            100 * scores[-1]["oracle"], color=_SOFT, linewidth=1, linestyle=":", label="best possible"
        )
    axes.set_xlim(left=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("round")
    axes.set_title("Accuracy on held-out preferences, %")
    axes.grid(axis="y", color=_RULE, linewidth=0.8)
    axes.legend(frameon=False, fontsize=9, labelcolor=_SOFT, loc="best")


def _draw_people(axes: Any, run: Run) -> None:
    accuracies = [100 * user["accuracy"] for user in run.users]
    axes.set_title("Accuracy per person, %")
    axes.set_ylabel("people")
    if not accuracies:
        axes.text(
            0.5, 0.5, "known when the run has finished", transform=axes.transAxes, ha="center", color=_SOFT
        )
        return
    axes.hist(
        accuracies, bins=min(24, 1 + len(accuracies) // 3), color=_BLUE, edgecolor="white", linewidth=0.8
    )
    mean = sum(accuracies) / len(accuracies)
    axes.axvline(mean, ymax=0.8, color=_INK, linewidth=1.2, label=f"mean {mean:.1f} %")
    if "worst_decile" in run.summary and len(accuracies) > 1:
        worst = 100 * run.summary["worst_decile"]
        axes.axvline(
            worst, ymax=0.8, color=_RED, linewidth=1.6, linestyle="--", label=f"worst tenth {worst:.1f} %"
        )
    axes.yaxis.get_major_locator().set_params(integer=True)
    # The legend stands in the free fifth above the bars.
    axes.set_ylim(top=1.25 * axes.dataLim.y1)
    axes.legend(frameon=False, fontsize=9, labelcolor=_SOFT, loc="upper left", ncols=2)


def _plain(axes: Any) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_SOFT)
    axes.tick_params(colors=_SOFT, labelsize=9, length=0, pad=6)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    axes.title.set(color=_INK, fontsize=11, fontweight="bold", ha="left", position=(0.0, 1.0))
    axes.set_axisbelow(True)
