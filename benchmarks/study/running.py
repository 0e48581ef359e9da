# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What runs a job of each kind: masks of a set, novelty of drawn defects, weights for others."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from anomalib_aoissl.data.describing.class_colours import write_class_index_png
from anomalib_aoissl.data.files import save_picture

from .methods.weights import encoder_arguments, pretrain
from .plan import Job
from .provenance import provenance
from .scoring import score
from .sets import RunData, load
from .sharing import Board

__all__ = ["METHODS", "runner"]

METHODS = {
    "retrieval": ".methods.ours:retrieval",
    "segmenter": ".methods.ours:segmenter",
    "linear probe": ".methods.ours:linear_probe",
    "network": ".methods.networks:network",
    "forest": ".methods.forest:forest",
}
"""What the ``kind`` of a model that gives masks may be."""


def runner(config: Path, roots: Mapping[str, Path]) -> Callable[[Job, Board], dict[str, Any]]:
    """Return what runs a job of a study's file.

    Args:
        config: The file.
        roots: Folders of sets, ``data`` and ``drawn``.
    """
    provenance()  # the commit that was loaded, should the checkout change on the way

    def run(job: Job, board: Board) -> dict[str, Any]:
        torch.manual_seed(job.spec["seed"])
        words = ["python -m benchmarks.study --config", config, "--output", board.folder, "--data", roots["data"]]
        command = " ".join(map(str, [*words, "--only", job.id]))
        return {**_KINDS[job.kind](job, board, roots), "command": command, **provenance()}

    return run


def _masks(job: Job, board: Board, roots: Mapping[str, Path]) -> dict[str, Any]:
    """Fit a model, predict the test images, keep their masks and score them."""
    data = load(job.spec, roots)
    module, _, name = METHODS[job.spec["model_settings"]["kind"]].partition(":")
    method = getattr(import_module(module, __package__), name)
    encoder = encoder_arguments(job.spec, job.needs, board)
    started = time.process_time()
    predict = method(data, job.spec, encoder)
    fitted = time.process_time()
    predicted = [predict(image) for image in data.tested.images]
    tested = time.process_time()
    folder = _keep(job, board, data, predicted)
    result = score(predicted, list(data.tested.masks.numpy()), data.class_names)
    return {**result, "fit_seconds": fitted - started, "test_seconds": tested - fitted, "pictures": folder}


def _keep(job: Job, board: Board, data: RunData, predicted: list[np.ndarray]) -> str:
    """Write masks, and once for all models images and truth; return the masks' folder from the study's."""
    spec, classes = job.spec, len(data.class_names)
    settings = hashlib.sha256(json.dumps(spec["set_settings"], sort_keys=True).encode()).hexdigest()[:6]
    words = f"{spec['set']}-{spec['seed']}-{settings}".replace(" ", "_")  # other settings have other test pictures
    tested, own = Path("pictures") / "tested" / words, Path("pictures") / job.id
    for index, mask in enumerate(predicted):
        write_class_index_png(board.folder / own / f"{index}.png", mask, classes)
        truth = board.folder / tested / f"{index}_truth.png"
        if not truth.is_file():
            write_class_index_png(truth, data.tested.masks[index].numpy(), classes)
            planes = data.tested.images[index].permute(1, 2, 0).numpy()
            picture = Image.fromarray((255 * planes).round().astype(np.uint8))
            save_picture(board.folder / tested / f"{index}.jpg", picture, quality=90)
    return f"{tested} {own}"


def _novelty(job: Job, board: Board, roots: Mapping[str, Path]) -> dict[str, Any]:
    """Measure how well drawn defects are found."""
    from .methods.novelty import measure

    return measure(job, encoder_arguments(job.spec, job.needs, board), board, roots)


def _weights(job: Job, board: Board, roots: Mapping[str, Path]) -> dict[str, Any]:
    """Train weights that other jobs need."""
    return pretrain(job, board, roots)


_KINDS: dict[str, Callable[..., dict[str, Any]]] = {"masks": _masks, "novelty": _novelty, "pretraining": _weights}
