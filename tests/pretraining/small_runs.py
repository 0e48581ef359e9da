# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Pretraining that takes a second: short epochs of small objectives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.pretraining import make_pretraining
from anomalib_aoissl.pretraining.callback import PretrainingCallback
from anomalib_aoissl.pretraining.watching.watcher import Labelled

MakeEncoder = Callable[..., PatchEncoder]
Files = list[tuple[Path, ...]]

SMALL: dict[str, dict[str, Any]] = {
    "mae": {"crops": {"size": (24, 32)}, "decoder": {"dims": 16, "heads": 2}},
    "dino": (
        small := {
            "crops": {"global_size": 32, "local_size": 16, "local_count": 1},
            "head": {"outputs": 16, "hidden": 16, "bottleneck": 8},
        }
    ),
    "ibot": small,
}
CPU = {"accelerator": "cpu", "enable_progress_bar": False}


def callback_of(objective: str, cache: Path, **arguments: Any) -> PretrainingCallback:
    """Return the callback of an objective for two short epochs."""
    common = {"max_epochs": 2, "batch_size": 2, "probe": {"every": 1}, "cache_dir": cache}
    callback = make_pretraining({"objective": objective, **common, **SMALL[objective], **arguments})
    assert callback is not None
    return callback


def labelled_of(seed: int = 0) -> Labelled:
    """Return four labelled images of noise, two to fit a probe to and two to test it."""
    images = torch.rand(4, 3, 48, 64, generator=torch.Generator().manual_seed(seed))
    items = [(image, (image[0] > 0.5).to(torch.uint8)) for image in images]
    return Labelled(items[:2], items[2:], 2)
