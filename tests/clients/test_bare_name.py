from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_folder_of_rules_refuses_its_bare_name() -> None:
    found = subprocess.run([sys.executable, "-c", "import clients"], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 1
    assert "ImportError: import fedpref.clients" in found.stderr
