# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Why a pixel or a region is of its class: the labelled patches that vote for it, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from anomalib_aoissl.data.indices import IGNORE_INDEX
from anomalib_aoissl.matching.patches import patch_labels

from .torch_model import RetrievalModel

IGNORED = ""
"""Label of a vote at pixels that are ignored in its labelled image: a vote for no class."""


@dataclass(frozen=True)
class Vote:
    """What one labelled patch said of a pixel, or of all pixels of a region.

    Attributes:
        image: Name of the labelled image.
        device: Its device.
        box: (top, left, height, width) of the patch in the image at the encoder's input size, px.
        similarity: Cosine similarity to the patch of the pixel; the largest of those of a region.
        weight: Share of all votes, 0 to 1.
        label: Name of the class that it has at the pixel's place in the patch, and in a region the one that it votes
            for the most; empty where it is ignored there.
        patches: Patches that it stands for in a condensed bank.
        entry: Its entry in the bank.
    """

    image: str
    device: str
    box: tuple[int, int, int, int]
    similarity: float
    weight: float
    label: str
    patches: int
    entry: int


@dataclass(frozen=True)
class Explanation:
    """Why the pixels of a region are of their classes.

    Attributes:
        box: (top, left, height, width) around the region in the image at the encoder's input size, px.
        pixels: Pixels of the region.
        tally: Share of the votes for each class, 0 to 1, the largest first; `IGNORED` for none.
        predicted: Share of the region's pixels that each class has in the mask, the largest first.
        differs: Share of the region's pixels where the mask has another class than the bank alone would give, since
            the pixel head decided; 0 without a head.
        novelty: Mean over the region.
        uncertainty: Mean over the region.
        abstained: Share of the region's pixels for which the model does not know; None without a threshold.
        votes: The labelled patches that voted, the heaviest first.
    """

    box: tuple[int, int, int, int]
    pixels: int
    tally: dict[str, float]
    predicted: dict[str, float]
    differs: float
    novelty: float
    uncertainty: float
    abstained: float | None
    votes: list[Vote]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, such as for JSON."""
        return asdict(self)


def explain(model: RetrievalModel, image: torch.Tensor, pixel: tuple[int, int]) -> list[Vote]:
    """Return the bank's votes for a pixel, the most similar patch first.

    Without a pixel head the class with the largest weight is the pixel's; with one, see `Explanation.differs`.

    Args:
        model: Model with a filled bank.
        image: Normalised image ``[C, H, W]`` of the encoder's input size.
        pixel: (row, column), px.

    Raises:
        ValueError: If the pixel lies outside of the image.
        RuntimeError: If the bank is empty.
    """
    height, width = model.encoder.image_size
    if not (0 <= pixel[0] < height and 0 <= pixel[1] < width):
        msg = f"pixel={pixel} lies outside of the image of {height}x{width} px; give (row, column) from (0, 0)."
        raise ValueError(msg)
    region = torch.zeros(height, width, dtype=torch.bool)
    region[pixel] = True
    return sorted(explain_region(model, image, region).votes, key=lambda vote: -vote.similarity)


@torch.no_grad()
def explain_region(model: RetrievalModel, image: torch.Tensor, region: torch.Tensor) -> Explanation:
    """Return why the pixels of a region are of their classes.

    A patch's vote counts for each pixel of the region that it voted for: with n pixels, a neighbour whose weight is w
    of all its query's neighbours gives w / n to the class that it has at the pixel's place.

    Args:
        model: Model with a filled bank.
        image: Normalised image ``[C, H, W]`` of the encoder's input size.
        region: ``[H, W]`` bool.

    Raises:
        ValueError: If the region is of another size, or empty.
        RuntimeError: If the bank is empty.
    """
    if tuple(region.shape) != tuple(model.encoder.image_size) or not bool(region.any()):
        height, width = model.encoder.image_size
        msg = (
            f"The region must be a mask of {height}x{width} px with a pixel in it; got {tuple(region.shape)} with "
            f"{int(region.sum())} pixels."
        )
        raise ValueError(msg)
    answer, share = model.answer(image[None])
    batch: Any = answer  # its fields may be None in other models
    embeddings = model.read(image[None]).embeddings
    places = patch_labels(region[None].float(), model.patch_size)[0]  # [P, L]
    asked = (places > 0).any(dim=1)
    similarities, entries, weights = model.vote(embeddings[0][asked])  # [q, k] each
    shares = _shares(model, entries, places[asked])  # [q, k, C + 1]; each neighbour's sum up to the patch's share
    shares = shares * (weights / weights.sum(dim=1, keepdim=True)).unsqueeze(-1)
    used, index = entries.flatten().unique(return_inverse=True)
    of_entry = torch.zeros(len(used), shares.shape[-1]).index_add_(0, index, shares.flatten(0, 1))  # [entries, C + 1]
    nearest = torch.full((len(used),), -1.0).scatter_reduce(0, index, similarities.flatten(), "amax")
    names = [*model.bank.class_names, IGNORED]
    order = of_entry.sum(dim=1).argsort(descending=True, stable=True).tolist()
    uncertainty = model.uncertainty(answer, share)[0, 0][region]
    threshold = model.abstention.threshold
    predicted = torch.bincount(batch.pred_mask[0, 0][region].long(), minlength=len(names)) / int(region.sum())
    voted = model.vote_probabilities(embeddings).argmax(dim=1)[0]  # [H, W]
    return Explanation(
        box=_box_around(region),
        pixels=int(region.sum()),
        tally=_shares_by_name(of_entry.sum(dim=0), names),
        predicted=_shares_by_name(predicted, names),
        differs=float((voted != batch.pred_mask[0, 0])[region].float().mean()),
        novelty=float(batch.anomaly_map[0, 0][region].mean()),
        uncertainty=float(uncertainty.mean()),
        abstained=None if threshold is None else float((uncertainty > threshold).float().mean()),
        votes=[
            _vote(model, int(used[i]), float(nearest[i]), float(of_entry[i].sum()), names[int(of_entry[i].argmax())])
            for i in order
        ],
    )


def _shares(model: RetrievalModel, entries: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Return the share of the region's pixels that lie in each query's patch and have each class in each neighbour.

    ``[q, k, C + 1]``, the ignored last, of entries ``[q, k]`` and the pixels ``[q, L]`` of the region, 1 or 0; for each
    neighbour they sum up to the patch's share of the region.
    """
    labels, counted = model.bank.labels[entries], places.unsqueeze(1)
    classes = [*range(model.num_classes), IGNORE_INDEX]
    return torch.stack([((labels == c) * counted).sum(dim=-1) for c in classes], dim=-1) / places.sum()


def _vote(model: RetrievalModel, entry: int, similarity: float, weight: float, label: str) -> Vote:
    """Return the vote of an entry of the bank."""
    bank = model.bank
    return Vote(
        image=bank.image_names[int(bank.image_ids[entry])],
        device=bank.device_names[int(bank.device_ids[entry])],
        box=_patch_box(model, int(bank.positions[entry])),
        similarity=similarity,
        weight=weight,
        label=label,
        patches=int(bank.counts[entry]) if len(bank.counts) else 1,
        entry=entry,
    )


def _patch_box(model: RetrievalModel, position: int) -> tuple[int, int, int, int]:
    """Return the (top, left, height, width) in px of the patch at a position, in row-major order."""
    row, column = divmod(position, model.grid_size[1])
    return row * model.patch_size[0], column * model.patch_size[1], *model.patch_size


def _box_around(region: torch.Tensor) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) of the smallest box around the region ``[H, W]``."""
    rows, columns = (region.any(dim=axis).nonzero().squeeze(1) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    return top, left, int(rows[-1]) - top + 1, int(columns[-1]) - left + 1


def _shares_by_name(shares: torch.Tensor, names: list[str]) -> dict[str, float]:
    """Return the shares that are not zero by name, the largest first."""
    order = shares.argsort(descending=True, stable=True).tolist()
    return {names[i]: float(shares[i]) for i in order if shares[i] > 0}
