# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Each export of a trained model beside torch: size, latency, mean IoU, equal pixels, novelty. JSON lines.

Usage: python benchmarks/export.py --set SET --ranges DEVICE --control DEVICE [--shots 5] [--seed 0] [--segmenter]
       [--steps 1000] [--encoder NAME] [--stock] [--pictures 12] [--rounds 9] --output export.jsonl
       python benchmarks/table.py docs/results/export.md "Exports" --lines export.jsonl --notes notes.md

SET is name:train_device:test_device:HxW of a SegmentationFolder under --root. The model is fitted here; 8 bits take
their ranges from one other device, and INT8_ACQ keeps the mean IoU of another, so that the compared pictures, the test
images, choose nothing. Latencies are of one picture, alone; the rounds go through all exports in turn, so that a load
of the machine meets all of them.
With --stock anomalib's own inferencer, without any configuration, answers too: in bfloat16 where the processor has it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lights import fit, folder_data

from anomalib_aoissl import AOISSLRetrieval, AOISSLSegmenter, SegmentationFolder
from anomalib_aoissl.data.files import write_text
from anomalib_aoissl.deployment.files.companions import files_of
from anomalib_aoissl.deployment.files.model_file import core, read_model
from anomalib_aoissl.deployment.gate import Limits, judge
from anomalib_aoissl.deployment.runners import OUTPUTS, Runner, onnx_runner, openvino_runner
from anomalib_aoissl.models.export.gating import pictures_to_compare, saved_torch_runner, torch_runner
from anomalib_aoissl.plugin.export.options import exporting

TYPES = ("", "fp16", "int8", "int8_ptq", "int8_acq")


def main() -> None:
    """Write a line for each export."""
    arguments = _parser().parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.INFO)
    model, data, others = _fitted(arguments)
    sample = pictures_to_compare(data, arguments.pictures, model.class_names)
    with tempfile.TemporaryDirectory() as folder, exporting("off"):
        runners, sizes = _exports(model, others, Path(folder), arguments.types, stock=arguments.stock)
        report = judge(runners, sample, Limits(0.0))
        times, used = _latencies(runners, sample.images[0][np.newaxis], arguments.rounds)
    lines = []
    for name, run in report.runs.items():
        if run.faults:
            print(f"{name}: {run.faults}")
        line = {
            "set": f"{type(model).__name__}, {model.input_size[0]}x{model.input_size[1]} px",
            "shots": len(data.train_data),
        }
        line |= {"seed": arguments.seed, "method": name, "MB": sizes[name] / 1e6}
        line |= {"latency ms": statistics.median(times[name]), "CPU ms": min(used[name])}
        ratios = [own / torch for own, torch in zip(times[name], times["torch"], strict=True)]
        line |= {"latency / torch": statistics.median(ratios), "mean_iou": run.mean_iou}
        line |= {"equal pixels": run.equal_pixels, "novelty difference": run.novelty_difference}
        lines.append(line)
        print(line)
    write_text(arguments.output, "".join(json.dumps(line) + "\n" for line in lines))


def _fitted(arguments: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Return a model that is fitted to a set, the set, and other devices of it for what compressions look at."""
    data, size = folder_data(arguments.set, arguments.root, arguments.shots, arguments.seed)
    options: dict[str, Any] = {"image_size": size, "seed": arguments.seed, "visualizer": False}
    if arguments.encoder:
        options["encoder"] = arguments.encoder
    if arguments.segmenter:
        options["training"] = {"select": "last", "budget": arguments.steps}
    model: Any = (AOISSLSegmenter if arguments.segmenter else AOISSLRetrieval)(**options)
    torch.manual_seed(arguments.seed)
    fit(model, data)
    others = SegmentationFolder(
        data.root,
        train_devices=data.train_devices,
        val_devices=[arguments.ranges],
        test_devices=[arguments.control],
        num_workers=0,
    )
    return model.eval(), data, others


def _exports(
    model: Any, data: Any, folder: Path, types: list[str], *, stock: bool = False
) -> tuple[dict[str, Runner], dict[str, int]]:
    """Return a runner and the bytes of each export, the trained model's first."""
    torch_file, traced = model.to_torch(folder), model._onnx_model({})
    model._onnx_model = lambda _: traced  # the same for all
    onnx_file = model.to_onnx(folder)
    onnx = onnx_runner(onnx_file)
    name = f"ONNX ({onnx.runtime})"  # another runtime where ONNX Runtime is not installed
    runners = {"torch": torch_runner(model), "torch file": saved_torch_runner(torch_file), name: onnx}
    sizes = dict.fromkeys(("torch", "torch file"), torch_file.stat().st_size) | {name: onnx_file.stat().st_size}
    for kind in types:
        started = time.perf_counter()
        path = model.to_openvino(folder / (kind or "fp32"), compression_type=kind or None, datamodule=data)
        name = f"OpenVINO {kind or 'fp32'}"
        runners[name] = openvino_runner(read_model(path))
        sizes[name] = sum(file.stat().st_size for file in files_of(path))
        if stock:
            runners[f"{name}, stock"], sizes[f"{name}, stock"] = _stock_runner(path, folder), sizes[name]
        print(f"{name}: exported in {time.perf_counter() - started:.0f} s")
    return runners, sizes


def _stock_runner(path: Path, folder: Path) -> Runner:
    """Return anomalib's own inferencer without any configuration; says in what the nodes of its graph compute."""
    from anomalib.deploy import OpenVINOInferencer

    here = Path.cwd()
    os.chdir(folder)  # it makes a cache where it runs
    try:
        compiled = OpenVINOInferencer(path).model
    finally:
        os.chdir(here)
    liked = core().compile_model(core().read_model(path), "CPU")
    kinds = Counter(node.get_rt_info()["runtimePrecision"].astype(str) for node in liked.get_runtime_model().get_ops())
    print(f"{path.parent.parent.parent.name}: asks for {liked.get_property('INFERENCE_PRECISION_HINT')}, {dict(kinds)}")

    def answer(images: np.ndarray) -> dict[str, np.ndarray]:
        outputs = compiled(np.ascontiguousarray(images, np.float32))
        return {name: np.array(outputs[name]) for name in OUTPUTS}

    return answer


def _latencies(
    runners: dict[str, Runner], image: np.ndarray, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the times of each runner for one picture, and those of its processors, ms, in rounds."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    used: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        for name, runner in runners.items():
            started, before = time.perf_counter(), time.process_time()
            runner(image)
            times[name].append(1e3 * (time.perf_counter() - started))
            used[name].append(1e3 * (time.process_time() - before))
    return times, used


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="Exports beside the trained model.")
    parser.add_argument("--set", required=True, help="a model is fitted to it")
    parser.add_argument("--root", type=Path, default=Path("../shared/data"))
    parser.add_argument("--ranges", help="device of the set that 8 bits take their ranges from")
    parser.add_argument("--control", help="device of the set whose mean IoU INT8_ACQ keeps")
    parser.add_argument("--shots", type=int, default=5, help="labelled pictures of the set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--encoder", help="of the model that is fitted; the default one without")
    parser.add_argument("--stock", action="store_true", help="ask anomalib's own inferencer too")
    parser.add_argument("--steps", type=int, default=1000, help="of the segmenter")
    parser.add_argument("--segmenter", action="store_true", help="AOISSLSegmenter in place of AOISSLRetrieval")
    parser.add_argument("--types", nargs="*", default=list(TYPES), choices=TYPES, help="compressions")
    parser.add_argument("--pictures", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, required=True)
    return parser


if __name__ == "__main__":
    main()
