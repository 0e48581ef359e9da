# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures: what a file says of itself is read right, or the error names the file and the remedy."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps
from rows import Row, table
from writing_pictures import (
    COLOUR,
    DEEP,
    GREY,
    INDICES,
    SMOOTH,
    TURNED,
    Write,
    encoded,
    few_bits_png,
    pages,
    raw,
    rounded,
    saved,
    spoiled,
    tiff,
)

from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.reading import image_size, read_image, read_lighting_channels


def picture(name: str, write: Write, bit_depth: int | None = None) -> Callable[[Path], object]:
    """Return an act that writes a picture and reads it back as 8-bit values."""

    def act(folder: Path) -> object:
        write(folder / name)
        return rounded(read_image(folder / name, bit_depth))

    return act


def compressed_as(number: int) -> Write:
    """Return an act that writes a TIFF whose tag says that it is compressed in another way."""

    def write(path: Path) -> None:
        tifffile.imwrite(path, GREY)
        with tifffile.TiffFile(path, mode="r+b") as file:
            file.pages[0].tags["Compression"].overwrite(number)

    return write


def with_preview(path: Path) -> None:
    with tifffile.TiffWriter(path) as writer:
        writer.write(COLOUR[::3, ::3].copy(), photometric="rgb", subfiletype=1)
        writer.write(COLOUR, photometric="rgb")
        writer.write(GREY > 9, photometric="minisblack", subfiletype=4)


def animated(path: Path) -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(path, format="PNG", save_all=True, append_images=frames[1:])


PICTURES = table(
    Row(
        "a JPEG renamed .png",
        picture("a.png", raw(encoded(SMOOTH, "JPEG"))),
        value=np.array(Image.open(io.BytesIO(encoded(SMOOTH, "JPEG")))).tolist(),
    ),
    Row("a PNG renamed .tif", picture("a.tif", raw(encoded(COLOUR, "PNG"))), value=COLOUR.tolist()),
    Row(
        "a TIFF of 12 bits renamed .png",
        picture("a.png", tiff(DEEP), 12),
        value=np.round(DEEP / 4095 * 255).astype(int).tolist(),
    ),
    Row(
        "a GIF renamed .png",
        picture("a.png", raw(encoded(GREY, "GIF"))),
        r"a\.png: is a GIF; .* PNG, JPEG, BMP or TIFF",
    ),
    Row("a pointer of Git LFS", picture("a.png", raw(b"version https://git-lfs.github.com/spec/v1\n")), "git lfs pull"),
    Row("an empty file", picture("a.png", raw(b"")), r"a\.png: is empty"),
    Row("a text", picture("a.jpg", raw(b"no picture")), r"a\.jpg: begins like no picture"),
    Row("a folder", picture("a.png", Path.mkdir), r"a\.png: is a folder"),
    Row("an animation", picture("a.png", animated), r"a\.png: is an animation of 2 pictures"),
    Row("EXIF orientation of a PNG", picture("a.png", saved(COLOUR, exif=TURNED)), value=np.rot90(COLOUR, -1).tolist()),
    Row(
        "EXIF orientation of a TIFF",
        picture("a.tif", tiff(COLOUR, extratags=[(274, 3, 1, 6, True)])),
        value=np.rot90(COLOUR, -1).tolist(),
    ),
    Row("preview and mask pages", picture("a.tif", with_preview), value=COLOUR.tolist()),
    Row(
        "two lighting channels as pages",
        picture("a.tif", pages(GREY, 255 - GREY)),
        value=np.dstack([GREY, 255 - GREY]).tolist(),
    ),
    Row("pages of two sizes", picture("a.tif", pages(GREY, GREY[:2])), r"a\.tif: has pages of different sizes"),
    Row(
        "two lighting channels as samples",
        picture("a.tif", tiff(COLOUR[..., :2], photometric="minisblack", planarconfig="contig", extrasamples=[0])),
        value=COLOUR[..., :2].tolist(),
    ),
    Row(
        "RGB and infrared",
        picture("a.tif", tiff(np.dstack([COLOUR, GREY]), photometric="rgb", extrasamples=[0])),
        value=np.dstack([COLOUR, GREY]).tolist(),
    ),
    Row(
        "alpha of a TIFF",
        picture("a.tif", tiff(np.dstack([COLOUR, GREY]), photometric="rgb", extrasamples=[2])),
        value=COLOUR.tolist(),
    ),
    Row(
        "colours that alpha was multiplied into",
        picture("a.tif", tiff(np.dstack([COLOUR, GREY]), photometric="rgb", extrasamples=[1])),
        "multiplied by its alpha",
    ),
    Row("CMYK", picture("a.tif", saved(COLOUR, "CMYK")), value=COLOUR.tolist()),
    Row(
        "YCbCr",
        picture("a.tif", saved(COLOUR, "YCbCr")),
        value=np.array(Image.fromarray(COLOUR).convert("YCbCr").convert("RGB")).tolist(),
    ),
    Row("CIELAB", picture("a.tif", tiff(COLOUR, photometric="cielab")), r"a\.tif: the colour space CIELAB is not read"),
    Row("a mosaic of a sensor", picture("a.tif", tiff(GREY, photometric="cfa")), "the colour space CFA is not read"),
    Row("grey of 2 bits", picture("a.png", raw(few_bits_png(INDICES, 2))), value=(INDICES * 85).tolist()),
    Row("white is zero", picture("a.tif", tiff(GREY, photometric="miniswhite")), value=(255 - GREY).tolist()),
    Row(
        "a value beyond bit_depth",
        picture("a.tif", tiff(DEEP), 8),
        r"a\.tif: holds the value \d+, more than bit_depth=8",
    ),
    Row("bit_depth=7", picture("a.tif", tiff(DEEP), 7), "bit_depth=7 must be a whole number from 8 to 16"),
    Row("bit_depth=17", picture("a.tif", tiff(DEEP), 17), "bit_depth=17 must be"),
    Row("NaN in a file", picture("a.tif", tiff(spoiled(GREY, np.nan))), r"a\.tif: holds NaN .* at row 2, column 3"),
    Row("infinity in a file", picture("a.tif", tiff(spoiled(GREY, np.inf))), r"a\.tif: holds NaN or infinity"),
    Row("floats beyond 1", picture("a.tif", tiff(GREY.astype(np.float32))), r"a\.tif: floats must lie in \[0, 1\]"),
    Row("signed values", picture("a.tif", tiff(DEEP.astype(np.int16))), r"a\.tif: pixels must be .* got int16"),
    Row(
        "a cut TIFF",
        picture("a.tif", lambda p: (tiff(COLOUR)(p), p.write_bytes(p.read_bytes()[:-40]))),
        r"a\.tif: .* truncated",
    ),
    Row(
        "a compression that nobody decodes",
        picture("a.tif", compressed_as(32908)),
        r"a\.tif: its compression cannot be read here \(.*32908.*\)\. Save it with LZW",
    ),
    Row("a TIFF whose header is cut", picture("a.tif", raw(b"II*\0\x08\0")), r"a\.tif: cannot be read as an image"),
    Row(
        "a palette",
        picture("a.png", lambda p: Image.fromarray(GREY).convert("P").save(p)),
        value=np.repeat(GREY[..., None], 3, axis=-1).tolist(),
    ),
)


@pytest.mark.parametrize("row", PICTURES)
def test_pictures(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)


def test_a_picture_beyond_pillows_limit_is_read_and_the_limit_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(GREY)(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / "a.png")
    assert image_size(tmp_path / "a.png") == GREY.shape
    assert rounded(read_image(tmp_path / "a.png")) == GREY.tolist()
    assert Image.MAX_IMAGE_PIXELS == 10


def test_a_missing_codec_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        msg = "<COMPRESSION.LZW: 5> requires the 'imagecodecs' package"
        raise ValueError(msg)

    tifffile.imwrite(tmp_path / "a.tif", COLOUR)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", fail)
    with pytest.raises(DatasetError, match=r"a\.tif: cannot be read without the package imagecodecs .*pip install"):
        read_image(tmp_path / "a.tif")


def test_planes_of_lights_depend_on_the_training_pictures_and_on_no_pixel(tmp_path: Path) -> None:
    names = [tmp_path / f"u_{channel}.png" for channel in "ab"]
    saved(COLOUR)(names[0])
    saved(COLOUR * 0)(names[1])  # the lamp was off
    assert read_lighting_channels(names, planes=(3, 3)).shape == (6, 6, 9)
    with pytest.raises(
        DatasetError, match=r"u_a\.png: has 3 planes \(colour\), but the training pictures .* 1 \(grey\)"
    ):
        read_lighting_channels(names, planes=(1, 1))


def test_all_eight_orientations_are_those_of_pillow(tmp_path: Path) -> None:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.png"
        Image.fromarray(COLOUR).save(path, exif=exif)
        expected = np.array(ImageOps.exif_transpose(Image.open(path)))
        assert rounded(read_image(path)) == expected.tolist()
        assert image_size(path) == expected.shape[:2]
