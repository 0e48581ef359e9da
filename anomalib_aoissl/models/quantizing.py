# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""OpenVINO models in integers of 8 bits: what NNCF needs to know of images, and what it may not lose."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from anomalib_aoissl.data.indices import IGNORE_INDEX

logger = logging.getLogger(__name__)

NEEDS_IMAGES = ("int8_ptq", "int8_acq")
"""Compressions that look at images."""


def compression_name(compression: Any) -> str:
    """Return the name of a compression, in small letters; empty for none."""
    return "" if compression is None else str(getattr(compression, "value", compression)).lower()


def check_compression(compression: Any, datamodule: Any, max_drop: float) -> None:
    """Validate, before the work, that there are the images that a compression looks at.

    Raises:
        ValueError: If there are none, or ``max_drop`` is not in [0, 1].
    """
    name = compression_name(compression)
    if name not in NEEDS_IMAGES:
        return
    if datamodule is None:
        msg = f"compression_type={name} looks at validation images: give --data, or the argument datamodule."
        raise ValueError(msg)
    if not 0 <= max_drop <= 1:
        msg = f"max_drop={max_drop} must lie in [0, 1]: how much of the mean IoU may be lost, such as 0.01."
        raise ValueError(msg)
    datamodule.setup("fit")
    wanted = {"validation": getattr(datamodule, "val_data", None)}
    if name == "int8_acq":
        wanted["test"] = getattr(datamodule, "test_data", None)
    for kind, data in wanted.items():
        if data is None or not len(data):
            ratio = "val_ratio" if kind == "validation" else "test_ratio"
            msg = (
                f"compression_type={name} looks at {kind} images, and the data has none. Set --data.{ratio} above 0 or "
                "name devices for them; compression_type=int8 or fp16 needs no images."
            )
            raise ValueError(msg)


def quantize_with_accuracy(model: Any, datamodule: Any, max_drop: float) -> Any:
    """Return the model in 8 bits as far as the mean IoU of the test images falls by ``max_drop`` at most.

    Anomalib's own way compares labels of whole images, which these models do not give.
    """
    import nncf

    calibration = nncf.Dataset(datamodule.val_dataloader(), lambda batch: batch.image)
    validation = nncf.Dataset(datamodule.test_dataloader(), lambda batch: batch)
    return nncf.quantize_with_accuracy_control(model, calibration, validation, _mean_iou, max_drop=max_drop)


def _mean_iou(model: Callable[[Any], Any], batches: Iterable[Any]) -> float:
    """Return the mean IoU of a compiled model, its pixels pooled over all batches, over the classes that occur."""
    cells = np.zeros((IGNORE_INDEX + 1, IGNORE_INDEX + 1), np.int64)
    for batch in batches:
        truth, predicted = np.asarray(batch.gt_mask), np.asarray(model(batch.image)["pred_mask"])[:, 0]
        rows, columns = (
            np.arange(size) * old // size for size, old in zip(truth.shape[1:], predicted.shape[1:], strict=True)
        )
        predicted = predicted[:, rows[:, np.newaxis], columns]  # at the size of the truth, by nearest neighbour
        known = truth != IGNORE_INDEX
        pairs = truth[known].astype(np.int64) * len(cells) + predicted[known]
        cells += np.bincount(pairs, minlength=cells.size).reshape(cells.shape)
    hits, unions = cells.diagonal(), cells.sum(axis=0) + cells.sum(axis=1) - cells.diagonal()
    return float((hits[unions > 0] / unions[unions > 0]).mean())
