# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Whole pictures against tiles at their own resolution: mean IoU and IoU of each class at the pictures' own size.

Usage: python benchmarks/tiling.py SET SHOTS SEED [--overlap 64] [--queries 8] [--log tiling.jsonl]

SET is name:train_device:test_device:HxW of a SegmentationFolder under --root, or wirebond:DEVICE:HxW:HxW, whose first
size is that of the drawn pictures. The last HxW is the model's input: whole pictures are resized to it, and tiles have
that size. Both models learn the same labelled pictures and answer the same test ones.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lights import fit, folder_data, ready, shared_arguments
from table import give_line

from anomalib_aoissl import AOISSLRetrieval, Tiling, WireBond
from anomalib_aoissl.data.indices import IGNORE_INDEX
from anomalib_aoissl.data.resizing import resize_mask


def main() -> None:
    """Fit and test both, and print a line of JSON for each."""
    arguments = _parser().parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.INFO)
    torch.set_num_threads(arguments.threads)
    for method in arguments.methods:
        data, size = _data(arguments)
        options: dict[str, Any] = {"image_size": size}
        if method == "tiles":
            options = {"tiling": Tiling(size, arguments.overlap)}
        torch.manual_seed(arguments.seed)
        model = AOISSLRetrieval(**options, visualizer=False, seed=arguments.seed)
        started = time.process_time()
        fit(model, data)
        fitted = time.process_time()
        found = measured(model.eval(), data.test_data, arguments.queries)
        row = {
            "set": arguments.set,
            "shots": arguments.shots,
            "seed": arguments.seed,
            "method": method,
            "mean_iou": round(float(np.nanmean(found)), 4),
            "seconds": round(fitted - started, 1),
            "seconds for a picture": round((time.process_time() - fitted) / arguments.queries, 1),
            "per_class": dict(zip(model.class_names, (round(float(value), 4) for value in found), strict=True)),
        }
        give_line(row, arguments.log)


def _data(arguments: argparse.Namespace) -> tuple[Any, tuple[int, int]]:
    """Return the datamodule, set up, and the model's (height, width)."""
    name, *parts = arguments.set.split(":")
    if name != "wirebond":
        return folder_data(arguments.set, arguments.root, arguments.shots, arguments.seed)
    pictures, size = (tuple(int(side) for side in part.split("x")) for part in parts[1:])
    count = arguments.shots + arguments.queries
    numbers = {"images_per_device": count, "test_ratio": arguments.queries / count}
    common = shared_arguments(arguments.shots, arguments.seed)
    return ready(WireBond(arguments.drawn, devices=parts[:1], image_size=pictures, **numbers, **common)), size


@torch.no_grad()
def measured(model: Any, dataset: Any, limit: int) -> np.ndarray:
    """Return the IoU ``[C]`` of the classes, pixels pooled over test pictures at their own size; NaN for none."""
    classes, dataset.augmentations = len(model.class_names), None  # anomalib resizes there
    cells = np.zeros((classes, classes), np.int64)
    step = max(len(dataset) // limit, 1)
    for index in range(0, min(len(dataset), step * limit), step):
        item = dataset[index]
        truth = item.gt_mask.as_subclass(torch.Tensor).numpy()
        image = item.image.as_subclass(torch.Tensor)[None]
        predicted = resize_mask(model(image).pred_mask[0, 0].numpy(), truth.shape)
        known = truth != IGNORE_INDEX
        pairs = truth[known].astype(np.int64) * classes + predicted[known]
        cells += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    hits, unions = cells.diagonal(), cells.sum(axis=0) + cells.sum(axis=1) - cells.diagonal()
    return np.where(unions > 0, hits / np.maximum(unions, 1), np.nan)


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="Whole pictures against tiles.")
    parser.add_argument("set")
    parser.add_argument("shots", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--methods", nargs="+", choices=("whole", "tiles"), default=("whole", "tiles"))
    parser.add_argument("--overlap", type=int, default=64, help="of tiles, px")
    parser.add_argument("--root", type=Path, default=Path("../shared/data"))
    parser.add_argument("--drawn", type=Path, default=Path("datasets/WireBond"), help="where WireBond is drawn")
    parser.add_argument("--queries", type=int, default=8, help="test pictures, at most")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--log", type=Path, default=None)
    return parser


if __name__ == "__main__":
    main()
