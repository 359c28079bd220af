"""The toy federation for this room's tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

_PATH = Path(__file__).parent.parent / "flower" / "toy_federation.py"
if "toy_federation" not in sys.modules:
    _spec = importlib.util.spec_from_file_location("toy_federation", _PATH)
    sys.modules["toy_federation"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["toy_federation"])


@pytest.fixture
def toy():
    """Builds toy federations and closes their executors."""
    from toy_federation import Toy

    built = Toy()
    yield built
    built.close()
