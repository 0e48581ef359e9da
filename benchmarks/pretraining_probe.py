# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Retrieval on an unseen device with an encoder before and after pretraining; prints mean IoU and IoU of each class.

Usage: python benchmarks/pretraining_probe.py ROOT --bank-device A --query-device B --objective mae --set max_steps=400
           [--pretrained] [--choices 3] [--keep last]

ROOT is a folder with images/, masks/, dataset.json and unlabelled/. Two labelled images of device A on either side
choose the step that is kept (or ``--keep last``); their own mean IoU is printed as "probe". Device B is only tested on,
with the bank in ``--choices`` choices of 1 and of 5 other labelled images of device A: mean and deviation over them.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import logging
import statistics
import time
from pathlib import Path
from types import SimpleNamespace

import torch
import yaml

from anomalib_aoissl.data.dataset import SegmentationDataset
from anomalib_aoissl.data.description import read_description
from anomalib_aoissl.data.listing import list_records
from anomalib_aoissl.encoder.vit import DEFAULT_ENCODER, PatchEncoder
from anomalib_aoissl.pretraining import make_pretraining
from anomalib_aoissl.pretraining.training.images import pretraining_images
from anomalib_aoissl.pretraining.watching.measures import LabelledImage, probe_mean_iou
from anomalib_aoissl.pretraining.watching.watcher import Labelled


def main() -> None:
    """Pretrain and print the table."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    description = read_description(arguments.root)
    bank = _items(arguments.root, arguments.bank_device, arguments.illuminations)
    queries = _items(arguments.root, arguments.query_device, arguments.illuminations)
    classes = len(description.classes)
    size = (arguments.image_size[0], arguments.image_size[1])
    encoder = PatchEncoder(arguments.encoder, image_size=size, pretrained=arguments.pretrained).eval()
    untrained = copy.deepcopy(encoder)
    given = {name: yaml.safe_load(value) for name, _, value in (item.partition("=") for item in arguments.set)}
    callback = make_pretraining({"objective": arguments.objective, **given}) if arguments.objective else None
    source = SimpleNamespace(unlabelled_dir=arguments.root / "unlabelled", illuminations=arguments.illuminations)
    labelled = Labelled(bank[5:7], bank[7:9], classes)
    models = {} if arguments.skip_before else {"before": untrained}
    if callback is not None:
        started = time.process_time()
        callback.pretrain(
            encoder,
            pretraining_images(source),
            labelled=labelled if arguments.keep == "best" else None,
            trainer_arguments={"devices": 1},
        )
        print(f"{time.process_time() - started:.0f} CPU seconds")
        models[arguments.objective] = encoder.eval()
    others = bank[:5] + bank[9:]
    banks = [others[first : first + 5] for first in range(0, 5 * arguments.choices, 5)]
    print("| encoder | probe | labelled | mean IoU |", " | ".join(description.classes), "|")
    for name, model in models.items():
        _print_rows(name, _Remembering(model), labelled, banks, queries[: arguments.queries])


class _Remembering:
    """Embeds an image once, however many banks it is tested with."""

    def __init__(self, encoder: PatchEncoder) -> None:
        self.encoder, self.embeddings = encoder, dict[bytes, torch.Tensor]()
        self.image_size, self.patch_size = encoder.image_size, encoder.patch_size
        self.mean, self.std = encoder.mean, encoder.std

    def __call__(self, images: torch.Tensor, /) -> torch.Tensor:
        key = hashlib.blake2b(images.numpy().tobytes()).digest()
        if key not in self.embeddings:
            self.embeddings[key] = self.encoder(images)
        return self.embeddings[key]


def _print_rows(
    name: str, encoder: _Remembering, labelled: Labelled, banks: list[list[LabelledImage]], queries: list[LabelledImage]
) -> None:
    """Print the probe that chooses, and what 1 and all images of each bank give on the queries."""
    classes = labelled.num_classes
    chosen = probe_mean_iou(encoder, labelled.bank, labelled.queries, num_classes=classes).mean_iou
    for count in (1, len(banks[0])):
        probes = [probe_mean_iou(encoder, bank[:count], queries, num_classes=classes) for bank in banks]
        means = [probe.mean_iou for probe in probes]
        deviation = f" ± {statistics.stdev(means):.3f}" if len(means) > 1 else ""
        per_class = torch.tensor([probe.class_iou for probe in probes]).mean(dim=0).tolist()
        values = " | ".join(f"{value:.2f}" for value in per_class)
        mean = f"{statistics.fmean(means):.3f}{deviation}"
        print(f"| {name} | {chosen:.3f} | {count} | {mean} | {values} |", flush=True)


def _items(root: Path, device: str, illuminations: list[str]) -> list[LabelledImage]:
    """Return the labelled images of a device."""
    description = read_description(root)
    records = list_records(root / "images", root / "masks", illuminations=illuminations, groups=description.groups)
    chosen = [record for record in records if record.device == device and record.mask_path is not None]
    data = SegmentationDataset(chosen, description, "val")
    items = [data[index] for index in range(len(data))]
    return [(item.image.as_subclass(torch.Tensor), item.gt_mask.as_subclass(torch.Tensor)) for item in items]


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="Retrieval with an untrained and a pretrained encoder.")
    parser.add_argument("root", type=Path)
    parser.add_argument("--bank-device", required=True)
    parser.add_argument("--query-device", required=True)
    parser.add_argument("--queries", type=int, default=1000, help="test images")
    parser.add_argument("--encoder", default=DEFAULT_ENCODER)
    parser.add_argument("--pretrained", action="store_true")
    parser.add_argument("--image-size", type=int, nargs=2, default=(384, 512))
    parser.add_argument("--illuminations", nargs="*", default=[])
    parser.add_argument("--objective", default="mae", help="mae, dino, ibot, or nothing for the encoder as it is")
    parser.add_argument("--choices", type=int, default=1, help="choices of the labelled images")
    parser.add_argument("--keep", choices=["best", "last"], default="best", help="by the probe, or the last step")
    parser.add_argument("--skip-before", action="store_true", help="test the pretrained encoder alone")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    main()
