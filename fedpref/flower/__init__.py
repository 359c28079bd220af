"""The wire: fedpref's tasks and answers as Flower messages, its strategies and rules as Flower objects.

May import: ``types``, ``seeds``, ``errors``, ``maths`` and ``flwr``; never torch, Ray or Hydra, so that
a Flower server needs no more than Flower. Flower's internals are known to ``_shim`` alone, which is
imported here because it must come before anything else of Flower in the process.

A reader starts at ``rounds.py`` (one round: plan, wait, fold), then follows a task: ``exchange.py``
sends it, ``wire.py`` packs it, ``app.py`` answers it, ``validation.py`` judges the answer.
``strategy.py`` and ``native.py`` are the two doors to Flower's own strategies.
"""

from fedpref.flower import _shim

__all__: list[str] = []

del _shim
