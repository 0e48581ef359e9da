# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Commands of ``python -m anomalib_aoissl`` that look into a trained model: explain, label-next."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .label import label, label_arguments

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from anomalib_aoissl.retrieval.label_next import Choice
    from anomalib_aoissl.retrieval.lightning_model import AOISSLRetrieval

DEFAULT_TILES = 12


class CommandError(ValueError):
    """Arguments that a command cannot work with; the message says what to do."""


def dispatch(arguments: Sequence[str]) -> int:
    """Run the command that the first argument names, and return the exit code."""
    if arguments[0] in COMMANDS:
        return run(arguments[0], arguments[1:])
    asked = arguments[0] in {"-h", "--help"}
    names = " | ".join((*COMMANDS, "bank"))
    known = f"usage: python -m anomalib_aoissl [{names}] [--help]; without a command: the plugins found"
    print(known if asked else f"{arguments[0]!r} is no command. {known}", file=None if asked else sys.stderr)
    return 0 if asked else 2


def run(name: str, arguments: Sequence[str]) -> int:
    """Run a command and return the exit code: 0, or 2 where arguments or files are at fault."""
    describe, act = COMMANDS[name]
    parser = argparse.ArgumentParser(prog=f"python -m anomalib_aoissl {name}", description=(act.__doc__ or "").strip())
    describe(parser)
    options = parser.parse_args(arguments)
    try:
        act(options)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    return 0


# --- explain ---------------------------------------------------------------------------------------------------------


def _explain_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ckpt_path", type=Path, required=True, help="checkpoint of AOISSLRetrieval")
    parser.add_argument("--image", type=Path, required=True, help="image to ask about")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--at", help="x,y: a pixel of the image, from 0,0 at its top left")
    where.add_argument("--box", help="left,top,right,bottom: a box of the image in px, its right and bottom outside")
    where.add_argument("--mask", type=Path, help="PNG of the image's size, the region where it is not 0")
    parser.add_argument("--output", type=Path, required=True, help="picture to write, such as explain.png")
    parser.add_argument("--data", type=Path, help="JSON file to write with every vote")
    _overwrite_argument(parser)
    parser.add_argument("--votes", type=int, default=DEFAULT_TILES, help="labelled patches to show (%(default)s)")


def explain(options: argparse.Namespace) -> None:
    """Show which labelled patches decided on the class of a pixel or a region of an image."""
    if options.votes < 1:
        msg = f"--votes {options.votes}: at least 1 patch can be shown."
        raise CommandError(msg)
    from anomalib_aoissl.data.reading import image_size

    from .outputs import check_outputs

    outputs = {"--output": options.output, "--data": options.data}
    check_outputs(outputs, (options.ckpt_path, options.image, options.mask), overwrite=options.overwrite)
    region = _region(options, image_size(options.image))
    model = load_retrieval(options.ckpt_path)
    read: list[Path | str] = [*model.file_format.files(options.image), *model.model.bank.image_names]
    check_outputs(outputs, read, overwrite=options.overwrite)
    _write_explanation(model, region, options)


def _write_explanation(model: AOISSLRetrieval, region: Any, options: argparse.Namespace) -> None:
    """Write the picture and the data, and print the votes for each class."""
    import numpy as np
    import torch

    from anomalib_aoissl.data.files import whole_file
    from anomalib_aoissl.retrieval.explaining import explain_region
    from anomalib_aoissl.retrieval.explanation_picture import draw_explanation
    from anomalib_aoissl.visualization.overlay import picture_of

    planes, image = model.file_format.read(options.image), _input(model, options.image)[0]
    explanation = explain_region(model.model, image, _model_region(region, model.input_size))
    with torch.no_grad():
        mask = model.model(image[None]).pred_mask[0, 0].numpy()
    rows = [vote.row for vote in explanation.votes[: options.votes]]
    labels = model.model.bank.labels[rows].reshape(-1, *model.model.encoder.patch_size).numpy()

    def read(name: str) -> np.ndarray | None:
        try:
            return picture_of(model.file_format.read(name))
        except ValueError:  # the file moved, or is on another machine
            return None

    picture = draw_explanation(explanation, picture_of(planes), mask, model.class_names, labels, read)
    with whole_file(options.output) as temporary:
        picture.save(temporary)
    if options.data is not None:
        with whole_file(options.data) as temporary:
            temporary.write_text(json.dumps(explanation.to_dict(), indent=1))
    for name, share in explanation.tally.items():
        print(f"{share:6.1%} of the votes: {name or 'ignored'}")
    for name, share in explanation.predicted.items():
        print(f"{share:6.1%} of the mask: {name}")
    if explanation.differs:
        print(f"{explanation.differs:6.1%} of the region: the pixel head decided otherwise than the vote")
    unknown = "" if explanation.abstained is None else f", does not know {explanation.abstained:.1%} of the pixels"
    print(f"novelty {explanation.novelty:.3f}, uncertainty {explanation.uncertainty:.3f}{unknown}; {options.output}")


def _region(options: argparse.Namespace, size: tuple[int, int]) -> Any:
    """Return the region as a mask ``[H, W]`` bool of the image's (height, width)."""
    import numpy as np

    height, width = size
    region = np.zeros(size, dtype=bool)
    if options.mask is not None:
        from anomalib_aoissl.data.reading import read_mask

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


def _model_region(region: Any, size: tuple[int, int]) -> Any:
    """Return the region ``[H, W]`` at the model's (height, width) as a tensor; no pixel of it is lost."""
    import numpy as np
    import torch

    rows, columns = region.nonzero()
    scaled = np.zeros(size, dtype=bool)
    # each pixel of the model's size looks at the nearest of the image, and each of the image marks at least one
    nearest = [(np.arange(n) + 0.5) * old / n for n, old in zip(size, region.shape, strict=True)]
    scaled |= region[np.ix_(nearest[0].astype(int), nearest[1].astype(int))]
    if not scaled.any():
        scaled[rows * size[0] // region.shape[0], columns * size[1] // region.shape[1]] = True
    return torch.from_numpy(scaled)


# --- label-next ------------------------------------------------------------------------------------------------------


def _label_next_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--ckpt_path", type=Path, help="checkpoint of AOISSLRetrieval, whose bank is to be extended")
    source.add_argument("--encoder", help="encoder to begin with, where nothing is labelled yet")
    parser.add_argument("--image_size", type=int, nargs=2, default=None, help="with --encoder: height and width, px")
    parser.add_argument("--illuminations", nargs="+", default=(), help="with --encoder: suffixes of an item's files")
    parser.add_argument("--pool", type=Path, required=True, help="folder of unlabelled images, sub-folders too")
    parser.add_argument("--count", type=int, default=10, help="images to choose (%(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="CSV to write; the pictures go beside it as PNG")
    _overwrite_argument(parser)


def label_next(options: argparse.Namespace) -> None:
    """Rank the images of a folder by how much a bank would gain from their labels."""
    if options.count < 1:
        msg = f"--count {options.count}: at least 1 image must be asked for."
        raise CommandError(msg)
    if options.output.suffix.lower() == ".png":
        msg = f"--output {options.output}: is the CSV, the pictures take its name with .png; call it next.csv."
        raise CommandError(msg)
    if options.ckpt_path is not None and (options.image_size is not None or options.illuminations):
        msg = "--image_size and --illuminations belong to --encoder: a checkpoint brings its own."
        raise CommandError(msg)
    from anomalib_aoissl.data.listing import list_records

    from .outputs import check_outputs

    outputs = {"--output": options.output, "--output's picture": options.output.with_suffix(".png")}
    check_outputs(outputs, [options.ckpt_path], overwrite=options.overwrite)
    model = load_retrieval(options.ckpt_path) if options.ckpt_path is not None else _unlabelled_model(options)
    records = list_records(options.pool, None, illuminations=model.file_format.illuminations)
    read = [path for record in records for path in record.image_paths]
    check_outputs(outputs, [*read, *model.model.bank.image_names], overwrite=options.overwrite)
    labelled = {Path(name).resolve() for name in model.model.bank.image_names}
    paths = [record.image_paths[0] for record in records]
    fresh = [path for path in paths if path.resolve() not in labelled]
    if not fresh:
        msg = f"--pool {options.pool}: each of its {len(paths)} images is in the bank already."
        raise CommandError(msg)
    _write_choices(model, fresh, options)


def _unlabelled_model(options: argparse.Namespace) -> AOISSLRetrieval:
    """Return a model with an empty bank."""
    from anomalib_aoissl.data.file_format import FileFormat
    from anomalib_aoissl.retrieval.lightning_model import AOISSLRetrieval

    model: AOISSLRetrieval = AOISSLRetrieval(
        encoder=options.encoder, image_size=tuple(options.image_size or (512, 512))
    )
    model.file_format = FileFormat(tuple(options.illuminations))
    return model.eval()


def _write_choices(model: AOISSLRetrieval, paths: Sequence[Path], options: argparse.Namespace) -> None:
    """Write and print which of the images to label."""
    from anomalib_aoissl.data.files import whole_file
    from anomalib_aoissl.retrieval.label_next import choose, summarize

    pool = []
    for path in paths:
        try:
            embeddings = model.model.read(_input(model, path)).embeddings[0]
        except ValueError as error:  # one bad file must not end the run
            print(f"left out: {error}", file=sys.stderr)
            continue
        pool.append(summarize(model.model, str(path), embeddings))
    if not pool:
        msg = f"--pool {options.pool}: none of its images can be read."
        raise CommandError(msg)
    choices = choose(pool, options.count)
    fields = ("gain", "coverage", "novelty", "largest_novelty")
    with whole_file(options.output) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("rank", "image", *fields))
        for rank, choice in enumerate(choices, start=1):
            writer.writerow((rank, choice.name, *(f"{getattr(choice, field):.6f}" for field in fields)))
    picture = options.output.with_suffix(".png")
    with whole_file(picture) as temporary:
        _sheet(model, choices).save(temporary)
    for rank, choice in enumerate(choices, start=1):
        print(f"{rank:3d}  gain {choice.gain:.4f}  novelty {choice.novelty:.3f}  {choice.name}")
    print(f"{len(choices)} of {len(pool)} images; coverage {choices[-1].coverage:.3f}; {options.output}, {picture}")


def _sheet(model: AOISSLRetrieval, choices: Sequence[Choice]) -> Image:
    """Return the chosen images with their novelty over them, as far as there is a bank to be novel to."""
    import torch

    from anomalib_aoissl.retrieval.contact_sheet import contact_sheet, overlay_novelty
    from anomalib_aoissl.visualization.overlay import picture_of

    largest = max(1e-6, *(choice.largest_novelty for choice in choices))
    tiles = []
    for rank, choice in enumerate(choices, start=1):
        picture = picture_of(model.file_format.read(choice.name))
        second = f"gain {choice.gain:.4f}"
        if len(model.model.bank):
            with torch.no_grad():
                novelty = model.model(_input(model, Path(choice.name))).anomaly_map[0, 0].numpy()
            picture = overlay_novelty(picture, novelty, largest)
            second += f", novelty {choice.novelty:.3f}, at most {choice.largest_novelty:.3f} (pink: {largest:.3f})"
        tiles.append((picture, f"{rank}  {Path(choice.name).name}", second))
    return contact_sheet(tiles)


# --- both ------------------------------------------------------------------------------------------------------------


def _overwrite_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="replace files of the same names; never an input")


def _input(model: AOISSLRetrieval, path: Path) -> torch.Tensor:
    """Return the image as the model takes it, ``[1, C, height, width]``."""
    import torch

    pre_processor: Any = model.pre_processor
    images: torch.Tensor = pre_processor(torch.from_numpy(model.file_format.read(path))[None])
    return images


def load_retrieval(path: Path) -> AOISSLRetrieval:
    """Return the model of a checkpoint, in evaluation mode.

    Raises:
        CheckpointError: If the file is missing, no checkpoint, or of another model.
    """
    from anomalib_aoissl.retrieval.lightning_model import AOISSLRetrieval

    model: Any = AOISSLRetrieval.load_from_checkpoint(path, map_location="cpu")
    return cast("AOISSLRetrieval", model.eval())


COMMANDS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], None]]] = {
    "explain": (_explain_arguments, explain),
    "label": (label_arguments, label),
    "label-next": (_label_next_arguments, label_next),
}
"""The commands by name: what describes their arguments, and what runs them."""
