# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The demonstration set, where a model is given no data. Mixed into `SegmentationModuleMixin`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

if TYPE_CHECKING:
    from anomalib_aoissl.wirebond.datamodule import WireBond

    from .protocols import SegmentationModule as _Base
else:
    _Base = object  # mixed in before AnomalibModule, whose direct child the model must be

logger = logging.getLogger(__name__)


class DemonstrationMixin(_Base):
    """Loaders of the demonstration set, which Lightning asks the model for where no data is given."""

    _demonstration: WireBond | None = None

    def _demonstration_data(self) -> WireBond:
        """Return the demonstration set, drawn where it is not on disk yet."""
        if self._demonstration is None:
            from anomalib_aoissl.wirebond.datamodule import WireBond

            logger.warning("No data given (--data): using the demonstration set WireBond.")
            self._demonstration = WireBond()
            self._demonstration.prepare_data()
            self._demonstration.trainer = self.trainer
            self._demonstration.setup()
        return self._demonstration

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the demonstration set's training images; called where no data is given."""
        return self._demonstration_data().train_dataloader()

    def val_dataloader(self) -> Any:
        """Return the demonstration set's validation images; called where no data is given."""
        return self._demonstration_data().val_dataloader()

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the demonstration set's test images; called where no data is given."""
        return self._demonstration_data().test_dataloader()
