# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What an exported model says of one image; needs no torch."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anomalib_aoissl.data.describing.class_colours import write_class_index_png
from anomalib_aoissl.visualization.overlay import hatch, legend, overlay_mask

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Segmentation"]

logger = logging.getLogger(__name__)

NOT_FINITE = (
    "The model's answer is NaN or infinity, so there is no mask. Look for such values in the image; else compute in 32 "
    "bits: leave INFERENCE_PRECISION_HINT out of config."
)
"""What is said of an answer that is no number."""


@dataclass(frozen=True)
class Segmentation:
    """What the model says of one image.

    Attributes:
        class_map: ``[H, W]`` uint8 class indices at the image's original size.
        novelty: ``[H, W]`` float32 at the original size, 0 (looks like a labelled patch) to 2.
        score: The image's novelty, the largest of its patches'.
        class_names: Names of the classes in the order of their indices.
        image: ``[H, W, 3]`` uint8, what was looked at.
        uncertainty: ``[H, W]`` float32 at the original size, 0 (sure) to 1; None where the model cannot tell.
        abstained: ``[H, W]`` bool, where the model says that it does not know; None where it has no threshold. The
            class map names its best guess there too.
        fault: In what the picture differs from the labelled ones, so that the mask may be wrong: blurred, dark,
            under- or overexposed. "" where there is nothing, or where the model does not know how they are.
    """

    class_map: np.ndarray
    novelty: np.ndarray
    score: float
    class_names: tuple[str, ...]
    image: np.ndarray
    uncertainty: np.ndarray | None = None
    abstained: np.ndarray | None = None
    fault: str = ""

    def doubted(self, fault: str, image: str | Path | np.ndarray) -> Segmentation:
        """Return it with a fault of the picture, which is logged, and abstention everywhere where the model abstains.

        An empty fault changes nothing.

        Args:
            fault: In what the picture is unlike the labelled ones.
            image: Its file, which is named, or an array.
        """
        if not fault:
            return self
        name = "an array" if isinstance(image, np.ndarray) else image
        logger.warning("%s is unlike the labelled pictures, its mask may be wrong: %s.", name, fault)
        abstained = None if self.abstained is None else np.ones_like(self.abstained)
        return replace(self, fault=fault, abstained=abstained)

    def class_shares(self) -> dict[str, float]:
        """Return the share of the image's pixels that each class has, 0 to 1."""
        classes, pixels = enumerate(self.class_names), self.class_map.size  # one at a time: a byte a pixel
        return {name: float(np.count_nonzero(self.class_map == index) / pixels) for index, name in classes}

    def overlay(self, colours: np.ndarray | None = None) -> Image:
        """Return the image with the classes' colours over it, hatched where the model abstained; a legend below.

        Args:
            colours: ``[C, 3]`` uint8 of the classes; None for the usual ones.
        """
        from PIL import Image as PILImage

        coloured = overlay_mask(self.image, self.class_map, len(self.class_names), colours)
        if self.abstained is not None:
            coloured = hatch(coloured, self.abstained)
        strip = legend(self.class_names, coloured.shape[1], abstains=self.abstained is not None, colours=colours)
        return PILImage.fromarray(np.vstack([coloured, np.asarray(strip)]))

    def save_mask(self, path: str | Path) -> None:
        """Write the class map as a palette PNG, whole or not at all."""
        write_class_index_png(path, self.class_map, len(self.class_names))
