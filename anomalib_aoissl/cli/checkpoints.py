# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Commands of ``python -m anomalib_aoissl`` that look into a checkpoint, with torch: explain, label-next."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .dispatching import CommandError, add_lighting_channels, add_overwrite

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image

    from anomalib_aoissl.retrieval.asking.label_next import Choice
    from anomalib_aoissl.retrieval.lightning_model import AOISSLRetrieval

    from .outputs import LeftOut

# --- explain ---------------------------------------------------------------------------------------------------------


def explain(options: argparse.Namespace, region: np.ndarray) -> None:
    """Write which labelled patches of a checkpoint decided on a region ``[H, W]`` bool of an image."""
    import torch

    from anomalib_aoissl.bank.explaining import box_around
    from anomalib_aoissl.deployment.images import resize_region
    from anomalib_aoissl.models.pictures.quality import faults_of
    from anomalib_aoissl.retrieval.asking.explaining import explain_region
    from anomalib_aoissl.visualization.explanation_picture import draw_explanation, reader_of, shown_around
    from anomalib_aoissl.visualization.overlay import picture_of

    from .outputs import SHOWN_VOTES, check_outputs, write_explanation

    model = load_retrieval(options.ckpt_path)
    read: list[Path | str] = [*model.file_format.files(options.image), *model.model.bank.image_names]
    check_outputs({"--output": options.output, "--data": options.data}, read, overwrite=options.overwrite)
    if model.tiling is None:
        region = resize_region(region, model.input_size)
    planes = _planes(model, options.image)
    image, where = model._seen(planes)[0], torch.from_numpy(region)
    shown = shown_around(box_around(region), region.shape)
    explanation, mask = explain_region(model.model, image, where, model.tiling, shown)
    entries = [vote.entry for vote in explanation.votes[:SHOWN_VOTES]]
    labels = model.model.bank.labels[entries].reshape(-1, *model.model.patch_size).numpy()
    read_picture, size = reader_of(model.file_format), model.input_size if model.tiling is None else None
    query = picture_of(planes[0].numpy())
    picture = draw_explanation(explanation, query, mask, model.class_names, labels, read_picture, size)
    faults = faults_of(planes, model.labelled_quality) or [""]
    write_explanation(explanation, picture, options, faults[0])


# --- label-next ------------------------------------------------------------------------------------------------------


def add_label_next(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of label-next."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--ckpt_path", type=Path, help="checkpoint of AOISSLRetrieval, whose bank is to be extended")
    source.add_argument("--encoder", help="encoder to begin with, where nothing is labelled yet")
    parser.add_argument("--image_size", type=int, nargs=2, default=None, help="with --encoder: height and width, px")
    add_lighting_channels(parser, "with --encoder: suffixes of the lighting channels")
    parser.add_argument("--pool", type=Path, required=True, help="folder of unlabelled images, sub-folders too")
    parser.add_argument("--count", type=int, default=10, help="images to choose (%(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="CSV to write; the pictures go beside it as PNG")
    add_overwrite(parser)


def label_next(options: argparse.Namespace) -> int:
    """Rank the images of a folder by how much a bank would gain from their labels."""
    if options.count < 1:
        msg = f"--count {options.count}: at least 1 image must be asked for."
        raise CommandError(msg)
    if options.output.suffix.lower() == ".png":
        msg = f"--output {options.output}: is the CSV, the pictures take its name with .png; call it next.csv."
        raise CommandError(msg)
    if options.ckpt_path is not None and (options.image_size is not None or options.lighting_channels):
        msg = "--image_size and --lighting_channels belong to --encoder: a checkpoint brings its own."
        raise CommandError(msg)
    from anomalib_aoissl.data.finding.listing import list_records

    from .outputs import LeftOut, check_outputs

    outputs = {"--output": options.output, "--output's picture": options.output.with_suffix(".png")}
    check_outputs(outputs, [options.ckpt_path], overwrite=options.overwrite)
    model = load_retrieval(options.ckpt_path) if options.ckpt_path is not None else _unlabelled_model(options)
    lacking: list[str] = []
    channels = model.file_format.lighting_channels
    records = list_records(options.pool, None, lighting_channels=channels, left_out=lacking)
    left_out = LeftOut()
    left_out.say(*lacking)
    read = [path for record in records for path in record.image_paths]
    check_outputs(outputs, [*read, *model.model.bank.image_names], overwrite=options.overwrite)
    labelled = {Path(name).resolve() for name in model.model.bank.image_names}
    paths = [record.image_paths[0] for record in records]
    fresh = [path for path in paths if path.resolve() not in labelled]
    if not paths:
        msg = f"--pool {options.pool}: none of its images can be read."
        raise CommandError(msg)
    if not fresh:
        msg = f"--pool {options.pool}: each of its {len(paths)} images is in the bank already."
        raise CommandError(msg)
    _write_choices(model, fresh, options, left_out)
    return left_out.exit_code


def _unlabelled_model(options: argparse.Namespace) -> AOISSLRetrieval:
    """Return a model with an empty bank."""
    from anomalib_aoissl.data.describing.file_format import FileFormat
    from anomalib_aoissl.retrieval.lightning_model import AOISSLRetrieval

    model: AOISSLRetrieval = AOISSLRetrieval(
        encoder=options.encoder, image_size=tuple(options.image_size or (512, 512))
    )
    model.file_format = FileFormat(tuple(options.lighting_channels))
    return model.eval()


def _write_choices(
    model: AOISSLRetrieval, paths: Sequence[Path], options: argparse.Namespace, left_out: LeftOut
) -> None:
    """Write and print which of the images to label."""
    from anomalib_aoissl.data.files import save_picture, whole_file
    from anomalib_aoissl.retrieval.asking.label_next import choose, summarize

    pool = []
    for path in paths:
        try:
            embeddings = _embeddings(model, path)
        except ValueError as error:
            left_out.say(error)
            continue
        pool.append(summarize(str(path), embeddings, model.model.bank.embeddings))
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
    save_picture(picture, _sheet(model, choices))
    for rank, choice in enumerate(choices, start=1):
        print(f"{rank:3d}  gain {choice.gain:.4f}  novelty {choice.novelty:.3f}  {choice.name}")
    print(f"{len(choices)} of {len(pool)} images; coverage {choices[-1].coverage:.3f}; {options.output}, {picture}")


def _sheet(model: AOISSLRetrieval, choices: Sequence[Choice]) -> Image:
    """Return the chosen images with their novelty over them, as far as there is a bank to be novel to."""
    import torch

    from anomalib_aoissl.retrieval.asking.contact_sheet import contact_sheet, overlay_novelty
    from anomalib_aoissl.visualization.overlay import picture_of

    largest = max(1e-6, *(choice.largest_novelty for choice in choices))
    tiles = []
    for rank, choice in enumerate(choices, start=1):
        picture = picture_of(model.file_format.read(choice.name))
        second = f"gain {choice.gain:.4f}"
        if len(model.model.bank):
            with torch.no_grad():
                novelty = model(_planes(model, Path(choice.name))).anomaly_map[0, 0].numpy()
            picture = overlay_novelty(picture, novelty, largest)
            second += f", novelty {choice.novelty:.3f}, at most {choice.largest_novelty:.3f}"
        tiles.append((picture, f"{rank}  {Path(choice.name).name}", second))
    return contact_sheet(tiles, f"pink: novel, in full from {largest:.3f} on" if len(model.model.bank) else "")


# --- both ------------------------------------------------------------------------------------------------------------


def _planes(model: AOISSLRetrieval, path: Path) -> torch.Tensor:
    """Return the image ``[1, C, H, W]`` in [0, 1]."""
    import torch

    return torch.from_numpy(model.file_format.read(path))[None]


def _embeddings(model: AOISSLRetrieval, path: Path) -> torch.Tensor:
    """Return the embeddings ``[P, D]`` of an image, those of all its tiles where the model has tiles."""
    import torch

    image = model._seen(_planes(model, path))  # [1, C, height, width], with tiles at its own size
    if model.tiling is None:
        return model.model.read(image).embeddings[0]
    from anomalib_aoissl.models.tiles import labelled_tiles

    every = torch.zeros(image.shape[-2:], dtype=torch.uint8)
    return torch.cat(
        [model.model.read(tile.image).embeddings[0] for tile in labelled_tiles(image[0], every, model.tiling)]
    )


def load_retrieval(path: Path) -> AOISSLRetrieval:
    """Return the model of a checkpoint, in evaluation mode.

    Raises:
        CheckpointError: If the file is missing, no checkpoint, or of another model.
    """
    from anomalib_aoissl.retrieval.lightning_model import AOISSLRetrieval

    model = AOISSLRetrieval.load_from_checkpoint(path, map_location="cpu")
    return model.eval()
