# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Measures what a condensed memory bank loses against the whole one.

Prints a table of mean IoU and IoU of each class (pooled over the pixels of the test images, in points) for each rule of
condensing at a tenth and a hundredth of the patches, with the spread over the seeds, and the CPU seconds of condensing
against those of the encoder's passes over the labelled images. Each image is embedded once on each grid; the bank is
filled in batches, as in training.

    python benchmarks/condensing.py --data wirebond --grids 4
    python benchmarks/condensing.py --data folder --root wirebond_hgcal --train module_320MLF3TCTT0205 \
        --test module_320MLF3TCTT0212 --size 384 512 --grids 4
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torchmetrics.classification import MulticlassConfusionMatrix
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import normalize, resize

from anomalib_aoissl import SegmentationFolder, WireBond
from anomalib_aoissl.data.dataset import SegmentationDataset
from anomalib_aoissl.encoder import DEFAULT_ENCODER, PatchEncoder
from anomalib_aoissl.retrieval.aggregation import NEIGHBOURS
from anomalib_aoissl.retrieval.condensing import RULES
from anomalib_aoissl.retrieval.context import CONTEXT
from anomalib_aoissl.retrieval.learning import SECONDS
from anomalib_aoissl.retrieval.memory_bank import MemoryBank
from anomalib_aoissl.retrieval.shifts import shift_offsets, shifted_images, shifted_masks
from anomalib_aoissl.retrieval.smoothing import SMOOTHING
from anomalib_aoissl.retrieval.torch_model import RetrievalModel

WIREBOND_DEVICES = ["qfp100_gold", "dram_center_pads_gold", "power_module_aluminium", "led_array"]


@dataclass(frozen=True)
class Embedded:
    """Images of a split: embeddings ``[S, B, P, D]`` on S grids, masks ``[B, H, W]``, and the device of each."""

    grids: torch.Tensor
    masks: torch.Tensor
    devices: list[str]
    seconds: float

    @property
    def embeddings(self) -> torch.Tensor:
        """Those of the plain grid, ``[B, P, D]``."""
        return self.grids[0]


def embed(
    dataset: SegmentationDataset, encoder: PatchEncoder, limit: int | None, grids: int = 1, context: float = 0.0
) -> Embedded:
    """Return the embeddings, on that many grids, of up to ``limit`` images, evenly taken from the dataset."""
    number = len(dataset) if limit is None else min(limit, len(dataset))
    items = [dataset[index * len(dataset) // number] for index in range(number)]
    size = list(encoder.image_size)
    model = RetrievalModel(encoder, context=context)
    embeddings, seconds = [], 0.0
    for item in items:
        image = normalize(resize(item.image[None], size, antialias=True), list(encoder.mean), list(encoder.std))
        crops = shifted_images(image.as_subclass(torch.Tensor), shift_offsets(grids, encoder.patch_size))
        start = time.process_time()
        embeddings.append(model.extract(crops))
        seconds += time.process_time() - start
    masks = [resize(item.gt_mask[None], size, interpolation=InterpolationMode.NEAREST) for item in items]
    devices = [item.device_name for item in items]
    return Embedded(torch.stack(embeddings, dim=1), torch.cat(masks).as_subclass(torch.Tensor), devices, seconds)


def class_iou(
    encoder: PatchEncoder, bank: MemoryBank, test: Embedded, k: int, context: float = 0.0
) -> dict[str, float]:
    """Return the IoU of each class that occurs in the test images, and first their mean, in points."""
    model = RetrievalModel(encoder, k=k, smoothing=SMOOTHING, context=context, bank=bank).eval()
    metric = MulticlassConfusionMatrix(model.num_classes, ignore_index=255)
    for embeddings, mask in zip(test.embeddings, test.masks, strict=True):
        metric.update(model.answer(embeddings[None]).pred_mask[:, 0], mask[None])
    counts = metric.compute().double()
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    ious = {name: 100 * float(counts[i, i] / union[i]) for i, name in enumerate(bank.class_names) if union[i]}
    return {"mean": statistics.mean(ious.values()), **ious}


def fill(encoder: PatchEncoder, train: Embedded, classes: tuple[str, ...], batch: int, **options: object) -> MemoryBank:
    """Return a bank with these images."""
    bank = MemoryBank(train.embeddings.shape[-1], encoder.patch_size, **options)
    bank.class_names = list(classes)
    for start in range(0, len(train.masks), batch):
        part = slice(start, start + batch)
        names = [f"{index}" for index in range(len(train.masks))[part]]
        for grid, offset in enumerate(shift_offsets(len(train.grids), encoder.patch_size)):
            masks = shifted_masks(train.masks[part], offset)
            bank.add(train.grids[grid, part], masks, train.devices[part], names, grid)
    bank.finish()
    return bank


def make_data(arguments: argparse.Namespace) -> SegmentationFolder | WireBond:
    """Return the datamodule that the arguments name."""
    if arguments.data == "wirebond":
        size = tuple(arguments.size)
        data = WireBond(arguments.root or "datasets/WireBond", devices=WIREBOND_DEVICES, image_size=size, val_ratio=0)
        data.prepare_data()
    else:
        data = SegmentationFolder(
            Path(arguments.root),
            train_devices=arguments.train,
            test_devices=arguments.test,
            shots=arguments.shots,
            val_ratio=0.0,
        )
    data.setup()
    return data


def row(head: str, results: list[dict[str, float]], full: dict[str, float], cost: str) -> str:
    """Return a row of the table: means over the seeds, the deviation of the mean IoU, and what it lost."""
    means = {name: statistics.mean(result[name] for result in results) for name in full}
    spread = f" ± {statistics.pstdev(result['mean'] for result in results):.1f}" if len(results) > 1 else ""
    lost = f"{full['mean'] - means['mean']:.1f}"
    classes = " | ".join(f"{value:.1f}" for name, value in means.items() if name != "mean")
    return f"| {head} | {means['mean']:.1f}{spread} | {lost} | {classes} | {cost} |"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["wirebond", "folder"], default="wirebond")
    parser.add_argument("--root", help="folder of the images; for wirebond, where they are drawn")
    parser.add_argument("--train", nargs="+", help="devices to train on (folder)")
    parser.add_argument("--test", nargs="+", help="devices to test on (folder)")
    parser.add_argument("--shots", type=int, default=5, help="images of each training device (folder)")
    parser.add_argument("--images", type=int, default=12, help="test images")
    parser.add_argument("--size", type=int, nargs=2, default=[384, 384], help="height and width, px")
    parser.add_argument("--encoder", default=DEFAULT_ENCODER)
    parser.add_argument("--context", type=float, default=CONTEXT, help="weight of the patches around each")
    parser.add_argument("--k", type=int, default=NEIGHBOURS)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--parts", type=int, nargs="+", default=[10, 100], help="divisors of the number of patches")
    parser.add_argument("--rules", nargs="+", default=list(RULES))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="that learning may take")
    parser.add_argument("--grids", type=int, default=1, help="patch grids of each labelled image: 1, 2 or 4")
    return parser


def main() -> None:
    """Print the table."""
    arguments = make_parser().parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    data = make_data(arguments)
    encoder = PatchEncoder(arguments.encoder, image_size=tuple(arguments.size)).eval()
    train = embed(data.train_data, encoder, None, arguments.grids, arguments.context)
    test = embed(data.test_data, encoder, arguments.images, context=arguments.context)
    whole = fill(encoder, train, data.class_names, arguments.batch)
    full = class_iou(encoder, whole, test, arguments.k, arguments.context)
    print(f"{len(train.masks)} training and {len(test.masks)} test images, {arguments.grids} grids, k={arguments.k}")
    print(f"| patches | rule | mean IoU | lost | {' | '.join(list(full)[1:])} | condensing / encoder |")
    print("| --- " * (len(full) + 4) + "|")
    print(row(f"{len(whole)} | all", [full], full, ""), flush=True)
    for part in arguments.parts:
        for rule in arguments.rules:
            results, seconds = [], []
            for seed in range(arguments.seeds):
                start = time.process_time()
                options = {"budget": len(whole) // part, "rule": rule, "learning_seconds": arguments.seconds}
                bank = fill(encoder, train, data.class_names, arguments.batch, seed=seed, **options)
                seconds.append(time.process_time() - start)
                results.append(class_iou(encoder, bank, test, arguments.k, arguments.context))
            cost = f"{statistics.median(seconds) / train.seconds:.2f}"
            print(row(f"{len(bank)} | {rule}", results, full, cost), flush=True)


if __name__ == "__main__":
    main()
