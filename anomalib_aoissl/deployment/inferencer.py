# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The inferencer for exported models: class map at the original size, class names, novelty; it needs no torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from anomalib_aoissl.bank.explaining import Explanation
from anomalib_aoissl.bank.own_novelty import novelty_fault
from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.quality.picture_quality import LabelledQuality
from anomalib_aoissl.data.reading import ColorOrder
from anomalib_aoissl.data.resizing import resize_mask
from anomalib_aoissl.visualization.overlay import picture_of

from .abstaining import WINNING_PROBABILITY, AbstentionFormat, add_winning_probability, checked_threshold
from .editing.bank_mixin import OpenVINOBankMixin
from .explaining import explain_planes
from .files.model_file import read_model
from .graph.bank import NotEditableError, read_metadata, set_tiling
from .many import PictureError, each_in_order
from .metadata import abstention_of, checked_metadata, labelled_of
from .requests import SharedModel, check_device, compiled, with_defaults
from .segmentation import NOT_FINITE, Segmentation
from .tiles.blending import Answers, CutPicture
from .tiles.many import each_in_tiles
from .tiles.model import TiledAnswer, TiledModel
from .tiles.strip_files import check_output
from .tiles.tiling import Tiling

if TYPE_CHECKING:
    import openvino

logger = logging.getLogger(__name__)

_TILES_AT_ONCE = 4
"""Infer requests for the tiles of a picture, at most: each needs some hundred MB."""


@dataclass(frozen=True)
class _Loaded:
    """All that one answer is made with, so that an answer beside an edit is of the old model or of the new one.

    Attributes:
        model: `openvino.Model`, as it is edited and saved.
        run: The compiled model of whole pictures; None where they are cut into tiles, which have a model of their own.
        class_names: Names of its classes.
        abstention: How it abstains; None where it cannot.
        tiled: What answers pictures that are cut into tiles; None where they are resized as a whole.
        quality: What its labelled pictures are like; None where it does not say.
        own_novelty: Mean novelty of its labelled pictures, see `own_novelty`; None where it does not say.
    """

    model: openvino.Model
    run: SharedModel | None
    class_names: tuple[str, ...]
    abstention: AbstentionFormat | None
    tiled: TiledModel | None
    quality: LabelledQuality | None
    own_novelty: float | None

    def fault(self, planes: np.ndarray, novelty: np.ndarray) -> str:
        """Return in what a picture ``[C, H, W]`` of this novelty differs from the labelled ones; "" for nothing."""
        faults = ["" if self.quality is None else self.quality.fault(planes)]
        if self.own_novelty is not None:
            faults.append(novelty_fault(float(novelty.mean()), self.own_novelty))
        return "; ".join(filter(None, faults))


class SegmentationOpenVINOInferencer(OpenVINOBankMixin):
    """Runs an exported model (``.xml`` or ``.onnx``) with OpenVINO, from files or arrays to `Segmentation`.

    The memory bank of an exported AOISSLRetrieval is edited here too: `bank`, `adapt`, `remove`, `extend_bank`,
    `replace_bank`, and `save` for the edited model. Threads may share an inferencer: a call of `predict` has what it
    needs to itself and answers while another thread edits; edits wait for each other.

    Args:
        path: The IR's ``.xml`` or an ``.onnx`` file.
        device: OpenVINO device, such as "CPU", "GPU" or "AUTO:GPU,CPU".
        config: OpenVINO configuration, added to the defaults, such as ``{"PERFORMANCE_HINT": "THROUGHPUT"}`` for
            several cameras. By default floats are computed in 32 bits: where a
            processor has bfloat16, OpenVINO would use it, and novelty, a small difference of large similarities, loses
            its digits. And nothing is kept for each image size that came.
        tiling: How pictures are cut into tiles of the model's size at their own resolution; null for what the model
            says, which was trained on tiles or on whole pictures.

    Raises:
        ImportError: If OpenVINO is not installed.
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is damaged, or carries no class names, hence was not exported by this plugin; if tiles
            are asked for that it cannot take; or if OpenVINO has no such device, or does not take the configuration.
    """

    def __init__(
        self,
        path: str | Path,
        device: str = "CPU",
        config: Mapping[str, Any] | None = None,
        tiling: Tiling | Mapping[str, Any] | None = None,
    ) -> None:
        check_device(device)
        model = read_model(path)
        metadata = checked_metadata(model, path)
        self.file_format = FileFormat.from_dict(metadata.get("file_format", {}))
        self.in_channels = int(model.input(0).partial_shape[1].get_length())
        abstention = abstention_of(metadata)
        self._threshold = abstention.threshold if abstention is not None else None
        self._target, self._editing = (device, with_defaults(device, config)), RLock()
        self.tiling = Tiling.of(metadata.get("tiling") if tiling is None else tiling)
        if self.tiling is not None and self.tiling != Tiling.of(metadata.get("tiling")):
            set_tiling(model, self.tiling.plain())
        try:
            self._use(model)
        except NotEditableError as error:
            msg = f"{path}: {error}"
            raise NotEditableError(msg) from error

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of their indices."""
        return self._loaded.class_names

    @property
    def threshold(self) -> float | None:
        """Uncertainty in [0, 1] above which the model abstains; may be set. None for never."""
        return self._threshold

    @threshold.setter
    def threshold(self, threshold: float | None) -> None:
        self._threshold = checked_threshold(threshold)

    @property
    def _model(self) -> openvino.Model:
        """The model as it is edited and saved."""
        return self._loaded.model

    @property
    def _compiled(self) -> SharedModel:
        """The model that answers whole pictures."""
        assert self._loaded.run is not None  # noqa: S101 - for the type checker; not asked where there are tiles
        return self._loaded.run

    def _compile(self, model: openvino.Model) -> SharedModel:
        """Return the model compiled for the inferencer's device."""
        return compiled(model, *self._target)

    def _use(self, model: openvino.Model) -> None:
        """Answer with this model from now on."""
        metadata = read_metadata(model)
        abstention, names, labelled = abstention_of(metadata), tuple(metadata["class_names"]), labelled_of(metadata)
        if self.tiling is not None:
            tiled = TiledModel(model, self.tiling, abstention, self._compile_for_tiles)
            self._loaded = _Loaded(model, None, names, abstention, tiled, *labelled)
            return
        asked = model
        if abstention is not None:
            asked = model.clone()  # anomalib's inferencer takes known outputs only, of a model that is saved again too
            if not add_winning_probability(asked):
                if self.threshold is not None:
                    logger.warning("The model abstains from nothing: it is of another version. Export it again.")
                abstention, self.threshold = None, None
        self._loaded = _Loaded(model, self._compile(asked), names, abstention, None, *labelled)

    def _compile_for_tiles(self, model: openvino.Model) -> tuple[SharedModel, int]:
        """Return the model compiled for several tiles at once, and how many these are."""
        device, config = self._target
        several = {"PERFORMANCE_HINT": "THROUGHPUT", "PERFORMANCE_HINT_NUM_REQUESTS": _TILES_AT_ONCE}
        run = compiled(model, device, {**several, **config})
        return run, min(run.requests, _TILES_AT_ONCE)

    def predict(
        self,
        image: str | Path | np.ndarray,
        color_order: ColorOrder = "rgb",
        *,
        output: str | Path | None = None,
    ) -> Segmentation:
        """Return the segmentation of one image.

        Args:
            image: A file or an array. A file is read as the training data was; its other lighting channels lie beside
                it. An array is ``[H, W]`` or ``[H, W, C]``: C lighting channels, or red, green and blue, with
                or without alpha, which is left out. Its type is uint8, float in [0, 1], or uint16 with the bit depth of
                the training data (16 if none was set).
            color_order: "bgr" for an array with blue first, as OpenCV reads; a file knows its own order.
            output: With tiles: file (``.tif`` or ``.npy``) that the class map is written to strip by strip, novelty and
                uncertainty beside it as ``<stem>_novelty`` and ``<stem>_uncertainty``. The result's maps are then
                memory maps of these files. For pictures that fill the memory.

        Raises:
            DatasetError: If the file cannot be read, or a value is not finite or out of range.
            TypeError: If the array is of another type.
            ValueError: If its shape is another, its channels do not fit the model, or ``output`` cannot be written so.
            OSError: If ``output`` cannot be written; nothing is left of it then.
        """
        loaded = self._loaded
        if output is not None:
            check_output(output, self.file_format.files(image) if isinstance(image, str | Path) else ())
            if loaded.tiled is None:
                msg = f"output={output} is written strip by strip, by a model with tiles. Use save_mask of the result."
                raise ValueError(msg)
        planes = self._read(image, color_order)
        if loaded.tiled is not None:
            return self._of_tiles(loaded, planes, loaded.tiled.answer(planes, output), image)
        return next(self._segment(planes[np.newaxis], [image]))

    def predict_batch(
        self, images: Sequence[str | Path | np.ndarray], color_order: ColorOrder = "rgb"
    ) -> list[Segmentation]:
        """Return the segmentation of each image; all must have one size, except with tiles. Arguments as in `predict`.

        With tiles it is a list of what `predict_many` gives: besides the results, two images are read ahead, and twice
        as many batches of tiles as there are infer requests are computed ahead, however many images there are.

        Raises:
            PictureError: With tiles, if an image cannot be segmented; the message names it.
            ValueError: If there is no image; without tiles, if the sizes differ, and as `predict`.
        """
        if self._loaded.tiled is not None and len(images):
            results = self.predict_many(iter(images), color_order)
            return [result for result in results if isinstance(result, Segmentation)]  # others are raised
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
        return list(self._segment(np.stack(planes), images))

    def predict_many(
        self,
        images: Iterable[str | Path | np.ndarray],
        color_order: ColorOrder = "rgb",
        *,
        return_errors: bool = False,
    ) -> Iterator[Segmentation | PictureError]:
        """Return an iterator over the segmentations of many images of any sizes, in order.

        While one is computed, others are read. With ``config={"PERFORMANCE_HINT": "THROUGHPUT"}``, or with tiles,
        several are computed at once. A result comes as soon as it is there; a few images are read ahead, however many
        there are.

        Args:
            images: Files or arrays as `predict` takes them, such as a list, or a generator of a camera's frames. It is
                read by a thread of its own.
            color_order: As in `predict`.
            return_errors: Whether the error of an image stands in the place of its result, and the others go on; else
                it is raised.

        Raises:
            PictureError: If an image cannot be segmented; the message names it, ``index`` is its place.
            TypeError: If ``images`` is one image.
        """
        tiled = self._loaded.tiled
        if tiled is not None:
            return each_in_tiles(self._cutting(color_order), images, tiled.workers, return_errors=return_errors)

        def predict(image: str | Path | np.ndarray) -> Segmentation:
            return self.predict(image, color_order)

        return each_in_order(predict, images, self._compiled.requests, return_errors=return_errors)

    def _cutting(self, color_order: ColorOrder) -> Callable[..., tuple[CutPicture, Callable[[Answers], Segmentation]]]:
        """Return a function of an image that gives its tiles, and what makes a segmentation of their answers."""

        def cut(image: str | Path | np.ndarray) -> tuple[CutPicture, Callable[[Answers], Segmentation]]:
            loaded = self._loaded
            tiled = loaded.tiled
            assert tiled is not None  # noqa: S101 - for the type checker; an edit keeps the tiles
            picture = tiled.cut(self._read(image, color_order))

            def finish(answers: Answers) -> Segmentation:
                return self._of_tiles(loaded, picture.planes, tiled.blended(picture, answers), image)

            return picture, finish

        return cut

    def explain(
        self,
        image: str | Path | np.ndarray,
        region: np.ndarray | tuple[int, int],
        color_order: ColorOrder = "rgb",
    ) -> Explanation:
        """Return which labelled patches decided on the class of a pixel or a region of an image.

        With tiles, each pixel is explained by the tile in which it lies furthest from the border.

        Args:
            image: File or array, as in `predict`.
            region: Pixel as (row, column), or mask ``[H, W]`` that is not 0 in the region; of the image's own size.
            color_order: As in `predict`.

        Raises:
            NotEditableError: If the model has no bank.
            ValueError: If the region lies outside of the image, is empty, or of another size.
        """
        return explain_planes(self, self._read(image, color_order), region)[0]

    def fault_of(self, image: str | Path | np.ndarray, color_order: ColorOrder = "rgb") -> str:
        """Return in what an image differs from the labelled ones in sharpness, light, planes and proportions.

        What `predict` says in `Segmentation.fault`, without novelty; "" for nothing, or where it is not known.
        Arguments and errors are those of `predict`.
        """
        quality = self._loaded.quality
        return "" if quality is None else quality.fault(self._read(image, color_order))

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

    def _segment(self, images: np.ndarray, given: Sequence[str | Path | np.ndarray]) -> Iterator[Segmentation]:
        """Yield the segmentation of each of the images ``[B, C, H, W]``, which were given as files or arrays.

        Raises:
            ValueError: If the model's answer is not finite.
        """
        loaded, threshold = self._loaded, self.threshold
        assert loaded.run is not None  # noqa: S101 - for the type checker; of whole pictures
        outputs = loaded.run(np.ascontiguousarray(images))
        height, width = images.shape[-2:]
        uncertainties: Iterable[np.ndarray | None] = [None] * len(images)
        if loaded.abstention is not None:
            uncertainties = loaded.abstention.uncertainty(outputs[WINNING_PROBABILITY], outputs["anomaly_map"][:, 0])
        if not all(np.isfinite(outputs[name]).all() for name in ("anomaly_map", "pred_score")):
            raise ValueError(NOT_FINITE)
        for index, (planes, uncertainty, image) in enumerate(zip(images, uncertainties, given, strict=True)):
            yield Segmentation(
                class_map=resize_mask(outputs["pred_mask"][index, 0], (height, width)),
                novelty=resize_map(outputs["anomaly_map"][index, 0], (height, width)),
                score=float(outputs["pred_score"][index]),
                class_names=loaded.class_names,
                image=picture_of(planes),
                uncertainty=None if uncertainty is None else resize_map(uncertainty, (height, width)),
                abstained=_abstained(uncertainty, threshold, (height, width)),
            ).doubted(loaded.fault(planes, outputs["anomaly_map"][index]), image)

    def _of_tiles(
        self, loaded: _Loaded, planes: np.ndarray, answer: TiledAnswer, image: str | Path | np.ndarray
    ) -> Segmentation:
        """Return the segmentation of a picture ``[C, H, W]`` of any size, given what its tiles say."""
        threshold = self.threshold
        uncertainty = answer.uncertainty if loaded.abstention is not None else None
        return Segmentation(
            class_map=answer.classes,
            novelty=answer.values,
            score=answer.score,
            class_names=loaded.class_names,
            image=picture_of(planes),
            uncertainty=uncertainty,
            abstained=None if uncertainty is None or threshold is None else np.asarray(uncertainty > threshold),
        ).doubted(loaded.fault(planes, answer.values), image)


def _abstained(uncertainty: np.ndarray | None, threshold: float | None, size: tuple[int, int]) -> np.ndarray | None:
    """Return where the uncertainty ``[h, w]`` lies above the threshold, at the (height, width) of the image."""
    if uncertainty is None or threshold is None:
        return None
    return resize_mask((uncertainty > threshold).astype(np.uint8), size).astype(bool)


def resize_map(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the map ``[h, w]`` at (height, width) px, linear between its values."""
    return cv2.resize(values, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
