# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The sets of a study: labelled and test images of one run, as a datamodule and as tensors of one size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch.nn import functional

__all__ = ["Pictures", "RunData", "datamodule", "load"]


@dataclass(frozen=True)
class Pictures:
    """Images ``[N, 3, H, W]`` in [0, 1], class-index masks ``[N, H, W]`` uint8 (255 = ignore), and file names."""

    images: torch.Tensor
    masks: torch.Tensor
    names: tuple[str, ...]


@dataclass(frozen=True)
class RunData:
    """What a run learns from and is tested on; ``module`` holds the same labelled images for anomalib's engine."""

    module: Any
    labelled: Pictures
    tested: Pictures
    class_names: tuple[str, ...]
    size: tuple[int, int]


def load(spec: Mapping[str, Any], roots: Mapping[str, Path]) -> RunData:
    """Return the data of a job.

    The labelled images are drawn with the seed among the training images; more of them contain fewer. The test images
    are evenly taken.

    Args:
        spec: Of the job.
        roots: Folder of the drawn sets (``drawn``) and of the sets on disk (``data``).

    Raises:
        ValueError: If the set has fewer labelled images than are asked for.
    """
    settings = spec["set_settings"]
    data = datamodule(settings, spec["seed"], roots)
    available = len(data.train_data)
    if available < spec["labels"]:
        msg = f"{spec['set']}: has {available} images to label, {spec['labels']} are asked for. Set most_labels."
        raise ValueError(msg)
    order = np.random.default_rng([spec["seed"], 1]).permutation(available)
    data.train_data.subsample(order[: spec["labels"]].tolist(), True)
    count = min(settings.get("test_images", len(data.test_data)), len(data.test_data))
    taken = np.linspace(0, len(data.test_data) - 1, count).round().astype(int)
    data.test_data.subsample(taken.tolist(), True)
    size = (settings["size"][0], settings["size"][1])
    names = tuple(data.class_names)
    return RunData(data, _pictures(data.train_data, size), _pictures(data.test_data, size), names, size)


def datamodule(settings: Mapping[str, Any], seed: int, roots: Mapping[str, Path]) -> Any:
    """Return the datamodule that a set describes, set up; its ``by_seed`` arguments change with the seed."""
    from anomalib_aoissl import SegmentationFolder, WireBond

    arguments = {"val_ratio": 0.0, "num_workers": 0, "train_batch_size": 1, "eval_batch_size": 1, "seed": seed}
    arguments |= settings.get("init_args", {})
    for name, values in settings.get("by_seed", {}).items():
        arguments[name] = values[seed % len(values)]
    if settings["class_path"] == "WireBond":
        data: Any = WireBond(root=roots["drawn"], **arguments)
    else:
        root = roots["data"] / arguments.pop("root")
        data = SegmentationFolder(root, **arguments)
    data.prepare_data()
    data.setup(TrainerFn.FITTING)  # said so that the trainer does not set it up again, with all images
    return data


def _pictures(dataset: Any, size: tuple[int, int]) -> Pictures:
    """Return the items of a dataset at (height, width) px."""
    images, masks = [], []
    for index in range(len(dataset)):
        item = dataset[index]
        image = torch.as_tensor(np.asarray(item.image)).float()[None]
        mask = torch.as_tensor(np.asarray(item.gt_mask)).squeeze()[None, None].float()
        images.append(functional.interpolate(image, size, mode="bilinear", antialias=True).clamp(0, 1))
        masks.append(functional.interpolate(mask, size, mode="nearest-exact")[:, 0].to(torch.uint8))
    names = tuple(str(path) for path in dataset.samples.image_path)
    return Pictures(torch.cat(images), torch.cat(masks), names)
