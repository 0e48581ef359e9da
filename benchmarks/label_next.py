# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Measures whether choosing the images to label pays: mean IoU with chosen images against images drawn at random.

Starts from a bank of one labelled image, adds images of the pool by each rule, and prints the mean IoU (pooled over the
pixels of the test images, in points) with mean and deviation over the seeds; a seed draws the first image, and each
random rule is drawn several times. Two cases of wirebond_hgcal: the pool is one module and the test another module, and
pool and test are 70 and 30 % of all modules' images. One of WireBond: sixteen types of devices in pool and test.

    python benchmarks/label_next.py --root wirebond_hgcal --size 240 320
    python benchmarks/label_next.py --cases "device types" --size 384 384 --pool 48 --images 24 --count 8 --draws 3
"""

from __future__ import annotations

import argparse
import logging
import statistics
from collections.abc import Callable
from typing import Any

import torch
from condensing import Embedded, class_iou, embed, fill

from anomalib_aoissl import SegmentationFolder, WireBond
from anomalib_aoissl.encoder import DEFAULT_ENCODER, PatchEncoder
from anomalib_aoissl.retrieval.aggregation import NEIGHBOURS
from anomalib_aoissl.retrieval.context import CONTEXT
from anomalib_aoissl.retrieval.label_next import choose, summarize
from anomalib_aoissl.retrieval.torch_model import RetrievalModel

POOL_DEVICE, TEST_DEVICE = "module_320MLF3TCTT0205", "module_320MLF3TCTT0212"


def part(images: Embedded, indices: list[int]) -> Embedded:
    """Return some of the images."""
    return Embedded(images.grids[:, indices], images.masks[indices], [images.devices[i] for i in indices], 0.0)


def by_rule(model: RetrievalModel, pool: Embedded, rest: list[int], count: int) -> list[int]:
    """Return the images that `label_next.choose` names."""
    summaries = [summarize(model, str(i), pool.embeddings[i]) for i in rest]
    return [int(choice.name) for choice in choose(summaries, count)]


def by_novelty(model: RetrievalModel, pool: Embedded, rest: list[int], count: int) -> list[int]:
    """Return the images with the largest mean novelty."""
    novelty = {i: summarize(model, str(i), pool.embeddings[i]).novelty for i in rest}
    return sorted(rest, key=lambda i: -novelty[i])[:count]


def compare(
    name: str,
    pool: Embedded,
    test: Embedded,
    encoder: PatchEncoder,
    classes: tuple[str, ...],
    options: argparse.Namespace,
) -> None:
    """Print the rows of one case."""
    results: dict[str, list[float]] = {}

    def score(chosen: list[int]) -> float:
        bank = fill(encoder, part(pool, chosen), classes, 4)
        return class_iou(encoder, bank, test, options.k, options.context)["mean"]

    for seed in range(options.seeds):
        generator = torch.Generator().manual_seed(seed)
        start = int(torch.randint(len(pool.masks), (1,), generator=generator))
        rest = [i for i in range(len(pool.masks)) if i != start]
        bank = fill(encoder, part(pool, [start]), classes, 4)
        model = RetrievalModel(encoder, k=options.k, context=options.context, bank=bank).eval()
        results.setdefault("one image", []).append(score([start]))
        rules: dict[str, Callable[..., list[int]]] = {"label-next": by_rule, "most novel": by_novelty}
        for rule, chosen in rules.items():
            results.setdefault(rule, []).append(score([start, *chosen(model, pool, rest, options.count)]))
        drawn = []
        for _ in range(options.draws):
            order = torch.randperm(len(rest), generator=generator)[: options.count].tolist()
            drawn.append(score([start, *(rest[i] for i in order)]))
        results.setdefault("random", []).append(statistics.mean(drawn))
        results.setdefault("random, worst draw", []).append(min(drawn))
        results.setdefault("random, best draw", []).append(max(drawn))
    for rule, values in results.items():
        each = ", ".join(f"{value:.1f}" for value in values)
        print(
            f"| {name} | {rule} | {statistics.mean(values):.1f} ± {statistics.pstdev(values):.1f} | {each} |",
            flush=True,
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="../shared/data/wirebond_hgcal", help="folder of wirebond_hgcal")
    parser.add_argument("--wirebond", default="datasets/WireBond", help="folder in which WireBond is drawn")
    parser.add_argument("--size", type=int, nargs=2, default=[384, 512], help="height and width, px")
    parser.add_argument("--encoder", default=DEFAULT_ENCODER)
    parser.add_argument("--count", type=int, default=4, help="images to add to the first")
    parser.add_argument("--cases", nargs="+", default=["one module", "all modules"])
    parser.add_argument("--pool", type=int, default=36, help="images of the pool at most, evenly taken")
    parser.add_argument("--images", type=int, default=12, help="test images")
    parser.add_argument("--context", type=float, default=CONTEXT, help="weight of the patches around each")
    parser.add_argument("--k", type=int, default=NEIGHBOURS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=5, help="random choices for each seed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    encoder = PatchEncoder(options.encoder, image_size=tuple(options.size)).eval()
    print("| case | rule | mean IoU | seeds |\n| --- | --- | --- | --- |")
    folder: dict[str, Any] = {"root": options.root, "val_ratio": 0.0, "seed": 0}
    drawn: dict[str, Any] = {"image_size": tuple(options.size), "val_ratio": 0.0, "num_workers": 0}
    cases: dict[str, Callable[[], SegmentationFolder | WireBond]] = {
        "one module": lambda: SegmentationFolder(**folder, train_devices=[POOL_DEVICE], test_devices=[TEST_DEVICE]),
        "all modules": lambda: SegmentationFolder(**folder, test_ratio=0.3),
        "device types": lambda: WireBond(options.wirebond, **drawn),
    }
    for name in options.cases:
        data = cases[name]()
        data.prepare_data()
        data.setup()
        pool = embed(data.train_data, encoder, options.pool, context=options.context)
        test = embed(data.test_data, encoder, options.images, context=options.context)
        compare(name, pool, test, encoder, data.class_names, options)


if __name__ == "__main__":
    main()
