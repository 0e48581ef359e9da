# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""``python -m anomalib_aoissl measure``: the parts in masks as numbers, from an exported model or from labels."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from anomalib_aoissl.measuring.parts import Measured

    from .outputs import LeftOut


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("source", type=Path, help="exported model (.xml, .onnx), or folder of masks or labels")
    parser.add_argument("pictures", type=Path, nargs="?", help="picture, or folder of them; masks may do without")
    parser.add_argument("--output", type=Path, required=True, help="CSV to write, a row for each part")
    parser.add_argument("--overlays", type=Path, help="folder for a picture of each mask with its parts")
    parser.add_argument("--scale", type=float, help="size of a pixel in um; adds columns in um")
    parser.add_argument(
        "--measured", nargs="+", metavar="CLASS", help="classes to measure; default: all but background"
    )
    parser.add_argument(
        "--classes", nargs="+", metavar="NAME", help="names of the classes 1, 2, ... of masks without classes.txt"
    )
    parser.add_argument("--min_area", type=int, default=10, help="px of the smallest part (%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier run")


def measure(options: argparse.Namespace) -> int:
    """Measure the parts in masks: area, length and width along the centre line, position, angle, touching classes."""
    from anomalib_aoissl.deployment.files.model_file import MODEL_SUFFIXES
    from anomalib_aoissl.measuring.parts import measure as measured_parts
    from anomalib_aoissl.measuring.writing import entry, entry_without_parts, write_csv

    from .outputs import LeftOut, check_outputs

    _check(options)
    check_outputs({"--output": options.output}, [options.source, options.pictures], overwrite=options.overwrite)
    of_model, left_out = options.source.suffix.lower() in MODEL_SUFFIXES, LeftOut()
    masks = _of_model(options, left_out) if of_model else _of_labels(options, left_out)
    entries: list[list[Any]] = []
    widths: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
    names: tuple[str, ...] = ()
    specks = count = 0
    for count, (name, picture, mask, names, fault) in enumerate(masks, start=1):
        found = measured_parts(mask, _indices(options.measured, names), options.min_area)
        rows = [entry(name, part, names, options.scale, fault) for part in found.parts]
        entries += rows or [entry_without_parts(name, options.scale, fault)]
        for part in found.parts:
            widths[names[part.class_index]].append((part.area, part.length, part.width))
        specks += found.specks
        if options.overlays is not None:
            _draw(options, name, picture, mask, found, names)
        if sys.stderr.isatty():
            print(f"\r{count} pictures", end="", file=sys.stderr, flush=True)
    write_csv(options.output, entries, options.scale)
    _say(widths, options, count, specks, left_out.count)
    return left_out.exit_code


def _check(options: argparse.Namespace) -> None:
    """Validate the arguments that need no file."""
    if options.scale is not None and not 0 < options.scale < float("inf"):
        msg = f"--scale {options.scale}: must be the size of a pixel in um, above 0."
        raise ValueError(msg)
    if options.min_area < 1:
        msg = f"--min_area {options.min_area}: must be at least 1 px."
        raise ValueError(msg)
    full = options.overlays is not None and options.overlays.is_dir() and any(options.overlays.iterdir())
    if full and not options.overwrite:
        msg = f"--overlays {options.overlays}: holds files already. Give another folder, or --overwrite."
        raise ValueError(msg)
    try:
        import scipy  # noqa: F401
        import skimage  # noqa: F401
    except ImportError as error:
        msg = f"measure needs scikit-image ({error}): install the extra measure, such as 'anomalib-aoissl[measure]'."
        raise RuntimeError(msg) from error


def _indices(wanted: list[str] | None, names: tuple[str, ...]) -> list[int]:
    """Return the indices of the classes to measure."""
    unknown = [name for name in wanted or () if name not in names[1:]]
    if unknown:
        msg = f"--measured {unknown[0]}: is no class beside background. The classes are {list(names[1:])}."
        raise ValueError(msg)
    return [names.index(name) for name in wanted] if wanted else list(range(1, len(names)))


def _of_model(options: argparse.Namespace, left_out: LeftOut) -> Iterator[tuple[str, Path, Any, tuple[str, ...], str]]:
    """Yield name, picture, mask, class names and fault of each picture that the model segments; bad files are said."""
    from anomalib_aoissl.data.finding.listing import list_records
    from anomalib_aoissl.deployment.inferencer import SegmentationOpenVINOInferencer

    if options.pictures is None:
        msg = f"{options.source}: a model needs pictures. Name a picture or a folder of them after it."
        raise ValueError(msg)
    model = SegmentationOpenVINOInferencer(options.source)
    lacking: list[str] = []
    if options.pictures.is_dir():
        channels = model.file_format.lighting_channels
        records = list_records(options.pictures, None, lighting_channels=channels, left_out=lacking)
        paths = [(record.stem, record.image_paths[0]) for record in records]
    else:
        paths = [(model.file_format.stem(options.pictures), options.pictures)]
    left_out.say(*lacking)
    done = 0
    for name, path in paths:
        try:
            result = model.predict(path)
        except ValueError as error:
            if len(paths) + len(lacking) == 1:
                raise
            left_out.say(error)
            continue
        done += 1
        yield name, path, result.class_map, model.class_names, result.fault
    if not done:
        msg = f"{options.pictures}: none of its {left_out.count} pictures can be read."
        raise ValueError(msg)


def _of_labels(
    options: argparse.Namespace, left_out: LeftOut
) -> Iterator[tuple[str, Path | None, Any, tuple[str, ...], str]]:
    """Yield the same of each entry of a folder of masks, or of labels of another tool, with no fault."""
    from anomalib_aoissl.data.errors import DatasetError
    from anomalib_aoissl.data.label_formats import read_labels
    from anomalib_aoissl.data.labels.mapping import map_classes, remapped
    from anomalib_aoissl.data.labels.shapes.rasterizing import rasterized
    from anomalib_aoissl.data.labels.source import Source
    from anomalib_aoissl.data.reading import image_size

    source = Source(options.source, options.pictures, classes=options.classes)
    found = read_labels(source)
    names, lookup = map_classes(found.classes, classes=options.classes)
    for image in found.images:
        picture = source.pictures.find(image.name)
        if image.indices is not None:
            try:
                mask = remapped(image.indices(), found.classes, lookup)
            except DatasetError as error:
                if len(found.images) == 1:
                    raise
                left_out.say(error)
                continue
        else:
            size = image.size or (image_size(picture) if picture is not None else None)
            if size is None or not image.labelled:
                continue
            mask = rasterized(image.shapes, lookup, size)[0]
        yield _item_name(image.name), picture, mask, names, ""
    if left_out.count and left_out.count == len(found.images):
        msg = f"{options.source}: none of its {left_out.count} masks can be read."
        raise ValueError(msg)


def _draw(
    options: argparse.Namespace,
    name: str,
    picture: Path | None,
    mask: np.ndarray,
    found: Measured,
    names: Sequence[str],
) -> None:
    """Write the picture of a mask with its parts; on black where the mask has no picture."""
    import numpy as np

    from anomalib_aoissl.data.files import save_picture
    from anomalib_aoissl.data.reading import read_image
    from anomalib_aoissl.measuring.writing import draw_parts
    from anomalib_aoissl.visualization.overlay import picture_of

    shown = np.zeros((*mask.shape, 3), dtype=np.uint8)
    if picture is not None:
        given = picture_of(read_image(picture))
        if given.shape == shown.shape:
            shown = given
    save_picture(options.overlays / f"{name}.png", draw_parts(shown, mask, found, names))


def _item_name(name: str) -> str:
    """Return a picture's name in a label file without suffix and ``images/``; never absolute or leading upwards."""
    from anomalib_aoissl.data.reading import IMAGE_SUFFIXES

    parts = [part.replace(":", "_") for part in name.replace("\\", "/").split("/") if part not in {"", ".", ".."}]
    path = "/".join(parts).removeprefix("images/")
    stem, dot, suffix = path.rpartition(".")
    return stem if f"{dot}{suffix}".lower() in IMAGE_SUFFIXES else path


def _say(
    measures: dict[str, list[tuple[int, float, float]]],
    options: argparse.Namespace,
    count: int,
    specks: int,
    left_out: int,
) -> None:
    """Print the count and the medians of each class."""
    import numpy as np

    unit, scale = ("um", options.scale) if options.scale else ("px", 1.0)
    print(
        f"{'CLASS':<20}{'PARTS':>8}{'AREA ' + unit + '^2':>14}{'LENGTH ' + unit:>14}{'WIDTH ' + unit:>12}   (medians)"
    )
    for name, values in measures.items():
        area, length, width = np.median(np.array(values), axis=0)
        print(f"{name:<20}{len(values):>8}{area * scale**2:>14.1f}{length * scale:>14.1f}{width * scale:>12.2f}")
    if specks:
        print(f"note: {specks} parts of less than {options.min_area} px are left out")
    overlays = f", {options.overlays}" if options.overlays is not None else ""
    without = f", {left_out} left out" if left_out else ""
    print(f"{options.output}{overlays}: {sum(map(len, measures.values()))} parts of {count} pictures{without}")
