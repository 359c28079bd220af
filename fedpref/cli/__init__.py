"""The command line: the only room that knows Hydra; may import any room, heavy ones late.

``main`` is the entry point ``fedpref``. Errors that fedpref raises on purpose become one line and
the exit code of ``fedpref.errors``; a traceback means a bug, or ``--debug``.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code."""
    import os

    # Sums are equal to the bit only for equal thread counts, and NumPy's is fixed when it loads.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    from fedpref.cli.app import run_app

    run_app()
