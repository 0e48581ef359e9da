# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Measures what a condensed memory bank loses against the whole one.

Prints a table of mean IoU (pooled over the pixels of the test images, in points) for each rule of condensing at a tenth
and a hundredth of the patches, with the spread over the seeds, and the seconds that condensing takes against those of
the encoder. Each image is embedded once; the bank is filled image by image in batches, as in training.

    python benchmarks/condensing.py --data wirebond
    python benchmarks/condensing.py --data folder --root wirebond_hgcal --train module_320MLF3TCTT0205 \
        --test module_320MLF3TCTT0212 --size 384 512
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torchmetrics.classification import MulticlassJaccardIndex
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import normalize, resize

from anomalib_aoissl import SegmentationFolder, WireBond
from anomalib_aoissl.data.dataset import SegmentationDataset
from anomalib_aoissl.encoder import DEFAULT_ENCODER, PatchEncoder
from anomalib_aoissl.retrieval.bank_condensing import condensed
from anomalib_aoissl.retrieval.editing import arrays_of, content_from
from anomalib_aoissl.retrieval.memory_bank import MemoryBank
from anomalib_aoissl.retrieval.torch_model import RetrievalModel

WIREBOND_DEVICES = ["qfp100_gold", "dram_center_pads_gold", "power_module_aluminium", "led_array"]
ON_THE_LINE = "exported"  # the rule of exported models, which has no seed


@dataclass(frozen=True)
class Embedded:
    """Images of a split: embeddings ``[B, P, D]``, masks ``[B, H, W]``, and the device of each."""

    embeddings: torch.Tensor
    masks: torch.Tensor
    devices: list[str]
    seconds: float


def embed(dataset: SegmentationDataset, encoder: PatchEncoder, limit: int | None) -> Embedded:
    """Return the embeddings of up to ``limit`` images, evenly taken from the dataset."""
    number = len(dataset) if limit is None else min(limit, len(dataset))
    items = [dataset[index * len(dataset) // number] for index in range(number)]
    size = list(encoder.image_size)
    model = RetrievalModel(encoder)
    embeddings, seconds = [], 0.0
    for item in items:
        image = normalize(resize(item.image[None], size, antialias=True), list(encoder.mean), list(encoder.std))
        start = time.process_time()
        embeddings.append(model.extract(image.as_subclass(torch.Tensor)))
        seconds += time.process_time() - start
    masks = [resize(item.gt_mask[None], size, interpolation=InterpolationMode.NEAREST) for item in items]
    return Embedded(
        torch.cat(embeddings), torch.cat(masks).as_subclass(torch.Tensor), [i.device_name for i in items], seconds
    )


def mean_iou(encoder: PatchEncoder, bank: MemoryBank, test: Embedded, k: int) -> float:
    """Return the mean IoU of the test images in points."""
    model = RetrievalModel(encoder, k=k, bank=bank).eval()
    metric = MulticlassJaccardIndex(model.num_classes, ignore_index=255)
    for embeddings, mask in zip(test.embeddings, test.masks, strict=True):
        metric.update(model.answer(embeddings[None]).pred_mask[:, 0], mask[None])
    return 100 * float(metric.compute())


def fill(encoder: PatchEncoder, train: Embedded, classes: tuple[str, ...], batch: int, **options: object) -> MemoryBank:
    """Return a bank with these images."""
    bank = MemoryBank(encoder.embed_dim, encoder.patch_size, **options)
    bank.class_names = list(classes)
    for start in range(0, len(train.masks), batch):
        part = slice(start, start + batch)
        names = [f"{index}" for index in range(len(train.masks))[part]]
        bank.add(train.embeddings[part], train.masks[part], train.devices[part], names)
    bank.finish()
    return bank


def condensed_on_the_line(whole: MemoryBank, size: int) -> MemoryBank:
    """Return the bank as an exported model condenses it, without torch."""
    content = content_from(condensed(arrays_of(whole.content()), size, whole.patch_size))
    bank = MemoryBank(whole.embeddings.shape[1], whole.patch_size)
    bank.take(content)
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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["wirebond", "folder"], default="wirebond")
    parser.add_argument("--root", help="folder of the images; for wirebond, where they are drawn")
    parser.add_argument("--train", nargs="+", help="devices to train on (folder)")
    parser.add_argument("--test", nargs="+", help="devices to test on (folder)")
    parser.add_argument("--shots", type=int, default=5, help="images of each training device (folder)")
    parser.add_argument("--images", type=int, default=12, help="test images")
    parser.add_argument("--size", type=int, nargs=2, default=[384, 384], help="height and width, px")
    parser.add_argument("--encoder", default=DEFAULT_ENCODER)
    parser.add_argument("--k", type=int, default=30)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--parts", type=int, nargs="+", default=[10, 100], help="divisors of the number of patches")
    parser.add_argument("--rules", nargs="+", default=["learned", "balanced", "kcenter", "random", ON_THE_LINE])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    data = make_data(arguments)
    encoder = PatchEncoder(arguments.encoder, image_size=tuple(arguments.size)).eval()
    train = embed(data.train_data, encoder, None)
    test = embed(data.test_data, encoder, arguments.images)
    whole = fill(encoder, train, data.class_names, arguments.batch)
    full = mean_iou(encoder, whole, test, arguments.k)
    print(
        f"{len(train.masks)} training and {len(test.masks)} test images, k={arguments.k}, encoder {arguments.encoder}"
    )
    print("| patches | rule | mean IoU | lost | condensing / encoder |\n| --- | --- | --- | --- | --- |")
    print(f"| {len(whole)} | all | {full:.1f} | | |", flush=True)
    for part in arguments.parts:
        for rule in arguments.rules:
            results, seconds = [], []
            for seed in range(arguments.seeds):
                start = time.process_time()
                options = {"budget": len(whole) // part, "rule": rule, "seed": seed}
                if rule == ON_THE_LINE:
                    bank = condensed_on_the_line(whole, len(whole) // part)
                else:
                    bank = fill(encoder, train, data.class_names, arguments.batch, **options)
                seconds.append(time.process_time() - start)
                results.append(mean_iou(encoder, bank, test, arguments.k))
            mean, spread = statistics.mean(results), statistics.pstdev(results)
            cost = statistics.median(seconds) / train.seconds
            print(f"| {len(bank)} | {rule} | {mean:.1f} ± {spread:.1f} | {full - mean:.1f} | {cost:.2f} |", flush=True)


if __name__ == "__main__":
    main()
