# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Training augmentation for inspection pictures, as torchvision v2 transforms of image and mask together.

A wire or a bond pad has no up and no left, so the eight symmetries of the square are all fair. Cameras differ in gain,
gamma and focus. Hue has no counterpart here: planes are lights, not colours.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from anomalib_aoissl.data.indices import BACKGROUND_INDEX, IGNORE_INDEX

__all__ = ["AUGMENTATIONS", "LightAndSensor", "QuarterTurn", "Shift", "Window", "inspection_augmentation"]

_FILL: dict[type, float] = {tv_tensors.Image: 0.0, tv_tensors.Mask: IGNORE_INDEX}


AUGMENTATIONS = ("mild", "strong", "none")
"""Names of the augmentations; "none" for no change."""


def inspection_augmentation(size: tuple[int, int], name: str = "mild") -> v2.Transform | None:
    """Return the augmentation that the segmenter trains with where the datamodule has none; None for "none".

    "mild" moves and mirrors what the picture shows; "strong" also changes scale, angle, light and sharpness.

    Args:
        size: (height, width) px of the result of the strong one.
        name: One of `AUGMENTATIONS`.

    Raises:
        ValueError: If there is no such augmentation.
    """
    symmetry = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), QuarterTurn()]
    if name == "mild":
        return v2.Compose([Shift(), v2.RandomApply(symmetry, p=0.5)])
    if name == "strong":
        rotation = v2.RandomRotation(10, interpolation=InterpolationMode.BILINEAR, fill=_FILL)
        return v2.Compose([Window(size), *symmetry, v2.RandomApply([rotation], p=0.3), LightAndSensor()])
    if name == "none":
        return None
    msg = f"augment={name!r} is unknown; the augmentations are {list(AUGMENTATIONS)}."
    raise ValueError(msg)


class Shift(v2.Transform):
    """Moves the picture up and left by some px, so that edges lie elsewhere in the encoder's patches.

    What enters at the lower and the right edge is the picture mirrored there, and ignored in the mask.

    Args:
        most: Largest shift, px.
    """

    def __init__(self, most: int = 15) -> None:
        super().__init__()
        self.most = most

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Return the shift (down, right), px."""
        limits = functional.get_size(flat_inputs[0])
        return {"shift": [int(torch.randint(min(self.most, (limit - 1) // 2) + 1, ())) for limit in limits]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Return the shifted image or mask."""
        if not isinstance(inpt, tv_tensors.Image | tv_tensors.Mask):
            return inpt
        down, right = params["shift"]
        seen, padding = inpt[..., down:, right:], (0, right, 0, down)
        if isinstance(inpt, tv_tensors.Mask):
            moved = torch.nn.functional.pad(seen.as_subclass(torch.Tensor), padding, value=IGNORE_INDEX)
        else:
            moved = torch.nn.functional.pad(seen.as_subclass(torch.Tensor)[None], padding, mode="reflect")[0]
        return tv_tensors.wrap(moved, like=inpt)


class Window(v2.Transform):
    """Cuts a window at a random scale and resizes it; half of the windows hold a pixel of a rare class.

    The window has the picture's own proportions, so that a picture is squeezed as much as it is in a test. Where it is
    larger than the picture, the rest is black and its mask is ignored.

    Args:
        size: (height, width) px of the result.
        zoom: Range of the scale: a window shows the picture's size / zoom.
        rare: Share of the windows that are placed around a pixel of a class drawn evenly from those in the mask, the
            background left out: a class of ten pixels is drawn as often as one of a thousand.
    """

    def __init__(self, size: tuple[int, int], zoom: tuple[float, float] = (0.8, 2.0), rare: float = 0.5) -> None:
        super().__init__()
        self.size, self.zoom, self.rare = (int(size[0]), int(size[1])), zoom, rare

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Return the window: top, left, height, width in px of the picture."""
        limits = functional.get_size(next(part for part in flat_inputs if isinstance(part, tv_tensors.Image)))
        draws = torch.rand(2).tolist()
        zoom = math.exp(math.log(self.zoom[0]) + draws[0] * math.log(self.zoom[1] / self.zoom[0]))
        window = [max(round(length / zoom), 1) for length in limits]
        mask = next((part for part in flat_inputs if isinstance(part, tv_tensors.Mask)), None)
        pixel = rare_pixel(mask) if mask is not None and draws[1] < self.rare else None
        top, left = (
            _start(length, side, None if pixel is None else pixel[axis])
            for axis, (length, side) in enumerate(zip(limits, window, strict=True))
        )
        return {"window": (top, left, *window), "limits": limits}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Return the window of an image or a mask at the size."""
        if not isinstance(inpt, tv_tensors.Image | tv_tensors.Mask):
            return inpt
        top, left, height, width = params["window"]
        bottom, right = top + height - params["limits"][0], left + width - params["limits"][1]
        padding = [max(-left, 0), max(-top, 0), max(right, 0), max(bottom, 0)]
        if any(padding):
            inpt = functional.pad(inpt, padding, fill=_FILL[type(inpt)])
        cut = functional.crop(inpt, max(top, 0), max(left, 0), height, width)
        if isinstance(cut, tv_tensors.Mask):  # torchvision's own resize of masks is off by up to half a pixel
            plain = cut.as_subclass(torch.Tensor)[None]
            plain = functional.resize_image(plain, list(self.size), interpolation=InterpolationMode.NEAREST_EXACT)
            return tv_tensors.Mask(plain[0])
        return functional.resize(cut, list(self.size), antialias=True)


class QuarterTurn(v2.Transform):
    """Turns by a right angle any number of times; a picture that is not square by half a turn or none."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Return the number of turns."""
        height, width = functional.get_size(flat_inputs[0])
        step = 1 if height == width else 2
        return {"turns": step * int(torch.randint(4 // step, ()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Return the turned image or mask."""
        if not isinstance(inpt, tv_tensors.Image | tv_tensors.Mask) or not params["turns"]:
            return inpt
        return tv_tensors.wrap(inpt.as_subclass(torch.Tensor).rot90(params["turns"], (-2, -1)), like=inpt)


class LightAndSensor(v2.Transform):
    """Another light and another camera: lights dropped and swapped, gain, gamma, contrast, blur and noise.

    The planes of one or two lights are packed copies and means of each other (``pack_channels``); they are changed as
    lights and packed again, so that a batch never shows planes that no picture has.

    Args:
        drop: Probability that a light is replaced by another one, or a plane of many by the mean of the rest.
        swap: Probability that two lights change places; planes that may be colours never do.
        gain: Largest change of a light's gain, gamma and contrast, as the exponent of e: 0.3 is a factor 0.74 to 1.35.
        blur: Largest standard deviation of a Gaussian blur, px; half of the pictures stay sharp.
        noise: Largest standard deviation of added noise, where white is 1.
    """

    _transformed_types = (tv_tensors.Image,)

    def __init__(
        self, *, drop: float = 0.1, swap: float = 0.1, gain: float = 0.3, blur: float = 1.2, noise: float = 0.04
    ) -> None:
        super().__init__()
        self.drop, self.swap, self.gain, self.blur, self.noise = drop, swap, gain, blur, noise

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Return the float image ``[C, H, W]`` in [0, 1] under another light."""
        del params
        lights = unpack_lights(inpt.as_subclass(torch.Tensor))  # [L, H, W]
        lights = self._light(self._exchange(lights, may_swap=len(lights) < len(inpt)))
        blur = self.blur * (2 * float(torch.rand(())) - 1)
        if blur > 0.2:
            lights = functional.gaussian_blur_image(lights, [2 * math.ceil(3 * blur) + 1] * 2, [blur, blur])
        lights = lights + self.noise * float(torch.rand(())) * torch.randn_like(lights)
        return tv_tensors.wrap(_pack(lights.clamp(0, 1), len(inpt)), like=inpt)

    def _exchange(self, lights: torch.Tensor, *, may_swap: bool) -> torch.Tensor:
        """Return ``[L, H, W]`` with a light dropped or two swapped."""
        count = len(lights)
        swaps, drops = (torch.rand(2) < torch.tensor([self.swap, self.drop])).tolist()
        if count == 2 and may_swap and swaps:
            lights = lights.flip(0)
        if count > 1 and drops:
            lost = int(torch.randint(count, ()))
            rest = [index for index in range(count) if index != lost]
            lights = lights.clone()
            lights[lost] = lights[rest].mean(dim=0)
        return lights

    def _light(self, lights: torch.Tensor) -> torch.Tensor:
        """Return ``[L, H, W]`` with another gain, gamma and contrast for each light, most of the change in common."""
        shape = (len(lights), 1, 1)
        common, own = torch.rand(3, 1, 1, 1) * 2 - 1, torch.rand(3, *shape) * 2 - 1
        gain, gamma, contrast = (self.gain * (0.75 * common + 0.25 * own)).exp()  # [L, 1, 1] each
        lights = lights.clamp_min(1e-4).pow(gamma) * gain
        mean = lights.mean(dim=(1, 2), keepdim=True)
        return (lights - mean) * contrast + mean


def rare_pixel(mask: torch.Tensor) -> tuple[int, int] | None:
    """Return (row, column) of a random pixel of a class drawn evenly from the foreground; None where there is none.

    Args:
        mask: Class indices ``[H, W]``.
    """
    plain = mask.as_subclass(torch.Tensor)
    classes = [index for index in plain.unique().tolist() if index not in {BACKGROUND_INDEX, IGNORE_INDEX}]
    if not classes:
        return None
    places = (plain == classes[int(torch.randint(len(classes), ()))]).nonzero()
    row, column = places[int(torch.randint(len(places), ()))].tolist()
    return row, column


def unpack_lights(planes: torch.Tensor) -> torch.Tensor:
    """Return the lights ``[L, H, W]`` behind packed planes ``[C, H, W]``: 1 or 2 where three planes hold no more."""
    if len(planes) != 3:
        return planes
    if torch.equal(planes[0], planes[1]) and torch.equal(planes[0], planes[2]):
        return planes[:1]
    # The mean of two 8-bit lights that went through a resize is exact to rounding alone.
    return planes[:2] if torch.allclose(planes[2], planes[:2].mean(dim=0), atol=1e-4) else planes


def _pack(lights: torch.Tensor, planes: int) -> torch.Tensor:
    """Return the planes ``[C, H, W]`` of lights ``[L, H, W]``, the inverse of `unpack_lights`."""
    if len(lights) == planes:
        return lights
    return lights.expand(planes, -1, -1) if len(lights) == 1 else torch.cat([lights, lights.mean(dim=0, keepdim=True)])


def _start(limit: int, side: int, inside: int | None) -> int:
    """Return where a window of ``side`` px begins on an axis of ``limit`` px, so that it holds the pixel ``inside``."""
    slack = limit - side
    low, high = min(slack, 0), max(slack, 0)
    if inside is not None and slack > 0:
        low, high = max(inside - side + 1, 0), min(inside, slack)
    return low + int(torch.randint(high - low + 1, ()))
