# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Novelty of drawn defects: this package's against anomalib's PatchCore and AnomalyDINO, on the same pictures.

All learn from the same units without a defect, and are shown other such units and units with one defect each.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.nn import functional

from anomalib_aoissl.data.files import save_picture
from anomalib_aoissl.data.reading.pictures import pack_channels
from anomalib_aoissl.encoder.architecture import DEFAULT_ENCODER, SHIPPED_TRANSFORMER

from ..defects import DEFECTS, draw_defect
from ..plan import Job
from ..sets import RunData, load
from ..sharing import Board
from .ours import fitted_retrieval

__all__ = ["measure", "scores_of"]

_FIRST_UNIT = 1000  # no set of the study draws so many

Finder = Callable[[torch.Tensor], tuple[np.ndarray, float]]
"""An image ``[3, H, W]`` in [0, 1] to its novelty map ``[H, W]`` and its score."""


def measure(job: Job, encoder: Mapping[str, Any], board: Board, roots: Mapping[str, Path]) -> dict[str, Any]:
    """Fit a model to units without a defect, show it others, and return how well it tells them apart."""
    data = load(job.spec, roots)
    kind = job.spec["model_settings"]["kind"]
    started = time.process_time()
    find = _FINDERS[kind](data, job.spec, encoder)
    fitted = time.process_time()
    images, masks, kinds = _tested(data, job.spec["set_settings"].get("defects_each", 3))
    drawn = time.process_time()
    found = [find(image) for image in images]
    ended = time.process_time()
    folder = Path("pictures") / job.id
    _keep(board.folder / folder, images, masks, kinds, [values for values, _ in found])
    scores = scores_of([values for values, _ in found], [score for _, score in found], masks, kinds)
    seconds = {"fit_seconds": fitted - started, "test_seconds": ended - drawn}
    return {**scores, **seconds, "test_images": len(images), "pictures": str(folder)}


def scores_of(maps: list[np.ndarray], scores: list[float], masks: list[np.ndarray], kinds: list[str]) -> dict[str, Any]:
    """Return ``auroc`` of the images, ``pixel_ap`` over all pixels, and ``defects`` with the AUROC of each kind.

    Args:
        maps: Novelty ``[H, W]`` of each image.
        scores: Score of each image.
        masks: Where its defect is.
        kinds: Its defect; empty for none.
    """
    defective, values = np.array([bool(kind) for kind in kinds]), np.array(scores)
    each = {}
    for kind in dict.fromkeys(kind for kind in kinds if kind):
        chosen = ~defective | (np.array(kinds) == kind)
        each[kind] = round(float(roc_auc_score(defective[chosen], values[chosen])), 5)
    truth = np.concatenate([mask.reshape(-1) for mask in masks])
    pixels = average_precision_score(truth, np.concatenate([found.reshape(-1) for found in maps]))
    return {"auroc": float(roc_auc_score(defective, values)), "pixel_ap": float(pixels), "defects": each}


def _tested(data: RunData, each: int) -> tuple[list[torch.Tensor], list[np.ndarray], list[str]]:
    """Return the test images without a defect, then so many of each defect, with masks and kinds."""
    images, masks, kinds = list(data.tested.images), [], [""] * len(data.tested.images)
    masks = [np.zeros(data.size, bool) for _ in images]
    module = data.module
    device = module.devices[0]
    for kind in DEFECTS:
        for number in range(each):
            arguments = {"seed": module.seed or 0, "size": module.image_size, "difficulty": module.difficulty}
            made = draw_defect(kind, device, unit=_FIRST_UNIT + number, **arguments)
            lights = np.stack([made.drawing.bright_field, made.drawing.dark_field]).astype(np.float32) / 255
            planes = torch.from_numpy(pack_channels(lights))[None]
            where = torch.from_numpy(made.defect)[None, None].float()
            images.append(functional.interpolate(planes, data.size, mode="bilinear", antialias=True)[0].clamp(0, 1))
            masks.append(functional.adaptive_max_pool2d(where, data.size)[0, 0].numpy() > 0)  # no thin crack is lost
            kinds.append(kind)
    return images, masks, kinds


# --- models ----------------------------------------------------------------------------------------------------------


def _ours(data: RunData, spec: Mapping[str, Any], encoder: Mapping[str, Any]) -> Finder:
    """Return the novelty of the memory bank."""
    model: Any = fitted_retrieval(data, spec, encoder)
    return _finder(model.model, model.pre_processor.see)


def _patchcore(data: RunData, spec: Mapping[str, Any], encoder: Mapping[str, Any]) -> Finder:
    """Return anomalib's PatchCore on the network of ImageNet: strides 8 and 16, a tenth of the patches."""
    del encoder
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    model = PatchcoreModel(backbone=DEFAULT_ENCODER, layers=["blocks.2", "blocks.4"])
    constants = timm.get_pretrained_cfg(DEFAULT_ENCODER)
    see = _normalised(constants.mean, constants.std)
    _show(model, data, see)
    torch.manual_seed(spec["seed"])
    model.subsample_embedding(sampling_ratio=0.1)
    return _finder(model.eval(), see)


def _anomaly_dino(data: RunData, spec: Mapping[str, Any], encoder: Mapping[str, Any]) -> Finder:
    """Return anomalib's AnomalyDINO: on DINOv2 where the weights name it, which needs a network, else on ours."""
    del spec
    from anomalib.models.image.anomaly_dino.torch_model import AnomalyDINOModel

    name = str(encoder["encoder"]["architecture"])
    if "dinov2" in name:
        model: Any = AnomalyDINOModel(encoder_name=name)
        constants = timm.get_pretrained_cfg(name)
        see = _normalised(constants.mean, constants.std)
    else:
        model, see = _on_ours(), _normalised((0.5,) * 3, (0.5,) * 3)
    _show(model, data, see)
    model.fit()
    return _finder(model.eval(), see)


def _on_ours() -> Any:
    """Return AnomalyDINO around the shipped transformer; it takes the depth from a name, which must hold "dino"."""
    from anomalib.models.image.anomaly_dino.torch_model import AnomalyDINOModel

    vit = timm.create_model(SHIPPED_TRANSFORMER, pretrained=True)
    last = len(vit.blocks) - 1

    class OnOurs(AnomalyDINOModel):  # type: ignore[misc]
        """Reads the last block that there is."""

        @staticmethod
        def _last_block_index(encoder_name: str) -> int:
            del encoder_name
            return last

    with tempfile.TemporaryDirectory(prefix="dino_") as folder:
        timm.models.save_for_hf(vit, folder, model_args={}, safe_serialization=True)
        return OnOurs(encoder_name=f"local-dir:{folder}")


_FINDERS: dict[str, Callable[[RunData, Mapping[str, Any], Mapping[str, Any]], Finder]] = {
    "novelty": _ours,
    "patchcore": _patchcore,
    "anomaly dino": _anomaly_dino,
}


def _show(model: Any, data: RunData, see: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Have a model of anomalib remember the labelled images."""
    model.train()
    model.feature_extractor.eval() if hasattr(model, "feature_extractor") else model.feature_encoder.eval()
    with torch.no_grad():
        for image in data.labelled.images:
            model(see(image[None]))


def _finder(model: Any, see: Callable[[torch.Tensor], torch.Tensor]) -> Finder:
    """Return a fitted model as a finder."""

    def find(image: torch.Tensor) -> tuple[np.ndarray, float]:
        with torch.no_grad():
            batch = model(see(image[None]))
        return batch.anomaly_map.reshape(image.shape[-2:]).numpy(), float(batch.pred_score.reshape(()))

    return find


def _normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the normalisation of images."""
    middle, spread = (torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std))
    return lambda images: (images - middle) / spread


def _keep(
    folder: Path,
    images: list[torch.Tensor],
    masks: list[np.ndarray],
    kinds: list[str],
    maps: list[np.ndarray],
) -> None:
    """Write the first picture of each kind with its defect's outline, and the novelty map under it."""
    from PIL import Image
    from scipy.ndimage import binary_dilation

    top = max(float(found.max()) for found in maps)
    for kind in dict.fromkeys(kinds):
        index = kinds.index(kind)
        grey = np.repeat((255 * images[index][0].numpy())[..., None], 3, axis=2)
        ring = binary_dilation(masks[index], iterations=4) & ~binary_dilation(masks[index], iterations=2)
        grey[ring] = (255, 60, 60)
        heat = np.repeat((255 * np.clip(maps[index] / top, 0, 1))[..., None], 3, axis=2)
        sheet = Image.fromarray(np.concatenate([grey, heat]).round().astype(np.uint8))
        save_picture(folder / f"{(kind or 'no defect').replace(' ', '_')}.jpg", sheet, quality=90)
