# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The start of training: the pixel head is fitted to the labelled images, and its left-out answers become examples."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms.v2 import Resize

from anomalib_aoissl.data.indices import IGNORE_INDEX
from anomalib_aoissl.models.preprocessing import resize_of
from anomalib_aoissl.models.tiles import head_tiles
from anomalib_aoissl.pixel_head.head import PixelHead
from anomalib_aoissl.pixel_head.learning.describing import pixel_counts, said_counts, warn_of_confusion
from anomalib_aoissl.pixel_head.learning.labelled import MOST_IMAGES, LabelledImage, Reader, View
from anomalib_aoissl.pixel_head.learning.sample import evenly_taken
from anomalib_aoissl.pixel_head.learning.training import HeadFit, fit_head, left_out_maps

from .examples import Example, Examples
from .torch_model import SegmenterModel, softened

if TYPE_CHECKING:
    from anomalib_aoissl.data.dataset import SegmentationDataset

    from .lightning_model import AOISSLSegmenter

logger = logging.getLogger(__name__)


def start_from_head(module: AOISSLSegmenter, dataset: SegmentationDataset) -> tuple[Examples, torch.Tensor]:
    """Fit the head of `AOISSLSegmenter` to a dataset; return the decoder's examples and the pixels ``[C]`` of classes.

    Raises:
        ValueError: If the labelled images show fewer than two classes, or hold values that are not finite.
    """
    model, names = module.model, list(module.class_names)
    _warn_of_augmentation(dataset)
    fitted_to = evenly_taken(len(dataset), MOST_IMAGES)  # the decoder learns from all
    most = -(-MOST_IMAGES // max(len(fitted_to), 1))
    images = [image for index in fitted_to for image in labelled_parts(module, dataset, index, most)]
    counts = pixel_counts(images, len(names))
    _check_classes(counts, names)
    said = said_counts(counts, names)
    logger.info("Fitting the pixel head to %d labelled images. Their pixels: %s.", len(images), said)
    reader = Reader(
        module.pre_processor.see,
        lambda seen: model.extract(seen.to(module.device)).cpu(),
        _no_novelty,
        module.hparams["seed"],
        module.view_options.variation,
    )
    head = PixelHead()  # stays on the CPU, where it is fitted
    fit = fit_head(head, images, len(names), reader)
    warn_of_confusion(fit.confusion, names)
    model.head.take(head)
    makers: dict[str, list[Callable[[], Example]]] = {}
    for view in fit.views:
        makers.setdefault(_name(dataset, view.source.name), []).append(partial(example_of, model, head, fit, view))
    for index in set(range(len(dataset))) - set(fitted_to):
        numbers = range(1 if module.tiling is None else most + 1)
        makers[_name(dataset, index)] = [partial(_unfitted_example, module, dataset, index, part) for part in numbers]
    step = module.global_step
    return Examples(makers, module.hparams["seed"], step=step, turned=module.view_options.turned), counts


def labelled_parts(module: AOISSLSegmenter, dataset: SegmentationDataset, index: int, most: int) -> list[LabelledImage]:
    """Return an image of a dataset as the model sees it, without augmentation; none where no pixel is labelled.

    At the model's size, or in tiles of its own resolution, so many at most.

    Raises:
        ValueError: If a value of the image is not finite; it names the image.
    """
    augmentation, dataset.augmentations = getattr(dataset, "augmentations", None), None
    try:
        item: Any = dataset[index]
    finally:
        dataset.augmentations = augmentation
    if item.gt_mask is None:
        return []
    if not bool(torch.isfinite(item.image).all()):
        msg = f"{_name(dataset, index)}: the image holds NaN or infinite values. Write it again, or leave it out."
        raise ValueError(msg)
    if module.tiling is not None:
        planes = item.image.as_subclass(torch.Tensor).clamp(0, 1)
        return head_tiles(planes, item.gt_mask.as_subclass(torch.Tensor), module.tiling, (0, index), most)
    resize = resize_of(module.pre_processor)
    image, mask = resize(tv_tensors.Image(item.image[None]), tv_tensors.Mask(item.gt_mask[None]))
    labels = mask.as_subclass(torch.Tensor)[0].to(torch.uint8)
    if not bool((labels != IGNORE_INDEX).any()):
        return []
    return [LabelledImage(image.as_subclass(torch.Tensor).clamp(0, 1), labels, 0, index)]


@torch.no_grad()
def example_of(model: SegmenterModel, head: PixelHead, fit: HeadFit, view: View) -> Example:
    """Return the example that a view of a fit makes; the head is on the CPU, as the fit is."""
    probabilities = softened(left_out_maps(head, fit, view))
    tokens = model.standardized(view.tokens.to(model.head.mean.device))
    assert model.decoder is not None  # noqa: S101 - for the type checker; made before the head is fitted
    mask = torch.from_numpy(np.ascontiguousarray(view.mask)).to(torch.uint8)
    return Example(view.image[0], probabilities[0], tokens[0, : model.decoder.tokens], mask)


@torch.no_grad()
def _unfitted_example(module: AOISSLSegmenter, dataset: SegmentationDataset, index: int, part: int) -> Example:
    """Return the example of an image that the head was not fitted to; all of it is ignored where it has no labels."""
    model, parts = module.model, labelled_parts(module, dataset, index, part + 1)
    labelled = parts[part % len(parts)] if parts else None
    if labelled is None:
        empty = torch.zeros(1, module.hparams["in_channels"], *module.input_size)
        labelled = LabelledImage(empty, torch.full(module.input_size, IGNORE_INDEX, dtype=torch.uint8), 0, index)
    whole = None if labelled.picture is None else labelled.picture.seen
    image = module.pre_processor.see(labelled.image, whole).to(module.device)
    tokens = model.extract(image)
    assert model.decoder is not None  # noqa: S101 - for the type checker; made before the head is fitted
    known = model.standardized(tokens)[0, : model.decoder.tokens]
    return Example(image[0], softened(model.head(image, tokens))[0], known, labelled.mask)


def _check_classes(counts: torch.Tensor, names: list[str]) -> None:
    """Validate that there are classes to tell apart, and warn of those that no image shows.

    Raises:
        ValueError: If the labelled images show fewer than two.
    """
    shown = [name for name, count in zip(names, counts.tolist(), strict=True) if count]
    if len(shown) < 2:
        msg = (
            f"The labelled images show {shown or 'no class'}; there is nothing to tell apart. Label an image that "
            f"shows another one of the classes {names}."
        )
        raise ValueError(msg)
    missing = [name for name in names if name not in shown]
    if missing:
        logger.warning("No image that the pixel head is fitted to shows %s: the model will hardly find it.", missing)


def _warn_of_augmentation(dataset: SegmentationDataset) -> None:
    """Say that augmentations of the data are not used; a resize alone is anomalib's."""
    given = getattr(dataset, "augmentations", None)
    if given is not None and not isinstance(given, Resize):
        logger.warning("The data's augmentations of training images are not used: the decoder draws its own views.")


def _no_novelty(view: View) -> np.ndarray:
    """Return NaN ``[N]`` for a view's points: there is no bank."""
    return np.full(len(view.points), np.nan, np.float32)


def _name(dataset: SegmentationDataset, index: int) -> str:
    """Return the path of an item, which names it in a batch."""
    return str(dataset.samples.image_path.iloc[index])
