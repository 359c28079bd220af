"""Which executor a table's federations run with: ``--executor cohort`` or ``--executor inline``.

Accuracies agree to the figures that are printed; ``cohort`` takes less time.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from fedpref.simulation.cohort import Cohort
from fedpref.simulation.executor import Executor
from fedpref.simulation.inline import Inline

__all__ = ["DEFAULT", "EXECUTORS", "add_executor"]

EXECUTORS: Mapping[str, Executor] = {"cohort": Cohort(), "inline": Inline()}
DEFAULT = EXECUTORS["cohort"]


def add_executor(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark's command the option; its value is a name in ``EXECUTORS``."""
    parser.add_argument("--executor", choices=EXECUTORS, default="cohort", help="how clients are trained")
