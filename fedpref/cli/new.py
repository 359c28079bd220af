"""``fedpref new strategy NAME``: a strategy, its configuration and its test, ready to run.

Inside a checkout the three files join the folders of their kind; anywhere else they are written to
the working folder, and run from there with ``--allow NAME --config-dir configs``.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
from importlib.resources import files
from pathlib import Path

from fedpref.cli.compose import options_of
from fedpref.errors import ConfigurationError

__all__ = ["write_strategy"]


def write_strategy(name: str, folder: Path) -> str:
    """Write the three files; return what to do next.

    Args:
        name: a lower-case Python name.
        folder: the working folder.

    Raises:
        ConfigurationError: the name is no such name or is taken, or a file is already there;
            nothing was written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name) or keyword.iskeyword(name):
        raise ConfigurationError(
            f"strategy name {name!r} must be lower-case letters, digits and _, such as mine"
        )
    if name in options_of("strategy"):
        raise ConfigurationError(f"strategy={name} exists already; choose another name")
    checkout = _is_checkout(folder)
    if not checkout and importlib.util.find_spec(name) and not (folder / f"{name}.py").exists():
        raise ConfigurationError(f"{name}.py would hide the installed module {name!r}; choose another name")
    module = f"fedpref.strategies.{name}" if checkout else name
    paths = {
        "strategy.py.j2": folder / "strategies" / f"{name}.py" if checkout else folder / f"{name}.py",
        "strategy.yaml.j2": folder / "configs" / "strategy" / f"{name}.yaml",
        "test_strategy.py.j2": folder / "tests" / "strategies" / f"test_{name}.py"
        if checkout
        else folder / f"test_{name}.py",
    }
    for path in paths.values():
        if path.exists():
            raise ConfigurationError(f"{path.relative_to(folder)} exists already; nothing was written")
    words = f"strategy={name}"
    if not checkout:
        words = f"--allow {name} --config-dir configs {words}"
    class_name = "".join(part.capitalize() for part in name.split("_"))
    values = {"name": name, "class_name": class_name, "module": module, "words": words}
    for template, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_render(template, values), encoding="utf-8")
    written = "\n".join(f"  {path.relative_to(folder)}" for path in paths.values())
    return (
        f"written\n{written}\n"
        f"run   fedpref run {words}\n"
        f"test  python -m pytest {paths['test_strategy.py.j2'].relative_to(folder)}"
    )


def _is_checkout(folder: Path) -> bool:
    """True if ``folder`` is the root of a checkout whose package is the one that runs."""
    import fedpref

    here = Path(fedpref.__file__).resolve().parent
    return here == (folder / "fedpref").resolve() and (folder / "strategies").is_dir()


def _render(template: str, values: dict[str, str]) -> str:
    from jinja2 import Environment, StrictUndefined

    text = (files("fedpref.cli") / "templates" / template).read_text(encoding="utf-8")
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    return environment.from_string(text).render(values)
