"""`make bench`: every claim of speed, measured side by side with its peer in one run.

    python benchmarks/run.py [--quick] [--only ROW ...]

The package is named from the repository's root, so that the programs it starts find each other too. The
services behind the caches are those that the tests start.
"""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    root = Path(__file__).resolve().parent.parent
    sys.path[:1] = [str(root), str(root / "tests")]
    runpy.run_module("benchmarks", run_name="__main__", alter_sys=True)
