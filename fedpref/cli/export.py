"""``fedpref export RUN --to DIR``: the trained models in a form that other tools read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedpref.errors import ConfigurationError

__all__ = ["export_run"]


def export_run(directory: Path, to: Path, merge: bool = False, allow: Sequence[str] = ()) -> list[Path]:
    """Write every model of a run to a folder of its own below ``to``.

    Args:
        directory: the run.
        to: a new or empty folder; ``selector/0`` becomes ``to/selector_0``.
        merge: also write whole models, adapter and backbone in one, below ``to/merged``.
        allow: further packages of classes.

    Returns:
        The folders written.

    Raises:
        CheckpointError: the run has no valid checkpoint.
        ConfigurationError: the run's client rule has no form that other tools read, ``to`` holds
            something, or a model cannot be merged.
        StorageError: ``to`` cannot be written.
    """
    from fedpref.cli.trained import load_run
    from fedpref.federation.export import export_models
    from fedpref.report.storage import storage_errors

    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigurationError(f"--to {to} exists and is not an empty folder; name another one")
    run = load_run(directory, allow, reads_text=False)
    with storage_errors(to):
        folders = export_models(run.rule, run.strategy.models(run.state), to)
        if not folders:
            raise ConfigurationError(
                f"{run.path}: {type(run.rule).__name__} has no form that other tools read; "
                "client=lora_reward and client=selector have one"
            )
        if not merge:
            return folders
        if not (folders[0] / "adapter_config.json").is_file():
            raise ConfigurationError(
                f"--merge: the models of {run.path} are heads on frozen features, not adapters that could be "
                f"merged; they are written to {to}, leave --merge out"
            )
        from fedpref.models.export import merge_adapter

        merged = [to / "merged" / folder.name for folder in folders]
        for folder, target in zip(folders, merged, strict=True):
            merge_adapter(folder, target)
    return [*folders, *merged]
