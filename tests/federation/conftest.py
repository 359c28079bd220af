"""Toys that several files of this room use."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

_NAME = "federation_toys"


@pytest.fixture(scope="session")
def toys() -> ModuleType:
    """Strategies and rules; a module of its own, so that actors can be sent it by value."""
    if _NAME not in sys.modules:
        spec = importlib.util.spec_from_file_location(_NAME, Path(__file__).parent / f"{_NAME}.py")
        assert spec is not None and spec.loader is not None
        sys.modules[_NAME] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[_NAME])
    return sys.modules[_NAME]
