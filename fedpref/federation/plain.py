"""A state as plain data, and back: what makes every strategy resumable without code of its own.

A state is a tree of None, booleans, numbers, strings, NumPy arrays, lists, tuples, mappings with
string or integer keys, and frozen dataclasses. Arrays go to safetensors, the tree to JSON; nothing
is pickled. A dataclass is stored by name and found again only among ``classes``, so a checkpoint
cannot name code to run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fedpref.errors import CheckpointError

__all__ = ["from_plain", "state_classes", "to_plain"]

Json = Any


def to_plain(value: Any, arrays: dict[str, np.ndarray]) -> Json:
    """The JSON tree of ``value``; its arrays are added to ``arrays`` under the names in the tree.

    An array that occurs several times is stored once.

    Raises:
        TypeError: a part of the state is not plain data.
    """
    names = {id(array): name for name, array in arrays.items()}

    def encode(node: Any, path: str) -> Json:
        if isinstance(node, np.generic) and not isinstance(node, np.str_):
            return {"scalar": encode(np.asarray(node), path)["array"]}
        if node is None or isinstance(node, (bool, int, str)):
            return node
        if isinstance(node, float):
            return {"float": node.hex()}  # exact, infinities and NaN included
        if isinstance(node, np.ndarray):
            if id(node) not in names:
                names[id(node)] = f"{len(arrays):06d}"
                arrays[names[id(node)]] = node  # also keeps it alive, and so its identity unique
            return {"array": names[id(node)]}
        if isinstance(node, Mapping):
            if not all(isinstance(key, (str, int)) and not isinstance(key, bool) for key in node):
                raise TypeError(f"state{path}: keys must be strings or integers, got {list(node)!r:.80}")
            return {"map": [[key, encode(child, f"{path}[{key!r}]")] for key, child in node.items()]}
        if isinstance(node, (list, tuple)):
            kind = "list" if isinstance(node, list) else "tuple"
            return {kind: [encode(child, f"{path}[{i}]") for i, child in enumerate(node)]}
        if dataclasses.is_dataclass(node) and not isinstance(node, type):
            fields = {
                field.name: encode(getattr(node, field.name), f"{path}.{field.name}")
                for field in dataclasses.fields(node)
            }
            return {"class": _name_of(type(node)), "fields": fields}
        raise TypeError(
            f"state{path} is a {type(node).__name__}; a state holds numbers, strings, None, NumPy arrays, "
            "lists, tuples, mappings and frozen dataclasses"
        )

    return encode(value, "")


def from_plain(tree: Json, arrays: Mapping[str, np.ndarray], classes: Iterable[type] = ()) -> Any:
    """The value that ``to_plain`` stored.

    Args:
        tree: what ``to_plain`` returned.
        arrays: what it filled.
        classes: dataclasses that may be built.

    Raises:
        CheckpointError: the tree names a class that is not among ``classes``, or is malformed.
    """
    known = {_name_of(cls): cls for cls in classes}

    def decode(node: Json) -> Any:
        if not isinstance(node, dict):
            return node
        if "float" in node:
            return float.fromhex(node["float"])
        if "array" in node:
            return arrays[node["array"]]
        if "scalar" in node:
            return arrays[node["scalar"]][()]
        if "map" in node:
            return {key: decode(child) for key, child in node["map"]}
        if "list" in node:
            return [decode(child) for child in node["list"]]
        if "tuple" in node:
            return tuple(decode(child) for child in node["tuple"])
        if "class" in node:
            if node["class"] not in known:
                raise CheckpointError(
                    f"the checkpoint names a state class {node['class']!r:.80} that is unknown"
                )
            return known[node["class"]](**{name: decode(child) for name, child in node["fields"].items()})
        raise CheckpointError(f"the checkpoint holds an unknown node {node!r:.80}")

    try:
        return decode(tree)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint's state cannot be read: {error!r}") from error


def _name_of(cls: type) -> str:
    """Module and name: two strategies, one around the other, may each have a class ``State``."""
    return f"{cls.__module__}.{cls.__qualname__}"


def state_classes(value: Any) -> Sequence[type]:
    """Dataclasses that a state may consist of: those that ``value`` holds, and those of their modules.

    A module's own dataclasses count and those that it imports, and so do the modules of the latter: a
    state may hold another strategy's state. All of these modules are imported already.
    """
    import sys

    found: dict[type, None] = {}
    seen: set[int] = set()

    def add(cls: type) -> None:
        if cls in found:
            return
        found[cls] = None
        for candidate in vars(sys.modules[cls.__module__]).values():
            if isinstance(candidate, type) and dataclasses.is_dataclass(candidate):
                add(candidate)

    def visit(node: Any) -> None:
        if isinstance(node, Mapping):
            for child in node.values():
                visit(child)
        elif isinstance(node, (list, tuple)):
            for child in node:
                visit(child)
        elif dataclasses.is_dataclass(node) and not isinstance(node, type) and id(node) not in seen:
            seen.add(id(node))
            add(type(node))
            for field in dataclasses.fields(node):
                visit(getattr(node, field.name))

    visit(value)
    return list(found)
