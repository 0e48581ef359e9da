# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Why pixels are of their class: the labelled patches that vote for them, from arrays, without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from anomalib_aoissl.data.indices import IGNORE_INDEX

from .content import BankArrays, float_embeddings
from .patches import patch_labels

IGNORED = ""
"""Label of a vote at pixels that are ignored in its labelled image: a vote for no class."""

_QUERIES = 256  # that are compared with all entries at once

Box = tuple[int, int, int, int]
"""(top, left, height, width), px."""

MODEL_PX, PICTURE_PX, TILE_PX = "px of the model's size", "px of the picture", "px of the tile"
"""What the numbers of `Vote.box` count."""

Places = Callable[[str, int], tuple[Box, int | None, str]]
"""The name of a labelled image and the position of an entry in it, to `Vote.box`, `Vote.tile` and `Vote.unit`."""


@dataclass(frozen=True)
class Vote:
    """What one labelled patch said of a pixel, or of all pixels of a region.

    Attributes:
        image: Name of the labelled image.
        device: Its device.
        box: (top, left, height, width) of the patch in the image, px: at the encoder's input size or, of a model with
            tiles, at the image's own.
        similarity: Cosine similarity to the patch of the pixel; the largest of those of a region.
        weight: Share of all votes, 0 to 1.
        label: Name of the class that it has at the pixel's place in the patch, and in a region the one that it votes
            for the most; empty where it is ignored there.
        patches: Patches that it stands for in a condensed bank.
        entry: Its place in the bank.
        tile: Number of the tile that ``box`` lies in, where the image's size is not known; None where ``box`` lies in
            the image.
        unit: What the numbers of ``box`` count: `MODEL_PX`, `PICTURE_PX` or `TILE_PX`.
    """

    image: str
    device: str
    box: Box
    similarity: float
    weight: float
    label: str
    patches: int
    entry: int
    tile: int | None = None
    unit: str = MODEL_PX


@dataclass(frozen=True)
class Explanation:
    """Why the pixels of a region are of their classes.

    Attributes:
        box: (top, left, height, width) around the region in the image, px: at the encoder's input size or, with tiles,
            at the image's own.
        pixels: Pixels of the region.
        tally: Share of the votes for each class, 0 to 1, the largest first; `IGNORED` for none.
        predicted: Share of the region's pixels that each class has in the mask, the largest first.
        differs: Share of the region's pixels where the mask has another class than the bank alone would give,
            because of the pixel head; 0 without a head.
        novelty: Mean over the region.
        uncertainty: Mean over the region.
        abstained: Share of the region's pixels for which the model does not know; None without a threshold.
        votes: The labelled patches that voted, the heaviest first.
    """

    box: Box
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
    """What a model says of an image at the encoder's input size, or of a tile, each map ``[H, W]``.

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


@dataclass(frozen=True)
class Evidence:
    """What the patches of an image, or of one of its tiles, say of the pixels of a region there; sums over the pixels.

    Attributes:
        pixels: Pixels of the region.
        entries: The n entries that voted, ``[n]``.
        votes: For how many pixels each of them voted for each class and, last, for none, ``[n, C + 1]``.
        similarities: The largest of each of them, ``[n]``.
        predicted: Pixels of each class in the mask, ``[C + 1]``.
        differing: Pixels to which the mask gives another class than the votes.
        novelty: Sum over the pixels.
        uncertainty: Sum over the pixels.
        abstained: Pixels for which the model does not know; None without a threshold.
    """

    pixels: int
    entries: np.ndarray
    votes: np.ndarray
    similarities: np.ndarray
    predicted: np.ndarray
    differing: int
    novelty: float
    uncertainty: float
    abstained: int | None


@dataclass(frozen=True)
class AskedModel:
    """A model that is asked for reasons.

    Attributes:
        bank: Its bank.
        patch_size: (height, width) of a patch, px.
        places: Where entries lie in their images.
        answer: What it says of an image ``[C, H, W]``.
        neighbours: Entries that vote for patches of an image, given it and their places ``[q]`` in row-major order.
    """

    bank: BankArrays
    patch_size: tuple[int, int]
    places: Places
    answer: Callable[[np.ndarray], Answer]
    neighbours: Callable[[np.ndarray, np.ndarray], Neighbours]

    def explain(self, image: np.ndarray, region: np.ndarray) -> tuple[Explanation, np.ndarray]:
        """Return why the pixels of a region ``[H, W]`` of an image are of their classes, and its class indices."""
        answer = self.answer(image)
        return explained(self, [evidence_of(self, image, region, answer)], box_around(region)), answer.class_map


def evidence_of(model: AskedModel, image: np.ndarray, region: np.ndarray, answer: Answer) -> Evidence:
    """Return what the patches of an image, or of a tile, say of a region.

    A patch's vote counts for each pixel of the region that it voted for: a neighbour whose weight is w of all its
    query's neighbours gives w to the class that it has at the pixel's place.

    Args:
        model: The model.
        image: ``[C, H, W]``.
        region: ``[H, W]`` bool of the encoder's input size, not empty.
        answer: What the model says of the image.
    """
    bank, patch_size = model.bank, model.patch_size
    places = patch_labels(region, patch_size)  # [P, L]
    asked = places.any(axis=1)
    counted = places[asked]  # [q, L]
    neighbours = model.neighbours(image, np.flatnonzero(asked))
    classes = [*range(len(bank.class_names)), IGNORE_INDEX]
    weights = neighbours.weights / neighbours.weights.sum(axis=1, keepdims=True)
    shown = [bank.entries["labels"][neighbours.entries] == c for c in classes]  # [q, k, L] each
    votes = np.stack([np.einsum("qk,qkl->ql", weights, s.astype(np.float32)) for s in shown[:-1]])  # [C, q, L]
    # of each neighbour's weight, the part that it gives to each class
    voted = np.stack([(s & counted[:, None]).sum(axis=2) for s in shown], axis=2) * weights[..., None]  # [q, k, C + 1]
    entries, of_entry, nearest = _summed(
        neighbours.entries.reshape(-1), voted.reshape(-1, len(classes)), neighbours.similarities.reshape(-1)
    )
    given, uncertainty = patch_labels(answer.class_map, patch_size)[asked], answer.uncertainty[region]  # given: [q, L]
    return Evidence(
        pixels=int(region.sum()),
        entries=entries,
        votes=of_entry,
        similarities=nearest,
        predicted=np.bincount(answer.class_map[region], minlength=len(classes)),
        differing=int((votes.argmax(axis=0) != given)[counted].sum()),
        novelty=float(answer.novelty[region].sum(dtype=np.float64)),
        uncertainty=float(uncertainty.sum(dtype=np.float64)),
        abstained=None if answer.threshold is None else int((uncertainty > answer.threshold).sum()),
    )


def _summed(
    entries: np.ndarray, votes: np.ndarray, similarities: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each entry once, with the sum of its votes ``[n, C + 1]`` and its largest similarity ``[n]``."""
    used, index = np.unique(entries, return_inverse=True)
    of_entry, nearest = np.zeros((len(used), votes.shape[1])), np.full(len(used), -1.0)
    np.add.at(of_entry, index, votes)
    np.maximum.at(nearest, index, similarities)
    return used, of_entry, nearest


def explained(model: AskedModel, parts: Sequence[Evidence], box: Box) -> Explanation:
    """Return why the pixels of a region are of their classes, given what its parts say.

    Args:
        model: The model.
        parts: Of the image, or of each tile that the region lies in; each pixel is in one of them.
        box: Around the region.
    """
    arrays = [(part.entries, part.votes, part.similarities) for part in parts]
    entries, votes, nearest = _summed(*(np.concatenate(pieces) for pieces in zip(*arrays, strict=True)))
    number, names = sum(part.pixels for part in parts), [*model.bank.class_names, IGNORED]
    abstained = [part.abstained for part in parts if part.abstained is not None]
    votes = votes / number
    return Explanation(
        box=box,
        pixels=number,
        tally=_by_name(votes.sum(axis=0), names),
        predicted=_by_name(np.sum([part.predicted for part in parts], axis=0) / number, names),
        differs=sum(part.differing for part in parts) / number,
        novelty=sum(part.novelty for part in parts) / number,
        uncertainty=sum(part.uncertainty for part in parts) / number,
        abstained=sum(abstained) / number if abstained else None,
        votes=[
            _vote(model, int(entries[i]), float(nearest[i]), votes[i], names)
            for i in np.argsort(-votes.sum(axis=1), kind="stable")
        ],
    )


def _vote(model: AskedModel, entry: int, similarity: float, votes: np.ndarray, names: Sequence[str]) -> Vote:
    """Return the vote of an entry, given what it gives to each class."""
    bank = model.bank
    image = bank.image_names[bank.entries["image_ids"][entry]]
    box, tile, unit = model.places(image, int(bank.entries["positions"][entry]))
    return Vote(
        image=image,
        device=bank.device_names[bank.entries["device_ids"][entry]],
        box=box,
        similarity=similarity,
        weight=float(votes.sum()),
        label=names[int(votes.argmax())],
        patches=int(bank.entries["counts"][entry]) if "counts" in bank.entries else 1,
        entry=entry,
        tile=tile,
        unit=unit,
    )


def places_in(size: tuple[int, int], patch_size: tuple[int, int]) -> Places:
    """Return where entries lie in images of (height, width) px; positions beyond them are those of further tiles."""
    rows, columns = size[0] // patch_size[0], size[1] // patch_size[1]

    def place(image: str, position: int) -> tuple[Box, int | None, str]:
        del image
        tile, patch = divmod(position, rows * columns)
        row, column = divmod(patch, columns)
        return (row * patch_size[0], column * patch_size[1], *patch_size), tile or None, TILE_PX if tile else MODEL_PX

    return place


def box_around(region: np.ndarray) -> Box:
    """Return the smallest box around the region ``[H, W]`` bool, which is not empty."""
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    return top, left, int(rows[-1]) - top + 1, int(columns[-1]) - left + 1


def _by_name(values: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Return the values that are not zero by name, the largest first."""
    order = np.argsort(-values, kind="stable").tolist()
    return {names[i]: float(values[i]) for i in order if values[i] > 0}
