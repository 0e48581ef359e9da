# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Reading: every file format gives the values that were written, and every bad file an error that names it."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.reading import image_size, pack_channels, read_image, read_lighting_channels, read_mask

GREY8 = np.array([[0, 51, 102], [153, 204, 255]], dtype=np.uint8)
GREY16 = np.array([[0, 1000, 4095], [70, 40000, 65535]], dtype=np.uint16)
COLOUR8 = np.stack([GREY8, GREY8[::-1], 255 - GREY8], axis=-1)


def write_png(path: Path, array: np.ndarray, **options: object) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff"])
def test_grey_8_bit(tmp_path: Path, suffix: str) -> None:
    planes = read_image(write_png(tmp_path / f"a{suffix}", GREY8))
    assert planes.dtype == np.float32
    np.testing.assert_allclose(planes, GREY8[None] / 255.0, rtol=1e-6)


def test_jpeg_is_close_to_what_was_written(tmp_path: Path) -> None:
    smooth = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    planes = read_image(write_png(tmp_path / "a.jpg", smooth, quality=98))
    np.testing.assert_allclose(planes[0], smooth / 255.0, atol=0.02)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_grey_16_bit_keeps_its_range(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), GREY16)
    np.testing.assert_allclose(read_image(path), GREY16[None] / 65535.0, rtol=1e-6)


def test_bit_depth_scales_a_12_bit_camera_and_raises_for_more(tmp_path: Path) -> None:
    twelve = np.minimum(GREY16, 4095)
    tifffile.imwrite(tmp_path / "a.tif", twelve)
    np.testing.assert_allclose(read_image(tmp_path / "a.tif", bit_depth=12), twelve[None] / 4095.0, rtol=1e-6)
    tifffile.imwrite(tmp_path / "b.tif", GREY16)
    with pytest.raises(DatasetError, match=r"b\.tif: holds the value 65535, more than bit_depth=12 allows \(4095\)"):
        read_image(tmp_path / "b.tif", bit_depth=12)


def test_bit_depth_leaves_8_bit_files_alone(tmp_path: Path) -> None:
    np.testing.assert_allclose(read_image(write_png(tmp_path / "a.png", GREY8), bit_depth=12), GREY8[None] / 255.0)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_colour_16_bit_is_not_clipped_to_8_bit(tmp_path: Path, suffix: str) -> None:
    colour = np.stack([GREY16, GREY16[::-1], 65535 - GREY16], axis=-1)
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), colour[..., ::-1])  # OpenCV writes blue, green, red
    np.testing.assert_allclose(read_image(path), colour.transpose(2, 0, 1) / 65535.0, rtol=1e-6)


def test_rgba_grey_alpha_and_palette_lose_only_their_alpha(tmp_path: Path) -> None:
    alpha = np.full((2, 3, 1), 128, dtype=np.uint8)
    rgba = write_png(tmp_path / "a.png", np.concatenate([COLOUR8, alpha], axis=-1))
    np.testing.assert_allclose(read_image(rgba), COLOUR8.transpose(2, 0, 1) / 255.0, rtol=1e-6)
    grey_alpha = write_png(tmp_path / "b.png", np.concatenate([GREY8[..., None], alpha], axis=-1))
    np.testing.assert_allclose(read_image(grey_alpha), GREY8[None] / 255.0, rtol=1e-6)
    Image.fromarray(COLOUR8).quantize(6).save(tmp_path / "c.png")
    expected = np.array(Image.open(tmp_path / "c.png").convert("RGB"))
    np.testing.assert_allclose(read_image(tmp_path / "c.png"), expected.transpose(2, 0, 1) / 255.0, rtol=1e-6)


def test_tiff_with_separate_planes_or_white_as_zero(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", COLOUR8.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    np.testing.assert_allclose(read_image(tmp_path / "a.tif"), COLOUR8.transpose(2, 0, 1) / 255.0, rtol=1e-6)
    tifffile.imwrite(tmp_path / "b.tif", GREY8, photometric="miniswhite")
    np.testing.assert_allclose(read_image(tmp_path / "b.tif"), (255 - GREY8)[None] / 255.0, rtol=1e-6)


def test_pages_are_said_to_be_read_as_planes_once_for_a_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pages = np.random.default_rng(0).integers(0, 256, (3, 6, 9), dtype=np.uint8)
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(tmp_path / name, pages, photometric="minisblack")
    with caplog.at_level("WARNING"):
        images = [read_image(tmp_path / name) for name in ("a.tif", "b.tif", "a.tif")]
        write_png(tmp_path / "c.png", pages.transpose(1, 2, 0))
        read_image(tmp_path / "c.png")
    np.testing.assert_array_equal(np.round(images[1] * 255), pages)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{tmp_path / 'a.tif'}: its 3 pages are read as planes of one picture")


def test_packing() -> None:
    a, b, c = (np.full((2, 3), value, dtype=np.float32) for value in (0.2, 0.6, 1.0))
    np.testing.assert_array_equal(pack_channels(np.stack([a])), np.stack([a, a, a]))
    np.testing.assert_allclose(pack_channels(np.stack([a, b])), np.stack([a, b, (a + b) / 2]))
    np.testing.assert_array_equal(pack_channels(np.stack([a, b, c])), np.stack([a, b, c]))
    assert pack_channels(np.stack([a, b, c, a])).shape == (4, 2, 3)


def test_lighting_channels_join_and_count_grey_written_as_colour_once(tmp_path: Path) -> None:
    first = write_png(tmp_path / "a_ch0.png", GREY8)
    second = write_png(tmp_path / "a_ch1.png", np.repeat(255 - GREY8[..., None], 3, axis=-1))
    planes = read_lighting_channels([first, second])
    np.testing.assert_allclose(planes, np.stack([GREY8, 255 - GREY8, np.full_like(GREY8, 127.5, float)]) / 255.0)


def test_lighting_channels_of_different_size_name_both_files(tmp_path: Path) -> None:
    paths = [write_png(tmp_path / "a_ch0.png", GREY8), write_png(tmp_path / "a_ch1.png", GREY8[:, :2])]
    with pytest.raises(DatasetError, match=r"a_ch1\.png.*2x2 here and 2x3 in a_ch0\.png"):
        read_lighting_channels(paths)


def test_file_format_finds_the_other_lighting_channels_and_travels_as_plain_data(tmp_path: Path) -> None:
    file_format = FileFormat(("_ch0", "_ch1"), bit_depth=12)
    paths = [write_png(tmp_path / f"unit7_ch{channel}.png", GREY8) for channel in (0, 1)]
    assert file_format.files(paths[1]) == paths
    assert file_format.stem(paths[1]) == "unit7"
    assert FileFormat.from_dict(file_format.to_dict()) == file_format
    with pytest.raises(DatasetError, match="ends with none of them"):
        file_format.files(tmp_path / "unit7.png")
    paths[0].unlink()
    with pytest.raises(DatasetError, match=r"unit7_ch0\.png: this lighting channel's file is missing"):
        file_format.files(paths[1])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
def test_truncated_and_foreign_files_are_named(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    whole = write_png(tmp_path / f"whole{suffix}", noise).read_bytes()
    (tmp_path / f"cut{suffix}").write_bytes(whole[: len(whole) // 2])
    (tmp_path / f"text{suffix}").write_text("no image")
    for name in ("cut", "text", "missing"):
        with pytest.raises(DatasetError, match=f"{name}{suffix}"):
            read_image(tmp_path / f"{name}{suffix}")


def test_sizes_come_from_the_header(tmp_path: Path) -> None:
    for suffix in (".png", ".tif"):
        assert image_size(write_png(tmp_path / f"a{suffix}", GREY8)) == (2, 3)
    with pytest.raises(DatasetError, match=r"b\.png: the file does not exist"):
        image_size(tmp_path / "b.png")


INDICES = np.array([[0, 1, 2], [2, 255, 0]], dtype=np.uint8)


def test_index_masks_grey_and_palette(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_mask(write_png(tmp_path / "grey.png", INDICES), num_classes=3), INDICES)
    palette = Image.fromarray(INDICES).convert("P")
    palette.putpalette([7, 8, 9] * 256)
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "palette.png", num_classes=3), INDICES)
    rgb = write_png(tmp_path / "rgb.png", np.repeat(INDICES[..., None], 3, axis=-1))
    np.testing.assert_array_equal(read_mask(rgb, num_classes=3), INDICES)


def test_another_ignore_index_becomes_255(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", np.array([[9, 1]], dtype=np.uint8))
    assert read_mask(path, num_classes=2, ignore_index=9).tolist() == [[255, 1]]
    with pytest.raises(DatasetError, match=r"a\.png: the value 9 means ignore .* but 10 classes are named"):
        read_mask(path, num_classes=10, ignore_index=9)  # as where a class was added later


def test_colour_coded_mask(tmp_path: Path) -> None:
    colours = {(0, 0, 0): 0, (255, 0, 0): 1, (0, 0, 255): 255}
    rgb = np.array([[[0, 0, 0], [255, 0, 0], [0, 0, 255]]], dtype=np.uint8)
    assert read_mask(write_png(tmp_path / "a.png", rgb), num_classes=2, colours=colours).tolist() == [[0, 1, 255]]
    rgb[0, 2] = (1, 2, 3)
    with pytest.raises(DatasetError, match=r"b\.png: the colour \(1, 2, 3\) at row 0, column 2 is not in the"):
        read_mask(write_png(tmp_path / "b.png", rgb), num_classes=2, colours=colours)
    with pytest.raises(DatasetError, match="the mask is colour-coded"):
        read_mask(tmp_path / "b.png", num_classes=2)


def test_an_index_without_a_class_is_named_with_its_place(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", INDICES)
    with pytest.raises(DatasetError, match=r"a\.png: the class index 2 at row 0, column 2 has no name; 2 classes"):
        read_mask(path, num_classes=2)


def test_a_lossy_mask_raises(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"a\.jpg: a mask must be a lossless file"):
        read_mask(write_png(tmp_path / "a.jpg", INDICES), num_classes=3)
