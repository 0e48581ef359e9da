# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the whole exported graph costs beside its encoder alone, in OpenVINO: a ratio with its spread.

Usage: python benchmarks/graph_cost.py [--segmenter] [--size 512 512] [--images 5] [--rounds 15]

Both are compiled with the settings of the inferencer and run in turn, batch 1, on the same picture. The labelled
images are drawn; what a graph costs does not depend on what it has learnt, only on classes and entries.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anomalib_aoissl import AOISSLRetrieval, AOISSLSegmenter, SegmentationFolder
from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.reading import read_lighting_channels, read_mask
from anomalib_aoissl.deployment.files.model_file import core, read_model
from anomalib_aoissl.deployment.graph.bank import part_model
from anomalib_aoissl.segmenter.starting import start_from_head
from anomalib_aoissl.wirebond.drawing import write_images

CONFIG = {"INFERENCE_PRECISION_HINT": "f32"}


def main() -> None:
    """Print the milliseconds of both, and their ratio."""
    arguments = _parser().parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        model, picture = _trained(Path(folder), arguments)
        encoder = read_model(model.to_openvino(folder))
        whole = _segmenter(Path(folder) / "drawn", arguments) if arguments.segmenter else model
        graph = read_model(whole.to_openvino(Path(folder) / "whole"))
        runs: list[Any] = [
            core().compile_model(graph, "CPU", CONFIG),
            core().compile_model(part_model(encoder, ["patch_embeddings"]), "CPU", CONFIG),
        ]
        times: list[list[float]] = [[], []]
        for turn in range(arguments.rounds + 2):
            for run, taken in zip(runs, times, strict=True):
                started = time.perf_counter()
                run(picture)
                if turn > 1:
                    taken.append(1e3 * (time.perf_counter() - started))
    medians = [statistics.median(taken) for taken in times]
    ratios = sorted(a / b for a, b in zip(*times, strict=True))
    print(
        f"{type(whole).__name__}, {arguments.size[0]}x{arguments.size[1]} px, {len(model.model.bank):,} entries in a "
        f"bank, autocontext: {whole.model.head.has_autocontext}"
    )
    print(f"whole graph {medians[0]:.0f} ms, encoder alone {medians[1]:.0f} ms")
    print(f"ratio {statistics.median(ratios):.2f} (from {ratios[0]:.2f} to {ratios[-1]:.2f})")


def _trained(folder: Path, arguments: argparse.Namespace) -> tuple[Any, np.ndarray]:
    """Return a model with default settings that has learnt drawn images, and a picture for it."""
    root = write_images(folder / "drawn", devices=["soic8_gold"], units=arguments.images, seed=0, workers=0)
    files = sorted((root / "images").rglob("*_ch0.png"))
    pictures = [read_lighting_channels([file, file.with_name(file.name.replace("_ch0", "_ch1"))]) for file in files]
    masks = [read_mask(next((root / "masks").rglob(f"{file.stem[:-4]}.png"))) for file in files]
    model: Any = AOISSLRetrieval(image_size=tuple(arguments.size), abstain=None).eval()
    names = ["background", "wire", "ball", "wedge", "epoxy"]
    model.set_dataset(names, FileFormat())
    images = torch.from_numpy(np.stack(pictures))
    labels = torch.from_numpy(np.stack(masks))
    model.add(images, labels, ["drawn"] * len(files), [str(file) for file in files])
    return model, images[:1].numpy()


def _segmenter(root: Path, arguments: argparse.Namespace) -> Any:
    """Return a segmenter that starts from the same images, without training."""
    model: Any = AOISSLSegmenter(image_size=tuple(arguments.size)).eval()
    data = SegmentationFolder(root, num_workers=0, test_ratio=0.0, val_ratio=0.0)
    data.setup()
    model.set_dataset(data.train_data.class_names, data.train_data.file_format)
    model.model.make_decoder(len(model.class_names))
    start_from_head(model, data.train_data)
    return model


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="Cost of the whole graph beside its encoder.")
    parser.add_argument("--size", type=int, nargs=2, default=(512, 512), help="height and width, px")
    parser.add_argument("--images", type=int, default=5, help="labelled images")
    parser.add_argument("--segmenter", action="store_true", help="the graph of AOISSLSegmenter; retrieval's without")
    parser.add_argument("--rounds", type=int, default=15)
    return parser


if __name__ == "__main__":
    main()
