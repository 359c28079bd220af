"""``fedpref doctor`` says what to type for an extra that is absent."""

from __future__ import annotations

import tomllib
from pathlib import Path

from fedpref.cli.doctor import EXTRAS, as_text, examine

ROOT = Path(__file__).resolve().parents[2]


def test_in_a_checkout_an_extra_comes_from_the_checkout() -> None:
    lines = as_text(examine() | {"extras": {"peers": None, "tune": "5.0"}}).splitlines()
    assert "  extra [peers] not installed: pip install '.[peers]' in the checkout" in lines
    assert "  extra [tune] installed" in lines
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert EXTRAS.keys() <= known.keys()


def test_help_promises_what_is_shown() -> None:
    from fedpref.cli.app import doctor

    assert doctor.__doc__ == "Show versions, devices, extras, disk and memory."
    assert {"versions", "gpus", "extras", "free_disk_bytes", "memory_bytes"} <= examine().keys()
