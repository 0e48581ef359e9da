# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Why pixels are of their class: the labelled patches that vote for them, from arrays, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from anomalib_aoissl.data.indices import IGNORE_INDEX

from .content import BankArrays, float_embeddings
from .patches import patch_labels

IGNORED = ""
"""Label of a vote at pixels that are ignored in its labelled image: a vote for no class."""

_QUERIES = 256  # that are compared with all entries at once


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
        entry: Its place in the bank.
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


@dataclass(frozen=True)
class Neighbours:
    """The k entries that vote for each of q patches, the nearest first, each array ``[q, k]``.

    Attributes:
        similarities: Cosine similarities.
        entries: Their places in the bank.
        weights: What their votes weigh; only those of one patch compare.
    """

    similarities: np.ndarray
    entries: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class Answer:
    """What a model says of an image at the encoder's input size, each map ``[H, W]``.

    Attributes:
        threshold: Uncertainty above which the model abstains; None where it never does.
        class_map: Class indices.
        novelty: 1 - similarity to the nearest entry.
        uncertainty: 0 (sure) to 1.
    """

    threshold: float | None
    class_map: np.ndarray
    novelty: np.ndarray
    uncertainty: np.ndarray


def voting_neighbours(
    bank: BankArrays, queries: np.ndarray, k: int, aggregation: str, temperature: float
) -> Neighbours:
    """Return the neighbours of embeddings ``[q, D]``, weighted as `matching.aggregation` does.

    Args:
        bank: The bank.
        queries: ``[q, D]``, brought to unit length.
        k: Neighbours; a smaller bank lets all its entries vote.
        aggregation: "attention" or "similarity".
        temperature: Of the softmax of "attention".
    """
    embeddings, k = float_embeddings(bank.entries), min(k, len(bank))
    queries = queries / np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-6)
    similarities, entries = (np.empty((len(queries), k), kind) for kind in (np.float32, np.int64))
    for start in range(0, len(queries), _QUERIES):
        block = slice(start, start + _QUERIES)
        products = queries[block] @ embeddings.T
        best = np.argpartition(-products, k - 1, axis=1)[:, :k]
        values = np.take_along_axis(products, best, 1)
        order = np.argsort(-values, axis=1, kind="stable")
        similarities[block] = np.take_along_axis(values, order, 1)
        entries[block] = np.take_along_axis(best, order, 1)
    counts = bank.entries["counts"][entries] if "counts" in bank.entries else np.ones_like(entries)
    return Neighbours(similarities, entries, _weights(similarities, counts, k, aggregation, temperature))


def _weights(similarities: np.ndarray, counts: np.ndarray, k: int, aggregation: str, temperature: float) -> np.ndarray:
    """Return the weight ``[q, k]`` of each neighbour, which stands for so many patches."""
    repeated = np.sqrt(counts.astype(np.float32))
    if aggregation == "attention":
        return np.exp((similarities - similarities[:, :1]) / temperature) * repeated
    before = repeated.cumsum(axis=1) - repeated
    return similarities.clip(min=1e-6) * np.minimum(repeated, (k - before).clip(min=0))


def asked_patches(region: np.ndarray, patch_size: tuple[int, int]) -> np.ndarray:
    """Return the places of the patches that a region ``[H, W]`` bool touches, in row-major order.

    Raises:
        ValueError: If the region is empty.
    """
    return np.flatnonzero(patch_labels(region, patch_size).any(axis=1))


def explained(
    bank: BankArrays, neighbours: Neighbours, region: np.ndarray, answer: Answer, patch_size: tuple[int, int]
) -> Explanation:
    """Return why the pixels of a region are of their classes.

    A patch's vote counts for each pixel of the region that it voted for: with n pixels, a neighbour whose weight is w
    of all its query's neighbours gives w / n to the class that it has at the pixel's place.

    Args:
        bank: The bank.
        neighbours: Of the `asked_patches`.
        region: ``[H, W]`` bool of the encoder's input size, not empty.
        answer: What the model says of the image.
        patch_size: (height, width) of a patch, px.
    """
    places = patch_labels(region, patch_size)  # [P, L]
    asked = places.any(axis=1)
    counted = places[asked]  # [q, L]
    classes, number = [*range(len(bank.class_names)), IGNORE_INDEX], int(region.sum())
    weights = neighbours.weights / neighbours.weights.sum(axis=1, keepdims=True)
    shown = [bank.entries["labels"][neighbours.entries] == c for c in classes]  # [q, k, L] each
    votes = np.stack([np.einsum("qk,qkl->ql", weights, s.astype(np.float32)) for s in shown[:-1]])  # [C, q, L]
    # of each neighbour's weight, the part that it gives to each class
    shares = np.stack([(s & counted[:, None]).sum(axis=2) for s in shown], axis=2) / number  # [q, k, C + 1]
    shares *= weights[..., None]
    used, index = np.unique(neighbours.entries, return_inverse=True)
    index = index.reshape(-1)
    of_entry, nearest = np.zeros((len(used), len(classes))), np.full(len(used), -1.0)
    np.add.at(of_entry, index, shares.reshape(-1, len(classes)))
    np.maximum.at(nearest, index, neighbours.similarities.reshape(-1))
    given = patch_labels(answer.class_map, patch_size)[asked]  # [q, L]
    names, uncertainty = [*bank.class_names, IGNORED], answer.uncertainty[region]
    columns = region.shape[1] // patch_size[1]
    return Explanation(
        box=_box_around(region),
        pixels=number,
        tally=_by_name(of_entry.sum(axis=0), names),
        predicted=_by_name(np.bincount(answer.class_map[region], minlength=len(names)) / number, names),
        differs=float((votes.argmax(axis=0) != given)[counted].mean()),
        novelty=float(answer.novelty[region].mean()),
        uncertainty=float(uncertainty.mean()),
        abstained=None if answer.threshold is None else float((uncertainty > answer.threshold).mean()),
        votes=[
            _vote(bank, int(used[i]), float(nearest[i]), of_entry[i], names, columns, patch_size)
            for i in np.argsort(-of_entry.sum(axis=1), kind="stable")
        ],
    )


def _vote(
    bank: BankArrays,
    entry: int,
    similarity: float,
    shares: np.ndarray,
    names: Sequence[str],
    columns: int,
    patch_size: tuple[int, int],
) -> Vote:
    """Return the vote of an entry that gives these shares to the classes."""
    row, column = divmod(int(bank.entries["positions"][entry]), columns)
    return Vote(
        image=bank.image_names[bank.entries["image_ids"][entry]],
        device=bank.device_names[bank.entries["device_ids"][entry]],
        box=(row * patch_size[0], column * patch_size[1], *patch_size),
        similarity=similarity,
        weight=float(shares.sum()),
        label=names[int(shares.argmax())],
        patches=int(bank.entries["counts"][entry]) if "counts" in bank.entries else 1,
        entry=entry,
    )


def _box_around(region: np.ndarray) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) of the smallest box around the region ``[H, W]``."""
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    return top, left, int(rows[-1]) - top + 1, int(columns[-1]) - left + 1


def _by_name(shares: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Return the shares that are not zero by name, the largest first."""
    order = np.argsort(-shares, kind="stable").tolist()
    return {names[i]: float(shares[i]) for i in order if shares[i] > 0}
