# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures, masks and arrays: what a file says of itself is read right, or the error names the file and the remedy."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps
from rows import Row, table

from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.reading import image_size, read_image, read_lighting_channels, read_mask

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (6, 9), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (6, 9, 3), dtype=np.uint8)
DEEP = RANDOM.integers(0, 4096, (6, 9), dtype=np.uint16)
SMOOTH = np.repeat(np.linspace(20, 230, 32, dtype=np.uint8)[None], 24, axis=0)
INDICES = RANDOM.integers(0, 3, (6, 9), dtype=np.uint8)
TURNED = Image.Exif()
TURNED[0x0112] = 6

Write = Callable[[Path], object]


def rounded(image: np.ndarray) -> list[Any]:
    """Return planes as values of 8 bits, channels last where there are several."""
    values = np.round(image * 255).astype(int)
    return (values[0] if len(values) == 1 else values.transpose(1, 2, 0)).tolist()


def compressed_as(number: int) -> Write:
    """Return an act that writes a TIFF whose tag says that it is compressed in another way."""

    def write(path: Path) -> None:
        tifffile.imwrite(path, GREY)
        with tifffile.TiffFile(path, mode="r+b") as file:
            file.pages[0].tags["Compression"].overwrite(number)

    return write


def picture(name: str, write: Write, bit_depth: int | None = None) -> Callable[[Path], object]:
    """Return an act that writes a picture and reads it back as 8-bit values."""

    def act(folder: Path) -> object:
        write(folder / name)
        return rounded(read_image(folder / name, bit_depth))

    return act


def mask(name: str, write: Write, **options: Any) -> Callable[[Path], object]:
    """Return an act that writes a mask of three classes and reads it back."""

    def act(folder: Path) -> object:
        write(folder / name)
        return read_mask(folder / name, num_classes=3, **options).tolist()

    return act


def array(image: Any, **options: Any) -> Callable[[Path], object]:
    """Return an act that gives an array to the reader of the inferencer."""
    file_format = FileFormat(**options.pop("file_format", {}))
    return lambda _: rounded(file_format.read_array(image, **options))


def saved(values: np.ndarray, mode: str | None = None, **options: Any) -> Write:
    image = Image.fromarray(values)
    return lambda path: (image if mode is None else image.convert(mode)).save(path, **options)


def tiff(values: np.ndarray, **options: Any) -> Write:
    return lambda path: tifffile.imwrite(path, values, **options)


def raw(content: bytes) -> Write:
    return lambda path: path.write_bytes(content)


def encoded(values: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format=kind)
    return buffer.getvalue()


def with_preview(path: Path) -> None:
    with tifffile.TiffWriter(path) as writer:
        writer.write(COLOUR[::3, ::3].copy(), photometric="rgb", subfiletype=1)
        writer.write(COLOUR, photometric="rgb")
        writer.write(GREY > 9, photometric="minisblack", subfiletype=4)


def pages(*values: np.ndarray) -> Write:
    def write(path: Path) -> None:
        with tifffile.TiffWriter(path) as writer:
            for value in values:
                writer.write(value, photometric="minisblack")

    return write


def animated(path: Path) -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(path, format="PNG", save_all=True, append_images=frames[1:])


def spoiled(values: np.ndarray, value: float) -> np.ndarray:
    result = values.astype(np.float32) / 255
    result[2, 3] = value
    return result


def few_bits_png(values: np.ndarray, bits: int) -> bytes:
    """Return a grey PNG of ``bits`` bits a sample, written by hand."""
    rows = b""
    for row in values:
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        rows += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


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

COLOURS = {(0, 0, 0): 0, (255, 0, 0): 1, (0, 255, 0): 2}
CODED = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], dtype=np.uint8)[INDICES]


def mask_with_other_palette(path: Path) -> None:
    Image.fromarray(CODED).quantize(8).save(path)


MASKS = table(
    Row(
        "own palette, read by colours", mask("a.png", mask_with_other_palette, colours=COLOURS), value=INDICES.tolist()
    ),
    Row(
        "grey, read by colours",
        mask("a.png", saved(INDICES * 255), colours={(0, 0, 0): 0, (255,) * 3: 1, (254,) * 3: 2}),
        value=(INDICES % 3).tolist(),
    ),
    Row(
        "indices, though colours are named",
        mask("a.png", saved(np.full_like(INDICES, 2)), colours=COLOURS),
        r"a\.png: the colour \(2, 2, 2\) .* take the table out",
    ),
    Row("grey of 2 bits", mask("a.png", raw(few_bits_png(INDICES, 2))), value=INDICES.tolist()),
    Row("grey of 4 bits", mask("a.png", raw(few_bits_png(INDICES, 4))), value=INDICES.tolist()),
    Row("EXIF orientation", mask("a.png", saved(INDICES, exif=TURNED)), value=np.rot90(INDICES, -1).tolist()),
    Row(
        "TIFF orientation",
        mask("a.tif", tiff(INDICES, extratags=[(274, 3, 1, 3, True)])),
        value=np.rot90(INDICES, 2).tolist(),
    ),
    Row("whole floats", mask("a.tif", tiff(INDICES.astype(np.float32))), value=INDICES.tolist()),
    Row(
        "fractions",
        mask("a.tif", tiff(INDICES + np.float32(0.5))),
        r"a\.tif: holds \d\.5 at row 0, column 0, no class index",
    ),
    Row("NaN", mask("a.tif", tiff(spoiled(INDICES * 0, np.nan))), r"a\.tif: holds nan at row 2, column 3"),
    Row("negative values", mask("a.tif", tiff(INDICES.astype(np.int16) - 1)), r"a\.tif: the class index -1"),
    Row(
        "-1 as the ignore index",
        mask("a.tif", tiff(INDICES.astype(np.int16) - 1), ignore_index=-1),
        value=np.array([255, 0, 1])[INDICES].tolist(),
    ),
    Row("a JPEG renamed .png", mask("a.png", raw(encoded(INDICES, "JPEG"))), r"a\.png: is coded as JPEG"),
    Row("JPEG in a TIFF", mask("a.tif", tiff(np.zeros((16, 16), np.uint8), compression="jpeg")), "is coded as JPEG"),
    Row("white is zero", mask("a.tif", tiff(INDICES, photometric="miniswhite")), r"a\.tif: says that 0 is white"),
    Row("several pages", mask("a.tif", pages(INDICES, INDICES)), r"a\.tif: has 2 pages"),
    Row("see-through pixels", mask("a.png", saved(np.dstack([CODED, INDICES])), colours=COLOURS), "not opaque"),
    Row(
        "opaque alpha",
        mask("a.png", saved(np.dstack([CODED, INDICES * 0 + 255])), colours=COLOURS),
        value=INDICES.tolist(),
    ),
    Row(
        "samples of no meaning",
        mask("a.tif", tiff(CODED[..., :2], photometric="minisblack", planarconfig="contig", extrasamples=[0])),
        r"a\.tif: the mask has 2 samples",
    ),
    Row("CMYK", mask("a.tif", saved(CODED, "CMYK")), "is coded as SEPARATED"),
)

BGR = COLOUR[..., ::-1]

ARRAYS = table(
    Row("red first", array(COLOUR), value=COLOUR.tolist()),
    Row("blue first, and said", array(BGR, color_order="bgr"), value=COLOUR.tolist()),
    Row(
        "blue first with alpha",
        array(np.dstack([BGR, GREY]), color_order="bgr"),
        value=np.dstack([COLOUR, GREY]).tolist(),
    ),
    Row(
        "alpha, for files of three planes",
        array(np.dstack([COLOUR, GREY]), file_format={"planes": (3,)}),
        value=COLOUR.tolist(),
    ),
    Row(
        "blue first with alpha, for files of three planes",
        array(np.dstack([BGR, GREY]), color_order="bgr", file_format={"planes": (3,)}),
        value=COLOUR.tolist(),
    ),
    Row(
        "four planes, for files of four",
        array(np.dstack([COLOUR, GREY]), file_format={"planes": (4,)}),
        value=np.dstack([COLOUR, GREY]).tolist(),
    ),
    Row(
        "four planes, for three lighting channels",
        array(np.dstack([COLOUR, GREY]), file_format={"lighting_channels": ("_a", "_b", "_c"), "planes": (1, 1, 1)}),
        value=np.dstack([COLOUR, GREY]).tolist(),  # which the model takes as none of its three
    ),
    Row("an order that is none", array(COLOUR, color_order="BGR"), "color_order='BGR' must be 'rgb' or 'bgr'"),
    Row(
        "12 bits as the model's files",
        array(np.dstack([DEEP] * 3), file_format={"bit_depth": 12}),
        value=np.round(np.dstack([DEEP] * 3) / 4095 * 255).astype(int).tolist(),
    ),
    Row("more than the model's bits", array(DEEP * 15, file_format={"bit_depth": 12}), "more than bit_depth=12"),
    Row("NaN", array(spoiled(GREY, np.nan)), r"The array: holds NaN or infinity, first at row 2, column 3"),
    Row("infinity", array(spoiled(GREY, -np.inf)), "holds NaN or infinity"),
    Row("floats to 255", array(GREY.astype(np.float64)), r"float in \[0, 1\]; got float64", TypeError),
    Row("whole numbers of 32 bits", array(GREY.astype(np.int32)), "got int32", TypeError),
    Row("a list", array(GREY.tolist()), "got list", TypeError),
    Row("no pixel", array(np.zeros((0, 4), np.uint8)), "must have the shape"),
    Row("four axes", array(COLOUR[None]), "must have the shape"),
    Row(
        "colours for two grey lighting channels",
        array(COLOUR, file_format={"lighting_channels": ("_a", "_b"), "planes": (1, 1)}),
        "trained on 2 grey pictures",
    ),
)


@pytest.mark.parametrize("row", PICTURES)
def test_pictures(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)


@pytest.mark.parametrize("row", MASKS)
def test_masks(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)


@pytest.mark.parametrize("row", ARRAYS)
def test_arrays(row: Row, tmp_path: Path) -> None:
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
