# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Time of a pretraining step against the encoder passes that it needs; all figures of one run on one machine.

Usage: python benchmarks/pretraining.py [--threads 2] [--repeats 3] [--embed 384 --depth 6 --patch 16 --size 512]
           [--loop FOLDER [--cases mae:0 mae:1 dino:0]]

CPU seconds, which hold where the machine is shared; the best of the repeats. Columns: the step, what it is compared
with, both times, their ratio, and the goal where there is one. With ``--loop`` only the training loop is measured, on
the pictures of the folder: see ``pretraining_loop.py``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pretraining_loop import print_loop
from timm.models import VisionTransformer

from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.pretraining import DINOPretraining, IBOTPretraining, MAEPretraining
from anomalib_aoissl.pretraining.options import DINOCropOptions, HeadOptions, MAECropOptions
from anomalib_aoissl.pretraining.training.objective import Objective, Progress, Views
from anomalib_aoissl.pretraining.training.tokens import encode


def main() -> None:
    """Print the tables."""
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if arguments.loop:
        print_loop(arguments)
    else:
        _print_steps(arguments)


def _print_steps(arguments: argparse.Namespace) -> None:
    """Print each objective's step against the encoder passes that it needs."""
    size = (arguments.size, arguments.size)
    images = torch.randn(arguments.batch, 3, *size)
    vit = _vit(arguments, size)
    patches = (size[0] // arguments.patch) * (size[1] // arguments.patch)
    keep = torch.stack([torch.randperm(patches)[: patches // 4].sort().values for _ in images])

    def timed(function: Callable[[], torch.Tensor], modules: list[torch.nn.Module]) -> float:
        return best(function, modules, arguments.repeats)

    full = timed(lambda: encode(vit, images).float().square().mean(), [vit])
    visible = timed(lambda: encode(vit, images, keep=keep).float().square().mean(), [vit])
    mae = MAEPretraining(crops=MAECropOptions(size=size), target="normalized").build_objective(vit)
    step = timed(lambda: _loss(mae, {"crop": images[:, None]}), [mae])
    what = f"{arguments.threads} threads, embed {arguments.embed}, depth {arguments.depth}"
    print(f"| {what} | CPU s | against | CPU s | ratio | goal |")
    print("| --- | --- | --- | --- | --- | --- |")
    print(
        f"| MAE step, mask 0.75 | {step:.2f} | forward+backward, all tokens | {full:.2f} | {step / full:.2f} | 0.45 |"
    )
    print(
        f"| MAE step, mask 0.75 | {step:.2f} | the same, visible tokens | {visible:.2f} | {step / visible:.2f} | 1.35 |"
    )
    crops = {"global": torch.randn(4, 2, 3, 224, 224), "local": torch.randn(4, 6, 3, 96, 96)}
    passes = _passes(arguments, crops, timed)
    sizes = DINOCropOptions(global_size=224, local_size=96, local_count=6)
    common: dict[str, Any] = {"crops": sizes, "head": HeadOptions(frozen=0.0)}
    dino = DINOPretraining(**common).build_objective(_vit(arguments, size))
    ibot = IBOTPretraining(**common).build_objective(_vit(arguments, size))
    for name, objective in (("DINO", dino), ("iBOT", ibot)):
        seconds = timed(lambda o=objective: _loss(o, crops), [objective])  # type: ignore[misc]
        row = f"| {name} step, 4 x (2x224 + 6x96) | {seconds:.2f} | teacher forward + student forward+backward "
        print(f"{row}| {passes:.2f} | {seconds / passes:.2f} | |")


def best(function: Callable[[], torch.Tensor], modules: list[torch.nn.Module], repeats: int) -> float:
    """Return the least CPU seconds of forward and backward."""
    times = []
    for _ in range(repeats + 1):  # the first warms up
        for module in modules:
            module.zero_grad()
        start = time.process_time()
        function().backward()
        times.append(time.process_time() - start)
    return min(times[1:])


def _passes(
    arguments: argparse.Namespace,
    crops: Views,
    timed: Callable[[Callable[[], torch.Tensor], list[torch.nn.Module]], float],
) -> float:
    """Return the CPU seconds of the encoder passes that a step of DINO needs."""
    vit = _vit(arguments, (arguments.size, arguments.size))
    seconds = [
        timed(lambda c=views: encode(vit, c.flatten(0, 1)).float().square().mean(), [vit])  # type: ignore[misc]
        for views in crops.values()
    ]
    times = []
    for _ in range(arguments.repeats):
        start = time.process_time()
        with torch.no_grad():
            encode(vit, crops["global"].flatten(0, 1))
        times.append(time.process_time() - start)
    return sum(seconds) + min(times)


def _loss(objective: Objective, views: Views) -> torch.Tensor:
    """Return the loss of a step in the middle of a run."""
    return objective(views, torch.Generator().manual_seed(0), Progress(50, 100))["loss"]


def _vit(arguments: argparse.Namespace, size: tuple[int, int]) -> VisionTransformer:
    """Return a transformer of the size in question."""
    model_args = {"patch_size": arguments.patch, "embed_dim": arguments.embed, "depth": arguments.depth, "num_heads": 6}
    encoder = {"architecture": "vit_small_patch16_224", "model_args": model_args}
    return PatchEncoder(encoder, image_size=size, pretrained=False).vit.train()


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="Time of a pretraining step.")
    for name, value in {
        "threads": 2,
        "repeats": 3,
        "embed": 384,
        "depth": 6,
        "patch": 16,
        "size": 512,
        "batch": 8,
        "pictures": 96,
        "loop-batch": 48,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--loop", type=Path, help="folder of pictures to measure the training loop with")
    cases = ["mae:0", "mae:1", "dino:0"]
    parser.add_argument("--cases", nargs="*", default=cases, help="of the loop, objective:workers")
    return parser


if __name__ == "__main__":
    main()
