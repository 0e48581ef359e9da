# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Measures what search and labels cost against the encoder, in CPU seconds of one thread, with torch and OpenVINO.

The size is the reference implementation's: 384 dims, 6 blocks, patches of 16 px, 512x512 px, 5 classes, k=30, a bank
of 100 labelled images, the same bank with all entries of one image, and condensed to a tenth. Embeddings and labels of
the bank are random: speed does not depend on them. Building is of a bank of four images (--filled), whole and condensed
to a tenth, against the encoder's passes over them. All parts are timed in turns in one process. Each line is a median
with the smallest and the largest.

    python benchmarks/retrieval.py
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from anomalib_aoissl.bank.content import REQUIRED, BankArrays
from anomalib_aoissl.deployment.files.model_file import core, read_model
from anomalib_aoissl.deployment.graph.bank import BankSettings, pack_description, with_bank
from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.matching.precision import stored
from anomalib_aoissl.matching.searching import search
from anomalib_aoissl.models.export.onnx_graph import export_onnx
from anomalib_aoissl.retrieval.memory.memory_bank import MemoryBank
from anomalib_aoissl.retrieval.options import VoteOptions
from anomalib_aoissl.retrieval.torch_model import RetrievalModel

ENCODER = {
    "architecture": "vit_tiny_patch16_224",
    "model_args": {"patch_size": 16, "embed_dim": 384, "depth": 6, "num_heads": 6},
}
CLASSES = ("background", "a", "b", "c", "d")


def make_model(
    encoder: PatchEncoder, entries: int, count: int, precision: str, k: int, images: int = 1
) -> RetrievalModel:
    """Return a model with random entries of so many images, each of which stands for ``count`` patches."""
    generator = torch.Generator().manual_seed(0)
    dims = encoder.embed_dim
    embeddings = functional.normalize(torch.randn(entries, dims, generator=generator), dim=-1)
    labels = torch.randint(0, len(CLASSES), (entries, 256), generator=generator).to(torch.uint8)
    ids = torch.zeros(entries, dtype=torch.int32)
    bank = MemoryBank(dims, encoder.patch_size, precision=precision)
    image_ids = torch.arange(entries, dtype=torch.int32) * images // entries
    content = (stored(embeddings, bank.embeddings.dtype), labels, ids, image_ids, ids, ids + count)
    columns = dict(zip(REQUIRED, (column.numpy() for column in content), strict=True))
    bank.take(BankArrays(columns, CLASSES, ("device",), tuple(f"image{index}" for index in range(images))))
    return RetrievalModel(encoder, VoteOptions(k), bank=bank).eval()


def compiled(model: RetrievalModel, folder: str) -> Callable[[torch.Tensor], Any]:
    """Return the model as `AOISSLRetrieval` exports it, compiled by OpenVINO."""
    bank = model.bank.content()
    sizes = model.encoder.image_size, model.bank.patch_size
    settings = BankSettings(model.vote_options.k, *sizes, None)
    metadata = {"class_names": list(CLASSES), "bank": pack_description(bank, settings)}
    path = Path(folder) / "model.onnx"
    export_onnx(_Fixed(model), path, 3, metadata, constants={"model.bank.": "bank."})
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    run = core().compile_model(with_bank(read_model(path), bank), "CPU", options)
    return lambda images: run(images.numpy())


class _Fixed(nn.Module):
    """Resizes any images to the model's size, as an export needs; here they have it already."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> Any:
        """Return the model's output."""
        return self.model(functional.interpolate(images, size=(512, 512), mode="nearest"))


def measure(steps: dict[str, Callable[[], Any]], runs: int) -> dict[str, list[float]]:
    """Return the CPU seconds of each step, all steps in turns, after one run that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for run in range(runs + 1):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if run:
                seconds[name].append(time.process_time() - start)
    return seconds


def torch_steps(name: str, model: RetrievalModel, image: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Return search, labels and the whole of a model as steps."""
    queries = model.read(image).embeddings[0]
    similarities, neighbours = search(queries, model.bank.embeddings, model.vote_options.k)
    weights = similarities.softmax(dim=-1)
    return {
        f"{name}: search": lambda: search(queries, model.bank.embeddings, model.vote_options.k),
        f"{name}: labels": lambda: model.class_votes(weights, neighbours),
        f"{name}: whole": lambda: model(image),
    }


def building_steps(encoder: PatchEncoder, precision: str, number: int) -> dict[str, Callable[[], Any]]:
    """Return the passes over that many images, and the same with a bank that they fill, whole or a tenth, as steps."""
    images, masks = torch.rand(number, 3, 512, 512), torch.randint(0, len(CLASSES), (number, 64, 64)).to(torch.uint8)
    masks = masks.repeat_interleave(8, 1).repeat_interleave(8, 2)

    def build(budget: int | None) -> None:
        bank = MemoryBank(encoder.embed_dim, encoder.patch_size, precision=precision, budget=budget)
        model = RetrievalModel(encoder, bank=bank)
        bank.class_names = list(CLASSES)
        for index in range(number):
            model.fill(images[index : index + 1], masks[index : index + 1], ["device"], [f"image{index}"])
        bank.finish()

    def passes() -> None:
        with torch.no_grad():
            for index in range(number):
                encoder(images[index : index + 1])

    sizes = {"whole": None, "a tenth": 1024 * number // 10}
    steps = {f"building, {name}": lambda size=size: build(size) for name, size in sizes.items()}
    return {"building, encoder": passes, **steps}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100, help="labelled images in the bank")
    parser.add_argument("--filled", type=int, default=4, help="labelled images of the banks whose filling is timed")
    parser.add_argument("--k", type=int, default=30, help="neighbours")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--precision", choices=["fp32", "fp16", "int8"], default="fp32")
    parser.add_argument("--no-openvino", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    encoder = PatchEncoder(ENCODER, image_size=(512, 512), pretrained=False).eval()
    image = torch.rand(1, 3, 512, 512)
    entries, precision, how = 1024 * arguments.images, arguments.precision, (arguments.k,)
    models = {
        f"bank of {arguments.images} images": make_model(encoder, entries, 1, precision, *how, arguments.images),
        "condensed to a tenth": make_model(encoder, entries // 10, 10, precision, *how),
    }
    steps: dict[str, Callable[[], Any]] = {"torch, encoder": lambda: encoder(image)}
    for name, model in models.items():
        print(f"{name}: {model.bank.describe()['megabytes'] / arguments.images:.2f} MB for each labelled image")
        steps.update(torch_steps(f"torch, {name}", model, image))
    one = make_model(encoder, entries, 1, precision, *how)
    steps.update(torch_steps("torch, the same entries of one image", one, image))
    steps.update(building_steps(encoder, precision, arguments.filled))
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        if not arguments.no_openvino:
            models = {"encoder": make_model(encoder, 1, 1, "fp32", arguments.k, 0.0), **models}
            runs = {name: compiled(model, folder) for name, model in models.items()}
            for name, run in runs.items():
                end = "" if name == "encoder" else ": whole"
                steps[f"openvino, {name}{end}"] = lambda run=run: run(image)
        seconds = measure(steps, arguments.runs)
    print("| step | CPU s, median (smallest to largest) | / encoder |\n| --- | --- | --- |")
    for name, values in seconds.items():
        base = seconds[f"{name.split(',')[0]}, encoder"]
        ratios = [value / other for value, other in zip(values, base, strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(
            f"| {name} | {statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f}) "
            f"| {statistics.median(ratios):.2f} ({spread}) |"
        )


if __name__ == "__main__":
    main()
