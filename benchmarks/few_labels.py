# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Both models on 1, 5 and 20 labelled images of drawn devices that no encoder was trained on.

Usage: python benchmarks/few_labels.py --drawn DATA --log lines.jsonl [--starts retrieval segmenter segmenter:random]
       [--seconds 300] [--only wirebond devices] [--shots 1 5 20] [--seeds 3]

wirebond: images of one device type of WireBond, another one for each seed. devices: labels of other device types than
the four that are tested, drawn anew for each seed. A start is a model, and after a colon the weights of its encoder:
shipped by default, ``random``, or ``local-dir:/encoder`` as pretraining wrote it. ``--seconds`` is the segmenter's
budget. Each run is a line of the log and is not repeated; ``benchmarks/table.py`` makes a page of the lines. Real sets
are measured by ``../shared/peers/few_labels.py``.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.engine import Engine
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_aoissl import AOISSLRetrieval, AOISSLSegmenter, WireBond
from anomalib_aoissl.wirebond.drawing.devices import DEVICES as ALL_DEVICES

DEVICES = ("soic8_gold", "qfp100_gold", "mems_microphone")
SETS = ("wirebond", "devices")
SIZE = (512, 512)
TEST_DEVICES = 4  # of "devices"


def main() -> None:
    """Run what is missing."""
    arguments = _parser().parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(arguments.threads)
    done = _done(arguments.log)
    for seed in range(arguments.seeds):
        for name in arguments.only:
            for shots in arguments.shots:
                for start in arguments.starts:
                    budget = arguments.seconds if start.startswith("segmenter") else 0.0
                    row = {"set": name, "shots": shots, "seed": seed, "method": start, "budget": budget}
                    if tuple(row.values()) in done:
                        continue
                    line = json.dumps({**row, **_run(name, shots, start, seed, arguments)})
                    print(line, flush=True)
                    with arguments.log.open("a", encoding="utf-8") as log:
                        log.write(line + "\n")


def _done(log: Path) -> set[tuple[Any, ...]]:
    """Return what of each line says which run it is of."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    rows = [json.loads(line) for line in lines if line.strip()]
    return {tuple(row[key] for key in ("set", "shots", "seed", "method", "budget")) for row in rows}


def _run(name: str, shots: int, start: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the pooled mean IoU of one run, its CPU seconds of training and the classes."""
    torch.manual_seed(seed)
    data, (model, trainer) = _data(name, shots, seed, arguments), _model(start, arguments)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "limit_val_batches": 0}
    engine = Engine(default_root_dir=tempfile.mkdtemp(), accelerator="cpu", **quiet, **trainer)
    started = time.process_time()
    engine.fit(model, datamodule=data)
    seconds = time.process_time() - started
    metrics = {key: float(value) for key, value in engine.test(model, datamodule=data, verbose=False)[0].items()}
    classes = {key[4:]: round(value, 4) for key, value in metrics.items() if key.startswith("iou_")}
    return {"mean_iou": round(metrics["mean_iou"], 4), "seconds": round(seconds, 1), "per_class": classes}


def _model(start: str, arguments: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """Return the model of a start, and the trainer's arguments."""
    kind, _, weights = start.partition(":")
    encoder = {"architecture": weights} if weights not in {"", "random"} else {"pretrained": weights != "random"}
    common: dict[str, Any] = {"encoder": encoder, "image_size": SIZE, "visualizer": False}
    if kind == "retrieval":
        return AOISSLRetrieval(**common), {}
    budget = {"max_time": {"seconds": arguments.seconds}, "max_epochs": -1}
    return AOISSLSegmenter(training={"select": "last"}, **common), budget


def _data(name: str, shots: int, seed: int, arguments: argparse.Namespace) -> Any:
    """Return the datamodule of a set, with a part of its test images."""
    common = {"num_workers": 0, "train_batch_size": 1, "val_ratio": 0.0}
    data: Any
    if name == "wirebond":
        device = [DEVICES[seed % len(DEVICES)]]
        numbers = {"images_per_device": 28, "test_ratio": 0.25, "seed": seed, "shots": shots}
        data = WireBond(arguments.drawn, devices=device, **numbers, **common)
    else:
        tested = np.random.default_rng(seed).permutation(sorted(ALL_DEVICES))[:TEST_DEVICES].tolist()
        data = WireBond(arguments.drawn, test_devices=tested, **common)
    data.prepare_data()
    data.setup(TrainerFn.FITTING)  # said so that the trainer does not set it up again, with all images
    if name == "devices":
        labelled = np.random.default_rng(seed).permutation(len(data.train_data))[:shots]
        data.train_data.subsample(labelled.tolist(), True)
    queries = range(0, len(data.test_data), max(len(data.test_data) // arguments.queries, 1))
    data.test_data.subsample(queries[: arguments.queries], True)
    return data


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="Both models on few labelled images of drawn devices.")
    parser.add_argument("--drawn", type=Path, default=Path("datasets/WireBond"), help="folder of the drawn set")
    parser.add_argument("--log", type=Path, default=Path("few_labels.jsonl"), help="file of the lines")
    parser.add_argument("--starts", nargs="+", default=["retrieval", "segmenter"], help="models, and their weights")
    parser.add_argument("--seconds", type=float, default=300.0, help="of the segmenter's training")
    parser.add_argument("--only", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5, 20])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--queries", type=int, default=8, help="test images, at most")
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    main()
