# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the benchmark of the line refuses before its work."""

from typing import Any

import pytest

pytest.importorskip("openvino")

from benchmarks.line import CAMERAS, _parser


@pytest.mark.parametrize("pictures", ["6", "3", "0", "-4", "4.0", "many"])
def test_each_camera_takes_as_many_pictures(pictures: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        _parser().parse_args(["--pictures", pictures])
    assert ended.value.code == 2
    assert f"argument --pictures: {pictures} must be a multiple of 4" in capsys.readouterr().err


@pytest.mark.parametrize("pictures", [4, 12, 100])
def test_pictures_that_all_cameras_share(pictures: int) -> None:
    assert _parser().parse_args(["--pictures", str(pictures)]).pictures == pictures
    assert all(pictures % cameras == 0 for cameras in CAMERAS)
