# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""``python -m anomalib_aoissl explain``: which labelled patches decided; an exported model needs no torch."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from anomalib_aoissl.data.reading import image_size, read_mask

from .dispatching import CommandError, add_overwrite
from .outputs import SHOWN_VOTES, check_outputs, write_explanation


def add_explain(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of explain."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--ckpt_path", type=Path, help="checkpoint of AOISSLRetrieval")
    source.add_argument("--model", type=Path, help="exported AOISSLRetrieval (.xml)")
    parser.add_argument("--image", type=Path, required=True, help="image to ask about")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--at", help="x,y: a pixel of the image, from 0,0 at its top left")
    where.add_argument("--box", help="left,top,right,bottom: a box of the image in px, its right and bottom outside")
    where.add_argument("--mask", type=Path, help="PNG of the image's size, the region where it is not 0")
    parser.add_argument("--output", type=Path, required=True, help="picture to write, such as explain.png")
    parser.add_argument("--data", type=Path, help="JSON file to write with every vote")
    add_overwrite(parser)


def explain(options: argparse.Namespace) -> None:
    """Show which labelled patches decided on the class of a pixel or a region of an image."""
    given = (options.ckpt_path, options.model, options.image, options.mask)
    check_outputs({"--output": options.output, "--data": options.data}, given, overwrite=options.overwrite)
    if Image.registered_extensions().get(options.output.suffix.lower()) not in Image.SAVE:
        msg = f"--output {options.output}: no picture has this suffix. Give a name that ends with .png."
        raise CommandError(msg)
    region = _region(options, image_size(options.image))
    if options.model is None:
        from .checkpoints import explain as explain_checkpoint

        explain_checkpoint(options, region)
    else:
        _explain_exported(options, region)


def _explain_exported(options: argparse.Namespace, region: np.ndarray) -> None:
    """Write which labelled patches of an exported model decided on a region ``[H, W]`` bool."""
    from anomalib_aoissl.deployment.explaining import explain_with_picture
    from anomalib_aoissl.deployment.inferencer import SegmentationOpenVINOInferencer

    inferencer = SegmentationOpenVINOInferencer(options.model)
    read = [options.model.with_suffix(".bin"), *inferencer.file_format.files(options.image)]
    outputs = {"--output": options.output, "--data": options.data}
    check_outputs(outputs, [*read, *inferencer.bank["entries_of_image"]], overwrite=options.overwrite)
    explanation, picture = explain_with_picture(inferencer, options.image, region, SHOWN_VOTES)
    write_explanation(explanation, picture, options, inferencer.fault_of(options.image))


def _region(options: argparse.Namespace, size: tuple[int, int]) -> np.ndarray:
    """Return the region as a mask ``[H, W]`` bool of the image's (height, width)."""
    height, width = size
    region = np.zeros(size, dtype=bool)
    if options.mask is not None:
        region = read_mask(options.mask) > 0
        if region.shape != size or not region.any():
            given = f"is {region.shape[1]}x{region.shape[0]} px with {int(region.sum())} px marked"
            msg = f"--mask {options.mask}: {given}; it must be of the image's {width}x{height} px and mark some."
            raise CommandError(msg)
        return region
    if options.at is not None:
        left, top = _numbers("--at", options.at, 2)
        right, bottom = left + 1, top + 1
    else:
        left, top, right, bottom = _numbers("--box", options.box, 4)
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        given = f"--at {options.at}" if options.at is not None else f"--box {options.box}"
        msg = f"{given}: lies outside of {options.image} of {width}x{height} px (or has no area)."
        raise CommandError(msg)
    region[top:bottom, left:right] = True
    return region


def _numbers(name: str, text: str, count: int) -> list[int]:
    """Return so many whole numbers of a text with commas."""
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count:
        example = ",".join(["120", "80", "160", "99"][:count])
        msg = f"{name} {text!r}: {count} whole numbers are needed, such as {example}."
        raise CommandError(msg)
    return values
