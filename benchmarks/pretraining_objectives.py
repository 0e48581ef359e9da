# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Random weights, the whitened start, MAE, DINO and iBOT after the same number of pictures, on three sets.

Usage: python benchmarks/pretraining_objectives.py --pictures encoder.pictures --wirebond datasets/WireBond/v1_...
           --hgcal data/wirebond_hgcal --pcb data/pcb_components [--samples 3840] [--seeds 3] [--output objectives]

``--pictures`` is any folder of unlabelled pictures, such as the one that examples/train_shipped_encoder.py draws. No
set's own pictures are trained on. Each run is written to ``--output`` and not repeated; tables are printed at the end.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from pretraining_probe import _items

from anomalib_aoissl.data.description import read_description
from anomalib_aoissl.data.files import whole_file
from anomalib_aoissl.encoder.vit import DEFAULT_ENCODER, PatchEncoder
from anomalib_aoissl.pretraining import make_pretraining
from anomalib_aoissl.pretraining.watching.measures import LabelledImage, probe_mean_iou

RUNS = ("random", "whitened", "mae", "dino", "ibot")
BATCH = {"mae": 48, "dino": 24, "ibot": 24}
HGCAL = ("module_320MLF3TCTT0205", "module_320MLF3TCTT0212")
PCB = ("board_0009", "board_0018")
WIREBOND = ("led_array", "soic8_gold", "mems_microphone", "qfp100_gold")


def main() -> None:
    """Train what is missing and print the table."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    files = [(path,) for path in sorted(arguments.pictures.glob("*.png"))]
    tasks = _tasks(arguments)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for seed in range(arguments.seeds):
        for run in RUNS:
            path = arguments.output / f"{run}_{seed}.json"
            if path.is_file() or (run == "random" and seed):
                continue
            result = _measured(_trained(run, seed, files, arguments), tasks)
            with whole_file(path) as temporary:
                Path(temporary).write_text(json.dumps(result), encoding="utf-8")
            print(run, seed, {name: round(values[0], 3) for name, values in result["tasks"].items()}, flush=True)
    _print_table(arguments.output, tasks)


def _trained(
    run: str, seed: int, files: list[tuple[Path, ...]], arguments: argparse.Namespace
) -> tuple[dict[str, torch.Tensor], float]:
    """Return the weights of a run, and its CPU seconds."""
    encoder = PatchEncoder(DEFAULT_ENCODER, image_size=(512, 512), pretrained=False)
    started = time.process_time()
    if run != "random":
        batch = BATCH.get(run, 48)
        callback: Any = make_pretraining(
            {
                "objective": "mae" if run == "whitened" else run,
                "max_steps": 1 if run == "whitened" else arguments.samples // batch,
                "batch_size": batch,
                "learning_rate": 1e-9 if run == "whitened" else 1e-3 if run == "mae" else 5e-4,
                "probe_images": 0,
                "probe_every": 1000,
                "crops_per_image": 4,
                "seed": seed,
                "cache_dir": str(arguments.output / "cache"),
                "progress_bar": False,
                **({"momentum": 0.98} if run in {"dino", "ibot"} else {}),
            }
        )
        callback.pretrain(encoder, files, trainer_arguments={"accelerator": "cpu", "devices": 1})
    return encoder.vit.state_dict(), time.process_time() - started


def _measured(trained: tuple[dict[str, torch.Tensor], float], tasks: dict[str, Any]) -> dict[str, Any]:
    """Return mean IoU and IoU of each class of each task."""
    weights, seconds = trained
    result: dict[str, Any] = {"seconds": seconds, "tasks": {}}
    for name, (size, classes, parts) in tasks.items():
        encoder = PatchEncoder(DEFAULT_ENCODER, image_size=size, pretrained=False).eval()
        encoder.vit.load_state_dict(_at_size(weights, encoder))
        probes = [probe_mean_iou(encoder, bank, queries, num_classes=len(classes)) for bank, queries in parts]
        mean = statistics.fmean(probe.mean_iou for probe in probes)
        per_class = torch.tensor([probe.class_iou for probe in probes]).mean(dim=0).tolist()
        result["tasks"][name] = [mean, per_class]
    return result


def _at_size(weights: dict[str, torch.Tensor], encoder: PatchEncoder) -> dict[str, torch.Tensor]:
    """Return the weights with positions for the encoder's image size."""
    from timm.models.vision_transformer import checkpoint_filter_fn

    return dict(checkpoint_filter_fn(dict(weights), encoder.vit))


def _tasks(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return for each task the image size, the classes, and pairs of labelled bank and query images."""
    tasks: dict[str, Any] = {}
    if arguments.hgcal:
        bank, queries = (_items(arguments.hgcal, device, []) for device in HGCAL)
        queries = _spread(queries, arguments.queries)
        for shots in (1, 5):
            parts = [(_spread(bank, shots, first), queries) for first in (0, 3)]
            tasks[f"hgcal, {shots}"] = ((384, 512), read_description(arguments.hgcal).classes, parts)
    if arguments.pcb:
        bank, queries = (_items(arguments.pcb, device, []) for device in PCB)
        tasks["pcb, 4"] = ((512, 512), read_description(arguments.pcb).classes, [(bank[:4], queries[:4])])
    if arguments.wirebond:
        description = read_description(arguments.wirebond)
        devices = [_items(arguments.wirebond, device, description.illuminations) for device in WIREBOND]
        parts = [(items[:1], items[-2:]) for items in devices if len(items) >= 3]
        tasks["WireBond, 1 of each device"] = ((512, 512), description.classes, parts)
    return tasks


def _spread(items: list[LabelledImage], count: int, first: int = 0) -> list[LabelledImage]:
    """Return some items, evenly spaced."""
    rest = items[first:]
    return rest[:: max(len(rest) // count, 1)][:count]


def _print_table(folder: Path, tasks: dict[str, Any]) -> None:
    """Print mean and deviation over the seeds of each task, then the IoU of each class."""
    print("| run | CPU s |", " | ".join(tasks), "|")
    print("| --- " * (2 + len(tasks)) + "|")
    found = {run: [json.loads(p.read_text(encoding="utf-8")) for p in sorted(folder.glob(f"{run}_*"))] for run in RUNS}
    for run, results in found.items():
        if results:
            seconds = statistics.fmean(result["seconds"] for result in results)
            cells = [_spread_text([result["tasks"][name][0] for result in results]) for name in tasks]
            print(f"| {run} | {seconds:.0f} |", " | ".join(cells), "|")
    for name, (_, classes, _) in tasks.items():
        print(f"\n| {name} |", " | ".join(classes), "|")
        print("| --- " * (1 + len(classes)) + "|")
        for run, results in found.items():
            if results:
                means = torch.tensor([result["tasks"][name][1] for result in results]).mean(dim=0).tolist()
                print(f"| {run} |", " | ".join(f"{value:.2f}" for value in means), "|")


def _spread_text(values: list[float]) -> str:
    """Return mean and deviation."""
    mean = statistics.fmean(values)
    return f"{mean:.3f}" if len(values) == 1 else f"{mean:.3f} ± {statistics.stdev(values):.3f}"


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="Objectives at the same number of pictures.")
    folders = {
        "pictures": "folder of unlabelled PNG pictures",
        "wirebond": "a drawn WireBond set: the folder with its dataset.json",
        "hgcal": "folder of wirebond_hgcal",
        "pcb": "folder of pcb_components",
        "output": "where results are kept",
    }
    for name, text in folders.items():
        default = Path("objectives") if name == "output" else None
        parser.add_argument(f"--{name}", type=Path, required=name == "pictures", default=default, help=text)
    numbers = {
        "samples": (3840, "crops, or sets of views, that a run sees"),
        "queries": (8, "test images of wirebond_hgcal"),
        "seeds": (3, "trainings of each objective"),
        "threads": (1, "threads of torch"),
    }
    for name, (number, text) in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=number, help=text)
    return parser


if __name__ == "__main__":
    main()
