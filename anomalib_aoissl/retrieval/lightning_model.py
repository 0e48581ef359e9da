# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""`AOISSLRetrieval`: masks of a new image read out of a memory bank of a few labelled ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule, MemoryBankMixin
from anomalib.visualization import Visualizer
from torch import nn

from anomalib_aoissl.abstaining import AbstentionFormat
from anomalib_aoissl.architecture import DEFAULT_ENCODER
from anomalib_aoissl.data.file_format import FileFormat
from anomalib_aoissl.data.indices import IGNORE_INDEX
from anomalib_aoissl.encoder import PatchEncoder
from anomalib_aoissl.module import SegmentationModuleMixin, plain_encoder, plain_pretraining, plain_size

from .aggregation import NEIGHBOURS, TEMPERATURE, check_class_names, plain_rules
from .bank_file import encoder_hash
from .bank_size import rows_of_size
from .calibration import calibrate_on_bank, calibrate_on_labelled_images, sum_over_ranks, warn_of_no_calibration
from .checkpoint_bank import load_content
from .context import context_weight, embedding_size
from .learning import SECONDS
from .memory_bank import MemoryBank
from .model_editing import BankEditingMixin
from .shifts import bank_grids
from .smoothing import SMOOTHING
from .torch_model import RetrievalModel
from .units import unit_size

logger = logging.getLogger(__name__)

DEFAULT_BANK_SIZE = 10000
"""Patches that a bank keeps where none is said. With the context of each, twice as many are no better, since learning
has no time for them, and take twice as long to search."""

_ANCHOR = "distributed_anchor"
"""Name of the parameter that a distributed strategy needs; nothing else has a gradient."""


class AOISSLRetrieval(BankEditingMixin, SegmentationModuleMixin, MemoryBankMixin, AnomalibModule):
    """Segmentation by retrieval: nothing is trained, a few labelled images fill a memory bank.

    A frozen vision transformer turns each patch of the labelled images into an embedding. The mask of a new image is
    the weighted vote of the k most similar patches, pixel by pixel; how dissimilar the nearest is, is the novelty.
    AOI-SSL, 2026, arXiv 2605.12430.

    Args:
        encoder: Vision transformer by its timm name: an architecture, ``local-dir:/path`` with the weights that
            pretraining wrote, or ``hf-hub:...``; or a mapping with ``architecture`` and ``model_args``.
        pretrained: Load the encoder's weights; false gives random ones.
        pretraining: Pretrain the encoder before the fit: "mae", "dino" or "ibot", or a mapping with ``objective`` and
            arguments of that callback; null for none.
        image_size: (height, width) that images are resized to, px; the encoder's patch size must divide both.
        in_channels: Planes of an image; 3 for colour and for one to three illuminations.
        blocks: Number of last encoder blocks to read, or their indices; the embeddings are concatenated.
        normalize: Apply the encoder's final layer norm to each block that is read.
        k: Neighbours that vote for a patch.
        temperature: Of the softmax over their cosine similarities; smaller follows the nearest more closely.
        aggregation: What a neighbour's vote weighs: "attention" (the softmax at the temperature), "similarity" (the
            cosine similarity) or "majority" (the same for all).
        labels: What neighbours vote for: "complete" (each pixel its own label) or "average" (the whole patch its
            classes' shares).
        class_temperatures: Temperature by class name, of votes for that class, in place of ``temperature``: a class of
            a higher one is heard from less similar patches. Attention only.
        class_thresholds: Share of a pixel's vote by class name, 0 to 1, that the class needs to win there; below it
            the next class wins that may, or else the background.
        retrieval: What is compared: "patches", or whole images by the mean of their patches ("images") or by their
            class token ("class_tokens"); the masks of the k nearest then vote pixel by pixel. Only for parts that lie
            at the same place in every image. An image takes the bytes of its mask, and bank_size counts images.
        bank_shifts: Patch grids of each labelled image that fill the bank: 1, 2 (also half a patch down and right) or
            4 (also each alone). They share ``bank_size``; each takes a pass of the encoder while the bank is filled.
            Null for 4 with up to 8 labelled images, 2 with up to 24, and 1 with more, where they give little.
        query_shifts: Patch grids of a new image, 1, 2 or 4, whose votes are averaged: finer masks for as many times
            the cost.
        smoothing: Times that the votes of a pixel are averaged with those of its neighbours, weights 1-2-1 in both
            directions: edges do not step where patches meet, and wrong single pixels go. 0 for never; not of
            "average" labels.
        position_directions: Directions along which the embeddings of images without content differ by place, which are
            taken out of all embeddings; 0 for none.
        context: Weight of the mean embedding of the 5x5 patches around each, which is compared beside its own, in twice
            the numbers; 0 for the patch alone, null for 0.6, or 0 where whole images are compared.
        search: How the bank is searched: "exact", or by FAISS (the extra ``faiss``): "faiss-flat", exact too, or
            "faiss-ivf", faster in banks that outgrow a matrix product, but it misses some neighbours. An export always
            searches exactly.
        bank: Bank file or checkpoint (``.ckpt``) whose bank the training images extend; it must be of the same encoder.
        bank_size: Patches that the bank keeps at most, or its megabytes such as "8MB"; null keeps every patch. A bank
            that is learned keeps at most a third of its patches.
        condensing: Which patches are kept: "balanced" (one of each group of patches that look and are labelled alike,
            more at boundaries and of rare classes), "learned" (those of "balanced", whose embeddings and labels are
            then changed by gradient descent so that the bank's vote gives the labelled patches their labels),
            "kcenter" (those that are farthest from each other; slow in a large bank) or "random".
        learning_seconds: Estimated CPU seconds that rows are learned for, by the rule "learned".
        bank_precision: What the bank's embeddings are stored in: "fp32", "fp16" for half the memory, or "int8" for a
            quarter.
        seed: Of what is random in condensing.
        abstain: Share of the validation pixels for which the model may say that it does not know, such as 0.05; null
            for a class for every pixel. The threshold is set in validation or, without validation images, on the
            labelled images, each asked of the rows of the others.
        pre_processor: Resizes and normalises; true for the encoder's own size and constants.
        post_processor: True for none.
        evaluator: True for mean IoU, IoU of each class, pixel accuracy, and risk against coverage.
        visualizer: True for pictures and class-index masks of tested and predicted images.

    Raises:
        ValueError: If the encoder cannot be made, the image size does not fit it, or an argument is out of its range;
            when the data's classes are known, if class_temperatures or class_thresholds name others.
        ModuleNotFoundError: If the search needs FAISS and it is not installed.
    """

    DEFAULTS: ClassVar[dict[str, Any]] = {
        "encoder": DEFAULT_ENCODER,
        "pretraining": None,
        "image_size": (512, 512),
        "in_channels": 3,
        "blocks": 1,
        "normalize": True,
        "k": NEIGHBOURS,
        "temperature": TEMPERATURE,
        "aggregation": "attention",
        "labels": "complete",
        "class_temperatures": None,
        "class_thresholds": None,
        "retrieval": "patches",
        "bank_shifts": None,
        "query_shifts": 1,
        "smoothing": SMOOTHING,
        "position_directions": 0,
        "context": None,
        "search": "exact",
        "bank": None,
        "bank_size": DEFAULT_BANK_SIZE,
        "condensing": "learned",
        "learning_seconds": SECONDS,
        "bank_precision": "fp32",
        "seed": 0,
        "abstain": None,
    }

    ENCODER_ARGUMENTS: ClassVar[tuple[str, ...]] = (
        *SegmentationModuleMixin.ENCODER_ARGUMENTS,
        "retrieval",
        "position_directions",
        "context",
    )

    _grids: int | None = None
    """Patch grids of each training image of this run, which are as many as pay for so many images."""

    BEFORE: ClassVar[dict[str, Any]] = {"context": 0.0}

    # The bank file's rows are in the checkpoint by the time it is saved.
    ONCE: ClassVar[dict[str, Any]] = {**SegmentationModuleMixin.ONCE, "bank": None}

    def __init__(
        self,
        encoder: str | dict[str, Any] = DEFAULT_ENCODER,
        pretrained: bool = True,
        pretraining: str | dict[str, Any] | None = None,
        image_size: tuple[int, int] | int = (512, 512),
        in_channels: int = 3,
        blocks: int | list[int] = 1,
        normalize: bool = True,
        k: int = NEIGHBOURS,
        temperature: float = TEMPERATURE,
        aggregation: str = "attention",
        labels: str = "complete",
        class_temperatures: dict[str, float] | None = None,
        class_thresholds: dict[str, float] | None = None,
        retrieval: str = "patches",
        bank_shifts: int | None = None,
        query_shifts: int = 1,
        smoothing: int = SMOOTHING,
        position_directions: int = 0,
        context: float | None = None,
        search: str = "exact",
        bank: Path | str | None = None,
        bank_size: int | str | None = DEFAULT_BANK_SIZE,
        condensing: str = "learned",
        learning_seconds: float = SECONDS,
        bank_precision: str = "fp32",
        seed: int = 0,
        abstain: float | None = None,
        pre_processor: nn.Module | bool = True,
        post_processor: nn.Module | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        # Plain values, since configuration objects among the saved arguments would not load with weights_only.
        encoder, image_size = plain_encoder(encoder), plain_size(image_size)
        pretraining, bank = plain_pretraining(pretraining), None if bank is None else str(bank)
        class_temperatures, class_thresholds = plain_rules(class_temperatures), plain_rules(class_thresholds)
        blocks = blocks if isinstance(blocks, int) else [int(block) for block in blocks]
        super().__init__(
            pre_processor=False if isinstance(pre_processor, bool) else pre_processor,
            post_processor=post_processor,
            evaluator=evaluator,
            visualizer=visualizer,
        )
        self.build_parts(pre_processor)

    def build_model(self) -> None:
        """Make the retrieval model with an empty bank."""
        h: Any = self.hparams
        encoder, context = self.build_encoder(), context_weight(h.context, h.retrieval)
        self.model: RetrievalModel = RetrievalModel(
            encoder,
            k=h.k,
            temperature=h.temperature,
            aggregation=h.aggregation,
            labels=h.labels,
            class_temperatures=h.class_temperatures,
            class_thresholds=h.class_thresholds,
            retrieval=h.retrieval,
            bank_shifts=bank_grids(h.bank_shifts, h.retrieval),
            query_shifts=h.query_shifts,
            smoothing=h.smoothing,
            position_directions=h.position_directions,
            context=context,
            search=h.search,
            bank=self._empty_bank(encoder, embedding_size(encoder, context)),
            abstain=h.abstain,
        )

    def _empty_bank(self, encoder: PatchEncoder, dims: int) -> MemoryBank:
        """Return the bank that ``self.hparams`` describe, for embeddings of so many dimensions."""
        h: Any = self.hparams
        unit = unit_size(encoder, h.retrieval)
        budget = rows_of_size(h.bank_size, dims, unit, h.bank_precision)
        return MemoryBank(
            dims,
            unit,
            budget=budget,
            rule=h.condensing,
            seed=h.seed,
            learning_seconds=h.learning_seconds,
            precision=h.bank_precision,
        )

    def set_dataset(self, class_names: Sequence[str], file_format: FileFormat) -> None:
        """Take the names of the classes and the way files are read to all parts that need them.

        Raises:
            ValueError: If the model already knows other classes, or has rules for a class that is not among them.
        """
        names = ("class_temperatures", "class_thresholds")
        check_class_names({name: getattr(self.model, name) for name in names}, class_names)
        super().set_dataset(class_names, file_format)

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """One pass over the labelled images; there is no gradient to clip."""
        return {"gradient_clip_val": 0, "max_epochs": 1, "num_sanity_val_steps": 0}

    def setup(self, stage: str) -> None:
        """Have something to train where several processes fill the bank: no distributed strategy runs without.

        The parameter is gone after the fit and in no checkpoint.
        """
        if stage == "fit" and self.trainer.world_size > 1:
            self.register_parameter(_ANCHOR, nn.Parameter(torch.zeros((), device=self.device)))

    def teardown(self, stage: str) -> None:
        """Remove what `setup` made."""
        self._parameters.pop(_ANCHOR, None)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what the model needs to be built again."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["state_dict"].pop(_ANCHOR, None)

    @staticmethod
    def configure_optimizers() -> None:
        """Return no optimiser: nothing is trained."""
        return

    def on_train_start(self) -> None:
        """Empty the bank for the labelled images of this run, or take the bank file that they extend.

        Raises:
            ValueError: If the bank file cannot be used, is of another encoder, or has classes that the data has not.
        """
        super().on_train_start()
        bank = self.model.bank
        bank.clear()
        bank.class_names = list(self.class_names)
        self.model.find_positions()
        bank.encoder_hash = encoder_hash(self.model.encoder, self.model.embedding_options)
        path: str | None = self.hparams["bank"]
        if path is not None:
            bank.merge(load_content(path, bank.encoder_hash))
        loader: Any = self.trainer.train_dataloader
        images = len(loader.dataset) + len(bank.image_names)
        self._grids = bank_grids(self.hparams["bank_shifts"], self.model.retrieval, images)
        self._is_fitted.fill_(False)
        self.model.abstention.clear()

    def training_step(self, batch: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Put the batch's patches into the bank; the loss is zero."""
        del args, kwargs
        size = len(batch.image)
        names = batch.image_path or [""] * size
        self.model.fill(batch.image, batch.gt_mask, batch.device_name or [""] * size, names, self._grids)
        anchor = self._parameters.get(_ANCHOR)
        return torch.tensor(0.0, requires_grad=True, device=self.device) if anchor is None else 0.0 * anchor

    def fit(self) -> None:
        """Make the patches that all processes put aside rows of the bank, the same in each of them.

        Raises:
            RuntimeError: If there are none.
        """
        self.model.bank.class_names = list(self.class_names)
        self.model.bank.gather()
        self.model.bank.finish()
        if not len(self.model.bank):
            msg = (
                "No labelled patch came into the memory bank: the training images have no mask, or only ignored pixels."
            )
            raise RuntimeError(msg)

    # --- export ------------------------------------------------------------------------------------------------------

    def export_metadata(self) -> dict[str, Any]:
        """Return the plain data that an exported model carries: also the threshold, and how patches make an image."""
        model = self.model
        abstention = AbstentionFormat(model.abstention.threshold, model.grid_size, model.patch_size)
        return {**super().export_metadata(), "abstention": abstention.to_dict()}

    # --- abstention --------------------------------------------------------------------------------------------------

    def predictions(self, images: torch.Tensor) -> dict[str, torch.Tensor | None]:
        """Return the model's answer, its uncertainty ``[B, H, W]`` and, with a threshold, where it abstains."""
        batch, scores = self.model.answer_with_scores(self.model.embed(images))
        uncertainty = self.model.uncertainty(batch, scores)[:, 0]
        threshold = self.model.abstention.threshold
        abstained = None if threshold is None else uncertainty > threshold
        return {**batch._asdict(), "uncertainty": uncertainty, "abstained": abstained}

    def on_validation_start(self) -> None:
        """Fit the bank where it is not, and start the calibration anew."""
        super().on_validation_start()
        self.model.abstention.clear()

    def validation_step(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the batch with the model's predictions, and put them into the calibration.

        An image that is in the bank itself is left out of it: its own patches would vote for it.
        """
        batch = super().validation_step(batch, *args, **kwargs)
        known = set(self.model.bank.image_names)
        paths = batch.image_path or [""] * len(batch.image)
        fresh = torch.tensor([path not in known for path in paths], device=batch.uncertainty.device)
        counted = fresh[:, None, None].expand_as(batch.uncertainty)
        if batch.gt_mask is not None:
            counted = counted & (batch.gt_mask != IGNORE_INDEX)
        self.model.abstention.add(batch.uncertainty[counted])
        return batch

    def on_validation_epoch_end(self) -> None:
        """Make the calibration that of all ranks."""
        sum_over_ranks(self)

    def on_train_epoch_end(self) -> None:
        """Fit the bank where it is not, and calibrate on the labelled images where validation could not."""
        super().on_train_epoch_end()
        if self.hparams["abstain"] is not None and not self.model.abstention.calibrated:
            calibrate_on_labelled_images(self)
            warn_of_no_calibration(self.model)

    def calibrate(self) -> None:
        """Set the threshold of abstention on the bank's rows, those of each image asked of those of the others.

        For a bank that was edited, whose images need not be there any more. Too few images are warned of, and the model
        then abstains from nothing.
        """
        calibrate_on_bank(self.model)
        warn_of_no_calibration(self.model)
