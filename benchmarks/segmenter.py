# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Measures the segmenter: a training step, and inference in torch, `torch.compile` and OpenVINO.

The size is that of the published reference implementation: embed 384, depth 6, patch 16, 512x512 px, a training batch
of 4. All ways are run in turns, so that what else the machine does falls on all of them; ratios are taken within a
turn. Prints the median and the range of each.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from anomalib_aoissl import AOISSLSegmenter
from anomalib_aoissl.data.file_format import FileFormat
from anomalib_aoissl.retrieval.openvino_file import core
from anomalib_aoissl.segmenter.adaptation import parameter_groups

CLASSES = ("background", "wire", "ball", "wedge")


def make_model(arguments: argparse.Namespace) -> AOISSLSegmenter:
    """Return an untrained segmenter of the size that is asked for."""
    shape = {"patch_size": arguments.patch, "embed_dim": arguments.embed, "depth": arguments.depth}
    encoder = {"architecture": "vit_small_patch16_224", "model_args": {**shape, "num_heads": arguments.embed // 64}}
    model = AOISSLSegmenter(
        encoder,
        pretrained=False,
        image_size=arguments.size,
        head=arguments.head,
        head_channels=arguments.channels,
    )
    model.set_dataset(CLASSES, FileFormat())
    model.model.make_head(len(CLASSES))
    return model


def training_step(model: AOISSLSegmenter, size: int, batch: int) -> Callable[[], object]:
    """Return a function that makes one step of the optimiser."""
    images, masks = torch.randn(batch, 3, size, size), torch.randint(0, len(CLASSES), (batch, size, size))
    rates = {"learning_rate": 1e-4, "encoder_rate": 0.1, "layer_decay": 0.75, "weight_decay": 0.05}
    optimizer = torch.optim.AdamW(parameter_groups(model.encoder.vit, model.model.head, **rates))

    def step() -> None:
        optimizer.zero_grad()
        model.loss(model.model.scores(images), masks).backward()
        optimizer.step()

    return step


def inference_ways(model: AOISSLSegmenter, size: int, folder: Path) -> dict[str, Callable[[], object]]:
    """Return functions that predict one image, by name; a way that this machine cannot go is left out."""
    image = torch.rand(1, 3, size, size)
    ways: dict[str, Callable[[], object]] = {
        "encoder": lambda: model.model.extract(image),
        "torch": lambda: model(image),
    }
    try:
        compiled = torch.compile(model)
        compiled(image)
        ways["torch.compile"] = lambda: compiled(image)
    except Exception as error:  # noqa: BLE001 - a missing compiler shows in many ways
        print(f"torch.compile: left out ({type(error).__name__}: {str(error).splitlines()[0]})")
    try:
        core()
    except ImportError:
        print("OpenVINO: left out, not installed")
        return ways
    xml = model.to_openvino(folder)
    for name, hint in (("OpenVINO", None), ("OpenVINO f32", "f32")):
        settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
        settings |= {"INFERENCE_PRECISION_HINT": hint} if hint else {}
        network = core().compile_model(xml, "CPU", settings)
        ways[name] = lambda network=network: network(image.numpy())
    return ways


def measure(ways: dict[str, Callable[[], object]], turns: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Return the seconds of each way in each turn, after one turn that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, way in ways.items():
            begin = clock()
            way()
            if turn:
                seconds[name].append(clock() - begin)
    return seconds


def show(name: str, values: list[float], unit: str = "s") -> None:
    """Print the median and the range."""
    print(f"{name:36} {statistics.median(values):8.3f} {unit}  ({min(values):.3f} to {max(values):.3f})")


def ratios(seconds: dict[str, list[float]], name: str, other: str) -> list[float]:
    """Return the ratio of two ways in each turn."""
    return [a / b for a, b in zip(seconds[name], seconds[other], strict=True)]


def main() -> None:
    """Print seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    numbers = {"embed": 384, "depth": 6, "patch": 16, "size": 512, "batch": 4, "channels": 96, "steps": 3, "turns": 15}
    for name, value in {**numbers, "threads": torch.get_num_threads()}.items():
        parser.add_argument(f"--{name}", type=int, default=value, help="default: %(default)s")
    parser.add_argument("--head", default="upernet", help="default: %(default)s")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu where others use the machine too")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.clock == "cpu" else time.perf_counter
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = make_model(arguments)
    parts = {"encoder": model.encoder, "head": model.model.head}
    counts = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in parts.items()}
    print(f"torch {torch.__version__}, {arguments.threads} threads; weights: {counts} million")
    steps = measure({"step": training_step(model, arguments.size, arguments.batch)}, arguments.steps, clock)
    show(f"training step, batch {arguments.batch}", steps["step"])
    model.eval()
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        seconds = measure(inference_ways(model, arguments.size, Path(folder)), arguments.turns, clock)
    for name, values in seconds.items():
        show(f"inference, {name}", values)
    show("all but the encoder / encoder, torch", [ratio - 1 for ratio in ratios(seconds, "torch", "encoder")], "")
    for name in seconds:
        if name not in {"torch", "encoder"}:
            show(f"{name} / torch", ratios(seconds, name, "torch"), "")


if __name__ == "__main__":
    main()
