# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Measures that tell whether pretraining works: a frozen-feature probe, and how many dimensions are in use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch.nn import functional
from torchmetrics.classification import MulticlassJaccardIndex

from anomalib_aoissl.data.indices import IGNORE_INDEX
from anomalib_aoissl.encoder.base import Encoder
from anomalib_aoissl.matching.aggregation import class_votes, vote_weights
from anomalib_aoissl.matching.searching import search
from anomalib_aoissl.pretraining.training.patches import cut_patches

ImageAndMask = tuple[torch.Tensor, torch.Tensor]
"""An image ``[C, H, W]`` in [0, 1] and its class-index mask ``[H, W]``."""

_QUERIES_AT_ONCE = 512


@dataclass(frozen=True)
class Probe:
    """Mean intersection over union of a probe, pooled over all pixels of the queries.

    Attributes:
        mean_iou: Mean over the classes that occur in the masks or the predictions, in [0, 1].
        class_iou: Each class's own, in [0, 1]; 0 for a class that does not occur.
    """

    mean_iou: float
    class_iou: tuple[float, ...]


def probe_mean_iou(
    encoder: Encoder,
    bank_items: Iterable[ImageAndMask],
    query_items: Iterable[ImageAndMask],
    *,
    num_classes: int,
    neighbours: int = 30,
    temperature: float = 0.02,
) -> Probe:
    """Return how well the labels of the bank, carried over by the nearest patches, fit the query images.

    Each query patch takes the labels, pixel for pixel, of its nearest bank patches (cosine similarity), weighted by the
    softmax of similarity / temperature [0]. Masks are compared at the encoder's image size; ignored pixels neither
    vote nor count.

    Args:
        encoder: Frozen encoder; called without gradients, in the mode it is in.
        bank_items: Labelled images to search.
        query_items: Labelled images to predict.
        num_classes: C, background included.
        neighbours: Bank patches that vote for a query patch.
        temperature: Of the votes; smaller trusts the nearest more.

    [0]: Balazevic et al., Towards In-context Scene Understanding, 2023, arXiv 2306.01667.
    """
    banks = [_embed(encoder, image, mask) for image, mask in bank_items]
    entries = torch.cat([embeddings for embeddings, _ in banks])  # [R, D]
    labels = torch.cat([mask for _, mask in banks])  # [R, S], S = pixels of a patch
    metric = MulticlassJaccardIndex(
        num_classes,
        average="none",
        ignore_index=IGNORE_INDEX,
        sync_on_compute=False,  # one process probes; to gather from the others would wait for ever
    ).to(entries.device)
    for image, mask in query_items:
        queries, target = _embed(encoder, image, mask)
        parts = queries.split(_QUERIES_AT_ONCE)
        predicted = []
        for part in parts:
            similarities, nearest = search(part, entries, neighbours)
            weights = vote_weights(similarities, "attention", temperature)
            predicted.append(class_votes(weights, labels[nearest], num_classes).argmax(dim=1))
        metric.update(torch.cat(predicted), target.long())
    class_iou = metric.compute()
    occurs = (metric.confmat.sum(0) + metric.confmat.sum(1)) > 0
    return Probe(float(class_iou[occurs].mean()), tuple(class_iou.tolist()))


def spectrum_entropy(embeddings: torch.Tensor) -> float:
    """Return the entropy in nats of the singular values of the centred embeddings ``[N, D]``, normalised to sum 1.

    Embeddings that are all equal have the entropy 0. Its exp is the effective rank [0], how many dimensions are used,
    in [1, min(N, D)]: 1 when all embeddings lie on one line (collapse), D when all directions vary alike.

    [0]: Roy and Vetterli, The effective rank, 2007, EUSIPCO.
    """
    centred = embeddings.double() - embeddings.double().mean(dim=0)
    covariance = centred.T @ centred  # [D, D]; its eigenvalues are the squared singular values
    values = torch.linalg.eigvalsh(covariance).clamp_min(0).sqrt()
    scale = embeddings.double().norm()  # rounding leaves a little of embeddings that are all equal
    if values.sum() <= 1e-6 * scale or scale == 0:
        return 0.0
    shares = values / values.sum()
    return float(torch.special.entr(shares).sum())


@torch.no_grad()
def _embed(encoder: Encoder, image: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return unit patch embeddings ``[P, D]`` of the resized image and the labels ``[P, S]`` of each patch."""
    resized = functional.interpolate(image[None], encoder.image_size, mode="bilinear", antialias=True)
    embeddings = encoder(encoder.normalised(resized))[0].float()
    labels = functional.interpolate(mask[None, None].float(), encoder.image_size, mode="nearest-exact")
    patches = cut_patches(labels, encoder.patch_size)[0]  # [P, S]
    return functional.normalize(embeddings, dim=-1), patches.to(torch.uint8)
