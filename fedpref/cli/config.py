"""``fedpref config``: what can be configured, read from the configuration tree and the dataclasses."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from fedpref.cli.compose import CONFIG_MODULE, GROUPS, check_directories, options_of
from fedpref.cli.targets import ALLOWED, field_types, resolve
from fedpref.errors import ConfigurationError, did_you_mean

__all__ = ["describe", "list_group", "listing_text"]


def list_group(group: str | None, config_dirs: Sequence[str] = ()) -> Mapping[str, Any]:
    """Choices of one group, or of all: name to one-line description.

    Raises:
        ConfigurationError: there is no such group or folder.
    """
    check_directories(config_dirs)
    if group is not None and group not in GROUPS:
        raise ConfigurationError(f"there is no group {group!r}.{did_you_mean(group, GROUPS)}")
    chosen = [group] if group else GROUPS
    return {
        name: {option: _headline(name, option, config_dirs) for option in options_of(name, config_dirs)}
        for name in chosen
    }


def listing_text(listing: Mapping[str, Mapping[str, str]]) -> str:
    """The listing as indented lines."""
    lines = []
    for group, options in listing.items():
        lines.append(group)
        width = max((len(option) for option in options), default=0)
        lines += [f"  {option:{width}}  {line}".rstrip() for option, line in options.items()]
    return "\n".join(lines)


def describe(choice: str, config_dirs: Sequence[str] = (), allow: Sequence[str] = ()) -> str:
    """The YAML of a choice, and the options of the class that it names.

    Raises:
        ConfigurationError: there is no such choice or folder.
    """
    check_directories(config_dirs)
    group, _, option = choice.partition("/")
    if group not in GROUPS or option not in options_of(group, config_dirs):
        known = [f"{group}/{name}" for group in GROUPS for name in options_of(group, config_dirs)]
        raise ConfigurationError(f"there is no configuration {choice!r}.{did_you_mean(choice, known)}")
    text = _read(group, option, config_dirs)
    target = _target(text)
    if target is None:
        return text.rstrip()
    cls = resolve(target, f"{choice}: _target_", (*ALLOWED, *allow))
    hints = field_types(cls)
    lines = [text.rstrip(), "", f"# {cls.__name__}: options, types and defaults"]
    for name, parameter in inspect.signature(cls).parameters.items():
        if name in hints:
            default = "required" if parameter.default is parameter.empty else _default_text(cls, name)
            lines.append(f"# {group}.{name}: {_type_text(parameter.annotation)} = {default}")
    doc = inspect.getdoc(cls)
    if doc:
        lines += ["#", *(f"# {line}".rstrip() for line in doc.splitlines())]
    return "\n".join(lines)


def _default_text(cls: type, name: str) -> str:
    if dataclasses.is_dataclass(cls):
        for field in dataclasses.fields(cls):
            if field.name == name and field.default_factory is not dataclasses.MISSING:
                return repr(field.default_factory())
    return repr(inspect.signature(cls).parameters[name].default)


def _type_text(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


def _read(group: str, option: str, config_dirs: Sequence[str]) -> str:
    name = f"{option}.yaml"
    for root in (*(Path(directory) / group for directory in config_dirs), files(CONFIG_MODULE) / group):
        if (root / name).is_file():
            return (root / name).read_text(encoding="utf-8")
    raise AssertionError(f"options_of listed {group}/{option}")


def _target(text: str) -> str | None:
    from omegaconf import OmegaConf

    target = OmegaConf.select(OmegaConf.create(text), "_target_")
    return None if target is None else str(target)


def _headline(group: str, option: str, config_dirs: Sequence[str]) -> str:
    """First comment line of the YAML, else the class's summary; without importing anything heavy."""
    text = _read(group, option, config_dirs)
    for line in text.splitlines():
        if line.startswith("# ") and not line.startswith("# @package"):
            return line[2:]
    target = _target(text)
    return target.rpartition(".")[2] if target else ""
