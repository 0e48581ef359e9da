# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""`AOISSLSegmenter`: the pretrained encoder with a decoder, fine-tuned on labels under a fixed budget."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import torch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.visualization import Visualizer
from lightning.pytorch import Callback
from torch import nn

from anomalib_aoissl.architecture import DEFAULT_ENCODER
from anomalib_aoissl.arguments import validate
from anomalib_aoissl.encoder import PatchEncoder
from anomalib_aoissl.module import SegmentationModuleMixin, plain_encoder, plain_pretraining, plain_size
from anomalib_aoissl.visualization import SegmentationVisualizer
from anomalib_aoissl.written_arguments import remembers_written

from .adaptation import add_low_rank, freeze, merged_model, parameter_groups
from .argument_rules import RULES
from .augmentation import inspection_augmentation
from .callbacks import check_monitors, training_callbacks
from .class_weights import class_weights, count_pixels
from .cropping import crop_of, cut_crops
from .losses import SegmentationLoss
from .schedule import learning_rate_factor, progress
from .torch_model import SegmenterModel

logger = logging.getLogger(__name__)

_CLIP = 1.0  # largest norm of the gradient, where the trainer's arguments name none


class AOISSLSegmenter(SegmentationModuleMixin, AnomalibModule):
    """Segmentation by a vision transformer with a decoder, trained on labelled images.

    The features of four evenly spaced blocks become a pyramid, and UPerNet turns it into class scores. The learning
    rate falls to 0 where the trainer's budget ends: ``max_steps``, ``max_epochs`` or ``max_time``. AOI-SSL, 2026,
    arXiv 2605.12430.

    ``anomaly_map`` is the uncertainty of a pixel, 1 - the largest softmax probability, and ``pred_score`` its 99th
    percentile: how close the choice between the known classes was, not how far an image is from the training images.

    Args:
        encoder: Vision transformer by its timm name: an architecture, ``local-dir:/path`` with the weights that
            pretraining wrote, or ``hf-hub:...``; or a mapping with ``architecture`` and ``model_args``.
        pretrained: Load the encoder's weights; false gives random ones.
        pretraining: Pretrain the encoder before the fit: "mae", "dino" or "ibot", or a mapping with ``objective`` and
            arguments of that callback; null for none.
        image_size: (height, width) that images are resized to, px; the encoder's patch size must divide both.
        in_channels: Planes of an image; 3 for colour and for one to three illuminations.
        normalize: Apply the encoder's final layer norm to each block that is read.
        head: "upernet", or with fewer weights for fewer labels "conv" or "linear".
        head_channels: Channels of the head.
        probe: Views of each labelled image, shifted by parts of a patch, from which a linear head is fitted to the
            frozen features before training, which starts from it; fewer of many images; 0 starts at random.
        loss: "cross_entropy", "dice", "jaccard", "lovasz", or several joined by "+".
        class_weights: Of the classes in their order; "balanced" in inverse proportion to their pixels, "root" to the
            root of them.
        learning_rate: Peak of the learning rate, at the decoder.
        encoder_rate: Share of the learning rate that the encoder's last block and the linear head have.
        layer_decay: Share of the learning rate that each block has of the next one's.
        weight_decay: Of AdamW; norms, biases, tokens and position embeddings have none.
        warmup: Share of the budget in which the learning rate rises, in [0, 1).
        freeze: Number of first blocks that keep their weights, or "all" for the whole encoder.
        lora_rank: Rank of adapters that learn in place of the encoder's weights; 0 for none.
        ema_decay: Share of the averaged weights that stays in each step; none for no averaging.
        crop_size: Side, or (height, width), px, of the part of each training image that a step sees, with as many rare
            classes as possible; multiples of the patch size; null for whole images, as the model sees them in use.
        crops: Crops of a step, cut from the batch's images in turn; never fewer than these.
        augment: What is done to training images where the data has no augmentation of its own: "mild" (shifts, flips,
            right angles), "strong" (also scale, rotations, light, blur, noise; for long training) or "none".
        validations: Validations in a run, evenly spaced, where the trainer's arguments do not say how many.
        early_stopping: Validations without a better mean IoU that end a run; none to use the whole budget.
        select: Weights that are kept: "best" validation mean IoU, or "last", which needs no validation images.
        budget: Steps, or time as DD:HH:MM:SS, for callers that hand the trainer no arguments, such as anomalib's
            benchmark; it replaces those of the trainer.
        pre_processor: Resizes and normalises; true for the encoder's own size and constants.
        post_processor: True for none.
        evaluator: True for mean IoU, IoU of each class, pixel accuracy, and risk against coverage.
        visualizer: True for pictures and class-index masks of tested and predicted images.

    Raises:
        ValueError: If the encoder cannot be made, the image size does not fit it, or a number is out of its range.
    """

    ENCODER_ARGUMENTS = (
        "encoder",
        "image_size",
        "in_channels",
        "normalize",
        "head",
        "head_channels",
        "probe",
        "lora_rank",
    )

    RULES = RULES

    @remembers_written
    def __init__(
        self,
        encoder: str | dict[str, Any] = DEFAULT_ENCODER,
        pretrained: bool = True,
        pretraining: str | dict[str, Any] | None = None,
        image_size: tuple[int, int] | int = (512, 512),
        in_channels: int = 3,
        normalize: bool = True,
        head: Literal["upernet", "conv", "linear"] = "upernet",
        head_channels: int = 96,
        probe: int = 8,
        loss: str = "cross_entropy+dice",
        class_weights: list[float] | Literal["balanced", "root"] | None = "root",
        learning_rate: float = 3e-4,
        encoder_rate: float = 0.1,
        layer_decay: float = 0.75,
        weight_decay: float = 0.05,
        warmup: float = 0.1,
        freeze: int | Literal["all"] = 0,
        lora_rank: int = 0,
        ema_decay: float | None = None,
        crop_size: tuple[int, int] | int | None = None,
        crops: int = 8,
        augment: Literal["mild", "strong", "none"] = "mild",
        validations: int = 20,
        early_stopping: int | None = None,
        select: Literal["best", "last"] = "best",
        budget: int | str | None = None,
        pre_processor: nn.Module | bool = True,
        post_processor: nn.Module | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        validate(RULES, locals())
        # Plain values, since configuration objects among the saved arguments would not load with weights_only.
        encoder, image_size = plain_encoder(encoder), plain_size(image_size)
        pretraining = plain_pretraining(pretraining)
        crop_size = crop_size if crop_size is None or isinstance(crop_size, int) else plain_size(crop_size)
        if class_weights is not None and not isinstance(class_weights, str):
            class_weights = [float(weight) for weight in class_weights]
        super().__init__(
            pre_processor=False if isinstance(pre_processor, bool) else pre_processor,
            post_processor=post_processor,
            evaluator=evaluator,
            visualizer=visualizer,
        )
        inspection_augmentation((1, 1), augment)  # refuses other names at once
        self.loss: SegmentationLoss = SegmentationLoss(loss)
        self.build_parts(pre_processor)

    # --- parts -------------------------------------------------------------------------------------------------------

    def build_model(self) -> None:
        """Make the encoder; its head is made when the classes are known."""
        h: Any = self.hparams
        self.model: SegmenterModel = SegmenterModel(
            self.build_encoder(), head=h.head, head_channels=h.head_channels, probe=h.probe > 0
        )
        self.crop = crop_of(self.encoder, h.crop_size)

    @classmethod
    def configure_visualizer(cls) -> SegmentationVisualizer:
        """Return the visualizer, which calls the map what it is here."""
        return SegmentationVisualizer(map_title="Uncertainty")

    @property
    def encoder(self) -> PatchEncoder:
        """The encoder."""
        return self.model.encoder

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """No validation before training; the rest is the user's, the budget too unless the model has one."""
        h: Any = self.hparams
        arguments: dict[str, Any] = {"num_sanity_val_steps": 0}
        if h.budget is None:
            return arguments
        steps, limit = (h.budget, None) if isinstance(h.budget, int) else (-1, h.budget)
        return {**arguments, "max_epochs": -1, "max_steps": steps, "max_time": limit}

    def configure_callbacks(self) -> list[Callback]:
        """Return the components, and for training those of `training_callbacks`."""
        callbacks: list[Callback] = [*super().configure_callbacks()]  # type: ignore[misc]
        if self._trainer is None or self.trainer.state.fn != "fit":
            return callbacks
        return [*callbacks, *training_callbacks(self.trainer, self.hparams)]

    # --- before training ---------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Make what depends on the classes, before the optimiser exists and after pretraining."""
        super().setup(stage)
        if stage == "fit":
            self._adopt_dataset(self._train_loader())
            self._complete()
            self._prepare_training()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the model that the checkpoint was saved from, head and adapters among it.

        Raises:
            ValueError: If the data has other classes, or an argument that the weights depend on was set otherwise.
        """
        super().on_load_checkpoint(checkpoint)
        if self.class_names:
            self._complete()
        if self._trainer is not None and self._trainer.state.fn == "fit":
            self._prepare_training()  # model and data were set up anew where the checkpoint has other arguments

    def _complete(self) -> None:
        """Make the head for the classes, and the adapters."""
        h: Any = self.hparams
        self.model.make_head(len(self.class_names))
        add_low_rank(self.encoder.vit, h.lora_rank)

    def _train_loader(self) -> Any:
        """Return a loader of the training images, before the trainer has made its own."""
        trainer: Any = self.trainer
        if trainer.datamodule is not None:
            return trainer.datamodule.train_dataloader()
        given = trainer.fit_loop._data_source.instance  # nothing public knows it so early
        return self.train_dataloader() if given is self or given is None else given

    def _prepare_training(self) -> None:
        """Freeze what keeps its weights, and augment the training images where their datamodule does not."""
        h: Any = self.hparams
        trainer: Any = self.trainer
        freeze(self.encoder.vit, h.freeze)
        if not h.normalize:
            self.encoder.vit.norm.requires_grad_(False)  # not used, and a distributed run waits for each gradient
        datamodule = trainer.datamodule or self._demonstration
        augmentation = inspection_augmentation(self.input_size, h.augment)
        if augmentation is not None and datamodule is not None and datamodule.train_augmentations is None:
            datamodule.train_data.augmentations = augmentation

    def on_fit_start(self) -> None:
        """Make the loss with its class weights, and warn of classes that no training mask shows."""
        h: Any = self.hparams
        names = self.class_names
        counts = count_pixels(self._train_loader().dataset, len(names))
        empty = [name for name, count in zip(names, counts.tolist(), strict=True) if not count]
        if empty:
            logger.warning("No training mask has a pixel of %s: the model will not learn to find it.", empty)
        self.loss = SegmentationLoss(h.loss, class_weights(h.class_weights, counts, names))

    def on_train_start(self) -> None:
        """Check that there is something to pick the checkpoint by.

        Raises:
            ValueError: If there are no validation images.
        """
        super().on_train_start()
        check_monitors(self.trainer)

    # --- training ----------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """Return AdamW with layer-wise learning rates, and warm-up and cosine over the budget, step by step."""
        h: Any = self.hparams
        head: Any = self.model.head
        groups = parameter_groups(
            self.encoder.vit,
            head,
            learning_rate=h.learning_rate,
            encoder_rate=h.encoder_rate,
            layer_decay=h.layer_decay,
            weight_decay=h.weight_decay,
        )
        optimizer = torch.optim.AdamW(groups)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda _: learning_rate_factor(progress(self.trainer), h.warmup)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient's norm at 1 where the trainer's arguments say nothing else."""
        limit = _CLIP if gradient_clip_val is None else gradient_clip_val
        self.clip_gradients(optimizer, gradient_clip_val=limit, gradient_clip_algorithm=gradient_clip_algorithm)

    def training_step(self, batch: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return the loss of a batch.

        Raises:
            FloatingPointError: If the loss is not a finite number.
        """
        del args, kwargs
        h: Any = self.hparams
        images, masks, offsets = batch.image, batch.gt_mask.as_subclass(torch.Tensor), None
        if self.crop is not None:
            images, masks, offsets = cut_crops(images, masks, self.crop, self.encoder.patch_size, h.crops)
        loss = self.loss(self.model.scores(images, offsets), masks)
        if not torch.isfinite(loss):
            msg = (
                f"The loss is {loss.item()} at step {self.trainer.global_step}, on the images {batch.image_path}. Look "
                f"at these files and their masks; if they are in order, lower --model.learning_rate "
                f"({h.learning_rate}) or train in --trainer.precision 32."
            )
            raise FloatingPointError(msg)
        self.log("train_loss", loss.detach(), prog_bar=True, batch_size=len(batch.image))
        return loss

    # --- export ------------------------------------------------------------------------------------------------------

    def to_torch(self, export_root: Path | str, model_file_name: str = "model") -> Path:
        """Write the model with its adapters merged as anomalib's ``.pt`` file, and return its path."""
        with merged_model(self):
            return super().to_torch(export_root, model_file_name)

    def to_onnx(self, export_root: Path | str, *args: Any, **kwargs: Any) -> Path:  # type: ignore[override]
        """Write the model with its adapters merged as ONNX, and return the path; OpenVINO goes this way too."""
        with merged_model(self):
            return super().to_onnx(export_root, *args, **kwargs)
