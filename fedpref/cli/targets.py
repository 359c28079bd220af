"""Which classes a configuration may name, and how its keys and values are checked against them.

A ``_target_`` must resolve to a class whose own ``__module__`` lies below an allowed package. The
path alone proves nothing: ``flwr.serverapp.strategy.fedadam.np.save`` begins well. Keys and types are
those of the class's constructor, so a default is written once, in the dataclass.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Union

from fedpref.errors import ConfigurationError, did_you_mean

__all__ = ["ALLOWED", "build", "check", "check_role", "field_types", "resolve", "working_folder_importable"]

ALLOWED = ("fedpref", "flwr.serverapp.strategy")
"""Packages that a configuration may name classes of, besides those given by ``--allow``."""


def resolve(target: Any, key: str, allowed: Sequence[str] = ALLOWED) -> type:
    """The class that ``target`` names.

    Args:
        target: dotted path of a class.
        key: configuration key, for the message.
        allowed: packages.

    Raises:
        ConfigurationError: it is no dotted path below an allowed package, or what stands there is
            not a class that was defined below one.
    """

    def refuse(reason: str) -> ConfigurationError:
        return ConfigurationError(
            f"{key}={target!r:.120} {reason}; allowed are classes of {', '.join(allowed)} "
            "and of packages named on the command line with --allow"
        )

    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")):
        raise refuse("is not the dotted path of a class")
    if not _is_below(target, allowed):
        raise refuse("is outside the allowed packages")
    parts = target.split(".")
    found: Any = None
    for cut in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:cut])
        try:
            found = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
                continue
            raise refuse(f"cannot be imported ({error})") from error
        except ImportError as error:
            raise refuse(f"cannot be imported ({error})") from error
        for part in parts[cut:]:
            if not hasattr(found, part):
                raise refuse(f"does not exist: {name} has no {part!r}." + did_you_mean(part, dir(found)))
            found = getattr(found, part)
        break
    else:
        raise refuse("cannot be imported: there is no such module")
    if not isinstance(found, type):
        raise refuse("is not a class")
    if not _is_below(found.__module__ + ".", allowed):
        raise refuse(f"is a class of {found.__module__}")
    return found


def _is_below(path: str, allowed: Sequence[str]) -> bool:
    return any(path.startswith(package + ".") for package in allowed)


@contextmanager
def working_folder_importable(allow: Sequence[str]) -> Iterator[None]:
    """Packages of ``--allow`` may lie in the working folder."""
    here = str(Path.cwd())
    if not allow or here in sys.path:
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def check_role(cls: type, role: Any, key: str) -> None:
    """Check that objects of ``cls`` can stand where a ``role`` is asked for.

    Args:
        cls: an allowed class.
        role: a class, of which ``cls`` must be a subclass; or a protocol, whose methods it must have.
        key: configuration key, for the message.

    Raises:
        ConfigurationError: they cannot.
    """
    if getattr(role, "_is_protocol", False):
        methods = [name for name, value in vars(role).items() if callable(value)]
        asked = [name for name in methods if name == "__call__" or not name.startswith("_")]
        missing = [name for name in asked if not any(name in vars(base) for base in cls.__mro__)]
    else:
        missing = [] if issubclass(cls, role) else [f"the base {role.__name__}"]
    if missing:
        raise ConfigurationError(
            f"{key}={cls.__module__}.{cls.__name__} is no {role.__name__}: it lacks "
            f"{', '.join(missing)}; name a class that is one"
        )


def field_types(cls: type) -> dict[str, Any]:
    """Annotations of the constructor's parameters, by name."""
    constructor = inspect.getattr_static(cls, "__init__")
    hints = typing.get_type_hints(constructor)
    parameters = list(inspect.signature(constructor).parameters.values())[1:]
    return {
        parameter.name: hints.get(parameter.name, Any)
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }


def check(node: Any, key: str, given: Sequence[str] = (), allowed: Sequence[str] = ALLOWED) -> None:
    """Check a configuration node and all nodes in it, building nothing.

    Args:
        node: a value of the composed configuration as plain containers.
        key: its dotted key.
        given: names of parameters that the caller supplies itself.
        allowed: packages.

    Raises:
        ConfigurationError: an unknown key, a value of a wrong type, a forbidden ``_target_``, or a
            required parameter that is missing.
    """
    if isinstance(node, Mapping):
        if "_target_" in node:
            _check_class(node, key, given, allowed)
        for name, child in node.items():
            check(child, f"{key}.{name}" if key else str(name), (), allowed)
    elif isinstance(node, list):
        for index, child in enumerate(node):
            check(child, f"{key}[{index}]", (), allowed)


def _check_class(node: Mapping[str, Any], key: str, given: Sequence[str], allowed: Sequence[str]) -> None:
    cls = resolve(node["_target_"], f"{key}._target_", allowed)
    hints = field_types(cls)
    for name, value in node.items():
        if name == "_target_":
            continue
        if name not in hints or name in given:
            known = sorted(set(hints) - set(given))
            raise ConfigurationError(
                f"unknown option '{key}.{name}'.{did_you_mean(name, known)} "
                f"{cls.__name__} takes {', '.join(known) or 'no options'}"
            )
        if isinstance(value, Mapping) and "_target_" in value:
            target = f"{key}.{name}._target_"
            inner = resolve(value["_target_"], target, allowed)
            for role in _roles(hints[name]):
                check_role(inner, role, target)
        elif not _fits(value, hints[name]):
            raise ConfigurationError(f"{key}.{name}={value!r:.80} is not {_describe(hints[name])}")
    signature = inspect.signature(cls)
    for name, parameter in signature.parameters.items():
        is_required = parameter.default is parameter.empty and name in hints
        if is_required and name not in given and node.get(name) is None:
            raise ConfigurationError(f"{key}.{name} is required by {cls.__name__}; set {key}.{name}=VALUE")


def _roles(hint: Any) -> list[type]:
    """The classes that a parameter of that type takes; none where its type says nothing."""
    origin = typing.get_origin(hint) or hint
    if origin in (Union, types.UnionType):
        return [role for part in typing.get_args(hint) for role in _roles(part) if role is not type(None)]
    return [origin] if isinstance(origin, type) else []


def _fits(value: Any, hint: Any) -> bool:
    """True if a YAML value can stand for a parameter of that type; unknown types accept anything."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in args)
    if origin is Literal:
        return value in args
    if origin is Callable:
        return False
    if hint is None or hint is type(None):
        return value is None
    if hint is bool or hint is str:
        return isinstance(value, hint)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if (isinstance(origin, type) and issubclass(origin, (list, tuple))) or origin is Sequence:
        inner = [part for part in args if part is not Ellipsis] or [Any]
        return isinstance(value, list) and all(any(_fits(item, part) for part in inner) for item in value)
    return True


def _describe(hint: Any) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(part) for part in args)
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin is Callable:
        return "a function (which only Python code can give)"
    if hint is type(None):
        return "null"
    names = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}
    return names.get(hint, f"a {str(hint).removeprefix('collections.abc.')}")


def build(node: Any, key: str, allowed: Sequence[str] = ALLOWED, **given: Any) -> Any:
    """The object of a configuration node.

    Raises:
        ConfigurationError: see ``check``; or the class itself refuses a value.
    """
    check(node, key, tuple(given), allowed)
    return _instantiate(node, key, allowed, given)


def _instantiate(node: Any, key: str, allowed: Sequence[str], given: Mapping[str, Any]) -> Any:
    if isinstance(node, Mapping) and "_target_" in node:
        cls = resolve(node["_target_"], f"{key}._target_", allowed)
        values = {
            name: _instantiate(value, f"{key}.{name}", allowed, {})
            for name, value in node.items()
            if name != "_target_"
        }
        try:
            return cls(**values, **given)
        except ConfigurationError:
            raise
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{key}: {cls.__name__} refuses its options: {error}") from error
    if isinstance(node, Mapping):
        return {name: _instantiate(value, f"{key}.{name}", allowed, {}) for name, value in node.items()}
    if isinstance(node, list):
        return tuple(_instantiate(value, f"{key}[{i}]", allowed, {}) for i, value in enumerate(node))
    return node
