"""The wheel holds ``fedpref`` and nothing else, and works without the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUG_INS = ("strategies", "clients", "configs", "benchmarks")


def run(*words: str | Path, cwd: Path, **more: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env={**environment, **more}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist, as a registry would."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (path,) = out.glob("*.whl")
    return path


@pytest.mark.wheel
@pytest.mark.slow
def test_the_wheel_holds_every_file_below_fedpref_and_no_other_top_level_name(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names}
    assert tops == {"fedpref", next(top for top in tops if top.endswith(".dist-info"))}
    expected = set()
    for folder in (ROOT / "fedpref", *(ROOT / plug_in for plug_in in PLUG_INS)):
        for path in folder.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                inside = path.relative_to(ROOT)
                expected.add(str(inside if inside.parts[0] == "fedpref" else Path("fedpref") / inside))
    held = {name for name in names if name.startswith("fedpref/")}
    assert held == expected


@pytest.mark.slow
def test_the_installed_wheel_runs_the_demo_and_a_strategy_of_ones_own(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python, fedpref = tmp_path / "venv" / "bin" / "python", tmp_path / "venv" / "bin" / "fedpref"
    pip = (
        python,
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "-c",
        ROOT / "constraints.txt",
    )
    torch = next(
        line for line in (ROOT / "constraints.txt").read_text().split() if line.startswith("torch==")
    )
    run(*pip, torch, cwd=tmp_path)
    run(*pip, wheel, "pytest", cwd=tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    offline = {"FEDPREF_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    out = run(fedpref, "run", "experiment=demo", cwd=work, **offline)
    report = out.split("report: ")[1].split()[0]
    assert (work / report).is_file()
    run(fedpref, "new", "strategy", "mine", cwd=work)
    assert {path.name for path in work.glob("*mine*")} == {"mine.py", "test_mine.py"}
    words = ("--allow", "mine", "--config-dir", "configs", "strategy=mine", "data.preset=tiny", "rounds=2")
    assert "done" in run(fedpref, "run", *words, cwd=work, **offline)
    run(python, "-m", "pytest", "-q", "test_mine.py", cwd=work)
