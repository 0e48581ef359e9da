# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""`AOISSLRetrieval`: masks of a new image read out of a memory bank of a few labelled ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule, MemoryBankMixin
from anomalib.visualization import Visualizer
from torch import nn

from anomalib_aoissl.bank.own_novelty import own_novelty
from anomalib_aoissl.data.indices import IGNORE_INDEX
from anomalib_aoissl.deployment.abstaining import AbstentionFormat
from anomalib_aoissl.deployment.tiles.tiling import Tiling
from anomalib_aoissl.encoder.architecture import DEFAULT_ENCODER
from anomalib_aoissl.encoder.options import EncoderOptions
from anomalib_aoissl.models.argument_rules import ViewOptions
from anomalib_aoissl.models.module import SegmentationModuleMixin
from anomalib_aoissl.models.tiles import tiled_predictions
from anomalib_aoissl.plugin.arguments import ArgumentError
from anomalib_aoissl.plugin.removed_arguments import had_arguments
from anomalib_aoissl.plugin.written_arguments import takes_arguments

from .calibration import calibrate_on_bank, calibrate_on_labelled_images, sum_over_ranks, warn_of_no_calibration
from .head_fitting import fit_to_training_images
from .memory.bank_size import entries_of_size, entry_size
from .memory.checkpoint_bank import check_bank_of, load_content
from .memory.memory_bank import MemoryBank
from .model_editing import BankEditingMixin
from .options import RULES, BankOptions, VoteOptions
from .torch_model import RetrievalModel

_VIEWS, _VOTE, _BANK = ViewOptions(), VoteOptions(), BankOptions()

_ANCHOR = "distributed_anchor"
"""Name of the parameter that a distributed strategy needs; nothing else has a gradient."""


@had_arguments(
    "blocks",
    "normalize",
    "labels",
    "class_temperatures",
    "class_thresholds",
    "bank_shifts",
    "query_shifts",
    "smoothing",
    "position_directions",
    "context",
    "condensing",
    "learning_seconds",
    moved={
        "pretrained": "encoder.pretrained",
        "k": "vote.k",
        "temperature": "vote.temperature",
        "aggregation": "vote.aggregation",
        "retrieval": "vote.level",
        "search": "vote.search",
        "bank_size": "bank.size",
        "bank_precision": "bank.precision",
    },
)
class AOISSLRetrieval(BankEditingMixin, SegmentationModuleMixin, MemoryBankMixin, AnomalibModule):
    """Segmentation from a few labelled images: a memory bank and a pixel head, in seconds; the encoder stays as it is.

    A frozen encoder turns each patch of the labelled images into an embedding of the memory bank. A small network, the
    pixel head, is fitted to their pixels. It gives the classes of a new image, from the encoder's tokens and from image
    filters. The bank gives the novelty: 1 - cosine similarity to its nearest patch. Without the head, the k most
    similar patches vote on the class of each pixel: AOI-SSL, 2026, arXiv 2605.12430.

    Args:
        encoder: Network of timm: its architecture alone as text, or a mapping, see `EncoderOptions`.
        pretraining: Pretrain the encoder before the fit: "mae", "dino" or "ibot", or a mapping with ``objective`` and
            arguments of that callback; null for none.
        image_size: (height, width) that images are resized to, px; the encoder's patch size must divide both.
        in_channels: Planes of an image; 3 for colour and for one to three lighting channels.
        tiling: Tiles that pictures are cut into at their own resolution, each the model's input, see `Tiling`; null for
            pictures that are resized as a whole. For parts that are too thin at image_size.
        views: What may differ between pictures of the same parts, see `ViewOptions`.
        head: "pixel" for the pixel head, a small network that is fitted to the labelled images' pixels in seconds and
            decides the classes together with the vote of the memory bank; null for the vote alone.
        vote: Which entries of the bank vote and how, see `VoteOptions`.
        bank: What the bank holds, see `BankOptions`.
        seed: Of what is random in condensing and in the head's fit.
        abstain: Share of the validation pixels for which the model may say that it does not know, such as 0.05; null
            for a class for every pixel. The threshold is set in validation or, without validation images, on the
            labelled images, each predicted by a model of the others.
        pre_processor: Resizes and normalises; true for the encoder's own size and constants.
        post_processor: True for none.
        evaluator: True for mean IoU, IoU of each class, pixel accuracy, and risk against coverage.
        visualizer: True for pictures and class-index masks of tested and predicted images.

    Raises:
        ValueError: If the encoder cannot be made, the image size does not fit it, or an argument is out of its range.
        ModuleNotFoundError: If the search needs FAISS and it is not installed.
    """

    RULES = RULES
    HAS_BANK: ClassVar[bool] = True

    ENCODER_ARGUMENTS: ClassVar[tuple[str, ...]] = (
        *SegmentationModuleMixin.ENCODER_ARGUMENTS,
        "vote.level",
        "head",
    )

    _unseen: tuple[torch.Tensor, torch.Tensor] | None = None
    """Uncertainty, and how often it counts, of labelled pixels by a head that was fitted to other images; in a fit."""

    # The bank file's entries are in the checkpoint by the time it is saved.
    ONCE: ClassVar[dict[str, Any]] = {**SegmentationModuleMixin.ONCE, "bank.extends": None}

    @takes_arguments
    def __init__(
        self,
        encoder: str | EncoderOptions = DEFAULT_ENCODER,
        pretraining: str | dict[str, Any] | None = None,
        image_size: tuple[int, int] | int = (512, 512),
        in_channels: int = 3,
        tiling: Tiling | None = None,
        views: ViewOptions = _VIEWS,
        head: Literal["pixel"] | None = "pixel",
        vote: VoteOptions = _VOTE,
        bank: BankOptions = _BANK,
        seed: int = 0,
        abstain: float | None = None,
        pre_processor: nn.Module | bool = True,
        post_processor: nn.Module | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        super().__init__(
            pre_processor=False if isinstance(pre_processor, bool) else pre_processor,
            post_processor=post_processor,
            evaluator=evaluator,
            visualizer=visualizer,
        )
        self.build_parts(pre_processor)

    def build_model(self) -> None:
        """Make the retrieval model with an empty bank."""
        h = self.hparams
        vote, bank = VoteOptions(**h["vote"]), self.bank_options
        if h["tiling"] is not None and vote.level == "images":
            msg = "tiling cuts pictures, but vote.level='images' compares whole ones. Leave out one of both."
            raise ArgumentError(msg)
        encoder = self.build_encoder()
        unit = entry_size(encoder, vote.level)
        budget = entries_of_size(bank.size, encoder.embed_dim, unit, bank.precision)
        self.model: RetrievalModel = RetrievalModel(
            encoder,
            vote,
            bank=MemoryBank(encoder.embed_dim, unit, budget=budget, seed=h["seed"], precision=bank.precision),
            head=h["head"] is not None,
            abstain=h["abstain"],
            varied=self.view_options.variation,
        )

    @property
    def bank_options(self) -> BankOptions:
        """What the bank holds."""
        return BankOptions(**self.hparams["bank"])

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """One pass over the labelled images; there is no gradient to clip."""
        return {"gradient_clip_val": 0, "max_epochs": 1, "num_sanity_val_steps": 0}

    def setup(self, stage: str) -> None:
        """Register a parameter where several processes fill the bank: no distributed strategy runs without one.

        The parameter is gone after the fit and in no checkpoint.
        """
        super().setup(stage)
        if stage == "fit" and self.trainer.world_size > 1:
            self.register_parameter(_ANCHOR, nn.Parameter(torch.zeros((), device=self.device)))

    def teardown(self, stage: str) -> None:
        """Remove what `setup` made."""
        self._parameters.pop(_ANCHOR, None)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what the model needs to be built again."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["state_dict"].pop(_ANCHOR, None)

    @classmethod
    def check_checkpoint(cls, checkpoint: Mapping[str, Any], source: str) -> None:
        """Validate that a checkpoint is of this model, and what it holds, its bank too.

        Raises:
            CheckpointError: If it is of another model, or its content is impossible.
        """
        super().check_checkpoint(checkpoint, source)
        check_bank_of(checkpoint, source)

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
        bank.encoder_hash = self.seen_by()
        extended = self.bank_options.extends
        if extended is not None:
            bank.merge(load_content(extended, bank.encoder_hash))
            self.labelled_quality = None  # that of the bank file's pictures is not known
        if self.model.head is not None:
            self.model.head.clear()
        self._is_fitted.fill_(False)
        self.model.abstention.clear()

    def training_step(self, batch: Any, *args: object, **kwargs: object) -> torch.Tensor:
        """Put the batch's patches into the bank; the loss is zero."""
        del args, kwargs
        size = len(batch.image)
        self.fill(batch.image, batch.gt_mask, batch.device_name or [""] * size, batch.image_path or [""] * size)
        anchor = self._parameters.get(_ANCHOR)
        return torch.tensor(0.0, requires_grad=True, device=self.device) if anchor is None else 0.0 * anchor

    def fit(self) -> None:
        """Make the patches that all processes put aside entries of the bank, the same in each of them.

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
        if self.model.head is not None:
            self._unseen = fit_to_training_images(self)

    # --- export ------------------------------------------------------------------------------------------------------

    def export_metadata(self) -> dict[str, Any]:
        """Return the plain data that an exported model carries: also the threshold, and how patches make an image."""
        model = self.model
        calibration = model.abstention
        abstention = AbstentionFormat(calibration.threshold, model.grid_size, model.patch_size, int(calibration.power))
        return {**super().export_metadata(), "abstention": abstention.to_dict()}

    # --- abstention --------------------------------------------------------------------------------------------------

    def own_novelty(self) -> float | None:
        """Return the mean novelty of labelled pictures; None where whole images are compared."""
        return own_novelty(self.model.bank.content()) if self.model.vote_options.level == "patches" else None

    def predictions(self, images: torch.Tensor) -> dict[str, torch.Tensor | None]:
        """Return the model's answer, its uncertainty ``[B, H, W]`` and, with a threshold, where it abstains."""
        if self.tiling is not None:
            return tiled_predictions(self, images)
        batch, share = self.model.answer(images)
        uncertainty = self.model.uncertainty(batch, share)[:, 0]
        threshold = self.model.abstention.threshold
        abstained = None if threshold is None else uncertainty > threshold
        return {**batch._asdict(), "uncertainty": uncertainty, "abstained": abstained}

    def on_validation_start(self) -> None:
        """Fit the bank where it is not, and start the calibration anew."""
        super().on_validation_start()
        self.model.abstention.clear()

    def validation_step(self, batch: Any, *args: object, **kwargs: object) -> Any:
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
            if self._unseen is not None:
                self.model.abstention.add(*self._unseen)
            else:
                calibrate_on_labelled_images(self)
            warn_of_no_calibration(self.model)
        self._unseen = None

    def calibrate(self) -> None:
        """Set the threshold of abstention on the bank's entries, those of each image asked of those of the others.

        For a bank that was edited, whose images need not be there any more. Too few images are warned of, and the model
        then abstains from nothing.
        """
        calibrate_on_bank(self.model)
        warn_of_no_calibration(self.model)
