# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Measures what it takes to edit the bank of an exported model, against one inference of the same model.

The default encoder, 512x512 px, a bank of 20,000 rows; the first `adapt` compiles the part that embeds as well. Each
edit ends with a model that is compiled and ready. All are timed in turns in one process that imports no torch; each
line is a median with the smallest and the largest, in CPU seconds and in seconds on the wall.

    python benchmarks/bank_edit.py
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = ["background", "a", "b", "c", "d"]

_EXPORT = """
import sys, torch
from anomalib_aoissl import AOISSLRetrieval
from anomalib_aoissl.data.file_format import FileFormat
folder, rows, shifts = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
model = AOISSLRetrieval(bank_size=rows, condensing="random", bank_shifts=shifts).eval()
model.set_dataset({classes}, FileFormat())
images = max(1, -(-rows // 4096))
pictures = torch.rand(images, 3, 512, 512)
masks = torch.randint(0, {number}, (images, 512, 512)).to(torch.uint8)
for index in range(images):
    model.add(pictures[index:index + 1], masks[index:index + 1], ["first"], [f"image{{index}}"])
model.to_openvino(folder)
"""


def export(folder: str, rows: int, shifts: int) -> Path:
    """Return a model of the default encoder with a bank of drawn rows, exported by a process of its own."""
    script = _EXPORT.format(classes=CLASSES, number=len(CLASSES))
    subprocess.run([sys.executable, "-c", script, folder, str(rows), str(shifts)], check=True)
    return Path(folder) / "weights" / "openvino" / "model.xml"


def timed(seconds: dict[str, list[tuple[float, float]]], name: str, step: Callable[[], Any]) -> Any:
    """Run the step, and note its CPU and wall seconds."""
    processor, wall = time.process_time(), time.perf_counter()
    result = step()
    seconds.setdefault(name, []).append((time.process_time() - processor, time.perf_counter() - wall))
    return result


def measure(path: Path, folder: Path, threads: int) -> dict[str, list[tuple[float, float]]]:
    """Return the seconds of each edit of one opened model."""
    from anomalib_aoissl.inference import SegmentationOpenVINOInferencer

    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (512, 512, 3), dtype=np.uint8)
    mask = generator.integers(0, len(CLASSES), (512, 512), dtype=np.uint8)
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    seconds: dict[str, list[tuple[float, float]]] = {}
    inferencer = timed(seconds, "open", lambda: SegmentationOpenVINOInferencer(path, config=config))
    inferencer.predict(image)
    timed(seconds, "inference", lambda: inferencer.predict(image))
    file = timed(seconds, "save_bank", lambda: inferencer.save_bank(folder / "bank.safetensors"))
    timed(seconds, "adapt, first", lambda: inferencer.adapt(image, mask, device="new", name="first"))
    timed(seconds, "adapt, again", lambda: inferencer.adapt(255 - image, mask, device="new", name="second"))
    size = inferencer.bank["rows"] // 2
    condensing = {"device": "new", "name": "third", "bank_size": size}
    timed(seconds, "adapt, condensed to half", lambda: inferencer.adapt(image[::-1].copy(), mask, **condensing))
    timed(seconds, "remove", lambda: inferencer.remove(device="new"))
    timed(seconds, "extend_bank", lambda: inferencer.extend_bank(file))
    timed(seconds, "replace_bank", lambda: inferencer.replace_bank(file))
    timed(seconds, "save", lambda: inferencer.save(folder / "saved.xml"))
    return seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10000, help="rows of the bank")
    parser.add_argument("--shifts", type=int, default=1, help="patch grids of a labelled image: bank_shifts")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = export(folder, arguments.rows, arguments.shifts)
        runs = [measure(path, Path(folder), arguments.threads) for _ in range(arguments.runs)]
    print("| step | CPU s | wall s | CPU / inference |\n| --- | --- | --- | --- |")
    for name in runs[0]:
        values = [run[name][0] for run in runs]
        cells = [_spread([value[kind] for value in values]) for kind in (0, 1)]
        ratios = [run[name][0][0] / run["inference"][0][0] for run in runs]
        print(f"| {name} | {cells[0]} | {cells[1]} | {_spread(ratios)} |")


def _spread(values: list[float]) -> str:
    """Return the median with the smallest and the largest."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
