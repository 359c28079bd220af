"""The command line: the only room that knows Hydra; may import any room, heavy ones late.

``main`` is the entry point ``fedpref``. Errors that fedpref raises on purpose become one line and
the exit code of ``fedpref.errors``; a traceback means a bug, or ``--debug``.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code."""
    from fedpref.cli.app import run_app

    run_app()
