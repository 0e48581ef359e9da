# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The inferencer for exported models: class map at the original size, class names, novelty; it needs no torch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from .abstaining import WINNING_SHARE, AbstentionFormat, add_winning_share
from .data.file_format import FileFormat
from .data.reading import ColorOrder
from .overlay import hatch, legend, overlay_mask, picture_of, resize_mask, write_class_index_png
from .retrieval.openvino_bank import read_metadata
from .retrieval.openvino_editing import OpenVINOBankMixin
from .retrieval.openvino_file import core, read_model

if TYPE_CHECKING:
    from PIL.Image import Image


logger = logging.getLogger(__name__)


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
    """

    class_map: np.ndarray
    novelty: np.ndarray
    score: float
    class_names: tuple[str, ...]
    image: np.ndarray
    uncertainty: np.ndarray | None = None
    abstained: np.ndarray | None = None

    def class_shares(self) -> dict[str, float]:
        """Return the share of the image's pixels that each class has, 0 to 1."""
        counts = np.bincount(self.class_map.ravel(), minlength=len(self.class_names))
        return {name: float(counts[index] / self.class_map.size) for index, name in enumerate(self.class_names)}

    def overlay(self) -> Image:
        """Return the image with the classes' colours over it, hatched where the model abstained; a legend below."""
        from PIL import Image as PILImage

        coloured = overlay_mask(self.image, self.class_map, len(self.class_names))
        if self.abstained is not None:
            coloured = hatch(coloured, self.abstained)
        picture = PILImage.fromarray(coloured)
        strip = legend(self.class_names, picture.width, abstains=self.abstained is not None)
        result = PILImage.new("RGB", (picture.width, picture.height + strip.height))
        result.paste(picture, (0, 0))
        result.paste(strip, (0, picture.height))
        return result

    def save_mask(self, path: str | Path) -> None:
        """Write the class map as a palette PNG, whole or not at all."""
        write_class_index_png(path, self.class_map, len(self.class_names))


class SegmentationOpenVINOInferencer(OpenVINOBankMixin):
    """Runs an exported model (``.xml`` or ``.onnx``) with OpenVINO, from files or arrays to `Segmentation`.

    The memory bank of an exported AOISSLRetrieval is edited here too: `bank`, `adapt`, `remove`, `extend_bank`,
    `replace_bank`, and `save` for the edited model.

    Args:
        path: The IR's ``.xml`` or an ``.onnx`` file.
        device: OpenVINO device.
        config: OpenVINO configuration. By default floats are computed in 32 bits: where a processor has bfloat16,
            OpenVINO would use it, and novelty, a small difference of large similarities, loses its digits.

    Attributes:
        class_names: Names of the classes in the order of their indices.
        threshold: Uncertainty in [0, 1] above which the model abstains; may be set. None for never.

    Raises:
        ImportError: If OpenVINO is not installed.
        FileNotFoundError: If the file does not exist.
        ValueError: If the model carries no class names, hence was not exported by this plugin.
    """

    def __init__(self, path: str | Path, device: str = "CPU", config: dict[str, Any] | None = None) -> None:
        model = read_model(path)
        metadata = read_metadata(model)
        if not metadata:
            msg = f"{path}: carries no class names. Export it again with this plugin's models (anomalib export)."
            raise ValueError(msg)
        self.class_names: tuple[str, ...] = tuple(metadata["class_names"])
        self.file_format = FileFormat.from_dict(metadata.get("file_format", {}))
        self.in_channels = int(model.input(0).partial_shape[1].get_length())
        self._abstention = _abstention(metadata)
        self.threshold = self._abstention.threshold if self._abstention is not None else None
        self._target = device, {"INFERENCE_PRECISION_HINT": "f32"} if config is None else config
        self._use(model)

    def _compile(self, model: Any) -> Any:
        """Return the model compiled for the inferencer's device."""
        return core().compile_model(model, *self._target)

    def _use(self, model: Any) -> None:
        """Answer with this model from now on."""
        asked = model
        if self._abstention is not None:
            asked = model.clone()  # anomalib's inferencer takes known outputs only, of a model that is saved again too
            if not add_winning_share(asked):
                if self.threshold is not None:
                    logger.warning("The model abstains from nothing: it is of another version. Export it again.")
                self._abstention, self.threshold = None, None
        self._compiled, self._model = self._compile(asked), model

    def predict(self, image: str | Path | np.ndarray, color_order: ColorOrder = "rgb") -> Segmentation:
        """Return the segmentation of one image.

        Args:
            image: A file, read as the model's training data was, with its other illuminations beside it; or an array
                ``[H, W]``, ``[H, W, C]``, uint8, uint16 (of the training data's bit depth, 16 where it had none) or
                float in [0, 1], C illuminations, or colours in the order red, green, blue.
            color_order: "bgr" for an array with blue first, as OpenCV reads; a file knows its own order.

        Raises:
            DatasetError: If the file cannot be read, or a value is not finite or out of range.
            TypeError: If the array is of another type.
            ValueError: If its shape is another, or its channels do not fit the model.
        """
        return next(self._segment(self._read(image, color_order)[np.newaxis]))

    def predict_batch(
        self, images: Sequence[str | Path | np.ndarray], color_order: ColorOrder = "rgb"
    ) -> list[Segmentation]:
        """Return the segmentation of each image; all must have one size. Arguments are those of `predict`.

        Raises:
            ValueError: If there is no image or the sizes differ, and as `predict`.
        """
        planes = [self._read(image, color_order) for image in images]
        if not planes:
            msg = "A batch needs at least one image."
            raise ValueError(msg)
        odd = next((index for index, plane in enumerate(planes) if plane.shape != planes[0].shape), None)
        if odd is not None:
            given = images[odd] if isinstance(images[odd], str | Path) else f"image {odd} of the batch"
            msg = (
                f"A batch needs images of one size and channel count: {given} has {planes[odd].shape}, the first "
                f"{planes[0].shape} (planes, height, width). Call predict for each."
            )
            raise ValueError(msg)
        return list(self._segment(np.stack(planes)))

    def _read(self, image: str | Path | np.ndarray, color_order: ColorOrder = "rgb") -> np.ndarray:
        """Return an image as planes ``[C, H, W]`` in [0, 1], as many as the model takes."""
        if isinstance(image, str | Path):
            planes, name = self.file_format.read(image), f": {image}"
        else:
            planes = self.file_format.read_array(image, color_order)
            name = f": an array {image.shape}, read as [H, W, C]"
        if len(planes) != self.in_channels:
            msg = f"The model takes {self.in_channels} planes, the image has {len(planes)}{name}."
            raise ValueError(msg)
        return planes

    def _segment(self, images: np.ndarray) -> Iterator[Segmentation]:
        """Yield the segmentation of each of the images ``[B, C, H, W]``."""
        outputs = self._compiled(np.ascontiguousarray(images))
        height, width = images.shape[-2:]
        doubts: Any = [None] * len(images)
        if self._abstention is not None:
            doubts = self._abstention.uncertainty(outputs[WINNING_SHARE], outputs["anomaly_map"][:, 0])
        for index, (planes, doubt) in enumerate(zip(images, doubts, strict=True)):
            yield Segmentation(
                class_map=resize_mask(outputs["pred_mask"][index, 0], (height, width)),
                novelty=resize_map(outputs["anomaly_map"][index, 0], (height, width)),
                score=float(outputs["pred_score"][index]),
                class_names=self.class_names,
                image=picture_of(planes),
                uncertainty=None if doubt is None else resize_map(doubt, (height, width)),
                abstained=self._abstained(doubt, (height, width)),
            )

    def _abstained(self, uncertainty: np.ndarray | None, size: tuple[int, int]) -> np.ndarray | None:
        """Return where the uncertainty ``[h, w]`` lies above the threshold, at the (height, width) of the image."""
        if uncertainty is None or self.threshold is None:
            return None
        return resize_mask((uncertainty > self.threshold).astype(np.uint8), size).astype(bool)


def _abstention(metadata: dict[str, Any]) -> AbstentionFormat | None:
    """Return how the model abstains; None where it cannot."""
    content = metadata.get("abstention")
    return None if content is None else AbstentionFormat.from_dict(content)


def resize_map(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the map ``[h, w]`` at (height, width) px, linear between its values."""
    return cv2.resize(values, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
