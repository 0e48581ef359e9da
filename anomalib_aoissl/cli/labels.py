# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""``python -m anomalib_aoissl labels``: labels of other tools to masks and back, with a check of what they say."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .dispatching import add_lighting_channels
from .outputs import LeftOut, columns

if TYPE_CHECKING:
    import numpy as np

    from anomalib_aoissl.data.describing.file_format import FileFormat
    from anomalib_aoissl.data.labels.content import LabelSet
    from anomalib_aoissl.data.labels.converting import Report
    from anomalib_aoissl.data.labels.source import Source
    from anomalib_aoissl.data.labels.suspicion import MaskSuspicion
    from anomalib_aoissl.deployment.inferencer import SegmentationOpenVINOInferencer

_SHOWN = 3
_FORMATS = ("masks", "coco", "labelme", "cvat")


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("source", type=Path, help="folder that a labelling tool exported, its label file, or masks")
    parser.add_argument("target", type=Path, help="folder to write; it must not exist yet")
    parser.add_argument("--format", choices=_FORMATS, default="masks", help="what to write (%(default)s)")
    parser.add_argument("--images", type=Path, help="folder of the pictures, where they are not in the export")
    parser.add_argument("--model", type=Path, help="exported model (.xml, .onnx) that labels the pictures of source")
    parser.add_argument(
        "--map",
        nargs="+",
        default=(),
        metavar="OLD=NEW",
        help="other names for labels; background, ignore, or nothing to leave them out",
    )
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="names in the order of their indices")
    add_lighting_channels(parser, "suffixes of the files of an item")
    parser.add_argument("--device_pattern", help="regular expression; its first group in a name is the device")
    parser.add_argument(
        "--on_top",
        choices=("file", "area"),
        default="file",
        help="of overlapping shapes of one z-order: the later in the file, or the smaller (%(default)s)",
    )
    parser.add_argument(
        "--empty_is_background", action="store_true", help="pictures without a shape are free of parts, and labelled"
    )
    parser.add_argument(
        "--keep_splits", action="store_true", help="pictures of folders train, val and test stay in such folders"
    )


def labels(options: argparse.Namespace) -> int:
    """Convert labels of another tool to masks, or masks to labels for it; the format is found by itself."""
    from anomalib_aoissl.data.label_formats import WRITTEN, read_labels
    from anomalib_aoissl.data.labels.converting import Choices, check_target, convert
    from anomalib_aoissl.data.labels.mapping import parse_renamed
    from anomalib_aoissl.data.labels.source import Source
    from anomalib_aoissl.data.labels.suspicion import look_at

    if options.keep_splits and options.format != "masks":
        msg = f"--keep_splits goes with masks; --format {options.format} has one folder. Leave out one of both."
        raise ValueError(msg)
    model, left_out = _opened(options), LeftOut()
    source = Source(options.source, options.images, _file_format(options, model), options.classes)
    check_target(options.target, source)
    found = read_labels(source) if model is None else _predicted(model, source, left_out)
    print(f"{options.source}: {found.format}, {len(found.images)} pictures, classes {', '.join(found.classes)}")
    renamed = parse_renamed(options.map)
    choices = Choices(
        renamed,
        options.classes,
        options.on_top,
        options.empty_is_background,
        options.device_pattern,
        options.keep_splits,
    )
    seen: list[MaskSuspicion] = []
    done = _Progress(len(found.images))

    def look(path: Path, mask: np.ndarray) -> None:
        seen.append(look_at(path, source.pictures.file_format.read(path), mask))
        done.step()

    report = convert(found, source, options.target, WRITTEN[options.format], choices, look)
    done.end()
    _say(report, options)
    _show(report, seen, source, options.target)
    return left_out.exit_code


def _opened(options: argparse.Namespace) -> SegmentationOpenVINOInferencer | None:
    """Return the inferencer of ``--model``; None without."""
    if options.model is None:
        return None
    if options.lighting_channels or options.images is not None:
        msg = (
            "--lighting_channels and --images do not go with --model, which brings its own and reads the folder source."
        )
        raise ValueError(msg)
    from anomalib_aoissl.deployment.inferencer import SegmentationOpenVINOInferencer

    return SegmentationOpenVINOInferencer(options.model)


def _file_format(options: argparse.Namespace, model: SegmentationOpenVINOInferencer | None) -> FileFormat:
    """Return how the files of an item are named: as the model says, the argument, or the dataset's description."""
    from anomalib_aoissl.data.describing.description import DESCRIPTION_NAME, read_own_description
    from anomalib_aoissl.data.describing.file_format import FileFormat

    if model is not None:
        return model.file_format
    if not options.lighting_channels and (options.source / DESCRIPTION_NAME).is_file():
        return FileFormat(read_own_description(options.source, options.classes or ("any",)).lighting_channels)
    return FileFormat(tuple(options.lighting_channels))


def _predicted(model: SegmentationOpenVINOInferencer, source: Source, left_out: LeftOut) -> LabelSet:
    """Return the masks that a model gives for the pictures of a folder; bad files are said."""
    from anomalib_aoissl.data.labels.content import LabelledPicture, LabelSet

    def predicted(path: Path) -> Any:
        return lambda: model.predict(path).class_map

    left_out.say(*source.pictures.leave_out_unreadable())
    paths = source.pictures.items()
    if not paths:
        problem = "none of its pictures can be read" if left_out.count else "holds no picture for --model"
        msg = f"{source.path}: {problem}."
        raise ValueError(msg)
    images = [
        LabelledPicture(path.relative_to(source.root).as_posix(), path, indices=predicted(path)) for path in paths
    ]
    return LabelSet("predictions", model.class_names[1:], images)


class _Progress:
    """A line on standard error that counts, on a terminal."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._shown = total, 0, sys.stderr.isatty()

    def step(self) -> None:
        """Count one."""
        self._done += 1
        if self._shown:
            print(f"\r{self._done} of {self._total} pictures", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """End the line."""
        if self._shown:
            print(file=sys.stderr)


def _say(report: Report, options: argparse.Namespace) -> None:
    """Print the tables and the notes."""
    total = max(1, int(report.pixels.sum()))
    rows: list[tuple[object, ...]] = [("CLASS", "PICTURES", "PIXELS", "SHARE")]
    for index, name in [*enumerate(report.class_names), (255, "(ignored)")]:
        pixels = int(report.pixels[index])
        if pixels or index != 255:
            rows.append((name, int(report.pictures_of_class[index]), f"{pixels:,}", f"{pixels / total:.2%}"))
    print(columns(rows), end="\n\n")
    print(columns([("DEVICE", "PICTURES"), *sorted(report.devices.items())]), end="\n\n")
    for note in report.notes:
        print(f"note: {note}")
    print(f"{options.target}: {report.labelled} pictures with labels, {report.unlabelled} without (unlabelled/)")


def _show(report: Report, seen: list[MaskSuspicion], source: Source, target: Path) -> None:
    """Write the picture of the most suspicious masks, and print why they are."""
    from anomalib_aoissl.data.files import save_picture
    from anomalib_aoissl.data.labels.pictures import CHECK_NAME
    from anomalib_aoissl.data.labels.suspicion import ranked
    from anomalib_aoissl.data.reading import image_size
    from anomalib_aoissl.visualization.label_check import Panel, draw_masks
    from anomalib_aoissl.visualization.overlay import picture_of

    panels: list[Panel] = []
    for path, mask in report.misfits.items():
        height, width = image_size(path)
        text = f"labels of {mask.shape[1]}x{mask.shape[0]} px, picture of {width}x{height} px: left out"
        panels.append((picture_of(source.pictures.file_format.read(path)), mask, path.name, text))
    for entry in ranked(seen)[: _SHOWN - len(panels)]:
        text = (
            f"suspicion {entry.suspicion:.2f}: {entry.reason}"
            if entry.suspicion > 1
            else f"suspicion {entry.suspicion:.2f}, nothing fits better"
        )
        panels.append((picture_of(source.pictures.file_format.read(entry.path)), entry.mask(), entry.path.name, text))
    if panels:
        save_picture(target / CHECK_NAME, draw_masks(panels, report.class_names))
        for _, _, name, text in panels:
            print(f"look at {name}: {text}")
        print(f"{target / CHECK_NAME}: the {len(panels)} most suspicious masks")
