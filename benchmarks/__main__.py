"""``make bench``: every measurement that needs no data from elsewhere; real annotators where they lie beside.

A few populations each, so that it ends in minutes; the modules take larger numbers as arguments.
"""

from __future__ import annotations

from pathlib import Path

from fedpref.benchmarks import real_annotators, synthetic_reference
from fedpref.benchmarks.throughput.__main__ import main as throughput

DATA = Path("../shared/data")

if __name__ == "__main__":
    synthetic_reference.main(["3"])
    throughput(["minilm"], {"without": "flower,pfl-research,ray", "cohort": "1", "rounds": "1"})
    if DATA.is_dir():
        real_annotators.main(DATA, num_seeds=1)
    else:
        print(
            f"real annotators: skipped, {DATA} is absent; python -m fedpref.benchmarks.real_annotators FOLDER"
        )
