# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The pre-processor: resize, standardise the light and normalise, the same in training and in the exported graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from anomalib.pre_processing import PreProcessor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import Compose, Normalize, Resize, Transform
from torchvision.transforms.v2.functional import resize

from anomalib_aoissl.deployment.tiles.light import DARK, FIXED_LIGHT, FIXED_MOMENTS, LEAST_DEVIATION
from anomalib_aoissl.pixel_head.marking import mark

LIGHT, JOINT_LIGHT = "planes", "standardised"
"""How light is standardised: of each plane, or of all together, as a checkpoint of 0.2.0 has it, which does not say.
`FIXED_LIGHT` is the third way: not at all."""

_SPREAD, _MIDDLE = 0.2, 0.5
"""Standard deviation and mean of a standardised picture, in [0, 1]."""


def standardize_light(images: torch.Tensor, whole: torch.Tensor | None = None, *, light: str = LIGHT) -> torch.Tensor:
    """Return images ``[B, C, H, W]`` in [0, 1] with the light taken out: log(x + 0.1), to mean 0.5 and deviation 0.2.

    A gain becomes a shift of the logarithm and a gamma a factor, which the mean and the standard deviation over the
    pixels of each plane take out. So each lighting channel has an exposure of its own, and a colour cast is taken out
    too. Values beyond 2.5 deviations are cut to [0, 1].

    Args:
        images: The images.
        whole: Pixels ``[B, C, h, w]`` of the pictures that the images are tiles of, whose light is taken out: a tile of
            bare ground has no contrast of its own. None where an image is the whole picture.
        light: `LIGHT` for mean and deviation of each plane, `JOINT_LIGHT` for those of all together, or `FIXED_LIGHT`
            for the same ones of every picture, so that grey levels stay: 0 becomes 0, and 1 becomes 1.
    """
    logarithms = (images.clamp(min=0.0) + DARK).log()
    if whole is None:
        mean, deviation = _moments(logarithms, light)
        mean, deviation = mark("light_mean", mean), mark("light_deviation", deviation)
    else:
        mean, deviation = _moments((whole.clamp(min=0.0) + DARK).log(), light)
    return ((logarithms - mean) * (_SPREAD / deviation) + _MIDDLE).clamp(0.0, 1.0)


def _moments(logarithms: torch.Tensor, light: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and deviation of ``[B, C, H, W]``: ``[B, 1, 1, 1]`` of all planes, or ``[B, C, 1, 1]`` of each."""
    if light == FIXED_LIGHT:
        none = torch.zeros_like(logarithms[:, :, :1, :1])
        return none + FIXED_MOMENTS[0], none + FIXED_MOMENTS[1]
    over = (1, 2, 3) if light == JOINT_LIGHT else (2, 3)
    mean = logarithms.mean(dim=over, keepdim=True)
    return mean, (logarithms - mean).square().mean(dim=over, keepdim=True).sqrt() + LEAST_DEVIATION


class StandardizeLight(Transform):  # type: ignore[misc]
    """`standardize_light` of images; masks stay as they are.

    Args:
        light: How, see `standardize_light`.
    """

    _transformed_types: ClassVar[Any] = (torch.Tensor,)

    def __init__(self, light: str = LIGHT) -> None:
        super().__init__()
        self.light = light

    def transform(self, inpt: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
        """Return an image or a batch of them with the light taken out."""
        del params
        if isinstance(inpt, tv_tensors.Mask):
            return inpt
        single = inpt.ndim == 3
        images = standardize_light((inpt.unsqueeze(0) if single else inpt).as_subclass(torch.Tensor), light=self.light)
        return tv_tensors.wrap(images[0] if single else images, like=inpt)


class CentredResize(Resize):  # type: ignore[misc]
    """Antialiased resize of images; a pixel of a mask takes the class at its centre.

    Torchvision's own resize of masks takes the class at a pixel's corner, which moves masks by up to half a pixel
    against the image: a quarter of a wire of two pixels.
    """

    def transform(self, inpt: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
        """Return an image or a mask, or batches of them, at the new size."""
        if not isinstance(inpt, tv_tensors.Mask):
            return super().transform(inpt, params)
        return tv_tensors.wrap(resize_masks(inpt.as_subclass(torch.Tensor), self.size), like=inpt)


def resize_masks(masks: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return masks ``[..., H, W]`` of class indices at (height, width) px: of each pixel the class at its centre."""
    planes = masks.reshape(-1, 1, *masks.shape[-2:])
    resized: torch.Tensor = resize(planes, list(size), InterpolationMode.NEAREST_EXACT)
    return resized.reshape(*masks.shape[:-2], *resized.shape[-2:])


def resize_of(pre_processor: object) -> Resize:
    """Return the resize to the model's size that a pre-processor's transform begins with, for images and masks.

    Raises:
        ValueError: If the transform, one of the user's own, does not begin so.
    """
    transforms = getattr(getattr(pre_processor, "transform", None), "transforms", ())
    if not transforms or not isinstance(transforms[0], Resize):
        msg = (
            f"pre_processor={type(pre_processor).__name__}: its transform must be a Compose that begins with a Resize "
            "to the model's image_size. Leave pre_processor out, or give it such a transform."
        )
        raise ValueError(msg)
    return transforms[0]


def light_kind(pre_processor: object) -> str:
    """Return how a pre-processor standardises light, as `standardize_light` takes it; `JOINT_LIGHT` of a user's own."""
    return str(getattr(pre_processor, "light", JOINT_LIGHT))


class SegmentationPreProcessor(PreProcessor):
    """Anomalib's pre-processor whose exported form keeps the antialiasing.

    Anomalib switches antialiasing off for the export, since ONNX has no antialiased resize of its tensors' sizes. A
    graph then sees other pixels than the bank was filled with, and thin wires break up. Here the exported resize is
    two matrix products with the same triangle filter, for any input size.

    Args:
        image_size: (height, width) of the model's input, px.
        mean: Mean of each plane.
        std: Standard deviation of each plane.
        tiled: Whether pictures keep their size, since the model cuts them into tiles. The exported form, which sees one
            tile, resizes all the same.
        light: How light is standardised, see `standardize_light`.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        *,
        tiled: bool = False,
        light: str = LIGHT,
    ) -> None:
        super().__init__()
        self._build({"image_size": list(image_size), "mean": list(mean), "std": list(std), "light": light})
        self.set_tiled(tiled)

    def _build(self, config: dict[str, Any]) -> None:
        """Make the transform that a configuration describes."""
        self.config = config
        self.normalize = Normalize(config["mean"], config["std"])
        self.resize = CentredResize(list(config["image_size"]), antialias=True)
        resize = [] if config.get("tiled") else [self.resize]
        self.light = config.get("light", JOINT_LIGHT)
        self.transform = Compose([*resize, StandardizeLight(self.light), self.normalize])

    def set_tiled(self, tiled: bool) -> None:
        """Have pictures keep their size, or be resized."""
        config = {key: value for key, value in self.config.items() if key != "tiled"}
        self._build({**config, "tiled": True} if tiled else config)

    def on_predict_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *args: int, **kwargs: int) -> None:
        """Have the module look at the pictures as they are, then apply the transform."""
        look = getattr(pl_module, "look_at", None)
        if look is not None:
            look(batch)
        super().on_predict_batch_start(trainer, pl_module, batch, *args, **kwargs)

    def see(self, images: torch.Tensor, whole: torch.Tensor | None = None) -> torch.Tensor:
        """Return images ``[B, C, height, width]`` in [0, 1] of the model's size as the model sees them.

        Args:
            images: The images.
            whole: Pixels of the pictures that they are tiles of, see `standardize_light`.
        """
        normalized: torch.Tensor = self.normalize(standardize_light(images, whole, light=self.light))
        return normalized

    def see_picture(self, images: torch.Tensor) -> torch.Tensor:
        """Return images ``[B, C, H, W]`` in [0, 1] as training sees them: at their own size where the model tiles."""
        own: Any = self.transform if self.config.get("tiled") else self
        seen: torch.Tensor = own(images)
        return seen

    def checkpoint_config(self) -> dict[str, Any]:
        """Return what anomalib writes into a checkpoint: the arguments, from which the transform is made again."""
        return self.config

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Make the transform of a checkpoint."""
        self._build(config)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return images ``[B, C, H, W]`` in [0, 1] as normalised ``[B, C, height, width]``; traceable."""
        transforms = self.transform.transforms if isinstance(self.transform, Compose) else [self.transform]
        if self.config.get("tiled"):
            transforms = [self.resize, *transforms]
        for transform in transforms:
            if isinstance(transform, Resize):
                height, width = transform.size
                batch = antialiased_resize(batch, (int(height), int(width)))
            elif isinstance(transform, StandardizeLight):
                batch = standardize_light(batch, light=transform.light)
            elif transform is not None:
                batch = transform(batch)
        return batch


def antialiased_resize(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return images ``[B, C, H, W]`` resized to ``[B, C, h, w]`` with a triangle filter, as matrix products.

    Equal to torchvision's bilinear resize with ``antialias=True``; H and W may be symbolic in an exported graph.
    """
    rows = _triangle_weights(images.shape[-2], size[0], images)
    columns = _triangle_weights(images.shape[-1], size[1], images)
    return rows @ images @ columns.transpose(2, 3)


def _triangle_weights(length: int, target: int, like: torch.Tensor) -> torch.Tensor:
    """Return the weights ``[1, 1, target, length]`` of a one-dimensional antialiased linear resize.

    Output i has its centre at (i + 0.5) * s in the input, s = length / target, and weighs the input j by
    max(0, 1 - |j + 0.5 - (i + 0.5) * s| / max(s, 1)), normalised to sum 1. Times 2 * max(length, target) that is
    max(0, 2 * max(length, target) - |(2j + 1) * target - (2i + 1) * length|): integers, which stay exact where a
    runtime computes floats in 16 bits.
    """
    inputs = torch.arange(length, device=like.device)  # j
    outputs = torch.arange(target, device=like.device)[None, None, :, None]  # i
    size = torch.ones_like(inputs).sum()  # the length as a tensor, so that it stays symbolic in a traced graph
    distance = ((2 * inputs + 1) * target - (2 * outputs + 1) * size).abs()
    weights = (2 * size.clamp(min=target) - distance).clamp(min=0)
    return weights.to(like.dtype) / weights.sum(dim=3, keepdim=True).to(like.dtype)
