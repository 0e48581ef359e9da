# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A camera's buffer as an array for ``inferencer.predict``: blue first, 12 bits, rows with padding.

Usage: python examples/camera_frame.py exported/weights/openvino/model.xml frame.raw 1216 1936 11648
       (height, width, bytes from one row to the next)
"""

import sys
from pathlib import Path

import numpy as np

from anomalib_aoissl import SegmentationOpenVINOInferencer


def frame_of(buffer: bytes, height: int, width: int, stride: int, *, channels: int = 3, bits: int = 12) -> np.ndarray:
    """Return a buffer as an array ``[H, W, channels]`` in [0, 1] that shares its rows with nobody.

    Args:
        buffer: Little-endian samples of 2 bytes, of 1 byte up to 8 bits, right-aligned.
        height: Rows.
        width: Pixels of a row.
        stride: Bytes from the start of a row to that of the next; padding is cut off.
        channels: Samples of a pixel.
        bits: Of a sample that are used.
    """
    kind = np.dtype("u1" if bits <= 8 else "<u2")
    steps = (stride, channels * kind.itemsize, kind.itemsize)
    frame = np.ndarray((height, width, channels), kind, buffer, strides=steps)
    return frame.astype(np.float32) / (2**bits - 1)


def main(model: str, file: str, *sizes: str) -> None:
    """Print the share of each class in a frame."""
    frame = frame_of(Path(file).read_bytes(), *map(int, sizes))
    result = SegmentationOpenVINOInferencer(model).predict(frame, color_order="bgr")
    print(f"novelty {result.score:.3f}", result.class_shares(), result.fault)


if __name__ == "__main__":
    main(*sys.argv[1:6])
