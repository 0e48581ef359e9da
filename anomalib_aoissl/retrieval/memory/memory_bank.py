# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The memory bank: embeddings of labelled patches, their pixel labels, and where each came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from anomalib.models.components import DynamicBufferMixin
from torch.nn import functional

from anomalib_aoissl.bank.checking import damage
from anomalib_aoissl.bank.condensing import Entries, condense
from anomalib_aoissl.bank.content import (
    ID_NAMES,
    NAMES,
    REQUIRED,
    BankArrays,
    check_embeddings,
    described,
    entries_to_remove,
    merged,
    pixels_without,
    without_entries,
)
from anomalib_aoissl.bank.patches import patch_labels
from anomalib_aoissl.data.indices import IGNORE_INDEX
from anomalib_aoissl.matching.precision import PRECISIONS, converted, stored
from anomalib_aoissl.pixel_head.learning.sample import PixelSample

from .entries import Tensors, chosen_entries, concatenated, pixel_state, pixels_of_state, tensors_of
from .gathering import gathered

HELD_BUDGETS, HELD_BATCHES = 4, 16
"""Times the budget, and the added batch, that are held while a bank is filled: what is condensed twice, and what
thereby lost, costs accuracy, so that a few images should be condensed once, at the end, in a small bank too."""


class MemoryBank(DynamicBufferMixin):
    """Labelled patches that retrieval searches; N entries, D dims, L = patch height * patch width labels an entry.

    Buffers: ``embeddings`` ``[N, D]`` of unit length, ``labels`` ``[N, L]`` uint8 (255 = ignore), ``device_ids`` and
    ``image_ids`` ``[N]`` int32, indices into `device_names` and `image_names`, ``positions`` ``[N]`` int32, the patch
    in its image in row-major order, and ``counts`` int32, the patches that each entry stands for: ``[N]`` in a
    condensed bank and empty in one that holds every patch. All of it is in the state dict, names included, and any
    number of entries is loaded.

    ``pixels`` are the labelled pixels that the pixel head was fitted to, None without one.

    With a budget the bank is condensed while it is filled, so that no more than `HELD_BUDGETS` times the budget and
    `HELD_BATCHES` times the added batch is ever held.

    Args:
        embed_dim: D.
        patch_size: (height, width) of a patch, px.
        budget: Entries to keep at most; None for all.
        seed: Of what is random in condensing.
        precision: What embeddings are stored in, a name of `precision.PRECISIONS`; in int8 the length of an entry is
            that of its integers, not 1.
    """

    def __init__(
        self,
        embed_dim: int,
        patch_size: tuple[int, int],
        *,
        budget: int | None = None,
        seed: int = 0,
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.budget, self.seed = budget, seed
        self.register_buffer("embeddings", torch.empty(0, embed_dim, dtype=PRECISIONS[precision]))
        self.register_buffer("labels", torch.empty(0, patch_size[0] * patch_size[1], dtype=torch.uint8))
        for name in (*ID_NAMES, "counts"):
            self.register_buffer(name, torch.empty(0, dtype=torch.int32))
        self.embeddings: torch.Tensor
        self.labels: torch.Tensor
        self.device_ids: torch.Tensor
        self.image_ids: torch.Tensor
        self.positions: torch.Tensor
        self.counts: torch.Tensor
        self.class_names: list[str] = []
        self.device_names: list[str] = []
        self.image_names: list[str] = []
        self.encoder_hash = ""
        self.pixels: PixelSample | None = None
        self._previous: BankArrays | None = None  # for undo
        self._before_adding: BankArrays | None = None
        self._pending: list[Tensors] = []

    def __len__(self) -> int:
        """Entries that are searched; what was added is counted after `finish`."""
        return len(self.embeddings)

    def add(
        self,
        embeddings: torch.Tensor,
        masks: torch.Tensor,
        devices: Sequence[str],
        images: Sequence[str],
        first: int = 0,
    ) -> None:
        """Put the patches of labelled images aside until `finish` makes them entries.

        Patches without any label (all pixels ignored) are left out, since they could never vote. Only embeddings and
        labels are kept, never the images.

        Args:
            embeddings: ``[B, P, D]``, patches in row-major order.
            masks: ``[B, H, W]`` uint8 class indices of the encoder's input size.
            devices: Device of each image.
            images: Name of each image, such as its path.
            first: Position of the first patch: a tile goes on where the one before it ended.

        Raises:
            ValueError: If embeddings are not finite; nothing is put aside then.
        """
        for image, of_image in zip(images, embeddings, strict=True):
            check_embeddings(of_image.detach().float().cpu().numpy(), image)
        labels = patch_labels(masks, self.patch_size)  # [B, P, L]
        self._before_adding = self._content_before_adding()
        batch = labels.shape[0] * labels.shape[1]
        limit = None if self.budget is None else HELD_BUDGETS * self.budget + HELD_BATCHES * batch
        for index, (device, image) in enumerate(zip(devices, images, strict=True)):
            used = (labels[index] != IGNORE_INDEX).any(dim=-1).nonzero().squeeze(1)  # [entries]
            if limit is not None and self.pending_entries + len(used) > limit:
                self._pending = [self._condensed(concatenated(self._pending), limit // 2)]
            ids = torch.full_like(used, _index_of(device, self.device_names), dtype=torch.int32)
            image_ids = torch.full_like(ids, _index_of(image, self.image_names))
            unit = functional.normalize(embeddings[index][used].float(), dim=-1)
            if len(used):
                vectors, shown = stored(unit, self.embeddings.dtype), labels[index][used]
                columns = vectors, shown, ids, image_ids, (used + first).to(torch.int32), torch.ones_like(ids)
                self._pending.append(dict(zip(REQUIRED, columns, strict=True)))

    def _content_before_adding(self) -> BankArrays:
        """Return what the bank held before what was put aside since the last `finish`."""
        return self.content() if self._before_adding is None else self._before_adding

    @property
    def pending_entries(self) -> int:
        """Entries that were added and are not searched yet."""
        return sum(len(pending["labels"]) for pending in self._pending)

    def gather(self) -> None:
        """Put what all processes added aside in each of them, in an order that depends on neither; before `finish`."""
        before = self._content_before_adding()
        mine = concatenated([chosen_entries(self._entries(), torch.arange(0)), *self._pending])
        added = gathered(self._content_of(mine), before)
        self._before_adding = before if len(added) else None
        self._pending = [tensors_of(added, self.embeddings.device)] if len(added) else []
        self.device_names, self.image_names = list(added.device_names), list(added.image_names)

    def finish(self) -> None:
        """Make what was added entries of the bank, and condense it where it has a budget.

        Raises:
            ValueError: If the budget cannot hold an entry of each class and each device; the bank is then as it was.
        """
        if not self._pending:
            return
        target = self._pending[0]["labels"].device
        present = {name: tensor.to(target) for name, tensor in self._entries().items()}
        entries = concatenated([present, *self._pending])
        self._pending.clear()
        before, self._before_adding = self._before_adding, None
        try:
            self._take_entries(self._finished(entries))
        except ValueError:
            if before is not None:
                self.take(before)
            raise
        self._previous = before

    def remove(self, *, device: str | None = None, image: str | None = None) -> int:
        """Take the entries of a device or an image out, of an image of a device where both are given; return how many.

        A class whose last entry goes is warned of.

        Raises:
            ValueError: If neither is given, or the bank has no such device or image.
        """
        self.finish()
        before = self.content()
        leaving, pixels = entries_to_remove(before, device, image), pixels_without(before, device, image)
        self.take(without_entries(before, leaving, pixels, " undo() brings it back."))
        self._previous = before
        return len(before) - len(self)

    def merge(self, other: MemoryBank | BankArrays) -> None:
        """Add the entries of another bank, its classes mapped by name, and condense where this bank has a budget.

        Raises:
            ValueError: If the other bank has classes that this one has not, is of another encoder, holds what no bank
                can, or the budget cannot hold an entry of each class and each device.
        """
        self.finish()
        before, taken = self.content(), other.content() if isinstance(other, MemoryBank) else other
        problem = damage(taken) if len(taken) else ""
        if problem:
            msg = f"The bank to take in is damaged ({problem}). Restore a copy, or fill it from the images again."
            raise ValueError(msg)
        try:
            self.take(merged(before, taken))
            self._take_entries(self._finished(self._entries()))
        except ValueError:
            self.take(before)
            raise
        self._previous = before

    def undo(self) -> None:
        """Bring back what the bank held before the last `finish`, `remove`, `merge` or `clear`; only that one.

        Raises:
            RuntimeError: If there is nothing to bring back.
        """
        if self._previous is None:
            msg = "There is no edit of the bank to undo: one step back is kept, since the last load."
            raise RuntimeError(msg)
        self._pending.clear()
        self.take(self._previous)
        self._previous, self._before_adding = None, None

    def content(self) -> BankArrays:
        """Return the entries and names as a value, which later edits do not change."""
        return self._content_of(self._entries())

    def _content_of(self, entries: Tensors) -> BankArrays:
        """Return entries with the bank's names as a value; its arrays share the memory of tensors on the processor."""
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in entries.items()}
        classes, devices, images = (tuple(getattr(self, name)) for name in NAMES)
        return BankArrays(
            arrays, classes, devices, images, self.encoder_hash, pixels=self.pixels, patch_size=self.patch_size
        )

    def take(self, content: BankArrays) -> None:
        """Hold this content in place of the present one."""
        self._take_entries(tensors_of(content, self.embeddings.device))
        for name in NAMES:
            setattr(self, name, list(getattr(content, name)))
        self.encoder_hash, self.pixels = content.encoder_hash, content.pixels

    def _entries(self) -> Tensors:
        """Return the tensors of the entries, the counts of ones where the bank is not condensed."""
        return {**{name: getattr(self, name) for name in REQUIRED}, "counts": self.entry_counts()}

    def entry_counts(self) -> torch.Tensor:
        """Return the patches ``[N]`` that each entry stands for, of ones where the bank is not condensed."""
        return self.counts if len(self.counts) else torch.ones_like(self.device_ids)

    def _take_entries(self, entries: Tensors) -> None:
        """Take tensors as `_entries` gives them in place of the present ones."""
        for name in REQUIRED:
            setattr(self, name, entries[name])
        if not bool((self.counts != 1).any()):
            self.counts = self.counts[:0]

    def _finished(self, entries: Tensors) -> Tensors:
        """Return the entries that the bank holds of these: all without a budget, else condensed to it."""
        return entries if self.budget is None else self._condensed(entries, self.budget)

    def _condensed(self, entries: Tensors, budget: int) -> Tensors:
        """Return the entries that are kept within the budget, in the order of device, image and position."""
        if len(entries["labels"]) <= budget:
            return entries
        for ids, names in (("image_ids", self.image_names), ("device_ids", self.device_names)):  # the last sort decides
            rank = torch.tensor(sorted(range(len(names)), key=names.__getitem__)).argsort()
            entries = chosen_entries(entries, rank[entries[ids].cpu().long()].argsort(stable=True))
        # On the CPU, where sums have a fixed order.
        kept, counts = condense(Entries.of(self._content_of(entries)), budget, np.random.default_rng(self.seed))
        taken = chosen_entries(entries, torch.from_numpy(kept))
        return {**taken, "counts": torch.from_numpy(counts).to(taken["counts"].device)}

    def clear(self) -> None:
        """Take all entries and the names of devices and images out."""
        before = self.content()
        self._pending.clear()
        for name in REQUIRED:
            setattr(self, name, getattr(self, name)[:0])
        self.device_names, self.image_names, self.pixels = [], [], None
        self._previous, self._before_adding = before if len(before) else None, None

    def describe(self) -> dict[str, Any]:
        """Return entries, patches, megabytes and encoder, and the entries or pixels of each device, image and class."""
        return described(self.content())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take a state dict whose embeddings may be stored in another precision."""
        key = f"{prefix}embeddings"
        if key in state_dict:
            state_dict[key] = converted(state_dict[key], self.embeddings.dtype)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def get_extra_state(self) -> dict[str, Any]:
        """Return the names, which the state dict carries beside the tensors."""
        return {
            **{name: list(getattr(self, name)) for name in NAMES},
            "encoder_hash": self.encoder_hash,
            "patch_size": list(self.patch_size),
            **pixel_state(self.pixels),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take the names from a state dict."""
        for name in NAMES:
            setattr(self, name, list(state[name]))
        self.encoder_hash = state.get("encoder_hash", "")
        self.pixels = pixels_of_state(state)
        self._previous = None


def _index_of(name: str, names: list[str]) -> int:
    """Return the index of the name, added to the names where it is new."""
    if name not in names:
        names.append(name)
    return names.index(name)
