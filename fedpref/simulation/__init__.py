"""When and where: the virtual-time ``Grid``, the devices and links behind it, and the executors.

May import: ``flower``, ``types``, ``seeds``, ``errors``; Ray in ``ray.py`` alone, and only once it is asked
for. The grid decides when an answer arrives, the executor where it is computed; neither knows a strategy.
"""

import fedpref.flower  # noqa: F401  (before anything else imports Flower)

__all__: list[str] = []
