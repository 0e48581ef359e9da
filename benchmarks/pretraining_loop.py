# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the training loop adds to a step: cutting crops, light, logging, Lightning. Called by ``pretraining.py --loop``.

After each step of the callback's own nested training a bare step of the same objective runs on crops that are ready:
forward, backward, clipping, AdamW, teacher. Both are timed side by side, since a shared machine changes its pace.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import CSVLogger

from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.pretraining import make_pretraining
from anomalib_aoissl.pretraining.training.augmentation import Crops
from anomalib_aoissl.pretraining.training.images import CropDataset, ImageFiles
from anomalib_aoissl.pretraining.training.module import PretrainingModule
from anomalib_aoissl.pretraining.training.objective import Objective, Progress

_CROPS_PER_IMAGE = 4  # so that an epoch of few pictures has some steps


class _SideBySide(CSVLogger):
    """Runs and times a bare step whenever a step of training is logged.

    Args:
        folder: Where the metrics go, as in a real run.
        bare: Runs a bare step.
    """

    def __init__(self, folder: Path, bare: _BareStep) -> None:
        super().__init__(folder)
        self.bare = bare
        self.before: list[tuple[float, float]] = []
        self.after: list[tuple[float, float]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:  # type: ignore[override]
        """Log as always, and run the bare step between two looks at the clocks."""
        super().log_metrics(metrics, step)
        self.before.append(_clocks())
        self.bare()
        self.after.append(_clocks())

    def seconds(self, first: int) -> tuple[list[float], list[float]]:
        """Return (CPU, wall) seconds of a step in the loop, and of a bare one: means from step ``first`` on."""
        pairs = list(zip(self.after[first - 1 :], self.before[first:], strict=False))
        bare = list(zip(self.before[first:], self.after[first:], strict=True))
        means = [[statistics.fmean(e[k] - s[k] for s, e in spans) for k in range(2)] for spans in (pairs, bare)]
        return means[0], means[1]


class _BareStep:
    """One optimiser step on crops that are ready."""

    def __init__(self, module: PretrainingModule, batch: dict[str, torch.Tensor]) -> None:
        self.objective, self.generator = module.objective, torch.Generator().manual_seed(0)
        self.views = module.normalised(batch, self.generator)
        self.weights = [p for p in self.objective.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.weights, lr=1e-4)

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        self.objective(self.views, self.generator, Progress(50, 100))["loss"].backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.objective.after_step(Progress(51, 100))


def print_loop(arguments: argparse.Namespace) -> None:
    """Print CPU and wall seconds of a step in the loop and of a bare one, and what the parts of the loop take."""
    files: list[ImageFiles] = [(path,) for path in sorted(arguments.loop.iterdir())[: arguments.pictures]]
    print(f"| batch {arguments.loop_batch}, default recipe | CPU s in the loop | bare | ratio | ratio of wall times |")
    print("| --- | --- | --- | --- | --- |")
    notes = []
    for name, _, workers in (case.partition(":") for case in arguments.cases):
        encoder = PatchEncoder(pretrained=False)
        callback: Any = _callback(name, int(workers or 0), arguments)
        objective: Objective = callback.build_objective(copy.deepcopy(encoder.vit).train())
        module = PretrainingModule(
            objective,
            learning_rate=callback.learning_rate(untrained=True),
            warmup=callback.optimizer.warmup,
            light=callback.light,
            mean=encoder.mean,
            std=encoder.std,
            seed=0,
        )
        batch, note = _parts(module, files, arguments.loop_batch)
        notes.append(f"{name}: {note}")
        with tempfile.TemporaryDirectory() as folder:
            logger = _SideBySide(Path(folder), _BareStep(module, batch))
            callback.cache_dir = Path(folder) / "cache"
            trainer = {"accelerator": "cpu", "logger": logger, "enable_progress_bar": False}
            callback.pretrain(encoder, files, trainer_arguments=trainer)
            first = len(files) * _CROPS_PER_IMAGE // arguments.loop_batch  # the first epoch decodes the pictures
            loop, bare = logger.seconds(first)
        row = f"| {name}, {workers or 0} workers | {loop[0]:.3f} | {bare[0]:.3f} | {loop[0] / bare[0]:.3f} "
        print(f"{row}| {loop[1] / bare[1]:.3f} |", flush=True)
    print("\n".join(dict.fromkeys(notes)))


def _callback(name: str, workers: int, arguments: argparse.Namespace) -> Any:
    """Return the callback of three epochs without a probe or a check on the way."""
    return make_pretraining(
        {
            "objective": name,
            "max_epochs": 3,
            "batch_size": arguments.loop_batch,
            "crops": {"per_image": _CROPS_PER_IMAGE},
            "loading": {"num_workers": workers},
            "probe": {"images": 0, "every": 1000},
        }
    )


def _parts(module: PretrainingModule, files: list[ImageFiles], batch_size: int) -> tuple[dict[str, torch.Tensor], str]:
    """Return a batch of crops, and what its parts cost, ms."""
    data = CropDataset(files, size=(512, 512), channels=3, crops=Crops(module.objective.crop_kinds()))
    times = [_process_ms(lambda i=i: data[i]) for i in range(batch_size) for _ in range(2)]  # type: ignore[misc]
    decoded, kept = statistics.fmean(times[::2]), statistics.fmean(times[1::2])
    batch: dict[str, torch.Tensor] = torch.utils.data.default_collate([data[i] for i in range(batch_size)])
    light = min(_process_ms(lambda: module.normalised(batch, torch.Generator())) for _ in range(3))
    text = (
        f"reading and decoding a picture {decoded - kept:.1f} ms, once; cutting the crops of a sample {kept:.2f} ms, "
        f"of a batch {kept * batch_size:.0f} ms; light and normalisation of a batch {light:.0f} ms"
    )
    return batch, text


def _process_ms(function: Any) -> float:
    """Return the CPU milliseconds of a call."""
    started = time.process_time()
    function()
    return (time.process_time() - started) * 1e3


def _clocks() -> tuple[float, float]:
    """Return CPU seconds of this process and its workers, and the wall clock."""
    import psutil

    workers = psutil.Process().children(recursive=True)
    times = [worker.cpu_times() for worker in workers]
    ended = psutil.Process().cpu_times()
    used = time.process_time() + sum(t.user + t.system for t in times) + ended.children_user + ended.children_system
    return used, time.perf_counter()
