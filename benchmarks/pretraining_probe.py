# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Retrieval on an unseen device with an untrained and a pretrained encoder; prints mean IoU and IoU of each class.

Usage: python benchmarks/pretraining_probe.py ROOT --bank-device A --query-device B --objective mae --set max_steps=400

ROOT is a folder with images/, masks/, dataset.json and unlabelled/. Two labelled images of device A on either side
choose the step that is kept; device B is only tested on.
"""

from __future__ import annotations

import argparse
import copy
import logging
import time
from pathlib import Path
from types import SimpleNamespace

import torch
import yaml

from anomalib_aoissl.data.dataset import SegmentationDataset
from anomalib_aoissl.data.description import read_description
from anomalib_aoissl.data.listing import list_records
from anomalib_aoissl.encoder import DEFAULT_ENCODER, PatchEncoder
from anomalib_aoissl.pretraining import make_pretraining
from anomalib_aoissl.pretraining.images import pretraining_images
from anomalib_aoissl.pretraining.measures import LabelledImage, probe_mean_iou
from anomalib_aoissl.pretraining.watching import Labelled


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
    callback = make_pretraining({"objective": arguments.objective, **given})
    source = SimpleNamespace(unlabelled_dir=arguments.root / "unlabelled", illuminations=arguments.illuminations)
    labelled = Labelled(bank[5:7], bank[7:9], classes)
    started = time.process_time()
    if callback is not None:
        callback.pretrain(encoder, pretraining_images(source), labelled=labelled, trainer_arguments={"devices": 1})
        print(callback.summary, f"{time.process_time() - started:.0f} CPU seconds")
    print("| encoder | labelled | mean IoU |", " | ".join(description.classes), "|")
    for name, model in (("before", untrained), (arguments.objective, encoder.eval())):
        for count in (1, 5):
            probe = probe_mean_iou(model, bank[:count], queries[: arguments.queries], num_classes=classes)
            values = " | ".join(f"{value:.2f}" for value in probe.class_iou)
            print(f"| {name} | {count} | {probe.mean_iou:.3f} | {values} |", flush=True)


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
    parser.add_argument("--objective", default="mae")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    main()
