# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The memory bank: embeddings of labelled patches, their pixel labels, and where each came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from anomalib.models.components import DynamicBufferMixin
from torch.nn import functional

from anomalib_aoissl.data.indices import IGNORE_INDEX


class MemoryBank(DynamicBufferMixin):
    """Labelled patches that retrieval searches; N rows, D dims, L = patch height * patch width labels a row.

    Buffers: ``embeddings`` ``[N, D]`` float32 of unit length, ``labels`` ``[N, L]`` uint8 (255 = ignore),
    ``device_ids`` and ``image_ids`` ``[N]`` int32, indices into `device_names` and `image_names`. All of it is in the
    state dict, names included, and any number of rows is loaded.

    Args:
        embed_dim: D.
        patch_size: (height, width) of a patch, px.
    """

    def __init__(self, embed_dim: int, patch_size: tuple[int, int]) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.register_buffer("embeddings", torch.empty(0, embed_dim))
        self.register_buffer("labels", torch.empty(0, patch_size[0] * patch_size[1], dtype=torch.uint8))
        self.register_buffer("device_ids", torch.empty(0, dtype=torch.int32))
        self.register_buffer("image_ids", torch.empty(0, dtype=torch.int32))
        self.embeddings: torch.Tensor
        self.labels: torch.Tensor
        self.device_ids: torch.Tensor
        self.image_ids: torch.Tensor
        self.class_names: list[str] = []
        self.device_names: list[str] = []
        self.image_names: list[str] = []
        self._pending: list[tuple[torch.Tensor, ...]] = []

    def __len__(self) -> int:
        """Rows that are searched; what was added is counted after `finish`."""
        return len(self.embeddings)

    def add(
        self,
        embeddings: torch.Tensor,
        masks: torch.Tensor,
        devices: Sequence[str],
        images: Sequence[str],
    ) -> None:
        """Put the patches of labelled images aside until `finish` makes them rows.

        Patches without any label (all pixels ignored) are left out, since they could never vote. Only embeddings and
        labels are kept, never the images.

        Args:
            embeddings: ``[B, P, D]``, patches in row-major order.
            masks: ``[B, H, W]`` uint8 class indices of the encoder's input size.
            devices: Device of each image.
            images: Name of each image, such as its path.
        """
        labels = patch_labels(masks, self.patch_size)  # [B, P, L]
        for row, (device, image) in enumerate(zip(devices, images, strict=True)):
            used = (labels[row] != IGNORE_INDEX).any(dim=-1)  # [P]
            count = int(used.sum())
            device_id, image_id = _index_of(device, self.device_names), _index_of(image, self.image_names)
            self._pending.append(
                (
                    functional.normalize(embeddings[row][used].float(), dim=-1),
                    labels[row][used],
                    torch.full((count,), device_id, dtype=torch.int32, device=labels.device),
                    torch.full((count,), image_id, dtype=torch.int32, device=labels.device),
                )
            )

    def finish(self) -> None:
        """Make what was added rows of the bank."""
        names = ("embeddings", "labels", "device_ids", "image_ids")
        while self._pending and not len(self._pending[0][0]):
            self._pending.pop(0)
        if not self._pending:
            return
        for position, name in enumerate(names):
            new = [pending[position] for pending in self._pending]
            setattr(self, name, torch.cat([getattr(self, name).to(new[0].device), *new]))
        self._pending.clear()

    def clear(self) -> None:
        """Take all rows and names out."""
        self._pending.clear()
        for name in ("embeddings", "labels", "device_ids", "image_ids"):
            setattr(self, name, getattr(self, name)[:0])
        self.device_names, self.image_names = [], []

    def describe(self) -> dict[str, Any]:
        """Return the rows and megabytes of the bank, and its rows for each device and its pixels for each class."""
        pixels = torch.bincount(self.labels.flatten().long(), minlength=IGNORE_INDEX + 1)
        tensors = (self.embeddings, self.labels, self.device_ids, self.image_ids)
        rows = torch.bincount(self.device_ids.long(), minlength=len(self.device_names))
        return {
            "rows": len(self),
            "images": len(self.image_names),
            "megabytes": sum(t.numel() * t.element_size() for t in tensors) / 1e6,
            "rows_of_device": dict(zip(self.device_names, rows.tolist(), strict=True)),
            "pixels_of_class": {name: int(pixels[index]) for index, name in enumerate(self.class_names)},
        }

    def get_extra_state(self) -> dict[str, list[str]]:
        """Return the names, which the state dict carries beside the tensors."""
        return {
            "class_names": list(self.class_names),
            "device_names": list(self.device_names),
            "image_names": list(self.image_names),
        }

    def set_extra_state(self, state: dict[str, list[str]]) -> None:
        """Take the names from a state dict."""
        self.class_names = list(state["class_names"])
        self.device_names = list(state["device_names"])
        self.image_names = list(state["image_names"])


def patch_labels(masks: torch.Tensor, patch_size: tuple[int, int]) -> torch.Tensor:
    """Return the labels ``[B, P, L]`` of each patch of masks ``[B, H, W]``; patches and pixels in row-major order.

    Raises:
        ValueError: If the patch does not divide the masks.
    """
    batch, height, width = masks.shape
    rows, columns = height // patch_size[0], width // patch_size[1]
    if (rows * patch_size[0], columns * patch_size[1]) != (height, width):
        msg = f"Masks of {height}x{width} px are not divided by patches of {patch_size[0]}x{patch_size[1]} px."
        raise ValueError(msg)
    blocks = masks.reshape(batch, rows, patch_size[0], columns, patch_size[1])
    return blocks.permute(0, 1, 3, 2, 4).reshape(batch, rows * columns, -1)  # [B, P, L]


def patches_to_image(patches: torch.Tensor, grid: tuple[int, int], patch_size: tuple[int, int]) -> torch.Tensor:
    """Return the pixels ``[B, H, W]`` of patches ``[B, P, L]``; the inverse of `patch_labels`."""
    rows, columns = grid
    blocks = patches.reshape(-1, rows, columns, *patch_size).permute(0, 1, 3, 2, 4)
    return blocks.reshape(-1, rows * patch_size[0], columns * patch_size[1])  # [B, H, W]


def _index_of(name: str, names: list[str]) -> int:
    """Return the index of the name, added to the names where it is new."""
    if name not in names:
        names.append(name)
    return names.index(name)
