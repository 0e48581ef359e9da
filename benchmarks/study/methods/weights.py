# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The weights of a study: of a name in timm, random, of ImageNet, or trained by this package's own pretraining."""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from anomalib_aoissl.data.describing.file_format import WHOLE_FILES
from anomalib_aoissl.encoder.architecture import SHIPPED_TRANSFORMER
from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.pretraining import make_pretraining
from anomalib_aoissl.pretraining.training.images import ImageFiles, pretraining_images

from ..plan import Job
from ..sets import datamodule
from ..sharing import Board

__all__ = ["encoder_arguments", "pretrain"]

_TRIAL_STEPS = 16
_DECODING_SECONDS = 0.015  # a picture, once


def encoder_arguments(spec: Mapping[str, Any], needs: Sequence[str], board: Board) -> dict[str, Any]:
    """Return the argument ``encoder`` of the models for the weights of a job."""
    settings = spec["weights_settings"]
    if needs:
        return {"encoder": f"local-dir:{artefact(needs[0], board)}"}
    names = {
        "architecture": settings.get("encoder", SHIPPED_TRANSFORMER),
        "pretrained": settings.get("pretrained", True),
    }
    return {"encoder": names}


def artefact(job: str, board: Board) -> Path:
    """Return the timm folder that a job of pretraining writes."""
    return (board.folder / "weights" / job).resolve()


def pretrain(job: Job, board: Board, roots: Mapping[str, Path]) -> dict[str, Any]:
    """Pretrain from random weights for the job's CPU seconds and return what it took; the weights are a timm folder.

    How many steps fit into the seconds is measured by a few of them before.
    """
    settings, seed = job.spec["weights_settings"], job.spec["seed"]
    files, file_format = _pictures(settings["pictures"], job.spec["set_settings"], seed, roots)
    size = (settings["size"][0], settings["size"][1])
    encoder = PatchEncoder(SHIPPED_TRANSFORMER, image_size=size, pretrained=False)
    arguments = {**settings["pretraining"], "seed": seed, "probe": {"images": 0, "every": 100_000}}
    arguments["max_epochs"] = 100_000
    started = time.process_time()
    steps = _steps(arguments, encoder, files, file_format, settings["seconds"])
    trial = time.process_time() - started
    callback: Any = make_pretraining({**arguments, "max_steps": steps, "save_to": str(artefact(job.id, board))})
    with tempfile.TemporaryDirectory() as cache:
        callback.cache_dir = cache
        callback.pretrain(encoder, files, file_format=file_format, trainer_arguments=_TRAINER)
    seconds = time.process_time() - started - trial
    return {"fit_seconds": seconds, "steps": steps, "pictures": len(files), "summary": callback.summary}


_TRAINER = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False}


def _pictures(
    source: Mapping[str, Any], settings: Mapping[str, Any], seed: int, roots: Mapping[str, Path]
) -> tuple[list[ImageFiles], Any]:
    """Return the files to train on, and how they are read: a folder's below ``data``, or a set's training images."""
    if "folder" in source:
        from anomalib_aoissl.data.finding.listing import list_records

        records = list_records(roots["data"] / source["folder"], None)
        return [record.image_paths for record in records], WHOLE_FILES
    data = datamodule(settings, seed, roots)
    return pretraining_images(data), data.train_data.file_format


def _steps(
    arguments: Mapping[str, Any], encoder: PatchEncoder, files: list[ImageFiles], file_format: Any, seconds: float
) -> int:
    """Return how many steps fit into the seconds, by the median step of a short run, and what it takes beside steps.

    Its pictures fill whole batches: a smaller last one would take less.
    """
    clock = _Clock()
    with tempfile.TemporaryDirectory() as cache:
        callback: Any = make_pretraining({**arguments, "max_steps": _TRIAL_STEPS, "cache_dir": cache})
        started = time.process_time()
        few = files[: arguments["batch_size"]]
        trainer = {**_TRAINER, "logger": clock}
        callback.pretrain(copy.deepcopy(encoder), few, file_format=file_format, trainer_arguments=trainer)
        taken = time.process_time() - started
    step = statistics.median(after - before for before, after in pairwise(clock.times))
    beside = max(taken - _TRIAL_STEPS * step, 0.0) + _DECODING_SECONDS * len(files)
    return max(1, round((seconds - beside) / step))


class _Clock(Logger):
    """Notes the CPU seconds of the process at each step."""

    name, version = "clock", ""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Note nothing."""

    def log_metrics(self, *args: Any, **kwargs: Any) -> None:
        """Note the time of a step."""
        del args, kwargs
        self.times.append(time.process_time())
