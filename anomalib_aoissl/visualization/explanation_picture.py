# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""An explanation as a picture: the image with the region, and beside it the labelled patches that decided."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from anomalib_aoissl.bank.explaining import Box, Explanation, Vote
from anomalib_aoissl.data.describing.class_colours import palette
from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.resizing import resize_mask

from .overlay import legend, overlay_mask, picture_of

_QUERY_WIDTH = 520
_TILE, _CAPTION, _GAP = 190, 54, 12
_COLUMNS = 4
_MARGIN = 48  # px, more than the region's, of what is shown enlarged
_AROUND = 6  # a patch is shown with so many patch widths of its image around it
_GROUND, _TEXT, _FAINT, _MARK = (24, 24, 24), (240, 240, 240), (160, 160, 160), (255, 60, 200)

ReadPicture = Callable[[str], np.ndarray | None]


def reader_of(file_format: FileFormat) -> ReadPicture:
    """Return a function that reads the picture of a labelled image; of a file that is not here it gives None."""

    def read(name: str) -> np.ndarray | None:
        try:
            return picture_of(file_format.read(name))
        except ValueError:  # the file moved, or is on another machine
            return None

    return read


def draw_explanation(
    explanation: Explanation,
    query: np.ndarray,
    mask: np.ndarray,
    class_names: Sequence[str],
    labels: np.ndarray,
    read: ReadPicture,
    size: tuple[int, int] | None,
) -> Image.Image:
    """Return the image with the region at left, and the heaviest votes at right.

    Args:
        explanation: What to draw.
        query: ``[H, W, 3]`` uint8, the image that was asked about, at any size.
        mask: ``[h, w]`` uint8 class indices that the model gave, at the size that the region's box is in px of; only
            those of `shown_around` count.
        class_names: Names of the classes in the order of their indices.
        labels: ``[votes, patch height, patch width]`` uint8, labels of the heaviest votes, one tile each.
        read: Gives the picture ``[H, W, 3]`` uint8 of a labelled image by its name, None where it is not to be had.
        size: (height, width) of labelled images that the boxes of votes are in px of; None for each image's own.
    """
    left = _query_panel(explanation, query, mask, class_names)
    pictures: dict[str, np.ndarray | None] = {}
    tiles = []
    for vote, patch in zip(explanation.votes, labels, strict=False):
        if vote.image not in pictures:
            pictures[vote.image] = read(vote.image)
        tiles.append(_tile(vote, pictures[vote.image], patch, size, len(class_names)))
    right = _grid(tiles)
    width = left.width + right.width + 3 * _GAP
    strip = legend(class_names, width)
    sheet = Image.new("RGB", (width, max(left.height, right.height) + 2 * _GAP + strip.height), _GROUND)
    sheet.paste(left, (_GAP, _GAP))
    sheet.paste(right, (left.width + 2 * _GAP, _GAP))
    sheet.paste(strip, (0, sheet.height - strip.height))
    return sheet


def shown_around(box: Box, size: tuple[int, ...]) -> Box:
    """Return the box that is shown enlarged around that of a region, in an image of (height, width) px."""
    return _around(box, size, max(box[2:]) + _MARGIN)


def _query_panel(e: Explanation, query: np.ndarray, mask: np.ndarray, class_names: Sequence[str]) -> Image.Image:
    """Return the image with the region framed, the region enlarged without and with the mask, and what was decided."""
    full = _sized(query, _QUERY_WIDTH)
    shown = _framed(full, e.box, mask.shape)
    half = (_QUERY_WIDTH - _GAP) // 2
    crop = shown_around(e.box, mask.shape)
    coloured = overlay_mask(query, resize_mask(mask, query.shape[:2]), len(class_names))
    near = [_crop(picture, crop, mask.shape, e.box, half) for picture in (query, coloured)]
    lines = _summary(e)
    panel = Image.new("RGB", (_QUERY_WIDTH, shown.height + half + _GAP + 22 * len(lines) + 8), _GROUND)
    panel.paste(shown, (0, 0))
    panel.paste(near[0], (0, shown.height + _GAP))
    panel.paste(near[1], (half + _GAP, shown.height + _GAP))
    draw = ImageDraw.Draw(panel)
    colours = dict(zip(class_names, palette(len(class_names)).tolist(), strict=False))
    for index, (text, name, share) in enumerate(lines):
        top = shown.height + half + _GAP + 8 + 22 * index
        if name is not None:
            box = (0, top, max(2, round(share * 180)), top + 15)
            draw.rectangle(box, fill=tuple(colours.get(name, [128] * 3)), outline=_FAINT)
        draw.text((0 if name is None else 190, top), text, fill=_TEXT, font=_font(14))
    return panel


def _summary(e: Explanation) -> list[tuple[str, str | None, float]]:
    """Return the lines below the region: text, the class of a bar or None, and the bar's share."""
    names = [f"{name} {_percent(share)}" for name, share in e.predicted.items()]
    decided = names[0] if e.pixels == 1 else ", ".join([*names[:2], *(["…"] if len(names) > 2 else [])])
    of = "pixel" if e.pixels == 1 else f"{e.pixels} pixels"
    lines: list[tuple[str, str | None, float]] = [(f"decided for the {of}: {decided}", None, 0.0)]
    unknown = "" if e.abstained is None else f", does not know {_percent(e.abstained)} of it"
    lines.append((f"novelty {max(0.0, e.novelty):.2f}, uncertainty {e.uncertainty:.2f}{unknown}", None, 0.0))
    if e.differs:
        lines.append((f"the pixel head outweighs the vote on {_percent(e.differs)}", None, 0.0))
    return lines + [
        (f"{_percent(share)} of the votes: {name or 'ignored'}", name, share) for name, share in e.tally.items()
    ]


def _percent(share: float) -> str:
    """Return a share in whole percent; a small one is not called nothing."""
    return f"{share:.0%}" if share >= 0.01 or share == 0 else "<1%"


def _tile(
    vote: Vote, picture: np.ndarray | None, patch: np.ndarray, size: tuple[int, int] | None, classes: int
) -> Image.Image:
    """Return a labelled patch in its surroundings, the patch alone and with its labels beside it, and the numbers."""
    small = (_TILE - 4) // 2
    tile = Image.new("RGB", (_TILE + small + 4, _TILE + _CAPTION), _GROUND)
    draw = ImageDraw.Draw(tile)
    if picture is None or vote.tile is not None:
        missing = "image not found" if picture is None else "place not known"
        draw.rectangle((0, 0, _TILE - 1, _TILE - 1), fill=(110, 110, 110))
        draw.text((_TILE / 2, _TILE / 2), missing, fill=_TEXT, font=_font(14), anchor="mm")
        alone = np.full((*patch.shape, 3), 110, dtype=np.uint8)
    else:
        of = picture.shape[:2] if size is None else size
        crop = _around(vote.box, of, _AROUND * max(vote.box[2:]))
        tile.paste(_crop(picture, crop, of, vote.box, _TILE), (0, 0))
        near = _crop(picture, vote.box, of, None, 8 * max(patch.shape))
        alone = np.array(near.resize((patch.shape[1], patch.shape[0]), Image.Resampling.BILINEAR))
    for offset, shown in ((0, alone), (small + 4, _label_colours(alone, patch, classes))):
        enlarged = Image.fromarray(shown).resize((small, small), Image.Resampling.NEAREST)
        tile.paste(enlarged, (_TILE + 4, offset))
    for index, line in enumerate(_lines(vote, picture, size)):
        colour = _TEXT if index == 0 else _FAINT
        draw.text((0, _TILE + 3 + 17 * index), line, fill=colour, font=_font(13 if index else 14))
    return tile


def _lines(vote: Vote, picture: np.ndarray | None, size: tuple[int, int] | None) -> tuple[str, str, str]:
    """Return what a vote says, how similar it is, and where it lies: in px of the file, a tile of it, or the model."""
    top, left = vote.box[:2]
    if picture is not None and size is not None and vote.tile is None:
        top, left = (round(at * n / m) for at, n, m in zip((top, left), picture.shape, size, strict=False))
    stands = f", stands for {vote.patches}" if vote.patches > 1 else ""
    of = "" if vote.tile is None else f" tile {vote.tile}"
    unit = " model px" if picture is None and size is not None else ""  # how large the file is, is not known
    name = _shortened(Path(vote.image).name or "no name", 26 - len(of) - len(unit))
    return (
        f"{vote.weight:.1%} of the votes: {vote.label or 'ignored'}",
        f"similarity {vote.similarity:.3f}{stands}",
        f"{name}{of} x {left} y {top}{unit}",
    )


def _label_colours(picture: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return the patch with its labels over it; the background, which overlays leave clear, is darkened here."""
    darkened = np.where((labels == 0)[..., np.newaxis], picture // 3, picture)
    return overlay_mask(darkened, labels, classes)


def _grid(tiles: list[Image.Image]) -> Image.Image:
    """Return the tiles in rows."""
    width, height = tiles[0].width + _GAP, tiles[0].height + _GAP
    columns = min(_COLUMNS, len(tiles))
    sheet = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height), _GROUND)
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (index % columns * width, index // columns * height))
    return sheet


def _around(box: Box, size: tuple[int, ...], side: int) -> Box:
    """Return a square box of this side around the middle of another, moved into the image; smaller where it is."""
    side = min(side, *size)
    top, left = (
        min(max(start + length // 2 - side // 2, 0), limit - side)
        for start, length, limit in zip(box[:2], box[2:], size, strict=True)
    )
    return top, left, side, side


def _crop(
    picture: np.ndarray,
    crop: Box,
    size: tuple[int, ...],
    frame: Box | None,
    side: int,
) -> Image.Image:
    """Return a box of the picture, ``side`` px wide and high, with another box framed; boxes are in px of ``size``."""
    scale = picture.shape[0] / size[0], picture.shape[1] / size[1]
    top, left, height, width = crop
    region = (left * scale[1], top * scale[0], (left + width) * scale[1], (top + height) * scale[0])
    image = Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC, box=region)
    if frame is not None:
        inner = (frame[0] - top, frame[1] - left, frame[2], frame[3])
        image = _framed(image, inner, (height, width))
    return image


def _framed(image: Image.Image, box: Box, size: tuple[int, ...]) -> Image.Image:
    """Return the image with a frame around a box that is given in px of ``size``."""
    image = image.copy()
    y, x = image.height / size[0], image.width / size[1]
    top, left, height, width = box
    outline = (left * x - 2, top * y - 2, (left + width) * x + 1, (top + height) * y + 1)
    ImageDraw.Draw(image).rectangle(outline, outline=_MARK, width=2)
    return image


def _sized(picture: np.ndarray, width: int) -> Image.Image:
    """Return the picture at this width, px."""
    height = min(max(round(width * picture.shape[0] / picture.shape[1]), 1), 4 * width)
    return Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)


def _shortened(name: str, length: int) -> str:
    """Return the name, its middle left out where it is longer."""
    name = re.sub(r"\s+", " ", name)
    return name if len(name) <= length else f"{name[: length // 2]}…{name[-length // 2 + 1 :]}"


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return a font of this size, px."""
    return ImageFont.load_default(size=size)
