# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Segments each picture that comes into a folder; masks and one line of numbers for each go into another.

Where a picture has several lighting channels, it is segmented once all of its files are there.

Usage: python examples/watch_folder.py exported/weights/openvino/model.xml incoming/ masks/
"""

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from anomalib_aoissl import SegmentationOpenVINOInferencer
from anomalib_aoissl.data.describing.file_format import FileFormat

PAUSE = 0.5  # s
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


def arrivals(folder: Path, pause: float = PAUSE) -> Iterator[Path]:
    """Yield each new picture once its size has stayed the same for a pause, so that it is written whole."""
    sizes: dict[Path, int] = {}
    done: set[Path] = set()
    while True:
        present = {path: path.stat().st_size for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES}
        ready = [path for path, size in present.items() if path not in done and sizes.get(path) == size]
        done, sizes = done | set(ready), present
        yield from ready
        time.sleep(pause)


def complete(arrived: Iterable[Path], file_format: FileFormat) -> Iterator[Path]:
    """Yield the first file of each picture once all of its files have arrived."""
    waiting: set[Path] = set()
    for path in arrived:
        waiting.add(path)
        try:
            files = file_format.files(path)
        except ValueError as error:  # of no lighting channel; or another one's file is missing so far
            if file_format.stem(path) == path.stem:
                print(error, file=sys.stderr)
            continue
        if waiting.issuperset(files):
            waiting.difference_update(files)
            yield files[0]


def main(model: Path, incoming: Path, masks: Path) -> None:
    """Run until it is interrupted."""
    inferencer = SegmentationOpenVINOInferencer(model)
    for path in complete(arrivals(incoming), inferencer.file_format):
        try:
            result = inferencer.predict(path)
            result.save_mask(masks / f"{path.stem}.png")
        except (ValueError, OSError) as error:  # one bad picture, or one that is gone, must not end the line
            print(f"{path.name}: {error}", file=sys.stderr)
            continue
        print(path.name, f"novelty {result.score:.3f}", result.class_shares(), result.fault)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
