# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Editing of a model's memory bank, and its export as one that stays editable; mixed into `AOISSLRetrieval`."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from anomalib_aoissl.bank.content import BankArrays
from anomalib_aoissl.deployment.graph.bank import (
    BankSettings,
    NotEditableError,
    pack_description,
    with_bank,
    without_bank,
)
from anomalib_aoissl.deployment.graph.head import HeadContent
from anomalib_aoissl.encoder.base import Encoder
from anomalib_aoissl.models.export.quantizing import compression_name
from anomalib_aoissl.models.preprocessing import light_kind, resize_masks
from anomalib_aoissl.models.tiles import labelled_tiles
from anomalib_aoissl.pixel_head.learning.labelled import PIXELS

from .head_fitting import fit_on, own_head, refit, stages_of
from .memory.checkpoint_bank import check_dims, load_content
from .memory.memory_bank import MemoryBank

if TYPE_CHECKING:
    import openvino

    from anomalib_aoissl.data.quality.picture_quality import LabelledQuality
    from anomalib_aoissl.models.module import SegmentationModuleMixin as _Base

    from .torch_model import RetrievalModel
else:
    _Base = object  # mixed in before AnomalibModule, whose direct child the model must be

logger = logging.getLogger(__name__)


class BankEditingMixin(_Base):
    """The memory bank's edits as methods of the model, and exports that hold the bank as named constants."""

    model: RetrievalModel
    _quality_before: LabelledQuality | None = None  # the last edit, for undo
    EXPORTED_CONSTANTS: ClassVar[Mapping[str, str]] = {"model.bank.": "bank."}

    def add(
        self, images: torch.Tensor, masks: torch.Tensor, devices: Sequence[str], names: Sequence[str] | None = None
    ) -> None:
        """Learn labelled images: put their patches into the bank, condensed where it has a size.

        Args:
            images: ``[B, C, H, W]`` in [0, 1], of any size.
            masks: ``[B, H, W]`` uint8 class indices, 255 = ignore.
            devices: Device of each image.
            names: Name of each image, such as its path.

        Raises:
            ValueError: If sizes or numbers differ, or a mask has an index without a class.
        """
        if images.shape[-2:] != masks.shape[-2:] or not len(images) == len(masks) == len(devices):
            msg = (
                f"Images {list(images.shape)}, masks {list(masks.shape)} and {len(devices)} devices do not belong "
                "together: give images [B, C, H, W], masks [B, H, W] and B names of devices."
            )
            raise ValueError(msg)
        classes = len(self.class_names)
        if not classes:
            msg = "The model knows no classes yet: train it or load a checkpoint first, or call set_dataset."
            raise ValueError(msg)
        if bool(((masks >= classes) & (masks != 255)).any()):
            msg = f"A mask has the index {int(masks[masks != 255].max())}; the classes are {list(self.class_names)}."
            raise ValueError(msg)
        if not bool(torch.isfinite(images).all()):
            msg = "An image holds NaN or infinity; give images in [0, 1]."
            raise ValueError(msg)
        if self.tiling is None:
            masks = resize_masks(masks, self.input_size)
        bank = self._bank()
        names = list(names or [""] * len(images))
        self.fill(self._seen(images), masks, list(devices), names)
        bank.finish()
        self._quality_before = self.labelled_quality
        if self.labelled_quality is not None:
            for name, image in zip(names, images.cpu().numpy(), strict=True):
                self.labelled_quality = self.labelled_quality.with_picture(name, image)
        if self.model.head is not None:
            fit_on(self, images, masks, list(devices), names)

    def fill(self, images: torch.Tensor, masks: torch.Tensor, devices: list[str], names: list[str]) -> None:
        """Put normalised labelled images ``[B, C, H, W]`` aside for the bank, in tiles where the model has them."""
        if self.tiling is None:
            self.model.fill(images, masks, devices, names)
            return
        for image, mask, device, name in zip(images, masks, devices, names, strict=True):
            for tile, part, labels in labelled_tiles(image, mask, self.tiling):
                self.model.fill(part, labels, [device], [name], tile.index)

    def remove(self, *, device: str | None = None, image: str | None = None, refit: bool = True) -> int:
        """Take the entries of a device or an image out of the bank and return how many, as `MemoryBank.remove`.

        A pixel head is fitted again without their pixels, unless ``refit`` is false.
        """
        removed = self._bank().remove(device=device, image=image)
        self._quality_before = self.labelled_quality
        if self.labelled_quality is not None:
            self.labelled_quality = self.labelled_quality.among(self.model.bank.image_names)
        if refit:
            self._refit()
        return removed

    def merge(self, bank: MemoryBank | BankArrays | str | Path) -> None:
        """Add the entries of another bank, a bank file's or a checkpoint's; its classes are mapped by name.

        Raises:
            ValueError: If the file cannot be used, the bank is of another encoder, or has classes that this has not.
        """
        own = self._bank()
        own.merge(load_content(bank, own.encoder_hash) if isinstance(bank, str | Path) else bank)
        self._quality_before = self.labelled_quality
        self.labelled_quality = None  # that of the other bank's pictures is not known
        self._refit()

    def undo(self) -> None:
        """Bring back what the bank held before the last edit; only that one is kept. A pixel head is fitted again.

        Raises:
            RuntimeError: If there is nothing to bring back.
        """
        self._bank().undo()
        self.labelled_quality = self._quality_before
        self._refit()

    def _refit(self) -> None:
        """Fit the pixel head on to the labelled pixels that the bank has now."""
        refit(self.model, len(self.class_names), self.hparams["seed"])

    def describe(self) -> dict[str, Any]:
        """Return what the bank holds: entries, patches, megabytes, encoder; entries of devices, images and classes."""
        return self._bank().describe()

    def seen_by(self) -> str:
        """Return the `encoder_hash` of what makes embeddings: the encoder, how light is seen, the level of the vote."""
        light = light_kind(self.pre_processor)
        return encoder_hash(self.model.encoder, {"light": light, **self.model.embedding_options})

    def _bank(self) -> MemoryBank:
        """Return the bank, which knows the model's classes and encoder."""
        bank: MemoryBank = self.model.bank
        bank.class_names = bank.class_names or list(self.class_names)
        bank.encoder_hash = bank.encoder_hash or self.seen_by()
        return bank

    # --- export ------------------------------------------------------------------------------------------------------

    def export_metadata(self) -> dict[str, Any]:
        """Return the plain data that an exported model carries: class names, file format, and the bank's origin."""
        bank = self._bank().content()
        return {**super().export_metadata(), "bank": pack_description(bank, self._settings(), self._head())}

    def _settings(self) -> BankSettings:
        """Return what an edit of the export must know beside the bank."""
        model = self.model
        sizes = model.encoder.image_size, model.bank.patch_size
        vote, seed = model.vote_options, self.hparams["seed"]
        return BankSettings(vote.k, *sizes, model.bank.budget, seed, vote.aggregation, vote.temperature)

    def _head(self) -> HeadContent | None:
        """Return the pixel head for an export; None where the bank alone decides the classes."""
        model = self.model
        if not model.has_fitted_head:
            return None
        head, pixels = own_head(model), model.bank.pixels
        images = 1 if pixels is None else max(len(np.unique(pixels.image_ids)), 1)
        each = PIXELS // images if pixels is None else len(pixels) // images
        mean, scale = head.mean.cpu().numpy(), head.scale.cpu().numpy()
        return HeadContent(stages_of(model), mean, scale, each, head.basis(), model.varied)

    def finished_export(self, model: openvino.Model, compression_type: object) -> openvino.Model:
        """Return the model with its bank in constants of stable names.

        Compression of the weights leaves the bank as it is, except that half precision halves its embeddings too.
        """
        bank = self._bank().content()
        if compression_name(compression_type) == "fp16":
            bank = _halved(bank)
        try:
            return with_bank(model, bank, self._head())
        except NotEditableError as error:
            logger.warning("The bank of this export cannot be edited. %s", error)
            return without_bank(model)

    # --- checkpoint --------------------------------------------------------------------------------------------------

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the model that the checkpoint was saved from, and take its bank.

        Raises:
            ValueError: If the checkpoint has no bank or an impossible one, or does not fit the arguments.
        """
        super().on_load_checkpoint(checkpoint)
        source = str(getattr(self._trainer, "ckpt_path", None) or "The checkpoint")
        check_dims(checkpoint, source, self.model.bank.embeddings.shape[1])


def encoder_hash(encoder: Encoder, options: Mapping[str, Any] | None = None) -> str:
    """Return 64 hexadecimal digits that tell encoders apart whose embeddings differ: weights, size, patch.

    Args:
        encoder: The encoder.
        options: What else decides the embeddings, a model's `embedding_options`.
    """
    digest = hashlib.sha256(json.dumps(encoder.signature).encode())
    digest.update(json.dumps([encoder.mean, encoder.std]).encode())
    if options:
        digest.update(json.dumps(dict(options), sort_keys=True).encode())
    for name, tensor in sorted(encoder.network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _halved(bank: BankArrays) -> BankArrays:
    """Return the bank with embeddings of half precision where they have more."""
    embeddings = bank.entries["embeddings"]
    if embeddings.dtype == np.float32:
        return replace(bank, entries={**bank.entries, "embeddings": embeddings.astype(np.float16)})
    return bank
