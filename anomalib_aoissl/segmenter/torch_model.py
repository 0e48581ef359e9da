# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The segmenter as tensors: extract tokens, ask pixel head and decoder, and say how sure they are together."""

from __future__ import annotations

import math

import torch
from anomalib.data import InferenceBatch
from torch import nn

from anomalib_aoissl.deployment.graph.joint import JOINT
from anomalib_aoissl.encoder.base import Encoder
from anomalib_aoissl.encoder.creating import same_weights
from anomalib_aoissl.models.protocols import UntrainedError
from anomalib_aoissl.pixel_head.head import PixelHead
from anomalib_aoissl.pixel_head.marking import mark

from .decoder import Decoder

_PERCENTILE = 0.99
_LEAST = 0.02
"""Probability that is shared by all classes before its logarithm is taken: what one of both rules out may still be."""


class SegmenterModel(nn.Module):
    """Frozen encoder, pixel head and decoder: normalised images to class indices and how uncertain each is.

    The class probabilities are the product of the head's and a power of the decoder's, normalised [0]. The power is 0
    while the decoder is untrained, so that the answer is the head's; see `weigh`.

    [0]: Hinton, Training Products of Experts by Minimizing Contrastive Divergence, 2002, 10.1162/089976602760128018.

    Args:
        encoder: The encoder; it is frozen.
        seed: Of the decoder's first weights.
    """

    def __init__(self, encoder: Encoder, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self.encoder = encoder.requires_grad_(False)
        self.encoder.eval()
        self.head = PixelHead()
        self.decoder: Decoder | None = None
        self.decoder_weight: torch.Tensor
        self.register_buffer("decoder_weight", torch.zeros(()))

    def make_decoder(self, num_classes: int) -> None:
        """Make the decoder for so many classes; nothing changes where it is there."""
        if self.decoder is not None:
            return
        with same_weights(self.seed):
            decoder = Decoder(self.encoder.in_channels, num_classes, self.encoder.token_dim)
        self.decoder = decoder.to(next(self.encoder.parameters()).device)

    def check_trained(self) -> Decoder:
        """Return the decoder, which is there once the model has been trained.

        Raises:
            UntrainedError: If nothing was trained yet.
        """
        if self.decoder is None or not self.head.fitted:
            msg = "The segmenter is not trained: train it on labelled images first, or load a checkpoint (ckpt_path)."
            raise UntrainedError(msg)
        return self.decoder

    def train(self, mode: bool = True) -> SegmenterModel:
        """Set the mode; the encoder stays in evaluation mode, since it is frozen."""
        super().train(mode)
        self.encoder.eval()
        return self

    def extract(self, images: torch.Tensor) -> torch.Tensor:
        """Return tokens ``[B, D, rows, columns]`` of normalised images ``[B, P, H, W]`` of the encoder's input size."""
        with torch.no_grad():
            return mark("tokens", self.encoder.read(images).tokens)

    def standardized(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return tokens ``[B, D, rows, columns]`` in the head's directions and unit, ``[B, E, rows, columns]``."""
        directions = self.head.directions.shape[1]
        mean, scale = (values[-directions:, None, None] for values in (self.head.mean, self.head.scale))
        return (self.head.projected(tokens) - mean) / scale

    def weigh(self, decoder_loss: float, head_loss: float) -> None:
        """Set the decoder's power by its Dice loss and that of the head's left-out answers, on the same images.

        2 - their ratio, at most 1: nothing for one that is twice as bad, as much as the head for one that is as good.
        No more, since the decoder has seen these images.
        """
        self.decoder_weight.fill_(min(max(2 - decoder_loss / max(head_loss, 1e-6), 0.0), 1.0))

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        """Return the class probabilities ``[B, C, H, W]`` of normalised images ``[B, P, H, W]``.

        Raises:
            UntrainedError: If nothing was trained yet.
        """
        decoder = self.check_trained()
        tokens = self.extract(images)
        probabilities = softened(self.head(images, tokens))
        scores = decoder(images, probabilities, self.standardized(tokens))
        joined = self.decoder_weight * scores.float().log_softmax(dim=1) + probabilities.log()
        return joined.log_softmax(dim=1).exp()

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Return class indices ``[B, 1, H, W]`` uint8, uncertainty ``[B, 1, H, W]`` and the image's ``[B]``.

        The uncertainty is 1 - the largest class probability, in [0, 1 - 1 / classes]; the image's is its 99th
        percentile. It says how close the choice between the known classes was, not how far the image is from the
        training images: a network may be sure of what it has never seen.

        Args:
            images: Normalised images ``[B, P, H, W]`` of the encoder's input size.

        Raises:
            UntrainedError: If nothing was trained yet.
        """
        probabilities = mark(JOINT, self.maps(images))
        best = probabilities.max(dim=1, keepdim=True)  # [B, 1, H, W]
        uncertainty = 1.0 - best.values
        return InferenceBatch(
            pred_score=percentile(uncertainty.flatten(1), _PERCENTILE),
            anomaly_map=uncertainty,
            pred_mask=best.indices.to(torch.uint8),
        )


def softened(probabilities: torch.Tensor) -> torch.Tensor:
    """Return class probabilities ``[B, C, H, W]`` of which none is 0."""
    return probabilities * (1 - _LEAST) + _LEAST / probabilities.shape[1]


def percentile(values: torch.Tensor, share: float) -> torch.Tensor:
    """Return ``[B]``, the value of each row ``[B, N]`` below which the share of it lies, linear between neighbours.

    Equal to ``torch.quantile``, which has no ONNX counterpart.
    """
    position = share * (values.shape[-1] - 1)
    below = math.floor(position)
    largest = values.topk(values.shape[-1] - below, dim=-1).values  # [B, k], falling
    upper = largest[:, -2] if largest.shape[-1] > 1 else largest[:, -1]
    return torch.lerp(largest[:, -1], upper, position - below)
