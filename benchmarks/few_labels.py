# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Fine-tuning curve: the segmenter from random, MAE and shipped weights, and retrieval, on 1, 5 and 20 labelled images.

Usage: python benchmarks/few_labels.py --data ../shared/data [--mae local-dir:/encoder] [--steps 12] [--output curve]

Each start gets the same number of steps of the same network, hence the same time; the last weights are tested, and
before them the linear probe that each run starts from.
wirebond: images of one device type of WireBond, another one for each seed, which no encoder has seen. devices: labels
of other device types than the four that are tested, drawn anew for each seed. hgcal: labels of one module of
wirebond_hgcal, tests on another. pcb: labels of one board of pcb_components, tests on another. Each run is written to
``--output`` and not repeated; two processes with another ``--only`` share the work. The tables are printed at the end.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.engine import Engine
from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torchmetrics.classification import MulticlassJaccardIndex

from anomalib_aoissl import AOISSLRetrieval, AOISSLSegmenter, SegmentationFolder, WireBond
from anomalib_aoissl.data.drawing.devices import DEVICES as ALL_DEVICES
from anomalib_aoissl.data.indices import IGNORE_INDEX
from anomalib_aoissl.files import whole_file

DEVICES = ("soic8_gold", "qfp100_gold", "mems_microphone")
SETS = {"wirebond": (1, 5, 20), "devices": (1, 5, 20), "hgcal": (1, 5, 20), "pcb": (1, 4)}
STARTS = ("random", "mae", "shipped", "retrieval")
SIZES = {"wirebond": (512, 512), "devices": (512, 512), "hgcal": (384, 512), "pcb": (512, 512)}
TEST_DEVICES = 4  # of "devices"


def main() -> None:
    """Run what is missing and print the tables."""
    arguments = _parser().parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(arguments.threads)
    arguments.output.mkdir(parents=True, exist_ok=True)
    starts = [start for start in arguments.starts if start != "mae" or arguments.mae]
    for seed in range(arguments.seeds):
        for name in arguments.only or SETS:
            for shots in sorted(set(SETS[name]) & set(arguments.shots)):
                for start in starts:
                    path = arguments.output / f"{name}_{shots}_{start}_{seed}.json"
                    if path.is_file():
                        continue
                    result = _run(name, shots, start, seed, arguments)
                    with whole_file(path) as temporary:
                        Path(temporary).write_text(json.dumps(result), encoding="utf-8")
                    print(path.stem, {key: round(value, 3) for key, value in result.items()}, flush=True)
    for name in SETS:
        _print_table(name, starts, arguments.output)


def _run(name: str, shots: int, start: str, seed: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Return the test metrics of one run, its CPU seconds of training and the last loss."""
    torch.manual_seed(seed)
    data = _data(name, shots, seed, arguments)
    common: dict[str, Any] = {"image_size": SIZES[name], "visualizer": False, "pretrained": start != "random"}
    if start == "mae":
        common["encoder"] = arguments.mae
    trainer: dict[str, Any] = {
        "default_root_dir": arguments.output / "runs",
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "limit_val_batches": 0,
    }
    probe = Probe()
    if start == "retrieval":
        model: Any = AOISSLRetrieval(**common, **arguments.retrieval)
        engine = Engine(**trainer)
    else:
        model = AOISSLSegmenter(select="last", **common)
        engine = Engine(**trainer, max_steps=arguments.steps, max_epochs=-1, callbacks=[probe])
    started = time.process_time()
    engine.fit(model, datamodule=data)
    seconds = time.process_time() - started - probe.tested
    metrics = engine.test(model, datamodule=data)[0]
    return {"seconds": seconds, **probe.result(started), **{key: float(value) for key, value in metrics.items()}}


class Probe(Callback):
    """Tests the model before the first step."""

    def __init__(self) -> None:
        self.begun, self.tested, self.mean_iou = 0.0, 0.0, -1.0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Note the pooled mean IoU of the test images, and the time that this takes."""
        del batch, batch_idx
        if trainer.global_step:
            return
        self.begun = time.process_time()
        classes = len(pl_module.class_names)
        metric = MulticlassJaccardIndex(classes, ignore_index=IGNORE_INDEX, average="none")
        transform = pl_module.pre_processor.transform
        pl_module.eval()
        with torch.no_grad():
            for batch in trainer.datamodule.test_dataloader():
                images, masks = transform(batch.image, batch.gt_mask)
                metric.update(pl_module.model(images).pred_mask[:, 0].long(), masks.as_subclass(torch.Tensor).long())
        pl_module.train()
        seen = metric.confmat.sum(0) + metric.confmat.sum(1) > 0
        self.mean_iou = float(metric.compute()[seen].mean())
        self.tested = time.process_time() - self.begun

    def result(self, started: float) -> dict[str, float]:
        """Return the probe's mean IoU and CPU seconds, where there was one."""
        return {"probe_mean_iou": self.mean_iou, "probe_seconds": self.begun - started} if self.begun else {}


def _data(name: str, shots: int, seed: int, arguments: argparse.Namespace) -> Any:
    """Return the datamodule of a set, with a part of its test images."""
    common = {"shots": shots, "num_workers": 0, "train_batch_size": arguments.batch}
    data: Any
    if name == "wirebond":
        device = [DEVICES[seed % len(DEVICES)]]
        numbers = {"images_per_device": 28, "val_ratio": 0.0, "test_ratio": 0.25, "seed": seed}
        data = WireBond(arguments.drawn, devices=device, **numbers, **common)
    elif name == "devices":
        tested = np.random.default_rng(seed).permutation(sorted(ALL_DEVICES))[:TEST_DEVICES].tolist()
        data = WireBond(arguments.drawn, test_devices=tested, val_ratio=0.0, **{**common, "shots": None})
    elif name == "hgcal":
        root = arguments.data / "wirebond_hgcal"
        devices = {"train_devices": ["module_320MLF3TCTT0205"], "test_devices": ["module_320MLF3TCTT0212"]}
        data = SegmentationFolder(root, **devices, val_ratio=0.0, seed=seed, **common)
    else:
        devices = {"train_devices": ["board_0009"], "test_devices": ["board_0018"]}
        data = SegmentationFolder(arguments.data / "pcb_components", **devices, val_ratio=0.0, seed=seed, **common)
    data.prepare_data()
    data.setup(TrainerFn.FITTING)  # said so that the trainer does not set it up again, with all images
    if name == "devices":
        labelled = np.random.default_rng(seed).permutation(len(data.train_data))[:shots]
        data.train_data.subsample(labelled.tolist(), True)
    tested = range(0, len(data.test_data), max(len(data.test_data) // arguments.queries, 1))
    data.test_data.subsample(tested[: arguments.queries], True)
    return data


def _print_table(name: str, starts: list[str], folder: Path) -> None:
    """Print mean and deviation over the seeds for each start, then the classes."""
    shots = SETS[name]
    print(f"\n| {name} |", " | ".join(f"{count} labelled" for count in shots), "|")
    print("| --- " * (1 + len(shots)) + "|")
    probes = [(f"{start}, probe alone", start, "probe_mean_iou") for start in starts if start != "retrieval"]
    for title, start, key in [*probes, *[(start, start, "mean_iou") for start in starts]]:
        cells = []
        for count in shots:
            results = _results(folder, name, count, start)
            values = [result[key] for result in results]
            deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.3f}{deviation}" if values else "")
        print(f"| {title} |", " | ".join(cells), "|")
    for count in shots:
        for start in starts:
            results = _results(folder, name, count, start)
            if results:
                keys = [key for key in results[0] if key.startswith("iou_")]
                means = {key[4:]: round(statistics.fmean(r.get(key, 0.0) for r in results), 2) for key in keys}
                seconds = statistics.fmean(result["seconds"] for result in results)
                print(f"{name}, {count} labelled, {start}: {seconds:.0f} CPU s, {means}")


def _results(folder: Path, name: str, shots: int, start: str) -> list[dict[str, float]]:
    """Return what the seeds gave."""
    paths = sorted(folder.glob(f"{name}_{shots}_{start}_*.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="Fine-tuning and retrieval on few labels.")
    parser.add_argument("--data", type=Path, required=True, help="folder of wirebond_hgcal and pcb_components")
    parser.add_argument("--drawn", type=Path, default=Path("datasets/WireBond"), help="where WireBond is drawn")
    parser.add_argument("--mae", default="", help="encoder pretrained as a masked autoencoder alone; local-dir:/path")
    parser.add_argument("--only", nargs="*", choices=list(SETS), help="sets")
    parser.add_argument("--starts", nargs="*", choices=STARTS, default=STARTS, help="rows of the tables")
    parser.add_argument("--retrieval", type=json.loads, default={}, help="arguments of retrieval, as JSON")
    parser.add_argument("--shots", type=int, nargs="*", default=[1, 4, 5, 20], help="numbers of labelled images")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=1, help="images of a step")
    parser.add_argument("--queries", type=int, default=1000, help="test images, at most")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("curve"))
    return parser


if __name__ == "__main__":
    main()
