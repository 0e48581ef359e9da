# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Measures what the start-up hook adds to `python -c pass`.

Prints the medians with and without the hook. Both are started with `-S` in
turns, the one with nothing to run and the other with the line of the `.pth` file,
so that other packages in the environment play no part. The bytecode is kept, as
it is by an installer, in a temporary folder.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOOK = (ROOT / "packaging" / "autoload.pth.txt").read_text(encoding="utf-8")
# What `site` has loaded by the time it reads .pth files, and the path at which it finds the package.
BEFORE = f"import os, sys; sys.path.insert(0, {str(ROOT)!r})\n"


def start(code: str, environment: dict[str, str]) -> float:
    """Return the milliseconds that an interpreter takes to start, run the code, and end."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-S", "-c", code], env=environment, check=True)
    return (time.perf_counter() - begin) * 1000


def main() -> None:
    """Print the medians and their difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=101, help="starts of each kind (default: %(default)s)")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        start(BEFORE + HOOK, environment)  # writes the bytecode
        pairs = [(start(BEFORE, environment), start(BEFORE + HOOK, environment)) for _ in range(runs)]
    without, hooked = (statistics.median(times) for times in zip(*pairs, strict=True))
    added = statistics.median(after - before for before, after in pairs)
    print(f"without the hook: {without:.2f} ms")
    print(f"with the hook:    {hooked:.2f} ms ({hooked / without:.3f} times)")
    print(f"added:            {added:.2f} ms (median of {runs} pairs)")


if __name__ == "__main__":
    main()
