# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Memory of the inferencer over many pictures of changing sizes, by `predict_many`: resident MB after some of them.

Usage: python benchmarks/memory.py [--model model.xml] [--tiles] [--pictures 10000] [--sizes 32 160]

Without a model a small one is trained on drawn images and exported. Pictures are noise, their heights and widths are
drawn evenly between --sizes. Results are not kept, so that what grows is the inferencer's.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from line import trained

from anomalib_aoissl.deployment.inferencer import SegmentationOpenVINOInferencer
from anomalib_aoissl.deployment.tiles.tiling import Tiling

TOLD = (100, 1000, 2000, 5000, 10_000)

_SIZE, _OVERLAP = (64, 64), 16


def main() -> None:
    """Print a table."""
    arguments = _parser().parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.model or _made(Path(folder))
        tiling = Tiling(_SIZE, _OVERLAP) if arguments.tiles else None
        inferencer = SegmentationOpenVINOInferencer(path, tiling=tiling)
        print("| pictures | resident, MB | at most until then, MB | s |\n| --- | --- | --- | --- |")
        pictures = _pictures(arguments.pictures, arguments.sizes, inferencer.in_channels)
        started = time.perf_counter()
        for number, _ in enumerate(inferencer.predict_many(pictures), start=1):
            if number in TOLD or number == arguments.pictures:
                now, most = _resident()
                print(f"| {number:,} | {now:.0f} | {most:.0f} | {time.perf_counter() - started:.0f} |", flush=True)


def _made(folder: Path) -> Path:
    """Return an exported model, which another process makes: this one is to be as on the line, without torch."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(trained, folder, _SIZE).result()


def _pictures(count: int, sizes: list[int], channels: int) -> Iterator[np.ndarray]:
    """Yield pictures ``[H, W, C]`` of 8 bits."""
    random = np.random.default_rng(0)
    for _ in range(count):
        height, width = random.integers(sizes[0], sizes[1], 2, endpoint=True)
        yield random.integers(0, 256, (height, width, channels), np.uint8)


def _resident() -> tuple[float, float]:
    """Return the MB of the process that are in memory, and the most that ever were; Linux alone tells them."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{os.getpid()}/status").read_text().splitlines())
    return tuple(int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="Memory over many pictures.")
    parser.add_argument("--model", type=Path, help="exported model; a small one is trained without")
    parser.add_argument("--tiles", action="store_true", help="cut pictures into tiles of 64x64 px")
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--sizes", type=int, nargs=2, default=(32, 160), help="of pictures, px, from and to")
    return parser


if __name__ == "__main__":
    main()
