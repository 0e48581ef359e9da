# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Maps are written strip by strip: any reader reads them, and a full disk leaves nothing half-written."""

import errno
from pathlib import Path

import numpy as np
import pytest
import tifffile

from anomalib_aoissl.data.reading import read_mask
from anomalib_aoissl.deployment.tiles import strip_files
from anomalib_aoissl.deployment.tiles.strip_files import StripFiles, check_output

KINDS = {"": np.uint8, "novelty": np.float32}
MAPS = {
    "": np.random.default_rng(0).integers(0, 6, (50, 33)).astype(np.uint8),
    "novelty": np.random.default_rng(1).random((50, 33), np.float32),
}


def write(path: Path | None) -> dict[str, np.ndarray]:
    with StripFiles(path, (50, 33), KINDS) as files:
        for rows in (slice(0, 17), slice(17, 18), slice(18, 50)):
            files.add({name: array[rows] for name, array in MAPS.items()})
    return files.arrays()


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".npy", ""])
def test_what_is_written_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"sub/unit{suffix}" if suffix else None
    for name, array in write(path).items():
        assert np.array_equal(array, MAPS[name])
        assert isinstance(array, np.memmap) == bool(suffix)
    if path is not None:
        read = np.load if suffix == ".npy" else tifffile.imread
        assert np.array_equal(read(path), MAPS[""])
        assert np.array_equal(read(path.with_name(f"unit_novelty{suffix}")), MAPS["novelty"])
        assert len(list(path.parent.iterdir())) == 2
        with pytest.raises(ValueError, match="read-only"):
            write(path)[""][0, 0] = 1
    if suffix == ".tif":
        assert np.array_equal(read_mask(path, num_classes=6), MAPS[""])


@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "unit.tif"
    write(path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    writes = iter(range(100))

    def full(array: np.ndarray, kind: type) -> np.ndarray:
        if next(writes) == at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return np.ascontiguousarray(array, kind)

    monkeypatch.setattr(strip_files, "_bytes_of", full)
    with pytest.raises(OSError, match=r"unit.*"):
        write(path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_an_error_of_the_work_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), StripFiles(tmp_path / "a.npy", (50, 33), KINDS):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_another_suffix_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"output=.*unit.png must end with one of .tif, .tiff, .npy"):
        check_output(tmp_path / "unit.png")


def test_no_map_is_written_over_a_file_of_the_picture(tmp_path: Path) -> None:
    picture = [tmp_path / "unit_ch0.tif", tmp_path / "a_novelty.tif"]
    for name, what in (
        ("unit_ch0.tif", r"is the picture"),
        ("a.tif", r"writes .*a_novelty\.tif too, which is the picture"),
    ):
        with pytest.raises(ValueError, match=what):
            check_output(tmp_path / name, picture)
    assert check_output(tmp_path / "b.tif", picture) == tmp_path / "b.tif"
