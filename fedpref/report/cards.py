"""The key numbers of a run, one card each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedpref.report.gain import signed_points
from fedpref.report.units import human_bytes, human_joules, human_seconds, percent

__all__ = ["cards_of"]


def cards_of(figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Label, value and remark of each key number that is known."""
    cards: list[tuple[str, str, str]] = []
    for name, label, remark in (
        ("pair_accuracy", "pair accuracy", "over all pairs"),
        ("user_accuracy", "user accuracy", "mean over people"),
        ("worst_decile", "worst decile", "the worst-served tenth"),
        ("worst_group", "worst group", "mean over its people"),
        ("regret", "regret", "to the best possible model"),
    ):
        if name in figures:
            if f"{name}_low" in figures:
                low, high = 100 * figures[f"{name}_low"], 100 * figures[f"{name}_high"]
                remark = f"95\N{NO-BREAK SPACE}% interval {low:.1f}–{high:.1f}"
            cards.append((label, percent(figures[name]), remark))
    if "personal_gain" in figures:
        harmed = f"points over the shared model; {percent(figures['harmed'])} harmed"
        cards.append(("personal gain", signed_points(figures["personal_gain"]), harmed))
    if "span_recovery" in figures:
        cards.append(
            ("shared directions", percent(figures["span_recovery"]), "of people's true tastes lie in them")
        )
    if "ece" in figures:
        cards.append(("calibration error", percent(figures["ece"]), f"Brier {figures['brier']:.3f}"))
    if "order_consistency" in figures:
        spread = f"logits towards the first response, s.d. {figures['position_bias_sd']:.2f}"
        cards.append(("position bias", _signed(figures["position_bias"]), spread))
        share = percent(figures["order_consistency"])
        cards.append(("order consistency", share, "same choice in both orders"))
    if "ari" in figures:
        match = f"1 is the planted groups; NMI {figures['nmi']:.2f}"
        cards.append(("adjusted Rand index", f"{figures['ari']:.2f}".replace("-", "−"), match))
    if "broadcast_ratio" in figures:
        cards.append(
            ("models sent", percent(figures["broadcast_ratio"]), "of those that a broadcast would send")
        )
    if "bytes_up" in figures:
        up, down = figures["bytes_up"], figures["bytes_down"]
        cards.append(
            ("transferred", human_bytes(up + down), f"{human_bytes(up)} up, {human_bytes(down)} down")
        )
        wall = f"{human_seconds(figures['wall_s'])} on this machine"
        cards.append(("virtual time", human_seconds(figures["virtual_s"]), wall))
        total = figures["replies_ok"] + figures["replies_failed"]
        cards.append(("failed replies", f"{figures['replies_failed']}", f"of {total}"))
    if "utilisation" in figures:
        cards.append(("utilisation", percent(figures["utilisation"]), "of all clients' virtual time"))
    if "energy_j" in figures:
        cards.append(("energy, estimated", human_joules(figures["energy_j"]), "computing only"))
    if figures.get("retries"):
        cards.append(("retries", f"{figures['retries']}", "begun again: a worker died"))
    if "best_round" in figures:
        cards.append(
            (
                "best round",
                f"{figures['best_round']}",
                f"with {percent(figures['best_pair_accuracy'])} of these very pairs: optimistic",
            )
        )
    return cards


def _signed(value: float) -> str:
    text = f"{value:+.2f}".replace("-", "−")
    return text if float(f"{value:.2f}") else "0.00"
