# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""`AOISSLRetrieval`: masks of a new image read out of a memory bank of a few labelled ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule, MemoryBankMixin
from anomalib.visualization import Visualizer
from torch import nn

from anomalib_aoissl.architecture import DEFAULT_ENCODER
from anomalib_aoissl.encoder import PatchEncoder
from anomalib_aoissl.module import SegmentationModuleMixin, plain_encoder, plain_pretraining, plain_size

from .bank_file import encoder_hash, load_bank
from .bank_size import rows_of_size
from .memory_bank import MemoryBank
from .torch_model import RetrievalModel

DEFAULT_BANK_SIZE = 10000
"""Patches that a bank keeps where none is said; a search over them takes about as long as the default encoder."""


_ANCHOR = "distributed_anchor"
"""Name of the parameter that a distributed strategy needs; nothing else has a gradient."""


class AOISSLRetrieval(SegmentationModuleMixin, MemoryBankMixin, AnomalibModule):
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
        search: How the bank is searched: "exact", or by FAISS (the extra ``faiss``): "faiss-flat", exact too, or
            "faiss-ivf", faster in banks that outgrow a matrix product, but it misses some neighbours. An export always
            searches exactly.
        bank: Bank file to start from, so that the training images extend it; it must be of the same encoder.
        bank_size: Patches that the bank keeps at most, or its megabytes such as "8MB"; null keeps every patch.
        condensing: Which patches are kept: "balanced" (one of each group of patches that look and are labelled alike,
            more at boundaries and of rare classes), "learned" (those of "balanced", then embeddings and labels changed
            by gradient descent so that the bank's vote gives the labelled patches their labels; some seconds more),
            "kcenter" (those that are farthest from each other; slow in a large bank) or "random".
        bank_precision: What the bank's embeddings are stored in: "fp32", "fp16" for half the memory, or "int8" for a
            quarter.
        seed: Of what is random in condensing.
        pre_processor: Resizes and normalises; true for the encoder's own size and constants.
        post_processor: True for none.
        evaluator: True for mean IoU, IoU of each class and pixel accuracy.
        visualizer: True for pictures and class-index masks of tested and predicted images.

    Raises:
        ValueError: If the encoder cannot be made, the image size does not fit it, k, temperature or bank_size is out of
            range, or condensing, bank_precision or search has no such name.
        ModuleNotFoundError: If the search needs FAISS and it is not installed.
    """

    DEFAULTS: ClassVar[dict[str, Any]] = {
        "encoder": DEFAULT_ENCODER,
        "pretraining": None,
        "image_size": (512, 512),
        "in_channels": 3,
        "blocks": 1,
        "normalize": True,
        "k": 30,
        "temperature": 0.02,
        "aggregation": "attention",
        "labels": "complete",
        "search": "exact",
        "bank": None,
        "bank_size": DEFAULT_BANK_SIZE,
        "condensing": "learned",
        "bank_precision": "fp32",
        "seed": 0,
    }

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
        k: int = 30,
        temperature: float = 0.02,
        aggregation: str = "attention",
        labels: str = "complete",
        search: str = "exact",
        bank: Path | str | None = None,
        bank_size: int | str | None = DEFAULT_BANK_SIZE,
        condensing: str = "learned",
        bank_precision: str = "fp32",
        seed: int = 0,
        pre_processor: nn.Module | bool = True,
        post_processor: nn.Module | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        # Plain values, since configuration objects among the saved arguments would not load with weights_only.
        encoder, image_size = plain_encoder(encoder), plain_size(image_size)
        pretraining, bank = plain_pretraining(pretraining), None if bank is None else str(bank)
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
        encoder = self.build_encoder()
        self.model: RetrievalModel = RetrievalModel(
            encoder,
            k=h.k,
            temperature=h.temperature,
            aggregation=h.aggregation,
            labels=h.labels,
            search=h.search,
            bank=self._empty_bank(encoder),
        )

    def _empty_bank(self, encoder: PatchEncoder) -> MemoryBank:
        """Return the bank that ``self.hparams`` describe, for the encoder's embeddings."""
        h: Any = self.hparams
        budget = rows_of_size(h.bank_size, encoder.embed_dim, encoder.patch_size, h.bank_precision)
        return MemoryBank(
            encoder.embed_dim,
            encoder.patch_size,
            budget=budget,
            rule=h.condensing,
            seed=h.seed,
            precision=h.bank_precision,
        )

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
        bank.encoder_hash = encoder_hash(self.model.encoder)
        path: str | None = self.hparams["bank"]
        if path is not None:
            bank.merge(load_bank(path, bank.encoder_hash))
        self._is_fitted.fill_(False)

    def training_step(self, batch: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Put the batch's patches into the bank; the loss is zero."""
        del args, kwargs
        size = len(batch.image)
        names = batch.image_path or [""] * size
        self.model.fill(batch.image, batch.gt_mask, batch.device_name or [""] * size, names)
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
