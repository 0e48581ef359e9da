# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A fitted model under other lights: mean IoU of the pixel head and of the bank's vote alone, on any set.

Usage: python benchmarks/lights.py SET SHOTS SEED --root DATA [--faults] [--log lights.jsonl]

SET is name:train_device:test_device:HxW of a SegmentationFolder under --root, or wirebond:DEVICE (drawn; its other lots
are further lights). The model learns from the plain pictures; the test pictures are shown plain and under each light.
With --faults they are shown blurred, dark, over- and underexposed too, and of each the share is told that is noticed.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from anomalib.engine import Engine
from lightning.pytorch.trainer.states import TrainerFn
from table import give_line
from torch.nn import functional
from torchmetrics.classification import MulticlassJaccardIndex

from anomalib_aoissl import AOISSLRetrieval, SegmentationFolder, WireBond
from anomalib_aoissl.data.indices import IGNORE_INDEX
from anomalib_aoissl.pixel_head.filters import smooth

_CAST = torch.tensor([1.15, 1.0, 0.85])[:, None, None]

Light = Callable[[torch.Tensor], torch.Tensor]
LIGHTS: dict[str, Light] = {
    "plain": lambda images: images,
    "gain 0.6": lambda images: 0.6 * images,
    "gain 1.5": lambda images: 1.5 * images,
    "gamma 0.7": lambda images: images**0.7,
    "gamma 1.4": lambda images: images**1.4,
    "cast 15 %": lambda images: images * _CAST,
    "blur 1 px": lambda images: smooth(images, 1.0),
    "noise 3 %": lambda images: images + 0.03 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0)),
}
"""Images ``[B, C, H, W]`` in [0, 1] to those under another light, before they are cut to [0, 1]."""

FAULTS: dict[str, Light] = {
    "blur 2 px": lambda images: smooth(images, 2.0),
    "blur 3 px": lambda images: smooth(images, 3.0),
    "blur 4 px": lambda images: smooth(images, 4.0),
    "blur 8 px": lambda images: smooth(images, 8.0),
    "motion 15 px": lambda images: functional.avg_pool2d(functional.pad(images, (7, 7, 0, 0), "replicate"), (1, 15), 1),
    "gain 4": lambda images: 4 * images,
    "gain 0.05": lambda images: (0.05 * 255 * images).round() / 255,
    "half black": lambda images: images * (torch.arange(images.shape[-1]) >= images.shape[-1] // 2),
    "black": torch.zeros_like,
    "inverted": lambda images: 1 - images,
    "blue for red": lambda images: images.flip(1),
}
"""The same for pictures that are faulty."""


def main() -> None:
    """Fit, test under each light, and print a line of JSON."""
    arguments = _parser().parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    data, size = _data(arguments, 0)
    row: dict[str, Any] = {"set": arguments.set, "shots": arguments.shots, "seed": arguments.seed}
    started = time.process_time()
    model = fitted(data, size, arguments.seed)
    row["seconds"] = round(time.process_time() - started, 1)
    shown = list(pictures(data.test_data, size, arguments.queries))
    for head in (True, False):
        network = model.model.head
        model.model.head = network if head else None
        chosen = LIGHTS if head or arguments.votes else {"plain": LIGHTS["plain"]}
        if head and arguments.faults:
            chosen = {**LIGHTS, **FAULTS}
            row["noticed"] = {name: noticed(model, shown, light) for name, light in chosen.items()}
        found = {name: round(mean_iou(model, shown, light), 4) for name, light in chosen.items()}
        for lot in range(1, 1 + arguments.lots):
            others = list(pictures(_data(arguments, lot)[0].test_data, size, arguments.queries))
            found[f"lot {lot}"] = round(mean_iou(model, others, LIGHTS["plain"]), 4)
        row["head" if head else "vote"] = found
        model.model.head = network
    give_line(row, arguments.log)


def fitted(data: Any, size: tuple[int, int], seed: int) -> Any:
    """Return `AOISSLRetrieval` with its defaults, fitted to a datamodule that is set up."""
    model = AOISSLRetrieval(image_size=size, visualizer=False, seed=seed)
    fit(model, data)
    return model.eval()


def fit(model: Any, data: Any) -> None:
    """Fit a model to a datamodule that is set up."""
    quiet: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    with tempfile.TemporaryDirectory() as folder:
        Engine(**quiet, logger=False, limit_val_batches=0, default_root_dir=folder).fit(model, datamodule=data)


@torch.no_grad()
def mean_iou(model: Any, shown: list[tuple[torch.Tensor, torch.Tensor]], light: Light) -> float:
    """Return the mean IoU, pixels pooled, under a light."""
    metric = MulticlassJaccardIndex(len(model.class_names), ignore_index=IGNORE_INDEX, average="none")
    for image, mask in shown:
        metric.update(model.model(model.pre_processor.see(light(image).clamp(0, 1))).pred_mask[:, 0].long(), mask)
    return over_seen(metric)


def over_seen(metric: MulticlassJaccardIndex) -> float:
    """Return the mean IoU of a metric over the classes that occur."""
    seen = metric.confmat.sum(0) + metric.confmat.sum(1) > 0
    return float(metric.compute()[seen].mean())


def noticed(model: Any, shown: list[tuple[torch.Tensor, torch.Tensor]], light: Light) -> float:
    """Return the share of images that are called unlike the labelled ones."""
    quality = replace(model.labelled_quality, size=None)  # images have the model's size already
    faults = [quality.fault(light(image).clamp(0, 1)[0].numpy()) for image, _ in shown]
    return round(sum(map(bool, faults)) / len(faults), 3)


def pictures(dataset: Any, size: tuple[int, int], limit: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Give test images ``[1, C, H, W]`` in [0, 1] and masks ``[1, H, W]`` at the model's size."""
    step = max(len(dataset) // limit, 1)
    for index in range(0, min(len(dataset), step * limit), step):
        item = dataset[index]
        image = torch.as_tensor(item.image)[None].as_subclass(torch.Tensor)
        mask = torch.as_tensor(item.gt_mask)[None, None].as_subclass(torch.Tensor).float()
        image = functional.interpolate(image, size, mode="bilinear", antialias=True, align_corners=False)
        yield image.clamp(0, 1), functional.interpolate(mask, size, mode="nearest-exact")[0].long()


def _data(arguments: argparse.Namespace, lot: int) -> tuple[Any, tuple[int, int]]:
    """Return the datamodule and the model's (height, width)."""
    name, *parts = arguments.set.split(":")
    if name != "wirebond":
        return folder_data(arguments.set, arguments.root, arguments.shots, arguments.seed)
    numbers = {"lot": lot, "images_per_device": 28, "test_ratio": 0.25}
    data = WireBond(arguments.drawn, devices=parts, **numbers, **shared_arguments(arguments.shots, arguments.seed))
    return ready(data), (512, 512)


def folder_data(name: str, root: Path, shots: int, seed: int) -> tuple[Any, tuple[int, int]]:
    """Return the datamodule of a set name:train_device:test_device:HxW, and the model's (height, width)."""
    name, train, test, size = name.split(":")
    devices = {key: [value] for key, value in (("train_devices", train), ("test_devices", test)) if value}
    height, width = (int(side) for side in size.split("x"))
    return ready(SegmentationFolder(root / name, **devices, **shared_arguments(shots, seed))), (height, width)


def shared_arguments(shots: int, seed: int) -> dict[str, Any]:
    """Return the arguments of every datamodule."""
    return {"seed": seed, "val_ratio": 0.0, "num_workers": 0, "shots": shots}


def ready(data: Any) -> Any:
    """Return the datamodule, set up."""
    data.prepare_data()
    data.setup(TrainerFn.FITTING)
    return data


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="Mean IoU under other lights.")
    parser.add_argument("set")
    parser.add_argument("shots", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--root", type=Path, default=Path("../shared/data"))
    parser.add_argument("--drawn", type=Path, default=Path("datasets/WireBond"), help="where WireBond is drawn")
    parser.add_argument("--votes", action="store_true", help="the vote alone under each light too")
    parser.add_argument("--faults", action="store_true", help="pictures that are faulty too")
    parser.add_argument("--lots", type=int, default=0, help="other lots of WireBond, from 1 on")
    parser.add_argument("--queries", type=int, default=1000, help="test images, at most")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--log", type=Path, default=None)
    return parser


if __name__ == "__main__":
    main()
