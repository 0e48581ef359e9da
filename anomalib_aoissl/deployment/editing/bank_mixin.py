# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Edits of an exported model, and learning from labelled images, without torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial, wraps
from itertools import count
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from anomalib_aoissl.bank.condensing import condensed
from anomalib_aoissl.bank.content import BankArrays, described, emptied, labelled_image, merged, removed
from anomalib_aoissl.bank.patches import patch_labels
from anomalib_aoissl.bank.storage import read_bank, write_bank
from anomalib_aoissl.bank.twins import same_picture
from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.describing.mask_format import MaskFormat
from anomalib_aoissl.data.indices import BACKGROUND_INDEX, IGNORE_INDEX
from anomalib_aoissl.data.reading import ColorOrder
from anomalib_aoissl.data.resizing import resize_labels
from anomalib_aoissl.pixel_head.learning.sample import FOLDS, PixelSample

from ..files.companions import beside
from ..files.model_file import save_model
from ..graph.bank import bank_of, head_of, part_model, read_metadata, settings_of, with_bank
from ..images import resize_planes
from ..metadata import quality_of
from ..tiles.graph import light_reader, tile_graph
from ..tiles.tiling import Tiling
from .naming import check_name, names_of_mask
from .refitting import labelled_pixels, learning_outputs, refitted_head
from .tile_learning import learned_tiles, tile_pixels

if TYPE_CHECKING:
    import openvino

    from anomalib_aoissl.data.quality.picture_quality import LabelledQuality

    from ..segmentation import Segmentation

logger = logging.getLogger(__name__)

_SEEN = 0.02
"""Share of the pixels where the model sees parts, above which a mask without any is doubted."""

_Editing = TypeVar("_Editing", bound="OpenVINOBankMixin")
_Given = ParamSpec("_Given")
_Answer = TypeVar("_Answer")


def _one_at_a_time(
    method: Callable[Concatenate[_Editing, _Given], _Answer],
) -> Callable[Concatenate[_Editing, _Given], _Answer]:
    """Lock a method: threads wait for each other, and an edit begins with what the one before it made."""

    @wraps(method)
    def waiting(self: _Editing, /, *args: _Given.args, **kwargs: _Given.kwargs) -> _Answer:
        with self._editing:
            return method(self, *args, **kwargs)

    return waiting


class OpenVINOBankMixin:
    """Edits for an inferencer that compiles a model with `_compile` and runs the one of `_use`.

    An edit builds the new model beside the present one, which goes on answering until the new one is compiled and
    stays where the edit fails.
    """

    file_format: FileFormat
    tiling: Tiling | None
    _editing: RLock
    _compile: Callable[[Any], Any]
    _embedder: Any = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of their indices."""
        raise NotImplementedError

    @property
    def _model(self) -> openvino.Model:
        """The model that is edited."""
        raise NotImplementedError

    def _use(self, model: openvino.Model) -> None:
        """Compile the model and answer with it from now on."""
        raise NotImplementedError

    def predict(self, image: str | Path | np.ndarray, color_order: ColorOrder = "rgb") -> Segmentation:
        """Return the segmentation of one image."""
        raise NotImplementedError

    def _read(self, image: str | Path | np.ndarray, color_order: ColorOrder = "rgb") -> np.ndarray:
        """Return the image as planes ``[C, H, W]``."""
        raise NotImplementedError

    @property
    def bank(self) -> dict[str, Any]:
        """What the bank holds: entries, patches, megabytes, encoder; entries and pixels of devices, images and classes.

        Raises:
            NotEditableError: If the model has no bank.
        """
        return described(bank_of(self._model))

    @_one_at_a_time
    def replace_bank(
        self, path: str | Path, *, new_classes: bool = False, bank_size: int | None = None, refit: bool = True
    ) -> None:
        """Search the bank of a bank file in place of the present one; classes are mapped by name.

        Args:
            path: Bank file (``.safetensors``) of the same encoder.
            new_classes: Add classes that the model has not, after its own; else they are an error.
            bank_size: Entries to keep at most, by `condensing.condensed`; None for all.
            refit: Whether a pixel head is fitted on to the bank's labelled pixels; else only vote and novelty change.

        Raises:
            ValueError: If the file cannot be used, is of another encoder, has classes that the model has not, or
                ``bank_size`` is too small for its classes and devices.
        """
        bank = merged(emptied(bank_of(self._model)), read_bank(path), new_classes=new_classes)
        self._take(bank, bank_size, refit)

    @_one_at_a_time
    def extend_bank(
        self, path: str | Path, *, new_classes: bool = False, bank_size: int | None = None, refit: bool = True
    ) -> None:
        """Add the entries of a bank file to the bank; arguments and errors are those of `replace_bank`."""
        self._take(merged(bank_of(self._model), read_bank(path), new_classes=new_classes), bank_size, refit)

    @_one_at_a_time
    def remove(self, *, device: str | None = None, image: str | None = None, refit: bool = True) -> int:
        """Take the entries of a device or an image out, of an image of a device where both are given; return how many.

        A pixel head is fitted again without their pixels, unless ``refit`` is false.

        Raises:
            ValueError: If neither is given, the bank has no such device or image, or no entry would be left.
        """
        bank = bank_of(self._model)
        left = removed(bank, device=device, image=image)
        self._take(left, refit=refit)
        return len(bank) - len(left)

    @_one_at_a_time
    def adapt(
        self,
        image: str | Path | np.ndarray,
        mask: str | Path | np.ndarray,
        *,
        device: str,
        name: str | None = None,
        class_names: Sequence[str] | None = None,
        bank_size: int | None = None,
        refit: bool = True,
        color_order: ColorOrder = "rgb",
    ) -> int:
        """Learn one labelled image, by the bank and the pixel head; return how many patches the bank takes in.

        A mask that is background everywhere is warned of where the model sees parts on more than 2 % of its pixels.

        Args:
            image: File or array, as in `predict`.
            mask: File (PNG, BMP or TIFF), coded as the masks of training were: indices or their colours, and their
                ignored value; or array ``[H, W]`` of class indices, 255 = ignore. Both of the image's size.
            device: Name of the device on the image.
            name: Name of the image, by which it can be removed; its path where it is a file.
            class_names: Names of the mask's indices where they are others than the model's, its background first;
                255 = ignore. They are mapped by name, and names that the model has not become new classes after its
                own.
            bank_size: Entries that the bank then has at most, by `condensing.condensed`; None for all.
            refit: Whether the pixel head, where there is one, learns the image too; else it stays as it is.
            color_order: "bgr" for an array with blue first, as in `predict`.

        Raises:
            ValueError: If the sizes differ, an index has no name, every pixel is ignored, a name is none, the bank has
                an image of this name already, or ``bank_size`` is too small for its classes and devices.
        """
        bank, names = bank_of(self._model), names_of_mask(class_names, self.class_names)
        name = _new_name(bank, image, device, name)
        masks = self.file_format.masks if class_names is None else MaskFormat()
        planes, labels = self._read(image, color_order), _class_indices(mask, names, masks)
        if planes.shape[-2:] != labels.shape:
            msg = f"The image has {planes.shape[-2:]} px (height, width), its mask {labels.shape}; they must be equal."
            raise ValueError(msg)
        names, labels = _after(self.class_names, names, labels)
        new = self._learned(bank, planes, labels, {"device": device, "image": name, "class_names": names}, refit)
        known = quality_of(read_metadata(self._model))
        quality = None if known is None else known.with_picture(name, planes)
        equals = () if quality is None else quality.equals_of(name)
        if (same := same_picture(bank, new, equals)) is not None:
            logger.warning(
                "%s looks like %s, which the bank has already: the picture votes twice now. If it is the same one, "
                "remove one of them.",
                name,
                same,
            )
        if not ((labels != BACKGROUND_INDEX) & (labels != IGNORE_INDEX)).any():
            self._doubt(image, labels, name, color_order)
        self._take(merged(bank, new, new_classes=class_names is not None), bank_size, refit, quality)
        return len(new)

    def _doubt(self, image: str | Path | np.ndarray, labels: np.ndarray, name: str, color_order: ColorOrder) -> None:
        """Warn where the model sees parts on an image whose mask is background everywhere: it may not be drawn yet."""
        seen = self.predict(image, color_order).class_map[labels == BACKGROUND_INDEX]
        counts = np.bincount(seen, minlength=BACKGROUND_INDEX + 2)
        counts[BACKGROUND_INDEX] = 0
        share = float(counts.sum() / labels.size)
        if share > _SEEN:
            logger.warning(
                "The mask of %s is background everywhere, but the model sees parts, mostly %s, on %.0f %% of its pixels"
                ": it learns them as background. If they are parts, remove(image=%r), and adapt with a mask of them.",
                name,
                self.class_names[int(counts.argmax())],
                100 * share,
                name,
            )

    @_one_at_a_time
    def save(self, path: str | Path) -> Path:
        """Write the model with its present bank as ``.xml`` and ``.bin``, and return the path of the ``.xml``.

        The gate's result beside it is that of this model; an edited one has none, and an older file is removed.

        Raises:
            ValueError: If the path does not end with ``.xml``.
        """
        return save_model(self._model, path, beside(Path(path), read_metadata(self._model)))

    @_one_at_a_time
    def save_bank(self, path: str | Path) -> Path:
        """Write the present bank as a bank file, which a model on a workstation can extend, and return the path."""
        return write_bank(bank_of(self._model), path)

    def _learned(
        self, bank: BankArrays, planes: np.ndarray, labels: np.ndarray, label: Mapping[str, Any], refit: bool
    ) -> BankArrays:
        """Return the entries of a labelled image ``[C, H, W]``, ``[H, W]``, with pixels for the head that it refits."""
        settings, head = settings_of(self._model), head_of(self._model)
        learn: Callable[..., PixelSample] = labelled_pixels
        if self.tiling is None:
            planes, labels = resize_planes(planes, settings.image_size), resize_labels(labels, settings.image_size)
            new = labelled_image(self._embeddings(planes), patch_labels(labels, settings.patch_size), **label)
        else:
            light = light_reader(self._model)
            learn = partial(tile_pixels, self.tiling, light)
            new = learned_tiles(self._embeddings, light, planes, labels, self.tiling, settings, label)
        if head is not None and refit:
            fold = len(bank.image_names) % FOLDS
            run = self._compile(self._part(learning_outputs(head)))
            new = replace(new, pixels=learn(run, planes, labels, head, len(label["class_names"]), settings.seed, fold))
        return replace(new, encoder_hash=bank.encoder_hash)

    def _part(self, names: Sequence[str]) -> openvino.Model:
        """Return the part of the model from images, or from tiles and their light, to named tensors."""
        return part_model(self._model, names) if self.tiling is None else tile_graph(self._model, names)

    @_one_at_a_time
    def _embeddings(self, planes: np.ndarray, *light: np.ndarray) -> np.ndarray:
        """Return the embeddings ``[P, D]`` of the patches of an image ``[C, H, W]``, in row-major order.

        Of a tile, given the mean and the deviation of its picture's light.
        """
        if self._embedder is None:
            self._embedder = self._compile(self._part(["patch_embeddings"]))
        image = planes[np.newaxis]
        (embeddings,) = self._embedder([image, *light] if light else image).to_tuple()
        return np.asarray(embeddings[0])

    def _take(
        self, bank: BankArrays, bank_size: int | None = None, refit: bool = True, quality: LabelledQuality | None = None
    ) -> None:
        """Search this bank from now on, condensed where a size is given, with a head that is fitted to its pixels.

        What the labelled pictures are like is given where there is a new one, see `with_bank`.
        """
        settings, whole = settings_of(self._model), len(bank)
        if bank_size is not None:
            bank = condensed(bank, bank_size, settings.patch_size)
            logger.info("The bank's %d entries were condensed to %d.", whole, len(bank))
        elif settings.budget is not None and whole > settings.budget:
            logger.warning(
                "The bank has %d entries now, more than the %d that it was exported with (bank_size). All are "
                "searched, which takes longer: pass bank_size=%d to condense it.",
                whole,
                settings.budget,
                settings.budget,
            )
        head = head_of(self._model)
        if head is not None:
            head = refitted_head(head, bank, settings.seed, refit)
        self._use(with_bank(self._model, bank, head, quality))


def _new_name(bank: BankArrays, image: str | Path | np.ndarray, device: str, name: str | None) -> str:
    """Return the name of an image to be learnt, once it and the device are names that the bank can take."""
    check_name("device", device)
    name = name or (str(image) if isinstance(image, str | Path) else _free_name(bank, device))
    check_name("name", name)
    if name in bank.image_names:
        msg = f"The bank has the image {name!r} already: remove(image={name!r}) first, or give another name=."
        raise ValueError(msg)
    return name


def _free_name(bank: BankArrays, device: str) -> str:
    """Return a name for an array, which no image of the bank has."""
    names = (f"{device}, learnt {number}" for number in count(len(bank.image_names)))
    return next(name for name in names if name not in bank.image_names)


def _after(known: Sequence[str], names: Sequence[str], labels: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the known classes with new names after them, and labels that index these in place of the names."""
    classes = tuple(dict.fromkeys([*known, *names]))
    table = np.full(IGNORE_INDEX + 1, IGNORE_INDEX, np.uint8)
    table[: len(names)] = [classes.index(name) for name in names]
    return classes, table[labels]


def _class_indices(mask: str | Path | np.ndarray, class_names: Sequence[str], masks: MaskFormat) -> np.ndarray:
    """Return a mask as uint8 ``[H, W]`` whose indices all have names; a file is coded as those of training."""
    if isinstance(mask, str | Path):
        return masks.read(mask, len(class_names))
    if not isinstance(mask, np.ndarray) or mask.ndim != 2 or mask.dtype.kind not in "ui":
        given = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        msg = f"A mask must be a path or an array [H, W] of integers (class indices), got {given}."
        raise ValueError(msg)
    wrong = mask[((mask < 0) | (mask >= len(class_names))) & (mask != IGNORE_INDEX)]
    if wrong.size:
        msg = (
            f"The mask has the index {int(wrong[0])}, which has no name: the classes are {list(class_names)} (0.."
            f"{len(class_names) - 1}, 255 is ignored). Mend the mask, or name its indices with class_names=."
        )
        raise ValueError(msg)
    return mask.astype(np.uint8)
