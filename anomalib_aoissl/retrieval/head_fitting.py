# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The pixel head of a retrieval model: fitted to the training images, and again after an edit of the bank."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from anomalib_aoissl.deployment.abstaining import uncertainty_of
from anomalib_aoissl.matching.searching import search
from anomalib_aoissl.models.preprocessing import resize_of
from anomalib_aoissl.models.tiles import head_tiles
from anomalib_aoissl.pixel_head.filters import filter_counts
from anomalib_aoissl.pixel_head.head import PixelHead
from anomalib_aoissl.pixel_head.learning.describing import pixel_counts, said_counts, warn_of_confusion
from anomalib_aoissl.pixel_head.learning.labelled import MOST_IMAGES, LabelledImage, Reader, View, effort
from anomalib_aoissl.pixel_head.learning.sample import PixelSample, classes_of_one_fold, evenly_taken, joined_pixels
from anomalib_aoissl.pixel_head.learning.stages import Stages, left_out_probabilities, refitted
from anomalib_aoissl.pixel_head.learning.training import HeadFit, fit_head, sample_more

from .torch_model import RetrievalModel

if TYPE_CHECKING:
    from anomalib_aoissl.data.items import SegmentationBatch
    from anomalib_aoissl.models.protocols import LabelledLoader, Sees

    from .lightning_model import AOISSLRetrieval
    from .model_editing import BankEditingMixin

logger = logging.getLogger(__name__)


def fit_to_training_images(module: AOISSLRetrieval) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Fit the head of `AOISSLRetrieval` to its training images; return what `unseen_uncertainty` says of their pixels.

    Of many images it is fitted to some, evenly taken; all of them fill the bank.
    In several processes each fits the same head. Where there is nothing to fit to, the bank votes alone, with a
    warning, and the result is None.
    """
    model: RetrievalModel = module.model
    loader: LabelledLoader = module.trainer.train_dataloader  # type: ignore[assignment] # there in a fit
    indices = evenly_taken(len(loader.dataset), MOST_IMAGES)
    images = list(_labelled(module, DataLoader(Subset(loader.dataset, indices), collate_fn=loader.collate_fn)))
    counts = pixel_counts(images, len(module.class_names))
    shown = counts.nonzero().flatten().tolist()
    missing = [name for index, name in enumerate(module.class_names) if index not in shown]
    if len(shown) < 2:
        logger.warning(
            "The labelled images show one class only, %s: there is nothing to tell apart. No pixel head is fitted, "
            "and the memory bank votes alone. Label an image that shows another class too.",
            [module.class_names[index] for index in shown],
        )
        return None
    if missing:
        logger.warning("No labelled pixel shows %s: no mask will. Label an image that does.", missing)
    logger.info(
        "Fitting the pixel head to %d labelled images. Their pixels: %s.",
        len(images),
        said_counts(counts, module.class_names),
    )
    done = fit(model, images, module.pre_processor, len(module.class_names), module.hparams["seed"])
    warn_of_confusion(done.confusion, module.class_names)
    if alone := classes_of_one_fold(done.sample):
        logger.info(
            "Too few labelled images show %s: the pixel head has no autocontext, and no offsets of the classes. Label "
            "more images that show it.",
            [module.class_names[index] for index in alone],
        )
    return unseen_uncertainty(done.sample, done.sure)


def fit(model: RetrievalModel, images: list[LabelledImage], pre_processor: Sees, classes: int, seed: int) -> HeadFit:
    """Fit the model's head to labelled images, keep their pixels in its bank, and return what the fit leaves."""
    fitted = PixelHead()  # on the CPU, where it is fitted
    done = fit_head(fitted, images, classes, reader_of(model, pre_processor, seed))
    own_head(model).take(fitted)
    model.bank.pixels = done.sample.every(effort(len(images)))
    return done


def reader_of(model: RetrievalModel, pre_processor: Sees, seed: int) -> Reader:
    """Return how a fit of the model's head reads images."""
    readings = _Readings(model)
    return Reader(pre_processor.see, readings.tokens, readings.novelty, seed, model.varied)


def fit_on(
    module: BankEditingMixin, images: torch.Tensor, masks: torch.Tensor, devices: list[str], names: list[str]
) -> None:
    """Fit the head of `AOISSLRetrieval` to labelled images whose patches its bank has; the first ones make it.

    Args:
        module: The model.
        images: ``[B, C, H, W]`` in [0, 1].
        masks: ``[B, h, w]`` class indices of the model's size.
        devices: Device of each image.
        names: Name of each image.
    """
    model, bank = module.model, module.model.bank
    images, masks = images.cpu(), masks.cpu()
    if module.tiling is None:
        images = resize_of(module.pre_processor)(images)
    labelled: list[LabelledImage] = []
    for image, mask, device, name in zip(images.clamp(0, 1), masks, devices, names, strict=True):
        if name in bank.image_names:
            ids = bank.device_names.index(device), bank.image_names.index(name)
            labelled += _parts(module, image, mask, ids, len(images))
    classes, seed = len(module.class_names), module.hparams["seed"]
    if model.has_fitted_head and bank.pixels is not None:
        known = PixelHead()  # on the CPU, where samples are made
        known.take(own_head(model))
        new = sample_more(known, labelled, reader_of(model, module.pre_processor, seed))
        bank.pixels = joined_pixels(bank.pixels, new)
        refit(model, classes, seed)
    elif pixel_counts(labelled, classes).count_nonzero() > 1:
        fit(model, labelled, module.pre_processor, classes, seed)


def refit(model: RetrievalModel, classes: int, seed: int) -> None:
    """Fit the model's networks on to the labelled pixels that its bank has now."""
    head, pixels = model.head, model.bank.pixels
    if head is None or not head.fitted or pixels is None:
        return
    shown = len(np.unique(pixels.labels))
    if shown < 2:
        logger.warning(
            "The pixel head is not fitted again: the bank has labelled pixels of %d class(es), 2 are needed.", shown
        )
        return
    stages = refitted(stages_of(model), pixels, classes, seed)
    head.set_networks(stages.first, stages.second)
    head.offsets = torch.from_numpy(stages.offsets).to(head.mean.device)


def stages_of(model: RetrievalModel) -> Stages:
    """Return the networks of a model's fitted head as arrays."""
    head = own_head(model)
    fine = filter_counts(model.encoder.in_channels)[0]
    networks, offsets = (head.layers("first"), head.layers("second")), head.offsets.cpu().numpy()
    return Stages(*networks, offsets, fine, head.directions.shape[1])


def own_head(model: RetrievalModel) -> PixelHead:
    """Return the head of a model that has one."""
    assert model.head is not None  # noqa: S101 - for the type checker; asked of models with a head
    return model.head


def left_out(model: RetrievalModel, sample: PixelSample) -> np.ndarray:
    """Return how sure ``[N]`` networks are of pixels of images that they were not fitted to."""
    return left_out_probabilities(stages_of(model), sample).max(axis=1)


def unseen_uncertainty(sample: PixelSample, sure: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the uncertainty ``[N]`` of pixels whose novelty is known, and how many pixels each stands for.

    Args:
        sample: Labelled pixels.
        sure: ``[N]``, probability of the class that each was given by a network that was not fitted to its image.
    """
    known = np.isfinite(sample.novelty)
    share, novelty, weights = (torch.from_numpy(values[known]) for values in (sure, sample.novelty, sample.weights))
    return uncertainty_of(share.float(), novelty), weights.round().long()


class _Readings:
    """Views as the encoder reads them, once: tokens for the head, embeddings for their novelty."""

    def __init__(self, model: RetrievalModel) -> None:
        self.model = model
        self.embeddings: dict[int, torch.Tensor] = {}  # [P, D], by the identity of the image that was read

    def tokens(self, seen: torch.Tensor) -> torch.Tensor:
        """Return the tokens, on the CPU, of an image ``[1, C, H, W]``; it must live until its novelty is asked for."""
        reading = self.model.read(seen.to(self.model.bank.embeddings.device))
        self.embeddings[id(seen)] = reading.embeddings[0]
        return reading.tokens.cpu()

    def novelty(self, view: View) -> np.ndarray:
        """Return the novelty ``[N]`` of a view's points; NaN where there is no other image, or under another light."""
        model, bank, queries = self.model, self.model.bank, self.embeddings.pop(id(view.image))
        others = bank.image_ids != view.source.name
        if not view.plain or not bool(others.any()):
            return np.full(len(view.points), np.nan, np.float32)
        nearest = search(queries, bank.embeddings[others], 1)[0][:, 0].reshape(1, 1, *model.grid_size)
        maps = model.enlarged(model.novelty(nearest))
        values: np.ndarray = maps[0, 0].cpu()[view.points[:, 0], view.points[:, 1]].numpy()
        return values


def _labelled(module: AOISSLRetrieval, loader: DataLoader[SegmentationBatch]) -> Iterator[LabelledImage]:
    """Give the loader's images that have labelled pixels, at the model's size."""
    bank = module.model.bank
    for batch in loader:
        image, mask = batch.image, batch.gt_mask
        if module.tiling is None:
            image, mask = resize_of(module.pre_processor)(image, mask)
        name, device = (batch.image_path or [""])[0], (batch.device_name or [""])[0]
        if name in bank.image_names:  # else every pixel is ignored
            mask = mask.as_subclass(torch.Tensor)[0].to(torch.uint8)
            ids = bank.device_names.index(device), bank.image_names.index(name)
            yield from _parts(module, image.as_subclass(torch.Tensor)[0].clamp(0, 1), mask, ids, len(loader))


def _parts(
    module: BankEditingMixin, image: torch.Tensor, mask: torch.Tensor, ids: tuple[int, int], images: int
) -> list[LabelledImage]:
    """Return an image ``[C, H, W]``, one of so many, with its mask ``[H, W]`` as the head reads it: whole, or tiles."""
    if module.tiling is None:
        return [LabelledImage(image[None], mask, *ids)]
    return head_tiles(image, mask, module.tiling, ids, -(-MOST_IMAGES // images))
