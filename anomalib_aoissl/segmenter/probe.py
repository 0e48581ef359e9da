# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The linear probe that training starts from: ridge regression from frozen features to the labels, in closed form.

Fine-tuning from a random head spends its budget on the head, and its first gradients distort what the encoder knows;
from a linear probe it starts where the features already are [0].

[0]: Kumar et al., Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution, 2022, arXiv
2202.10054.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional
from torchvision import tv_tensors

from anomalib_aoissl.data.indices import IGNORE_INDEX

from .heads import LinearHead

__all__ = ["RidgeRegression", "cell_targets", "fit_probe", "plain_samples", "shifted_views"]

_RIDGE = 20.0  # rows that the penalty is worth: little beside the 4,096 patches of an image of 512 px
_SCALES = (2.0, 4.0, 8.0, 16.0, 32.0)  # of the regression's outputs as scores before the softmax
_STEP = (0.7549, 0.5698)  # of the R2 sequence, whose points fill a square evenly
_SYMMETRIES = ((0, 1), (2, 0), (2, 1), (1, 0), (3, 0), (1, 1), (3, 1))  # quarter turns, mirrored; half turns first

Sample = tuple[torch.Tensor, torch.Tensor]
Reduce = Callable[[torch.Tensor], torch.Tensor]


@torch.no_grad()
def fit_probe(
    linear: LinearHead,
    extract: Callable[[torch.Tensor], Sequence[torch.Tensor]],
    samples: Iterable[Sample],
    *,
    views: int,
    class_weights: torch.Tensor | None = None,
    reduce: Reduce = lambda sums: sums,
) -> None:
    """Give the linear head the weights that predict the labels best in the sense of least squares.

    A patch counts as much as the class weights of its pixels on average. The outputs are scaled so that the
    cross-entropy of the last image is smallest.

    Args:
        linear: The head; its weights are overwritten.
        extract: Normalised images ``[B, C, H, W]`` to feature maps ``[B, D, rows, columns]``.
        samples: Normalised images ``[1, C, H, W]`` and class indices ``[1, H, W]``, at least one.
        views: Views of each image, see `shifted_views`.
        class_weights: ``[classes]``; none for equal ones.
        reduce: Sums a tensor over the processes, each of which has its part of the samples.
    """
    classify = linear.classify
    like = classify.weight
    regression, last = RidgeRegression(classify.in_channels, classify.out_channels, like.device), None
    weights = class_weights if class_weights is None else class_weights.to(like.device)
    for sample in samples:
        for image, mask in shifted_views(*sample, views, linear.patch_size):
            features = torch.cat(list(extract(image.to(like.dtype))), dim=1)
            targets, shares = cell_targets(mask, linear.num_classes, linear.patch_size, linear.cells)
            importance = shares.sum(dim=1) if weights is None else shares @ weights
            regression.add(_rows(features.float()), targets, importance)
            last = features, mask
    regression.moments, regression.rows = reduce(regression.moments), reduce(regression.rows)
    weight, bias = regression.solve(_RIDGE)
    like.copy_(weight[:, :, None, None])
    linear.bias.copy_(bias)
    losses = torch.zeros(len(_SCALES), device=like.device)
    if last is not None:  # else other processes have all samples
        losses = _losses(linear([last[0].to(like.dtype)]), last[1], weights)
    scale = _SCALES[int(reduce(losses).argmin())]
    like.mul_(scale)
    linear.bias.mul_(scale)


def _losses(scores: torch.Tensor, mask: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Return the cross-entropy of scores ``[1, classes, h, w]`` times each of the scales; 0 without labelled pixels."""
    scores = functional.interpolate(scores.float(), mask.shape[-2:], mode="bilinear", align_corners=False)
    labels = mask.long()
    losses = [functional.cross_entropy(scores * scale, labels, weights, ignore_index=IGNORE_INDEX) for scale in _SCALES]
    return torch.stack(losses).nan_to_num()


class RidgeRegression:
    """Weighted ridge regression from sums over rows, to which processes and views can each add their own.

    The penalty of a feature is in proportion to its variance, so that a feature's unit makes no difference.

    Args:
        inputs: Features.
        outputs: Targets.
        device: Where the sums are.
    """

    def __init__(self, inputs: int, outputs: int, device: torch.device | None = None) -> None:
        self.inputs = inputs
        self.moments = torch.zeros(1 + inputs + outputs, 1 + inputs, device=device)  # of (1, features, targets)
        self.rows = torch.zeros((), device=device)

    def add(self, features: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> None:
        """Add rows: features ``[N, inputs]``, targets ``[N, outputs]``, weights ``[N]`` not below 0."""
        known = torch.cat([torch.ones_like(features[:, :1]), features], dim=1)
        self.moments += torch.cat([known, targets], dim=1).T @ (known * weights[:, None])
        self.rows += len(features)

    def solve(self, ridge: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weights ``[outputs, inputs]`` and biases ``[outputs]``; 0 where no row has a weight.

        Args:
            ridge: Rows of mean weight that the penalty is worth.
        """
        moments = self.moments.double().cpu()
        moments = moments / moments[0, 0].clamp_min(1e-12)
        means = moments[1:, :1]  # [inputs + outputs, 1]
        covariance = moments[1:, 1:] - means @ means[: self.inputs].T  # [inputs + outputs, inputs]
        inner, outer = covariance[: self.inputs], covariance[self.inputs :]
        penalty = ridge / max(float(self.rows), 1.0) * inner.diagonal() + 1e-9
        weight = torch.linalg.solve(inner + penalty.diag(), outer.T).T
        bias = means[self.inputs :, 0] - weight @ means[: self.inputs, 0]
        return weight.to(self.moments), bias.to(self.moments)


def plain_samples(
    dataset: Any, indices: Iterable[int], transform: Callable[..., Any] | None, device: torch.device
) -> Iterator[Sample]:
    """Give images ``[1, C, H, W]`` and masks ``[1, H, W]`` of a dataset without its augmentation, pre-processed.

    Args:
        dataset: Gives items with ``image`` ``[C, H, W]`` and ``gt_mask`` ``[H, W]``; those without a mask are left out.
        indices: Of the items.
        transform: Of image and mask together.
        device: Where the samples are put.
    """
    for index in indices:
        augmentation, dataset.augmentations = getattr(dataset, "augmentations", None), None
        try:
            item = dataset[index]
        finally:
            dataset.augmentations = augmentation
        if item.gt_mask is None:
            continue
        image, mask = tv_tensors.Image(item.image[None].to(device)), tv_tensors.Mask(item.gt_mask[None].to(device))
        image, mask = (image, mask) if transform is None else transform(image, mask)
        yield image.as_subclass(torch.Tensor), mask.as_subclass(torch.Tensor)


def shifted_views(
    image: torch.Tensor, mask: torch.Tensor, count: int, patch_size: tuple[int, int]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Give views of an image ``[1, C, H, W]`` and its mask ``[1, H, W]``, the same size, itself first.

    Each is shifted by another part of a patch: where an edge lies within a patch is what a linear map knows least
    from one image. Every second one is turned or mirrored too, by half turns alone where the image is not square.
    What a view shows beyond the image is mirrored, and ignored (255) in the mask.
    """
    symmetries = _SYMMETRIES if image.shape[-1] == image.shape[-2] else _SYMMETRIES[:3]
    for index in range(count):
        down, right = (
            min(int(index * step % 1 * side), (length - 1) // 2)
            for step, side, length in zip(_STEP, patch_size, mask.shape[-2:], strict=True)
        )
        view = functional.pad(image[..., down:, right:], (0, right, 0, down), mode="reflect")
        labels = functional.pad(mask[..., down:, right:], (0, right, 0, down), value=IGNORE_INDEX)
        if index % 2:
            turns, mirrored = symmetries[index // 2 % len(symmetries)]
            view, labels = (part.rot90(turns, (-2, -1)) for part in (view, labels))
            view, labels = (part.flip(-1) if mirrored else part for part in (view, labels))
        yield view, labels


def cell_targets(
    mask: torch.Tensor, num_classes: int, patch_size: tuple[int, int], cells: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each patch the classes' shares of each cell ``[P, classes * cells]``, and of itself ``[P, classes]``.

    Ignored pixels count for nothing; a cell without labelled pixels has the shares of its patch.

    Args:
        mask: Class indices ``[1, H, W]``, 255 is ignored.
        num_classes: Classes.
        patch_size: (height, width) px.
        cells: (rows, columns) of cells in a patch.
    """
    labels = mask.long().clamp_max(num_classes)  # 255 becomes one class more, which is then left out
    each = functional.one_hot(labels, num_classes + 1)[..., :num_classes].movedim(-1, 1).float()  # [1, classes, H, W]
    sides = (patch_size[0] // cells[0], patch_size[1] // cells[1])
    whole = functional.avg_pool2d(each, patch_size)  # [1, classes, rows, columns]
    parts = functional.avg_pool2d(each, sides)  # [1, classes, rows * cells, columns * cells]
    spread = whole.repeat_interleave(cells[0], dim=2).repeat_interleave(cells[1], dim=3)
    parts = torch.where(parts.sum(dim=1, keepdim=True) > 0, parts, spread)
    parts = parts / parts.sum(dim=1, keepdim=True).clamp_min(1e-6)
    rows, columns = whole.shape[-2:]
    parts = parts.reshape(1, num_classes, rows, cells[0], columns, cells[1]).permute(0, 1, 3, 5, 2, 4)
    return _rows(parts.flatten(1, 3)), _rows(whole)


def _rows(maps: torch.Tensor) -> torch.Tensor:
    """Return ``[P, D]`` of maps ``[1, D, rows, columns]``."""
    return maps[0].flatten(1).T
