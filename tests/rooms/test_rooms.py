"""Who may import whom. An arrow of the design means "may import"; nothing points back."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "fedpref"
GROUND = {"types", "errors", "seeds", "lazy"}
_NAMES = "torch transformers peft ray hydra flwr datasets matplotlib sklearn optuna"
HEAVY = set(_NAMES.split())

# room: (rooms of fedpref it may import, heavy packages it may import)
ALLOWED: dict[str, tuple[set[str], set[str]]] = {
    "types": ({"lazy"}, set()),
    "lazy": (set(), set()),
    "errors": (set(), set()),
    "seeds": (set(), set()),
    "maths": (GROUND, set()),
    "strategies": (GROUND | {"maths"}, set()),
    "data": (GROUND, {"datasets"}),
    "objectives": (GROUND, {"torch"}),
    "models": (GROUND | {"objectives"}, {"torch", "transformers", "peft"}),
    "clients": (GROUND | {"models", "objectives"}, {"torch"}),
    "flower": (GROUND | {"maths"}, {"flwr"}),
    "simulation": (GROUND | {"maths", "flower"}, {"flwr", "ray"}),
    "evaluation": (GROUND | {"maths"}, set()),
    "report": (GROUND | {"maths"}, {"matplotlib"}),
    "federation": (GROUND | {"maths", "flower", "simulation", "evaluation", "report"}, set()),
    "benchmarks": ({"*"}, HEAVY),
    "cli": ({"*"}, HEAVY - {"ray"}),
    "configs": (set(), set()),
}


def files_of(room: str) -> list[Path]:
    path = PACKAGE / room
    return sorted(path.rglob("*.py")) if path.is_dir() else [PACKAGE / f"{room}.py"]


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield str(node.module)


def test_every_room_is_in_the_plan() -> None:
    found = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert found - {"__init__", "__main__", "py.typed"} == set(ALLOWED)


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    rooms, heavy = ALLOWED[room]
    for file in files_of(room):
        for name in imports(file):
            parts = name.split(".")
            where = f"{file.relative_to(PACKAGE.parent)} imports {name}"
            if parts[0] == "fedpref" and len(parts) > 1 and "*" not in rooms:
                assert parts[1] in rooms | {room}, where
            if parts[0] in HEAVY:
                assert parts[0] in heavy, where


def test_ray_is_imported_in_its_own_file_only() -> None:
    users = {
        file.name for file in files_of("simulation") if any(n.split(".")[0] == "ray" for n in imports(file))
    }
    assert users == {"ray.py"}


def test_flowers_internals_are_imported_in_the_shim_only() -> None:
    public = ("flwr.app", "flwr.clientapp", "flwr.serverapp")
    users = {
        file.name
        for room in ("flower", "simulation")
        for file in files_of(room)
        if any(n.startswith("flwr") and not n.startswith(public) for n in imports(file))
    }
    assert users == {"_shim.py"}


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("fedpref", HEAVY),
        ("fedpref.strategies.fedprox", HEAVY),
        ("fedpref.data.synthetic", HEAVY),
        ("fedpref.evaluation.evaluate", HEAVY),
        ("fedpref.cli.app", HEAVY),
        ("fedpref.federation.federation", HEAVY - {"flwr"}),
    ],
)
def test_heavy_packages_stay_out_until_they_are_needed(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & {absent!r}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == []


@pytest.mark.parametrize("folder", ["strategies", "clients", "benchmarks", "configs"])
def test_plug_in_folders_refuse_their_bare_name(folder: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", f"import {folder}"], cwd=PACKAGE.parent, capture_output=True, text=True
    )
    assert run.returncode != 0 and f"fedpref.{folder}" in run.stderr


@pytest.mark.parametrize("folder", ["strategies", "clients", "benchmarks", "configs"])
def test_plug_in_folders_are_relative_links_to_real_folders(folder: str) -> None:
    link = PACKAGE / folder
    assert link.is_symlink() and str(link.readlink()) == f"../{folder}"
    assert (PACKAGE.parent / folder / "__init__.py").is_file()


def test_nothing_reads_a_pickle_or_evaluates_a_string() -> None:
    banned = ("import pickle", "torch.load(", "allow_pickle=True", "yaml.load(", " eval(", " exec(")
    for room in ALLOWED:
        for file in files_of(room):
            text = file.read_text(encoding="utf-8")
            assert not [word for word in banned if word in text], file


def test_nothing_seeds_globally_but_the_fence_around_client_code() -> None:
    for room in ALLOWED:
        for file in files_of(room):
            if file.name != "fence.py":
                assert "random.seed(" not in file.read_text(encoding="utf-8"), file
