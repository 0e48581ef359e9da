# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The torch side of the gate: the trained model's own answers, and pictures of the user's data to ask for them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from anomalib_aoissl.data.finding.rarest import rarest_part
from anomalib_aoissl.deployment.gate import LIMITS, GateReport, Limits, Sample, judge
from anomalib_aoissl.deployment.runners import OUTPUTS, NamedRunner, Runner
from anomalib_aoissl.plugin.export.options import ExportData, export_options

if TYPE_CHECKING:
    from ..protocols import SegmentationModule

logger = logging.getLogger(__name__)

_DRAWN_SIZE = (240, 320)  # px; not that of a model
_TILES_ACROSS = 1.25
"""Sides of a picture, of those of a tile: there are four tiles, which overlap. Larger ones would take minutes each."""
_DRAWN_SEED = 29

_UNCERTAINTY = 0.01
"""Limit of the map of an uncompressed model without a bank, an uncertainty: it turns over where two classes meet, and
there the last digits of 32 bits change it by some 0.0005."""


@dataclass(frozen=True)
class Gate:
    """The comparison of an export with the model that it was made of.

    Attributes:
        module: The trained model.
        sample: Pictures that are compared; None for no comparison.
        compression: Name of the compression; empty for none.
        limits: What is asked of the compressed model.
    """

    module: SegmentationModule
    sample: Sample | None
    compression: str
    limits: Limits

    @classmethod
    def of(
        cls,
        module: SegmentationModule,
        datamodule: ExportData | None = None,
        compression: str = "",
        max_drop: float = 0.01,
    ) -> Gate:
        """Return the gate that the running export asks for.

        Raises:
            ValueError: If the datamodule has no pictures, or pictures of other planes than the model's.
        """
        options, limits = export_options(), _limits_of(module, compression)
        if compression == "int8_acq":
            limits = replace(limits, iou_drop=max(max_drop, limits.iou_drop or 0.0))
        datamodule = datamodule or options.datamodule
        if not options.gate:
            return cls(module, None, compression, limits)
        height, width = (max(int(_TILES_ACROSS * side), 32) for side in module.input_size)
        few_tiles = None if module.tiling is None else (height, width)
        if datamodule is None:
            pictures = drawn_pictures(options.gate, module.hparams["in_channels"], few_tiles or _DRAWN_SIZE)
            return cls(module, Sample(pictures, "the drawn set WireBond (no --data given)"), compression, limits)
        sample = pictures_to_compare(datamodule, options.gate, module.class_names, few_tiles)
        for image in sample.images:
            module._check_planes(image.shape[0], f"a picture of {sample.source}")
        return cls(module, sample, compression, limits)

    def run(self, others: Mapping[str, Callable[[], Runner]]) -> GateReport | None:
        """Return the result, which is passed; None where nothing is compared.

        Args:
            others: Makes each runner that is compared with the module, by name.

        Raises:
            GateError: If one of them answers otherwise.
        """
        if self.sample is None:
            return None
        count, source = len(self.sample.images), self.sample.source
        logger.info("Gate: comparing %s on %d pictures of %s.", ", ".join(others), count, source)
        runners: dict[str, Runner] = {"torch": torch_runner(self.module)}
        runners.update({name: make() for name, make in others.items()})
        report = judge(runners, self.sample, self.limits, self.compression, _limits_of(self.module, ""))
        report.check()
        logger.info("Gate passed: %s.", report.summary())
        return report


def torch_runner(module: SegmentationModule) -> NamedRunner:
    """Return a runner of a model as torch computes it."""
    module = module.eval()

    def answer(images: np.ndarray) -> dict[str, np.ndarray]:
        if getattr(module, "tiling", None) is not None and len(images) > 1:  # pictures in tiles come one by one
            parts = [answer(image[np.newaxis]) for image in images]
            return {name: np.concatenate([part[name] for part in parts]) for name in OUTPUTS}
        with torch.no_grad():
            outputs = module(torch.from_numpy(np.ascontiguousarray(images)).to(module.device))._asdict()
        return {name: outputs[name].cpu().numpy() for name in OUTPUTS}

    return NamedRunner(answer, f"torch {torch.__version__}")


def saved_torch_runner(path: Path) -> NamedRunner:
    """Return a runner of a file that anomalib's torch export wrote just now."""
    return torch_runner(torch.load(path, weights_only=False, map_location="cpu")["model"])


def _limits_of(module: SegmentationModule, compression: str) -> Limits:
    """Return the limits of a model; one without a bank is judged by its pixels alone where it is compressed."""
    limits = LIMITS.get(compression, LIMITS[""])
    if module.HAS_BANK:
        return limits
    return replace(limits, novelty=None if compression else _UNCERTAINTY)


def pictures_to_compare(
    datamodule: ExportData, count: int, class_names: tuple[str, ...], most: tuple[int, int] | None = None
) -> Sample:
    """Return pictures of a datamodule, evenly over its test images, else its validation or training images.

    Args:
        datamodule: The datamodule.
        count: Pictures at most.
        class_names: Names of the model's classes; masks of others are left out.
        most: (height, width) px of a picture at most, of a larger one a part that shows its rarest class; the source
            then says so. None for whole pictures.

    Raises:
        ValueError: If it has none.
    """
    datamodule.prepare_data()
    datamodule.setup("fit")
    name = getattr(datamodule, "name", type(datamodule).__name__)
    for kind, attribute in {"test": "test_data", "validation": "val_data", "training": "train_data"}.items():
        data = getattr(datamodule, attribute, None)
        if data is None or not len(data):
            continue
        images, masks, parted, source = [], [], False, f"{name} ({kind})"
        for index in np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int):
            item = data[index]
            image, size = np.asarray(item.image), item.image.shape[-2:]
            mask = None if item.gt_mask is None else np.asarray(item.gt_mask).reshape(size)
            rows, columns = rarest_part(size, mask, size if most is None else most)
            images.append(image[:, rows, columns].copy())
            parted |= images[-1].shape != image.shape
            masks += [] if mask is None else [mask[rows, columns].copy()]
        if most is not None and parted:
            source = f"{source}, parts of {most[0]}x{most[1]} px (height x width)"
        labelled = len(masks) == len(images) and tuple(getattr(data, "class_names", ())) == tuple(class_names)
        return Sample(images, source, masks if labelled else [])
    msg = f"{type(datamodule).__name__} has no pictures to compare the export on. Give other data, or --gate off."
    raise ValueError(msg)


def drawn_pictures(count: int, planes: int, size: tuple[int, int] = _DRAWN_SIZE) -> list[np.ndarray]:
    """Return drawn pictures ``[planes, H, W]`` in [0, 1] of several devices."""
    from anomalib_aoissl.wirebond.drawing import DEVICES, draw

    names = sorted(DEVICES)
    pictures = []
    for index in range(count):
        device = DEVICES[names[index * len(names) // count % len(names)]]
        drawing = draw(device, seed=_DRAWN_SEED, unit=index, size=size)
        channels = np.stack([drawing.bright_field, drawing.dark_field])
        pictures.append(channels[np.arange(planes) % len(channels)].astype(np.float32) / 255)
    return pictures
