"""Where the files of a set lie, and how whoever needs one finds it."""

from __future__ import annotations

from pathlib import Path

from fedpref.data.originals.publications import publication
from fedpref.data.synthetic.cache import default_cache_dir
from fedpref.errors import ConfigurationError

__all__ = ["default_folder", "file_name", "set_path"]


def default_folder() -> Path:
    """Where ``fedpref data get`` puts sets unless told otherwise: ``$FEDPREF_CACHE/sets``."""
    return default_cache_dir() / "sets"


def file_name(name: str) -> str:
    """The file of a set, in whatever folder."""
    return f"{name}.jsonl.gz"


def set_path(name: str, given: str | Path | None = None) -> Path:
    """The file of a set.

    Args:
        name: ``llmfao``, ``ukpconvarg``, ``mtbench`` or ``polis``.
        given: a file, or a folder that holds ``NAME.jsonl.gz``; None: what ``fedpref data get`` fetched.

    Raises:
        ConfigurationError: no such set, or no such file.
    """
    publication(name)
    if given is not None:
        path = Path(given).expanduser()
        path = path / file_name(name) if path.is_dir() else path
        if not path.is_file():
            raise ConfigurationError(
                f"{name}: no file {path}; give the file or the folder that holds {file_name(name)}"
            )
        return path
    path = default_folder() / file_name(name)
    if not path.is_file():
        raise ConfigurationError(
            f"{name}: no file {path}; run `fedpref data get {name}`, or give the path of a file or folder"
        )
    return path
