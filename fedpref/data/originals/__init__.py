"""The published sets of real preferences: fetched from their origins, converted, found again.

One converter a file (``llmfao``, ``ukpconvarg``, ``mtbench``, ``polis``), pure functions from records of the
originals to rows; ``publications`` says where the originals lie and whose they are, ``fetch`` downloads,
``get`` puts it together, ``places`` finds the result. Nothing here is imported by the rest of the room.
"""

from __future__ import annotations

from fedpref.data.originals.get import get
from fedpref.data.originals.places import default_folder, set_path
from fedpref.data.originals.publications import PUBLICATIONS

__all__ = ["PUBLICATIONS", "default_folder", "get", "set_path"]
