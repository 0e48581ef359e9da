# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the parts of a model may count on from each other, for the type checker; no other module is loaded by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, SupportsInt

if TYPE_CHECKING:
    import torch
    from anomalib.data import InferenceBatch
    from anomalib.models.components import AnomalibModule as _Base

    from anomalib_aoissl.data.dataset import SegmentationDataset
    from anomalib_aoissl.data.describing.file_format import FileFormat
    from anomalib_aoissl.data.items import SegmentationBatch, SegmentationItem
    from anomalib_aoissl.data.quality.picture_quality import LabelledQuality
    from anomalib_aoissl.deployment.tiles.tiling import Tiling
    from anomalib_aoissl.encoder.base import Encoder

    from .preprocessing import SegmentationPreProcessor
else:
    _Base = object


class UntrainedError(RuntimeError):
    """What is asked of the model needs training, or a checkpoint; the command line says so in one line."""


class SegmentationNetwork(Protocol):
    """The torch model of one of our models."""

    @property
    def encoder(self) -> Encoder:
        """The encoder."""

    def check_trained(self) -> object:
        """Raise `UntrainedError` where there is nothing to answer with."""

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        """Return class probabilities, and after them the novelty of a model with a bank, ``[B, C, H, W]``."""

    def __call__(self, images: torch.Tensor) -> InferenceBatch:
        """Return what is said of normalised images ``[B, C, H, W]``."""


class Calibration(Protocol):
    """When a model with a bank abstains."""

    @property
    def power(self) -> SupportsInt:
        """Power of the novelty in an uncertainty."""

    @property
    def threshold(self) -> float | None:
        """Uncertainty above which the model abstains; None for no abstention."""


class Sees(Protocol):
    """A pre-processor that a pixel head can be fitted with."""

    def see(self, images: torch.Tensor, whole: torch.Tensor | None = None) -> torch.Tensor:
        """Return images ``[B, C, height, width]`` in [0, 1] of the model's size as the model sees them."""


class LabelledLoader(Protocol):
    """A loader of labelled images."""

    @property
    def dataset(self) -> SegmentationDataset:
        """The images."""

    @property
    def collate_fn(self) -> Callable[[list[SegmentationItem]], SegmentationBatch]:
        """The function that makes a batch of items."""


class SegmentationModule(_Base):
    """The whole model, as each mixin of it finds it.

    The mixins are checked as its children. At runtime they are not: anomalib finds only direct children of its module.
    """

    HAS_BANK: ClassVar[bool]
    model: SegmentationNetwork  # type: ignore[assignment] # a module of torch too, which no protocol can say
    pre_processor: Any  # our own, a module of the user's, or none
    class_names: tuple[str, ...]
    file_format: FileFormat
    labelled_quality: LabelledQuality | None

    @property
    def tiling(self) -> Tiling | None:
        """Tiles that pictures are cut into; None where they are resized as a whole."""
        raise NotImplementedError

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the model's input after pre-processing, px."""
        raise NotImplementedError

    def build_model(self) -> None:
        """Make ``self.model`` from ``self.hparams``."""

    def build_pretraining(self) -> None:
        """Make the callback that ``self.hparams`` ask for."""

    def build_pre_processor(self) -> SegmentationPreProcessor:
        """Return the pre-processor with the encoder's size and constants."""
        raise NotImplementedError

    def keep_encoder(self) -> None:
        """Leave pretraining out where a checkpoint brought an encoder that it cannot train."""

    def prepare_batches(self) -> None:
        """Have pictures that are cut into tiles come one by one."""

    def set_dataset(self, class_names: Sequence[str], file_format: FileFormat) -> None:
        """Take the names of the classes and the way files are read to all parts that need them."""

    def _check_planes(self, planes: int, what: str) -> None:
        """Validate that the model takes as many planes as a picture has."""
