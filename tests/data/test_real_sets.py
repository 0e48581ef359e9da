# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The real sets of ../shared/data are read and split by device; skipped where they are absent."""

from pathlib import Path
from typing import Any

import pytest

from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.finding.folders import image_files
from anomalib_aoissl.data.folder import SegmentationFolder

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not here")


def test_wire_bonds_split_by_module() -> None:
    data = SegmentationFolder(
        SHARED / "wirebond_hgcal",
        train_devices=["module_320MLF3TCTT0205"],
        test_devices=["module_320MLF3TCTT0212"],
        shots=5,
        unlabelled_dir="unlabelled",
    )
    data.setup()
    assert [len(data.train_data), len(data.test_data)] == [5, 33]
    assert data.class_names == ("background", "bond_pad", "gold_other", "sensor", "sensor_gap", "wire")
    item: Any = data.train_data[0]
    assert tuple(item.image.shape) == (3, 480, 640)
    assert item.device_name == "module_320MLF3TCTT0205"
    assert 0.001 < float((item.gt_mask == 5).float().mean()) < 0.05  # wires
    assert len(image_files(data.unlabelled_dir)) == 890


def test_boards_split_by_board_and_a_leak_raises() -> None:
    data = SegmentationFolder(SHARED / "pcb_components", train_devices=["board_0009"], val_ratio=0.0)
    data.setup()
    assert [len(data.train_data), len(data.test_data)] == [4, 4]
    assert set(data.test_data.samples.device_name) == {"board_0018"}
    with pytest.raises(DatasetError, match="leaks into the test"):
        SegmentationFolder(SHARED / "pcb_components", train_devices=["board_0009"], test_devices=["board_0009"]).setup()
