# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Measures what 1, 2, 5 and 20 labelled images of a new device give, on 1, 2 and 4 patch grids in the bank.

Prints for each set, number of images and grids the mean IoU (pooled over the pixels of the test images, in points) and
the IoU of each class, means over the seeds and the deviation of the mean, the bank's rows and megabytes, and the CPU
seconds of condensing against those of the encoder's passes. WireBond: one device type that the shipped encoder has not
seen, another for each seed. wirebond_hgcal: labels of module 0205, tests on module 0212. Each image is embedded once.

    python benchmarks/shots.py --data ../shared/data --wirebond datasets/WireBond
"""

from __future__ import annotations

import argparse
import itertools
import logging
import statistics
from pathlib import Path
from typing import Any

import torch
from aggregation import Case, LabelledImage, Setting, settings
from few_labels import DEVICES

from anomalib_aoissl import WireBond
from anomalib_aoissl.encoder import DEFAULT_ENCODER, PatchEncoder
from anomalib_aoissl.retrieval.condensing import RULES
from anomalib_aoissl.retrieval.context import CONTEXT
from anomalib_aoissl.retrieval.lightning_model import DEFAULT_BANK_SIZE
from anomalib_aoissl.retrieval.smoothing import SMOOTHING


def new_device(root: str) -> Setting:
    """Return the setting of one unseen device type of WireBond."""

    def make(shots: int | None, seed: int) -> Any:
        numbers = {"images_per_device": 28, "val_ratio": 0.0, "test_ratio": 0.25, "num_workers": 0}
        return WireBond(root, devices=[DEVICES[seed % len(DEVICES)]], shots=shots, seed=seed, **numbers)

    return Setting("WireBond, new device", (512, 512), "wire", (), make)


def measure(case: Case, grids: int, rule: str) -> dict[str, float]:
    """Return the summary of a bank from that many grids, its rows, its megabytes and the cost of condensing."""
    bank, seconds = case.bank(grids, rule=rule)
    model, counter = case.model(bank, smoothing=SMOOTHING), case.counter()
    for image in case.test:
        counter.update(model.answer(case.unit(image.grids[:1])).pred_mask[0, 0], image.mask)
    encoder_seconds = sum(sum(image.seconds[:grids]) for image in case.train)
    size = {"rows": len(bank), "MB": bank.describe()["megabytes"]}
    return {**case.summary(counter), **size, "condensing": seconds / encoder_seconds}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the real sets")
    parser.add_argument("--wirebond", default="datasets/WireBond", help="folder in which WireBond is drawn")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 5, 20])
    parser.add_argument("--grids", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rules", choices=list(RULES), nargs="+", default=["learned"], help="of condensing")
    parser.add_argument("--images", type=int, default=12, help="test images of each set, evenly taken")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--context", type=float, default=CONTEXT, help="weight of the patches around each")
    parser.add_argument("--rows", type=int, default=DEFAULT_BANK_SIZE, help="of a bank")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    hgcal = next(s for s in settings(arguments.data, arguments.wirebond) if s.name == "wirebond_hgcal")
    for setting in (new_device(arguments.wirebond), hgcal):
        encoder = PatchEncoder(DEFAULT_ENCODER, image_size=setting.size).eval()
        known: list[dict[str, LabelledImage]] = [{} for _ in range(arguments.seeds)]
        for shots in arguments.shots:
            how = arguments.context, arguments.rows
            cases = [
                Case(setting, shots, seed, encoder, torch.empty(0), arguments.images, known[seed], *how)
                for seed in range(arguments.seeds)
            ]
            for grids, rule in itertools.product(arguments.grids, arguments.rules):
                results = [measure(case, grids, rule) for case in cases]
                means = {name: statistics.mean(result[name] for result in results) for name in results[0]}
                spread = statistics.pstdev(result["mean"] for result in results)
                rest = ", ".join(f"{name} {value:.2f}" for name, value in means.items() if name not in {"mean", "thin"})
                head = f"{setting.name}, {shots} labelled, {grids} grids, {rule}"
                print(f"{head}: {means['mean']:.1f} ± {spread:.1f}; {rest}", flush=True)


if __name__ == "__main__":
    main()
