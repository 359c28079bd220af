"""What decides a result besides the words of a configuration: the files that it names, and source code.

A figure holds for these digests alone: ``fedpref bench`` makes a run anew where one differs, and
``fedpref tune`` goes on with a search only where none does.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import fedpref
from fedpref.report.storage import sha256_of

__all__ = ["inputs_sha256", "source_sha256"]

_WITHOUT_INFLUENCE = ("benchmarks", "report")  # they choose words, which are known, and show results
_OF_CLI = ("build.py", "choice.py", "compose.py", "targets.py")  # what makes a federation of words
_SOURCES = (".py", ".json")  # the JSON files are the phrases and constants of synthetic people
_CACHES = ("cache_dir",)  # folders that runs write to, and from which only what fits is read
_OURS = ("fedpref", "flwr")  # known by source and by version


def inputs_sha256(config: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of all that a configuration names outside itself.

    That is each file that a value names; each folder, with the files at any depth, that a value named
    ``model``, ``…path`` or ``…dir`` names, unless it is a cache; and the Python files of each plug-in: those
    below its top-level package, or those beside it where that is a single file.

    Args:
        config: resolved, as plain containers; its classes can be imported.

    Returns:
        Digests by dotted key, those of plug-ins by the name of their package. No other value of the
        configuration is among them, for one may come from the environment.

    Raises:
        StorageError: a file is not readable.
    """
    found: dict[str, str] = {}
    for key, name, value in _texts(config):
        if name == "_target_":
            package = value.partition(".")[0]
            if package not in _OURS and package not in found:
                found[package] = _sha256_of_plugin(package)
            continue
        path = os.path.expanduser(value)
        if os.path.isfile(path):
            found[key] = _sha256_of_file(Path(path))
        elif _names_folder(name) and os.path.isdir(path):
            found[key] = _sha256_of_all(Path(path), _files_below(Path(path)))
    return found


@cache
def source_sha256() -> str:
    """SHA-256 of fedpref's own source, as far as it can change a result, in the order of file names."""
    root = Path(fedpref.__file__).parent
    files = (file for file in _files_below(root) if _has_influence(file.relative_to(root)))
    return _sha256_of_all(root, files)


def _has_influence(file: Path) -> bool:
    room = file.parts[0]
    if file.suffix not in _SOURCES or room in _WITHOUT_INFLUENCE:
        return False
    return room != "cli" or file.name in _OF_CLI


def _texts(node: Any, key: str = "", name: str = "") -> Iterator[tuple[str, str, str]]:
    """Dotted key, last name in it, and value of all strings."""
    if isinstance(node, Mapping):
        for child, value in node.items():
            yield from _texts(value, f"{key}.{child}" if key else str(child), str(child))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _texts(value, f"{key}[{index}]", name)
    elif isinstance(node, str):
        yield key, name, node


def _names_folder(name: str) -> bool:
    return name not in _CACHES and (name == "model" or name.endswith(("path", "dir")))


def _sha256_of_plugin(package: str) -> str:
    module = importlib.import_module(package)
    if folders := [Path(folder) for folder in getattr(module, "__path__", ())]:  # one, if not a namespace
        files = [[file for file in _files_below(folder) if file.suffix == ".py"] for folder in folders]
    else:
        folders = [Path(str(module.__file__)).parent]
        files = [[file for file in folders[0].glob("*.py") if file.is_file()]]
    digests = map(_sha256_of_all, folders, files)
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _files_below(folder: Path) -> Iterator[Path]:
    """Files at any depth, those in hidden folders apart; links are followed, each folder is entered once."""
    entered = set()
    for here, below, names in os.walk(folder, followlinks=True):
        real = Path(here).resolve()
        below[:] = [] if real in entered else sorted(name for name in below if not name.startswith("."))
        if real not in entered:
            yield from (path for name in names if (path := Path(here) / name).is_file())
        entered.add(real)


def _sha256_of_all(root: Path, files: Iterable[Path]) -> str:
    """Of the names below ``root`` and the contents, in the order of names."""
    sha = hashlib.sha256()
    for name, path in sorted((path.relative_to(root).as_posix(), path) for path in files):
        sha.update(f"{name}\0{_sha256_of_file(path)}".encode())
    return sha.hexdigest()


def _sha256_of_file(path: Path) -> str:
    state = path.stat()
    return _sha256_unless_changed(path, state.st_ino, state.st_size, state.st_mtime_ns)


@cache
def _sha256_unless_changed(path: Path, inode: int, size_bytes: int, changed_ns: int) -> str:
    """As ``sha256_of``, once for all runs on a file."""
    return sha256_of(path)
