# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""OpenVINO models in integers of 8 bits: what NNCF may change and lose, and what it needs to know of images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from anomalib_aoissl.data.indices import IGNORE_INDEX
from anomalib_aoissl.deployment.gate import class_pairs, mean_iou
from anomalib_aoissl.deployment.tiles.tiling import Tiling
from anomalib_aoissl.plugin.export.log import set_aside

if TYPE_CHECKING:
    import openvino
    from anomalib.data import AnomalibDataModule

    from anomalib_aoissl.data.dataset import SegmentationDataset

    from ..protocols import LabelledLoader

logger = logging.getLogger(__name__)

ENCODED = {"tokens", "patch_embeddings"}
"""Marked tensors at which an encoder ends."""

FEW_IMAGES = 10
"""Validation images below which a quantized model is warned of."""

CALIBRATED = 300
"""Batches, or tiles, at most that ranges are taken from; NNCF's own number."""

_GOLDEN = (5**0.5 - 1) / 2
"""Its multiples lie evenly in [0, 1) after the decimal point, however many there are."""

NEEDS_IMAGES = ("int8_ptq", "int8_acq")
"""Compressions that look at images."""


def compression_name(compression: object) -> str:
    """Return the name of a compression, in small letters; empty for none."""
    return "" if compression is None else str(getattr(compression, "value", compression)).lower()


def check_compression(compression: object, datamodule: AnomalibDataModule | None, max_drop: float) -> None:
    """Validate, before the work, that there are the images that a compression looks at.

    Raises:
        ValueError: If there are none, or a single one for ranges, or ``max_drop`` is not in [0, 1].
    """
    name = compression_name(compression)
    if name not in NEEDS_IMAGES:
        return
    if datamodule is None:
        msg = f"compression_type={name} looks at validation images: give --data, or the argument datamodule."
        raise ValueError(msg)
    if not 0 <= max_drop <= 1:
        msg = f"max_drop={max_drop} must lie in [0, 1]: how much of the mean IoU may be lost, such as 0.01."
        raise ValueError(msg)
    datamodule.setup("fit")
    wanted = {"validation": getattr(datamodule, "val_data", None)}
    if name == "int8_acq":
        wanted["test"] = getattr(datamodule, "test_data", None)
    for kind, data in wanted.items():
        if data is None or not len(data):
            ratio = "val_ratio" if kind == "validation" else "test_ratio"
            msg = (
                f"compression_type={name} looks at {kind} images, and the data has none. Set --data.{ratio} above 0 or "
                "name devices for them; compression_type=int8 or fp16 needs no images."
            )
            raise ValueError(msg)
    calibration = wanted["validation"]
    if calibration is not None and len(calibration) == 1:
        msg = (
            f"compression_type={name} takes its ranges from validation images, and the data has 1, which does not tell "
            f"those of other pictures. Give {FEW_IMAGES} or more (--data.val_ratio, --data.val_devices); "
            "compression_type=int8 or fp16 needs no images."
        )
        raise ValueError(msg)


def compress(
    model: openvino.Model,
    name: str,
    datamodule: AnomalibDataModule | None,
    max_drop: float,
    tiling: Tiling | None = None,
) -> openvino.Model:
    """Return an `openvino.Model` in 8 bits, its encoder alone: search, head and votes stay as they are.

    Args:
        model: `openvino.Model` whose export marked `ENCODED`.
        name: "int8" for weights; "int8_ptq" for activations too, with the ranges of the validation images; "int8_acq"
            for as many of these as keep the mean IoU of the test images. Anomalib's own way compares labels of whole
            images, which these models do not give.
        datamodule: Where the images come from; not needed for "int8".
        max_drop: Of the mean IoU, for "int8_acq".
        tiling: How the images are cut, since the graph is that of one tile; None where they are resized as a whole.

    Raises:
        ImportError: If NNCF is not installed.
    """
    try:
        import nncf
    except ImportError as error:
        msg = "NNCF is needed for 8 bits: pip install 'anomalib-aoissl[openvino]'."
        raise ImportError(msg) from error
    # Most names are not those of nodes that could be quantized, so that NNCF is not to ask for them.
    ignored = nncf.IgnoredScope(names=sorted(_outside_encoder(model)), validate=False)
    with set_aside("nncf"):  # it says hundreds of lines, one for each node that is left alone
        if name == "int8":
            return nncf.compress_weights(model, ignored_scope=ignored)
        assert datamodule is not None  # noqa: S101 - for the type checker; `check_compression` saw to it
        loader = datamodule.val_dataloader()
        _warn_of_few(len(loader.dataset))
        calibration = nncf.Dataset(_seen(loader, tiling, CALIBRATED), attrgetter("image"))
        transformer = nncf.ModelType.TRANSFORMER
        options: dict[str, Any] = {"model_type": transformer, "ignored_scope": ignored, "subset_size": CALIBRATED}
        if name == "int8_ptq":
            return nncf.quantize(model, calibration, **options)
        validation = nncf.Dataset(_seen(datamodule.test_dataloader(), tiling))
        return nncf.quantize_with_accuracy_control(
            model, calibration, validation, _mean_iou, max_drop=max_drop, **options
        )


def _outside_encoder(model: openvino.Model) -> set[str]:
    """Return the names of the nodes that are not between the encoder's first convolution and its tokens.

    Constants are left out: NNCF would leave the encoder's own weights alone where it finds their names.
    """
    nodes = model.get_ordered_ops()
    targets = [node for node in nodes for output in node.outputs() if output.get_names() & ENCODED]
    before = _reached(targets, lambda node: [port.get_node() for port in node.input_values()])
    first = next((n for n in nodes if n.get_type_name() == "Convolution" and n.get_friendly_name() in before), None)
    if first is None:
        msg = "The graph's encoder was not found, so it cannot be compressed to 8 bits. Use FP16."
        raise ValueError(msg)
    after = _reached(
        [first], lambda node: [port.get_node() for output in node.outputs() for port in output.get_target_inputs()]
    )
    names = {node.get_friendly_name() for node in nodes if node.get_type_name() != "Constant"}
    return names - (before & after)


def _reached(nodes: list[Any], neighbours: Callable[[Any], list[Any]]) -> set[str]:
    """Return the names of nodes and of all that is reached from them by neighbours."""
    found: dict[str, Any] = {}
    while nodes:
        node = nodes.pop()
        if node.get_friendly_name() not in found:
            found[node.get_friendly_name()] = node
            nodes += neighbours(node)
    return set(found)


def _seen(loader: LabelledLoader, tiling: Tiling | None, most: int | None = None) -> LabelledLoader | TiledImages:
    """Return the batches that a graph sees of a loader's images; ``most`` is the number of tiles at most."""
    return loader if tiling is None else TiledImages(loader.dataset, tiling, most)


class TiledImages:
    """The tiles of a dataset's images, one by one, in batches of one.

    The graph standardises the light of each by itself, other than the inferencer, which knows the whole picture's.

    Args:
        dataset: Items with ``image`` ``[C, H, W]`` and ``gt_mask`` ``[H, W]`` or None.
        tiling: How they are cut.
        most: Tiles at most, the same ones each time: as many of each image, evenly over it. What an image of few tiles
            leaves goes to the next ones. None for all.
    """

    def __init__(self, dataset: SegmentationDataset, tiling: Tiling, most: int | None = None) -> None:
        self._dataset, self._tiling, self._most = dataset, tiling, most

    def __iter__(self) -> Iterator[Any]:
        """Yield ``image`` ``[1, C, h, w]`` and ``gt_mask`` ``[1, h, w]``; what has no label is ignored (255)."""
        given, number = 0, len(self._dataset)
        for index in range(number):
            wanted = None if self._most is None else (index + 1) * self._most // number - given
            if wanted == 0:  # there are more images than tiles
                continue
            item = self._dataset[index]
            planes = np.asarray(item.image)
            size = planes.shape[-2:]
            mask = np.full(size, IGNORE_INDEX, np.uint8) if item.gt_mask is None else np.asarray(item.gt_mask)
            grid = self._tiling.grid((size[0], size[1]))
            places = spread(len(grid), len(grid) if wanted is None else wanted, index)
            given += len(places)
            for tile in map(grid.tile, places):
                part, labels = grid.cut(planes, tile), grid.cut_mask(mask.reshape(size), tile)
                yield SimpleNamespace(image=np.ascontiguousarray(part)[None], gt_mask=labels[None])


def spread(number: int, most: int, image: int) -> list[int]:
    """Return the indices of the tiles of an image, or of ``most`` evenly among them.

    Args:
        number: Tiles of the image.
        most: How many are taken at most.
        image: The image's own number: each begins elsewhere, so that not all of them show the same corner.
    """
    taken, begin = min(number, most), (image + 0.5) * _GOLDEN % 1
    return [int((place + begin) * number / taken) for place in range(taken)]


def _warn_of_few(count: int) -> None:
    """Say where ranges of 8 bits are guessed from few images."""
    if count < FEW_IMAGES:
        logger.warning(
            "The ranges of 8 bits are taken from %d validation images, which may be too few for other pictures. Give "
            "%d or more (--data.val_ratio, --data.val_devices), or use FP16, which needs none.",
            count,
            FEW_IMAGES,
        )


def _mean_iou(model: Callable[[Any], Any], batches: Iterable[Any]) -> float:
    """Return the mean IoU of a compiled model, its pixels pooled over all batches, over the classes that occur."""
    pairs = np.zeros((IGNORE_INDEX + 1, IGNORE_INDEX + 1), np.int64)
    for batch in batches:
        predicted = np.asarray(model(batch.image)["pred_mask"])[:, 0]
        for truth, mask in zip(np.asarray(batch.gt_mask), predicted, strict=True):
            pairs += class_pairs(truth, mask)
    return mean_iou(pairs)
