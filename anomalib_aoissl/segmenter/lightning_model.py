# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""`AOISSLSegmenter`: the pixel head, and a decoder that goes on learning from the labelled images under a budget."""

from __future__ import annotations

from typing import Any

import torch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.visualization import Visualizer
from lightning.pytorch import Callback
from torch import nn

from anomalib_aoissl.deployment.tiles.tiling import Tiling
from anomalib_aoissl.encoder.architecture import DEFAULT_ENCODER
from anomalib_aoissl.encoder.base import Encoder
from anomalib_aoissl.encoder.options import EncoderOptions
from anomalib_aoissl.models.argument_rules import ViewOptions
from anomalib_aoissl.models.module import SegmentationModuleMixin
from anomalib_aoissl.plugin.removed_arguments import had_arguments
from anomalib_aoissl.plugin.written_arguments import takes_arguments
from anomalib_aoissl.visualization.visualizer import SegmentationVisualizer

from .budget import learning_rate_factor, progress
from .callbacks import training_callbacks
from .examples import Examples
from .losses import dice_loss, segmentation_loss
from .options import RULES, TrainingOptions
from .torch_model import SegmenterModel

_VIEWS, _TRAINING = ViewOptions(), TrainingOptions()
_CLIP = 1.0  # largest norm of the gradient, where the trainer's arguments name none
_WARMUP = 0.05  # share of the budget in which the learning rate rises
_WEIGHT_DECAY = 0.01
_MEMORY = 0.98  # share of what was known of the losses that stays in each step


@had_arguments(
    "blocks",
    "normalize",
    "early_stopping",
    "head",
    "head_channels",
    "probe",
    "loss",
    "class_weights",
    "encoder_rate",
    "layer_decay",
    "weight_decay",
    "warmup",
    "freeze",
    "lora_rank",
    "ema_decay",
    "crop_size",
    "crops",
    "augment",
    moved={"pretrained": "encoder.pretrained", **{name: f"training.{name}" for name in TrainingOptions.RULES}},
)
class AOISSLSegmenter(SegmentationModuleMixin, AnomalibModule):
    """Segmentation by the pixel head and a decoder, trained on labelled images for as long as the budget allows.

    First the pixel head of `AOISSLRetrieval` is fitted. Then a small U-Net, the decoder, learns from the image, the
    encoder's tokens, and what the head says of images that it was not fitted to. The answer is the product of both. On
    images that the head was not fitted to, the two are compared: the better the decoder is there, the more it counts.
    The learning rate falls to 0 where the trainer's budget ends: ``max_steps``, ``max_epochs`` or ``max_time``. The
    encoder stays as pretraining left it: AOI-SSL, 2026, arXiv 2605.12430.

    ``anomaly_map`` is the uncertainty of a pixel: 1 - the largest class probability. ``pred_score`` is the 99th
    percentile of this map. Both are high where two known classes are nearly equal. They do not tell whether an image is
    unlike the training images.

    Args:
        encoder: Network of timm: its architecture alone as text, or a mapping, see `EncoderOptions`.
        pretraining: Pretrain the encoder before the fit: "mae", "dino" or "ibot", or a mapping with ``objective`` and
            arguments of that callback; null for none.
        image_size: (height, width) that images are resized to, px; the encoder's patch size must divide both.
        in_channels: Planes of an image; 3 for colour and for one to three lighting channels.
        tiling: Tiles that pictures are cut into at their own resolution, each the model's input, see `Tiling`; null for
            pictures that are resized as a whole. For parts that are too thin at image_size.
        views: What may differ between pictures of the same parts, see `ViewOptions`.
        training: How the decoder is trained, see `TrainingOptions`.
        seed: Of what is random in the head's fit, and in the decoder's first weights and examples.
        pre_processor: Resizes and normalises; true for the encoder's own size and constants.
        post_processor: True for none.
        evaluator: True for mean IoU, IoU of each class, pixel accuracy, and risk against coverage.
        visualizer: True for pictures and class-index masks of tested and predicted images.

    Raises:
        ValueError: If the encoder cannot be made, the image size does not fit it, or a number is out of its range.
    """

    RULES = RULES

    _losses: torch.Tensor | None = None
    """Dice losses of decoder and head, summed over the last steps."""

    examples: Examples | None = None
    """Of the labelled images; in a fit."""

    begun: float = 0.0
    """Share of the budget that the head's fit took."""

    class_weights: torch.Tensor | None = None
    """Of the classes in the loss, ``[C]``; in a fit."""

    @takes_arguments
    def __init__(
        self,
        encoder: str | EncoderOptions = DEFAULT_ENCODER,
        pretraining: str | dict[str, Any] | None = None,
        image_size: tuple[int, int] | int = (512, 512),
        in_channels: int = 3,
        tiling: Tiling | None = None,
        views: ViewOptions = _VIEWS,
        training: TrainingOptions = _TRAINING,
        seed: int = 0,
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

    # --- parts -------------------------------------------------------------------------------------------------------

    def build_model(self) -> None:
        """Make the encoder and the empty head; the decoder is made when the classes are known."""
        self.model: SegmenterModel = SegmenterModel(self.build_encoder(), self.hparams["seed"])

    @classmethod
    def configure_visualizer(cls) -> SegmentationVisualizer:
        """Return the visualizer, which calls the map what it is here."""
        return SegmentationVisualizer(map_title="Uncertainty")

    @property
    def training_options(self) -> TrainingOptions:
        """How the decoder is trained."""
        return TrainingOptions(**self.hparams["training"])

    @property
    def encoder(self) -> Encoder:
        """The encoder."""
        return self.model.encoder

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """No validation before training; the rest is the user's, the budget too unless the model has one."""
        arguments: dict[str, Any] = {"num_sanity_val_steps": 0}
        budget = self.training_options.budget
        if budget is None:
            return arguments
        steps, limit = (budget, None) if isinstance(budget, int) else (-1, budget)
        return {**arguments, "max_epochs": -1, "max_steps": steps, "max_time": limit}

    def configure_callbacks(self) -> list[Callback]:
        """Return the components, and for training those of `training_callbacks`."""
        callbacks: list[Callback] = [*super().configure_callbacks()]  # type: ignore[misc]
        if self._trainer is None or self.trainer.state.fn != "fit":
            return callbacks
        return [*callbacks, *training_callbacks(self.trainer, self.training_options)]

    # --- before training ---------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Make the decoder, before the optimiser exists and after pretraining."""
        super().setup(stage)
        if stage == "fit":
            self._adopt_dataset(self._train_loader())
            self.model.make_decoder(len(self.class_names))

    def teardown(self, stage: str) -> None:
        """Forget the training images."""
        del stage
        self.examples, self.class_weights, self._losses = None, None, None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the model that the checkpoint was saved from, the decoder among it.

        Raises:
            ValueError: If the data has other classes, or an argument that the weights depend on was set otherwise.
        """
        super().on_load_checkpoint(checkpoint)
        if self.class_names:
            self.model.make_decoder(len(self.class_names))

    def _train_loader(self) -> Any:
        """Return a loader of the training images, before the trainer has made its own."""
        trainer: Any = self.trainer
        if trainer.datamodule is not None:
            return trainer.datamodule.train_dataloader()
        given = trainer.fit_loop._data_source.instance  # nothing public knows it so early
        return self.train_dataloader() if given is self or given is None else given

    # --- training ----------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """Return AdamW over the decoder, with warm-up and half a cosine over the budget, step by step."""
        decoder = self.model.decoder
        assert decoder is not None  # noqa: S101 - for the type checker; made in `setup`
        rate = self.training_options.learning_rate
        optimizer = torch.optim.AdamW(decoder.parameters(), lr=rate, weight_decay=_WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda _: learning_rate_factor(self._share_of_training(), _WARMUP)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _share_of_training(self) -> float:
        """Return the share in [0, 1] that is used of the budget that the head's fit left."""
        return (progress(self.trainer) - self.begun) / max(1 - self.begun, 1e-6)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient's norm at 1 where the trainer's arguments say nothing else."""
        limit = _CLIP if gradient_clip_val is None else gradient_clip_val
        self.clip_gradients(optimizer, gradient_clip_val=limit, gradient_clip_algorithm=gradient_clip_algorithm)

    def training_step(self, batch: Any, *args: object, **kwargs: object) -> torch.Tensor:
        """Return the decoder's loss of drawn views of the batch's images; 0 where none of them is labelled.

        Raises:
            FloatingPointError: If the loss is not a finite number.
        """
        del args, kwargs
        examples, decoder = self.examples, self.model.decoder
        assert examples is not None and decoder is not None  # noqa: S101, PT018 - made before the first step
        step = examples.draw(batch.image_path)
        if step is None:  # a loss all the same: other processes wait for the gradients
            self._compare(torch.zeros(2, device=self.device))
            return torch.stack([0.0 * parameter.sum() for parameter in decoder.parameters()]).sum()
        images, probabilities, tokens, masks = (part.to(self.device) for part in step)
        scores = decoder(images, probabilities, tokens)
        loss = segmentation_loss(scores, masks, self.class_weights)
        if not torch.isfinite(loss):
            msg = (
                f"The loss is {loss.item()} at step {self.trainer.global_step}, on the images {batch.image_path}. Look "
                f"at these files and their masks; if they are in order, lower --model.training.learning_rate "
                f"({self.training_options.learning_rate}) or train in --trainer.precision 32."
            )
            raise FloatingPointError(msg)
        answers = scores.detach().float().softmax(dim=1), probabilities
        self._compare(torch.stack([dice_loss(answer, masks) for answer in answers]))
        self.log("train_loss", loss.detach(), prog_bar=True, batch_size=len(images))
        return loss

    def _compare(self, losses: torch.Tensor) -> None:
        """Weigh the decoder by the Dice losses ``[2]``, its own and the head's, of the last steps of all processes."""
        losses = self.trainer.strategy.reduce(losses, reduce_op="sum")
        if not bool(losses.any()):  # nothing labelled
            return
        self._losses = losses if self._losses is None else _MEMORY * self._losses + losses
        self.model.weigh(*self._losses.tolist())
