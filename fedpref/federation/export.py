"""What a run leaves for others: every model of the strategy, in a folder that loads without fedpref."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from fedpref.types import ClientRule, Weights

__all__ = ["Exportable", "export_models"]


@runtime_checkable
class Exportable(Protocol):
    """A client rule that can write its weights for other tools."""

    def export(self, weights: Weights, folder: Path) -> None:
        """Write ``weights`` to ``folder``, which is made if absent."""
        ...


def export_models(rule: ClientRule, models: Mapping[str, Weights], root: Path) -> Path | None:
    """Write each model to ``root/adapters/NAME``; ``client/3`` becomes ``client_3``.

    Returns:
        The folder of all adapters, or None where the rule has no form that other tools read.
    """
    if not isinstance(rule, Exportable):
        return None
    for name in sorted(models):
        rule.export(models[name], root / "adapters" / name.replace("/", "_"))
    return root / "adapters"
