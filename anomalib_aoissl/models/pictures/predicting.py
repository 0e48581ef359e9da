# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Prediction of a file or a folder by our models: read as training was, in any folder, past pictures that are broken.

Anomalib's own reader takes ASCII paths only, gives 8-bit RGB, and ends at the first file that it cannot read.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import IterableDataset
from torchvision.tv_tensors import Image

from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.finding.folders import image_files, say
from anomalib_aoissl.data.items import SegmentationBatch, SegmentationItem
from anomalib_aoissl.plugin.written_arguments import command_line_wrote, written_values

logger = logging.getLogger(__name__)

_SHOWN = 20


class PredictImages(IterableDataset[SegmentationItem]):
    """The pictures of a file or a folder, one item for each picture that can be read.

    Args:
        path: Picture, or folder of pictures with its sub-folders.
        file_format: Gives how files are read, when the first is: the model's checkpoint is not loaded before.

    Attributes:
        folder: Folder that outputs are named by.
        faults: What is wrong with each picture that was left out.

    Raises:
        DatasetError: If the path does not exist, or the folder holds no picture.
    """

    def __init__(self, path: str | Path, file_format: Callable[[], FileFormat]) -> None:
        path = Path(path)
        if not path.exists():
            msg = f"{path}: does not exist. Give a picture, or a folder of pictures."
            raise DatasetError(msg)
        self.folder = path if path.is_dir() else path.parent
        self._files = image_files(path) if path.is_dir() else [path]
        self._file_format = file_format
        self.faults: list[str] = []
        self._read = 0

    @functools.cached_property
    def items(self) -> list[tuple[Path, ...]]:
        """The files of each item; an item of which a lighting channel is missing is among the faults."""
        file_format, items, others = self._file_format(), [], []
        for path in self._files:
            if file_format.lighting_channels and not path.stem.endswith(file_format.lighting_channels):
                others.append(path)
                continue
            try:
                items.append(tuple(file_format.files(path)))
            except DatasetError as error:
                self.faults.append(str(error))
        if not items and others:
            file_format.files(others[0])
        channels = list(file_format.lighting_channels)
        say(f"pictures are of none of the lighting channels {channels}", [path.name for path in others])
        return list(dict.fromkeys(items))

    @property
    def image_paths(self) -> list[str]:
        """The first file of each item."""
        return [str(files[0]) for files in self.items]

    @property
    def collate_fn(self) -> Callable[[list[SegmentationItem]], SegmentationBatch]:
        """The function that makes a batch of items."""
        return SegmentationBatch.collate

    def __iter__(self) -> Iterator[SegmentationItem]:
        """Yield the items of this process that can be read."""
        first, step = _share()
        for files in self.items[first::step]:
            try:
                planes = self._file_format().read_files(files)
            except DatasetError as error:  # one bad file must not end the run
                self.faults.append(str(error))
                continue
            self._read += 1
            yield SegmentationItem(image=Image(torch.from_numpy(planes)), image_path=str(files[0]))

    def report(self) -> int:
        """Log which pictures were left out, and why, and return how many.

        Raises:
            DatasetError: If that is all of them.
        """
        if self.faults and not self._read:
            raise DatasetError(self.faults[0])
        if self.faults:
            logger.error("%d pictures were not predicted:%s", len(self.faults), listed(self.faults))
        return len(self.faults)


def listed(faults: Sequence[str]) -> str:
    """Return the first faults, a line each, and how many more there are."""
    more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    return "".join(f"\n  {fault}" for fault in faults[:_SHOWN]) + more


def _share() -> tuple[int, int]:
    """Return which items are this process's: the first, and the step to the next."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def serve_written_arguments(ours: type[Any]) -> None:
    """Make anomalib's ``Engine.export(model, ckpt_path=...)`` keep the arguments that the user wrote for our models.

    Anomalib makes a new model of the checkpoint, and gives it no arguments of the one that it was called with.

    Args:
        ours: Class of our models.
    """

    def export(stock: Callable[..., Any], self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        with command_line_wrote(written_values(model) if isinstance(model, ours) else {}):
            return stock(self, model, *args, **kwargs)

    _wrap_once("export", export)


def serve_data_path(ours: type[Any]) -> None:
    """Make anomalib's ``Engine.predict(data_path=...)`` read as `PredictImages` where the model is one of ours.

    Anomalib has no hook for it: its engine makes its own dataset of the path. Other models go the way they went.

    Args:
        ours: Class of our models.
    """

    def predict(stock: Callable[..., Any], self: Any, model: Any = None, *args: Any, **kwargs: Any) -> Any:
        asked: Any = model or self.model
        path = kwargs.get("data_path")
        if path is not None and kwargs.get("dataset") is None and len(args) < 3 and isinstance(asked, ours):
            dataset = PredictImages(path, lambda: asked.file_format)
            kwargs = {**kwargs, "data_path": None, "dataset": dataset}
        return stock(self, model, *args, **kwargs)

    _wrap_once("predict", predict)


def _wrap_once(name: str, around: Callable[..., Any]) -> None:
    """Have a method of anomalib's engine call ``around`` with the method itself and its arguments; once."""
    from anomalib.engine import Engine  # imports anomalib.models: the hook loads us when both are done

    stock = getattr(Engine, name)
    if getattr(stock, "serves_our_models", False):
        return
    served = functools.wraps(stock)(lambda *args, **kwargs: around(stock, *args, **kwargs))
    served.serves_our_models = True  # type: ignore[attr-defined]
    setattr(Engine, name, served)
