# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Learning on the line: seconds of `adapt` and `remove`, and mean IoU against training on the same images.

Usage: python benchmarks/adapt.py SET SHOTS SEED --root DATA [--log adapt.jsonl]

SET is name:train_device:test_device:HxW of a SegmentationFolder. A model is trained on all but one of the labelled
images and exported; the last one is learnt by `adapt` on the exported model. Another model is trained on all of them.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lights import LIGHTS, fitted, folder_data, mean_iou, over_seen, pictures
from table import give_line
from torchmetrics.classification import MulticlassJaccardIndex

from anomalib_aoissl import SegmentationOpenVINOInferencer
from anomalib_aoissl.data.indices import IGNORE_INDEX


def main() -> None:
    """Train, export, adapt, and print a line of JSON."""
    parser = argparse.ArgumentParser(description="Learning on the line against training.")
    parser.add_argument("set")
    parser.add_argument("shots", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--root", type=Path, default=Path("../shared/data"))
    parser.add_argument("--queries", type=int, default=1000, help="test images, at most")
    parser.add_argument("--log", type=Path, default=None)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    data, size = folder_data(arguments.set, arguments.root, arguments.shots, arguments.seed)
    shown = list(pictures(data.test_data, size, arguments.queries))
    whole = fitted(data, size, arguments.seed)
    row: dict[str, Any] = {"set": arguments.set, "shots": arguments.shots, "seed": arguments.seed}
    row["trained on all"] = round(mean_iou(whole, shown, LIGHTS["plain"]), 4)
    item = data.train_data[arguments.shots - 1]
    image = np.ascontiguousarray(np.moveaxis(np.asarray(item.image), 0, -1))
    mask = np.asarray(item.gt_mask).astype(np.uint8)
    data.train_data.subsample(list(range(arguments.shots - 1)), True)
    part = fitted(data, size, arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        inferencer = SegmentationOpenVINOInferencer(part.to_openvino(folder))
        names = part.class_names
        row["trained on all but one"] = round(_exported_iou(inferencer, shown, len(names)), 4)
        row["MB of pixels"] = round(inferencer.bank["megabytes_of_pixels"], 1)
        row["adapt, s"] = _seconds(lambda: inferencer.adapt(image, mask, device="new"))
        row["adapted"] = round(_exported_iou(inferencer, shown, len(names)), 4)
        row["remove, s"] = _seconds(lambda: inferencer.remove(device="new"))
        row["removed again"] = round(_exported_iou(inferencer, shown, len(names)), 4)
    give_line(row, arguments.log)


def _seconds(work: Callable[[], Any]) -> float:
    """Return the wall seconds that work takes."""
    started = time.perf_counter()
    work()
    return round(time.perf_counter() - started, 1)


def _exported_iou(inferencer: Any, shown: list[tuple[torch.Tensor, torch.Tensor]], classes: int) -> float:
    """Return the mean IoU, pixels pooled, of an exported model."""
    metric = MulticlassJaccardIndex(classes, ignore_index=IGNORE_INDEX, average="none")
    for image, mask in shown:
        array = np.ascontiguousarray(image[0].permute(1, 2, 0).numpy())
        metric.update(torch.from_numpy(inferencer.predict(array).class_map)[None].long(), mask)
    return over_seen(metric)


if __name__ == "__main__":
    main()
