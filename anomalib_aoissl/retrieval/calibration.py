# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the threshold of abstention is calibrated on where there are no validation images: the labelled ones."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, Subset

from anomalib_aoissl.data.indices import IGNORE_INDEX
from anomalib_aoissl.deployment.abstaining import uncertainty_of
from anomalib_aoissl.matching.searching import search
from anomalib_aoissl.models.tiles import labelled_tiles
from anomalib_aoissl.pixel_head.learning.sample import evenly_taken

from .head_fitting import left_out, unseen_uncertainty
from .memory.memory_bank import MemoryBank
from .torch_model import RetrievalModel

if TYPE_CHECKING:
    from anomalib_aoissl.models.protocols import LabelledLoader

    from .lightning_model import AOISSLRetrieval

logger = logging.getLogger(__name__)

CALIBRATION_IMAGES = 32
"""Labelled images at most that are embedded once more for the calibration."""

_CHUNK = 1024  # bank entries that are searched at once


def without_images(model: RetrievalModel, images: Iterable[str]) -> RetrievalModel:
    """Return a view of the model, without its head, in whose bank no entry is of these images; the rest is shared.

    It is searched exactly: an index would have to be built for each view.
    """
    content, names = model.bank.content(), set(images)
    ids = [index for index, name in enumerate(content.image_names) if name in names]
    kept = ~np.isin(content.entries["image_ids"], ids)
    bank = MemoryBank(model.bank.embeddings.shape[1], model.bank.patch_size).to(model.bank.embeddings.device)
    bank.take(replace(content, entries={name: array[kept] for name, array in content.entries.items()}))
    view = copy.copy(model)
    view._modules = {**model._modules, "bank": bank, "head": None}
    view.search = search
    return view


@torch.no_grad()
def ask_of_others(model: RetrievalModel, image: torch.Tensor, mask: torch.Tensor, name: str) -> None:
    """Add a labelled image to the calibration, searched in the entries of all other images; nothing without others.

    Its patches are those of the image, not the entries that they became: those have been condensed.

    Args:
        model: Model with a finished bank.
        image: ``[1, C, H, W]``, normalised.
        mask: ``[H, W]``, its classes; 255 does not count.
        name: Its name in the bank.
    """
    view = without_images(model, [name])
    if len(view.bank):
        uncertainty = view.uncertainty(*view.answer(image))[0, 0]
        model.abstention.add(uncertainty[mask != IGNORE_INDEX])


def calibrate_on_labelled_images(module: AOISSLRetrieval) -> None:
    """Calibrate on up to `CALIBRATION_IMAGES` labelled images of a fit that ends, each asked of all others.

    They are evenly taken. Each rank has its share of them, and all have the sum.

    Args:
        module: `AOISSLRetrieval` in the hands of its trainer, with a finished bank and no calibration.
    """
    trainer = module.trainer
    model, processor = module.model, module.pre_processor
    loader: LabelledLoader = trainer.train_dataloader  # type: ignore[assignment] # there in a fit
    indices = evenly_taken(len(loader.dataset), CALIBRATION_IMAGES)
    logger.info("Calibrating abstention: %d labelled images are asked of each other.", len(indices))
    share = Subset(loader.dataset, indices[trainer.global_rank :: trainer.world_size])
    for index, one in enumerate(DataLoader(share, batch_size=1, collate_fn=loader.collate_fn)):
        batch = trainer.strategy.batch_to_device(one, module.device)
        processor.on_validation_batch_start(trainer, module, batch, index)
        name, tiling = (batch.image_path or [""])[0], module.tiling
        parts = [(batch.image, batch.gt_mask)]
        if tiling is not None:
            parts = [part[1:] for part in labelled_tiles(batch.image[0], batch.gt_mask[0], tiling, CALIBRATION_IMAGES)]
        for image, mask in parts:
            ask_of_others(model, image, mask[0], name)
    sum_over_ranks(module)


def sum_over_ranks(module: AOISSLRetrieval) -> None:
    """Make the calibration of `AOISSLRetrieval` in the hands of its trainer that of all ranks."""
    abstention = module.model.abstention
    abstention.pixels = module.trainer.strategy.reduce(abstention.pixels, reduce_op="sum")


@torch.no_grad()
def calibrate_on_bank(model: RetrievalModel) -> None:
    """Calibrate the model on its bank, one image left out at a time.

    The patches of each image are asked of the entries of all other images; an entry that stands for n patches counts n
    times. With a pixel head it is the head's labelled pixels that count, each predicted by a network that was fitted to
    other images. With fewer than two images there is no calibration any more.
    """
    bank = model.bank
    model.abstention.clear()
    if model.has_fitted_head and bank.pixels is not None:
        if len(np.unique(bank.pixels.image_ids)) > 1:
            model.abstention.add(*unseen_uncertainty(bank.pixels, left_out(model, bank.pixels)))
        return
    counts, images = bank.entry_counts(), bank.image_ids.unique().tolist()
    if len(images) < 2:
        return
    for image in images:
        view = without_images(model, [bank.image_names[image]])
        entries = (bank.image_ids == image).nonzero().squeeze(1)
        for part in entries.split(_CHUNK):
            queries = functional.normalize(bank.embeddings[part].float(), dim=-1)
            similarities, neighbours, weights = view.vote(queries)
            votes = view.class_votes(weights, neighbours)  # [n, C, L]
            share = votes.amax(dim=1) / votes.sum(dim=1).clamp(min=1e-9)
            uncertainty = uncertainty_of(share, 1.0 - similarities[:, :1])  # [n, L]
            counted = bank.labels[part] != IGNORE_INDEX
            model.abstention.add(uncertainty[counted], counts[part, None].expand_as(uncertainty)[counted])


def warn_of_no_calibration(model: RetrievalModel) -> None:
    """Warn where the model could not be calibrated, so that it abstains from nothing."""
    if not model.abstention.calibrated:
        logger.warning(
            "abstain=%s has no effect: there are no validation images, and %d labelled image(s) in the bank, where "
            "2 are needed to ask one of the other. Give the data validation images (--data.val_ratio, "
            "--data.val_devices) or another labelled image.",
            model.abstention.share,
            len(model.bank.image_ids.unique()),
        )
