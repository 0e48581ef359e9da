# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The second half of the shipped transformer: tuned to find labels by similarity, on drawn pictures with their masks.

Usage: python examples/tune_shipped_encoder.py --encoder encoder --output tuned
           [--config configs/pretraining/shipped_encoder.yaml]

``--encoder`` is what train_shipped_encoder.py wrote. The pictures are drawn once to ``<output>.pairs``; a stopped run
resumes from ``<output>.cache``. The result is a timm ``local-dir`` folder with weights in half precision.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, Dataset
from train_shipped_encoder import halve, labelled_pictures, training_parser

from anomalib_aoissl.data.files import whole_file
from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.pretraining.objectives.contextual import ContextualTuning
from anomalib_aoissl.pretraining.training.artefact import WEIGHTS_NAME, save_encoder
from anomalib_aoissl.pretraining.training.patches import cut_patches
from anomalib_aoissl.pretraining.training.schedule import warmup_cosine
from anomalib_aoissl.pretraining.watching.measures import probe_mean_iou
from anomalib_aoissl.wirebond.drawing import CLASS_NAMES, draw, random_device

_BONDS = 4  # classes 1 to 3 are wire, ball and wedge


def main() -> None:
    """Draw, tune, and write the encoder."""
    parser = training_parser("Tune the encoder that ships with the package for retrieval.")
    parser.add_argument("--encoder", required=True, help="timm name of the encoder to start from; local-dir:/path")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    config = yaml.safe_load(arguments.config.read_text(encoding="utf-8"))
    tuning = {**config["tuning"], **({"steps": arguments.max_steps} if arguments.max_steps else {})}
    files = draw_pairs(config["pairs"], tuple(config["pictures"]["size"]), Path(f"{arguments.output}.pairs"))
    encoder = PatchEncoder(arguments.encoder, image_size=tuple(config["image_size"]))
    before = _probe(encoder, config)
    torch.manual_seed(0)
    module = TuningModule(encoder, tuning, _pictures(files))
    checkpoints = ModelCheckpoint(
        f"{arguments.output}.cache", "last", every_n_train_steps=100, enable_version_counter=False
    )
    trainer = Trainer(
        max_steps=tuning["steps"],
        accelerator=arguments.accelerator,
        devices=1,
        precision=arguments.precision,
        gradient_clip_val=1.0,
        callbacks=[checkpoints],
        logger=False,
        enable_model_summary=False,
        default_root_dir=f"{arguments.output}.cache",
    )
    loader = DataLoader(CropPairs(files, tuning), batch_size=None)
    last = Path(f"{arguments.output}.cache") / "last.ckpt"
    started = time.monotonic()
    trainer.fit(module, loader, ckpt_path=str(last) if last.is_file() else None, weights_only=True)
    record = {
        "objective": "contextual tuning",
        "arguments": {"pairs": config["pairs"], "tuning": tuning, "start": Path(arguments.encoder).name},
        "seconds": round(time.monotonic() - started),
        "probe": {"before": before, "after": _probe(encoder, config)},
        "torch": torch.__version__,
    }
    save_encoder(encoder.cpu().eval(), arguments.output, record)
    halve(arguments.output / WEIGHTS_NAME)
    print(json.dumps(record["probe"]))


class TuningModule(LightningModule):
    """Tunes an encoder in place.

    Args:
        encoder: The encoder.
        tuning: Its numbers; see the configuration.
        pictures: Normalised pictures ``[N, C, H, W]`` whose patches give the whitening.
    """

    def __init__(self, encoder: PatchEncoder, tuning: dict[str, Any], pictures: torch.Tensor) -> None:
        super().__init__()
        self.tuning = tuning
        self.objective = ContextualTuning(
            encoder.vit.requires_grad_(True).train(),
            len(CLASS_NAMES),
            temperature=tuning["temperature"],
            pixels=tuning["pixels"],
        )
        self.objective.whitening.fit(cut_patches(pictures, encoder.patch_size).flatten(0, 1))

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_index: int) -> torch.Tensor:
        """Return the loss of crops and masks."""
        del batch_index
        generator = torch.Generator(self.device).manual_seed(self.trainer.global_step)
        values = self.objective(*batch, generator)
        self.log_dict({name: value.detach() for name, value in values.items()}, prog_bar=True)
        return values["loss"]

    def configure_optimizers(self) -> Any:
        """Return AdamW with warm-up and cosine by step; no decay on norms, biases, tokens and positions."""
        numbers, weights = self.tuning, list(self.objective.named_parameters())
        free = [p for name, p in weights if p.ndim < 2 or "pos_embed" in name or "token" in name]
        known = {id(p) for p in free}
        groups = [
            {"params": [p for _, p in weights if id(p) not in known], "weight_decay": numbers["weight_decay"]},
            {"params": free, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=numbers["learning_rate"], betas=(0.9, 0.95))
        steps, warmup = numbers["steps"], round(numbers["warmup"] * numbers["steps"])
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_cosine(step, steps, warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class CropPairs(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Batches by step: normalised crops ``[2 B, C, h, w]`` and masks, the second half of other units of the devices.

    Args:
        files: Folder and seed of each drawn device.
        tuning: Numbers of the configuration.
    """

    def __init__(self, files: list[Path], tuning: dict[str, Any]) -> None:
        self.files, self.tuning = files, tuning

    def __len__(self) -> int:
        return int(self.tuning["steps"])

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the batch of a step; the same for the same step."""
        random = np.random.default_rng([7, step])
        halves: tuple[list[Any], list[Any]] = ([], [])
        for device in random.choice(len(self.files), self.tuning["devices"], replace=False):
            images = np.load(self.files[device], mmap_mode="r")
            masks = np.load(_mask_file(self.files[device]), mmap_mode="r")
            flips = random.random(3) < 0.5  # the same for both units: a lead that points up does so in the bank too
            for half, unit in zip(halves, random.permutation(len(images))[:2], strict=True):
                half += [
                    _flipped(*_crop(images[unit], masks[unit], self.tuning["crop_size"], random), flips)
                    for _ in range(self.tuning["crops"])
                ]
        images, masks = zip(*(*halves[0], *halves[1]), strict=True)
        stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
        return (stacked - 0.5) / 0.5, torch.from_numpy(np.stack(masks))


def draw_pairs(pairs: dict[str, Any], size: tuple[int, int], folder: Path) -> list[Path]:
    """Return a file of images ``[units, H, W, 3]`` for each device, its masks beside it, drawn where missing."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for index in range(pairs["devices"]):
        path = folder / f"device_{pairs['first_seed'] + index}.npy"
        if not path.is_file():
            images, masks = _drawn_units(pairs["first_seed"] + index, pairs, size)
            for target, array in ((_mask_file(path), masks), (path, images)):  # the images last: they mean "done"
                with whole_file(target) as temporary, Path(temporary).open("wb") as file:
                    np.save(file, array)
        files.append(path)
    return files


def _drawn_units(seed: int, pairs: dict[str, Any], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return units of one device under one choice of lights; the second half of them is of another lot."""
    random = np.random.default_rng([seed, 77])
    kind, shares, gains = random.integers(3), random.uniform(0, 0.6, 3), random.uniform(0.7, 1, 3)
    images, masks = [], []
    for unit in range(pairs["units"]):
        drawing = draw(
            random_device(seed),
            seed=seed,
            unit=unit,
            lot=0 if unit < pairs["units"] // 2 else seed * 10,
            size=size,
            difficulty=float(random.uniform(*pairs["difficulty"])),
        )
        bright, dark = drawing.bright_field.astype(np.float32), drawing.dark_field.astype(np.float32)
        tinted = [gain * ((1 - share) * bright + share * dark) for share, gain in zip(shares, gains, strict=True)]
        planes = ([bright] * 3, [bright, dark, (bright + dark) / 2], tinted)[kind]
        images.append(np.stack(planes, axis=-1).round().clip(0, 255).astype(np.uint8))
        masks.append(drawing.mask)
    return np.stack(images), np.stack(masks)


def _crop(image: np.ndarray, mask: np.ndarray, side: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a square crop; most hold a pixel of a class, most of those one of a wire or a bond."""
    limits = np.array(mask.shape) - side
    corner = random.integers(0, limits + 1)
    if random.random() < 0.85:
        last = len(CLASS_NAMES) if random.random() < 0.4 else _BONDS
        found = np.flatnonzero((mask > 0) & (mask < last))
        if len(found):
            pixel = np.array(divmod(int(random.choice(found)), mask.shape[1]))
            corner = np.clip(pixel - random.integers(0, side, 2), 0, limits)
    window = np.s_[corner[0] : corner[0] + side, corner[1] : corner[1] + side]
    return np.asarray(image[window]), np.asarray(mask[window])


def _flipped(image: np.ndarray, mask: np.ndarray, flips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both mirrored up, sideways and along the diagonal, where ``flips`` ``[3]`` says so."""
    for axis in range(2):
        if flips[axis]:
            image, mask = np.flip(image, axis), np.flip(mask, axis)
    return (image.swapaxes(0, 1), mask.swapaxes(0, 1)) if flips[2] else (image, mask)


def _pictures(files: list[Path]) -> torch.Tensor:
    """Return 64 pictures ``[N, C, H, W]`` as the encoder reads them, spread over the devices."""
    images = np.stack([np.load(path, mmap_mode="r")[0] for path in files[:: max(len(files) // 64, 1)][:64]])
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5


def _mask_file(path: Path) -> Path:
    """Return where the masks of a device's images are."""
    return path.with_name(f"{path.stem}_masks.npy")


def _probe(encoder: PatchEncoder, config: dict[str, Any]) -> float:
    """Return the mean IoU of retrieval on drawn devices that are not trained on."""
    labelled = labelled_pictures(config["probe"], config["pictures"])
    encoder = encoder.cpu().eval()
    return round(probe_mean_iou(encoder, labelled.bank, labelled.queries, num_classes=len(CLASS_NAMES)).mean_iou, 4)


if __name__ == "__main__":
    main()
