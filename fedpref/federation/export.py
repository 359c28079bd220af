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


def export_models(rule: ClientRule, models: Mapping[str, Weights], root: Path) -> list[Path]:
    """Write each model to ``root/NAME``; ``client/3`` becomes ``client_3``.

    Returns:
        The folders, by name of the model; none where the rule has no form that other tools read.
    """
    if not isinstance(rule, Exportable):
        return []
    folders = []
    for name in sorted(models):
        folders.append(root / name.replace("/", "_"))
        rule.export(models[name], folders[-1])
    return folders
