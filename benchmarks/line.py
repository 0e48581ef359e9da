# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures per second and latency of the inferencer with 1, 2 and 4 cameras, beside OpenVINO's queue and PatchCore.

Usage: python benchmarks/line.py [--model model.xml] [--page docs/results/line.md] [--pictures 12] [--rounds 3]

All contenders run in turn, several rounds, and are told as ratios to the encoder alone in an `openvino.AsyncInferQueue`
with the same settings. A camera is a thread that calls `predict` again and again. Without a model one is trained on
drawn images and exported. PatchCore is anomalib's, with its default backbone and layers (random
weights, which do not change the time), at the same size and from five pictures, as anomalib exports it.
"""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import os
import platform
import statistics
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openvino
import torch

from anomalib_aoissl.data.files import write_text
from anomalib_aoissl.deployment.doctor.diagnosis import noise_picture
from anomalib_aoissl.deployment.files.model_file import core
from anomalib_aoissl.deployment.graph.bank import part_model
from anomalib_aoissl.deployment.inferencer import SegmentationOpenVINOInferencer
from anomalib_aoissl.deployment.requests import of_one_picture

SETTINGS = {"default": {}, "THROUGHPUT": {"PERFORMANCE_HINT": "THROUGHPUT"}}
CAMERAS = (1, 2, 4)

_ENCODER, _ONE = "encoder alone, AsyncInferQueue", "predict, 1 camera"

Name = tuple[str, str]

Contender = Callable[[int], list[float]]
"""Takes a number of pictures, runs them, and returns the seconds of each; the caller takes the time of all."""


class Round(NamedTuple):
    """What a contender did in a round."""

    rate: float  # pictures per second
    per_cpu: float  # pictures per second of processor time, which others on the machine do not change
    times: list[float]  # seconds of each picture


def main() -> None:
    """Measure, print, and write the page where one is asked for."""
    arguments = _parser().parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.model or trained(Path(folder), arguments.size)
        contenders = _contenders(path)
        if arguments.patchcore:
            contenders["PatchCore of anomalib", ""] = _patchcore(Path(folder), path)
        table = _table(_measured(contenders, arguments.pictures, arguments.rounds))
    print(table)
    if arguments.page:
        write_text(arguments.page, _page(table, arguments))


def _contenders(path: Path) -> dict[Name, Contender]:
    """Return what is compared, by its name and its settings."""
    found: dict[Name, Contender] = {}
    for name, config in SETTINGS.items():
        inferencer = SegmentationOpenVINOInferencer(path, config=config)
        picture = _picture(inferencer)
        found[_ENCODER, name] = _queue(inferencer, picture)
        for cameras in CAMERAS:
            found[f"predict, {cameras} camera{'s' if cameras > 1 else ''}", name] = _cameras(
                inferencer, picture, cameras
            )
        found["predict_many", name] = _many(inferencer, picture)
    return found


def _picture(inferencer: SegmentationOpenVINOInferencer) -> np.ndarray:
    """Return a picture of the model's size as a camera gives it."""
    outputs = inferencer._compiled(np.zeros((1, inferencer.in_channels, 64, 64), np.float32))
    height, width = outputs["anomaly_map"].shape[-2:]
    return noise_picture(inferencer.file_format, (height, width), inferencer.in_channels)


def _queue(inferencer: SegmentationOpenVINOInferencer, picture: np.ndarray) -> Contender:
    """Return OpenVINO's own queue over the encoder alone."""
    part = part_model(inferencer._model, ["patch_embeddings"])
    queue = openvino.AsyncInferQueue(core().compile_model(of_one_picture(part), *inferencer._target))
    planes, times = inferencer._read(picture)[np.newaxis], []
    queue.set_callback(lambda _, started: times.append(time.perf_counter() - started))

    def run(pictures: int) -> list[float]:
        times.clear()
        for _ in range(pictures):
            queue.start_async(planes, time.perf_counter())
        queue.wait_all()
        return list(times)

    return run


def _in_turn(predict: Callable[[], Any]) -> Contender:
    """Return what calls a function once for each picture, one call after the other."""

    def run(pictures: int) -> list[float]:
        times = []
        for _ in range(pictures):
            started = time.perf_counter()
            predict()
            times.append(time.perf_counter() - started)
        return times

    return run


def _cameras(inferencer: SegmentationOpenVINOInferencer, picture: np.ndarray, cameras: int) -> Contender:
    """Return threads that call predict, all of them together as often as there are pictures."""
    camera = _in_turn(lambda: inferencer.predict(picture))

    def run(pictures: int) -> list[float]:
        with ThreadPoolExecutor(cameras) as pool:
            shares = [len(range(number, pictures, cameras)) for number in range(cameras)]
            return [seconds for times in pool.map(camera, shares) for seconds in times]

    return run


def _many(inferencer: SegmentationOpenVINOInferencer, picture: np.ndarray) -> Contender:
    """Return predict_many; the seconds are those between two results."""

    def run(pictures: int) -> list[float]:
        times, started = [], time.perf_counter()
        for _ in inferencer.predict_many(islice(repeat(picture), pictures)):
            times.append(time.perf_counter() - started)
            started = time.perf_counter()
        return times

    return run


def _patchcore(folder: Path, path: Path) -> Contender:
    """Return anomalib's PatchCore, exported to OpenVINO.

    Its bank has 1 % of the patches, for PatchCore's good: the 10 % of anomalib's default make it slower. They also need
    more than 20 GB: with 512x512 px each of the 2,048 steps of the coreset's selection leaves some 15 MB behind.
    """
    from anomalib.models import Patchcore

    picture = _picture(SegmentationOpenVINOInferencer(path))
    size = (picture.shape[0], picture.shape[1])
    torch.set_num_threads(1)  # threads would wait for each other in each of many small steps
    model: Any = Patchcore(
        pre_trained=False, coreset_sampling_ratio=0.01, pre_processor=Patchcore.configure_pre_processor(size)
    )
    model.model.train()
    with torch.no_grad():
        for seed in range(5):
            model.model(torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed)))
    model.fit()
    exported = core().read_model(model.eval().to_openvino(folder / "patchcore", input_size=size))
    batch = exported.inputs[0].shape[0] if exported.inputs[0].partial_shape.is_static else 1  # anomalib 2.7 exports two
    request = core().compile_model(exported, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    planes = np.repeat(np.moveaxis(picture[..., :1], -1, 0)[np.newaxis].astype(np.float32), 3, axis=1).repeat(batch, 0)
    run = _in_turn(lambda: request.infer([planes]))
    return lambda pictures: [seconds / batch for seconds in run(-(-pictures // batch)) for _ in range(batch)][:pictures]


def _measured(contenders: dict[Name, Contender], pictures: int, rounds: int) -> dict[Name, list[Round]]:
    """Return what each contender did in each round; they take turns."""
    for contender in contenders.values():
        contender(1)  # to warm up
    found: dict[Name, list[Round]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            started, used = time.perf_counter(), time.process_time()
            times = contender(pictures)
            passed, used = time.perf_counter() - started, time.process_time() - used
            found[name].append(Round(pictures / passed, pictures / used, times))
    return found


def _table(found: dict[Name, list[Round]]) -> str:
    """Return the table: medians over the rounds, ratios round by round."""
    ratios = "times the encoder's | (processor) | times one camera's | (processor)"
    lines = [f"| settings | | pictures/s | {ratios} | ms: median | 95 % |", "| --- " * 9 + "|"]
    for (name, settings), rounds in found.items():
        base = found.get((_ENCODER, settings), found[_ENCODER, "default"])
        one = found.get((_ONE, settings), found[_ONE, "default"])
        latencies = [1e3 * seconds for each in rounds for seconds in each.times]
        cells = [
            settings,
            name,
            f"{statistics.median(each.rate for each in rounds):.3g}",
            _ratio([each.rate for each in base], [each.rate for each in rounds]),
            _ratio([each.per_cpu for each in base], [each.per_cpu for each in rounds]),
            _ratio([each.rate for each in rounds], [each.rate for each in one]),
            _ratio([each.per_cpu for each in rounds], [each.per_cpu for each in one]),
            f"{statistics.median(latencies):.0f}",
            f"{np.percentile(latencies, 95):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _ratio(above: list[float], below: list[float]) -> str:
    """Return the median and the spread of a ratio, round by round."""
    ratios = sorted(a / b for a, b in zip(above, below, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def trained(folder: Path, size: tuple[int, int]) -> Path:
    """Return an exported model with default settings that has learnt five drawn images."""
    from anomalib_aoissl import AOISSLRetrieval
    from anomalib_aoissl.data.describing.file_format import FileFormat
    from anomalib_aoissl.data.reading import read_lighting_channels, read_mask
    from anomalib_aoissl.wirebond.drawing import write_images
    from anomalib_aoissl.wirebond.drawing.devices import CLASS_NAMES

    root = write_images(folder / "drawn", devices=["soic8_gold"], units=5, seed=0, workers=0)
    files = sorted((root / "images").rglob("*_ch0.png"))
    pictures = [read_lighting_channels([file, file.with_name(file.name.replace("_ch0", "_ch1"))]) for file in files]
    masks = [read_mask(next((root / "masks").rglob(f"{file.stem[:-4]}.png"))) for file in files]
    model: Any = AOISSLRetrieval(image_size=size, abstain=None).eval()
    model.set_dataset(CLASS_NAMES, FileFormat())
    images, labels = (torch.from_numpy(np.stack(arrays)) for arrays in (pictures, masks))
    model.add(images, labels, ["drawn"] * len(files), [str(file) for file in files])
    return Path(model.to_openvino(folder))


def _page(table: str, arguments: argparse.Namespace) -> str:
    """Return the page of results."""
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    today, load = dt.datetime.now(tz=dt.timezone.utc).date(), os.getloadavg()[1]
    options = f" --pictures {arguments.pictures} --rounds {arguments.rounds}{' --patchcore' * arguments.patchcore}"
    version = openvino.__version__.partition("-")[0]
    return f"""# On the line: cameras, latency, PatchCore

Commit {commit}, {today}; {platform.machine()}, {os.cpu_count()} cores, no GPU, load {load:.1f} (this and others);
OpenVINO {version}, f32; pictures of the model's size. "Times the encoder's" is the time of a picture beside that of the
encoder alone in OpenVINO's own queue, with the same settings, in the same round; less is better. "Times one camera's"
is the number of pictures beside that of one camera; more is better. Medians of the rounds, and from lowest to highest.
"(Processor)" is the same of the seconds that processors spent, which other work on the machine changes less.

```bash
python benchmarks/line.py{options}
```

{table}
"""


def _pictures(text: str) -> int:
    """Return a number of pictures of which each camera gets as many: else some wait for the last one at the end."""
    most = max(CAMERAS)
    if not text.isdecimal() or int(text) < 1 or int(text) % most:
        msg = f"{text} must be a multiple of {most}, so that each of {most} cameras takes as many. Give {most} or 12."
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="Cameras on the line.")
    parser.add_argument("--model", type=Path, help="exported AOISSLRetrieval; one is trained without")
    parser.add_argument("--size", type=int, nargs=2, default=(512, 512), help="of the trained one, px")
    parser.add_argument("--pictures", type=_pictures, default=12, help="of each contender in a round, a multiple of 4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patchcore", action="store_true", help="compare with anomalib's PatchCore too")
    parser.add_argument("--page", type=Path, help="page to write")
    return parser


if __name__ == "__main__":
    main()
