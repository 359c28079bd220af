"""What is installed with the package is what the package imports."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Scripts and suites of the benchmarks may ask for extras.
FOLDERS = ("fedpref", "strategies", "clients")


def imported() -> set[str]:
    """Top-level names, late imports included."""
    names: set[str] = set()
    for folder in FOLDERS:
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    names.add(str(node.module).split(".")[0])
    return names


def normalised(requirement: str) -> str:
    """The name of a distribution as registries compare it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


def test_every_dependency_of_the_package_is_imported_by_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = packages_distributions()
    used = {normalised(name) for module in imported() for name in found.get(module, ())}
    declared = {normalised(requirement) for requirement in project["dependencies"]}
    assert len(declared) > 10
    assert declared - used == set()
