# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Train the encoder that ships with the package, on drawn pictures of random wire-bonded devices.

Usage: python examples/train_shipped_encoder.py --output encoder [--config configs/pretraining/shipped_encoder.yaml]

The pictures are drawn once to ``<output>.pictures``. A stopped run resumes from its last checkpoint. The result is a
timm ``local-dir`` folder with weights in half precision.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from anomalib_aoissl.data.files import whole_file
from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.pretraining import make_pretraining
from anomalib_aoissl.pretraining.training.artefact import WEIGHTS_NAME, copy_folder
from anomalib_aoissl.pretraining.watching.watcher import Labelled
from anomalib_aoissl.wirebond.drawing import CLASS_NAMES, draw, random_device

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Draw, train, and write the encoder."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = training_parser("Train the encoder that ships with the package.").parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    config = yaml.safe_load(arguments.config.read_text(encoding="utf-8"))
    pretraining = {**config["pretraining"], "cache_dir": f"{arguments.output}.cache"}
    if arguments.max_steps:
        pretraining["max_steps"] = arguments.max_steps
    callback = make_pretraining(pretraining)
    if callback is None:
        message = f"{arguments.config}: pretraining must name an objective."
        raise SystemExit(message)
    files = draw_pictures(config["pictures"], Path(f"{arguments.output}.pictures"))
    encoder = PatchEncoder(config["encoder"], image_size=tuple(config["image_size"]), pretrained=False)
    trainer = {"accelerator": arguments.accelerator, "devices": 1, "precision": arguments.precision}
    folder = callback.pretrain(
        encoder, files, labelled=labelled_pictures(config["probe"], config["pictures"]), trainer_arguments=trainer
    )
    copy_folder(folder, arguments.output)
    halve(arguments.output / WEIGHTS_NAME)
    print(callback.summary)


def draw_pictures(pictures: dict[str, Any], folder: Path) -> list[tuple[Path, ...]]:
    """Return the files of the training pictures, drawn where they are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for index in range(pictures["devices"]):
        seed = pictures["first_seed"] + index
        for unit in range(pictures["units"]):
            path = folder / f"device_{seed}_unit_{unit}.png"
            if not path.is_file():
                image, _ = _drawn(seed, unit, pictures)
                Image.fromarray(image).save(path)
            files.append((path,))
    return files


def labelled_pictures(probe: dict[str, Any], pictures: dict[str, Any]) -> Labelled:
    """Return drawn pictures with masks of devices that are not trained on."""
    bank, queries = [], []
    for index in range(probe["devices"]):
        for unit in range(probe["units"]):
            image, mask = _drawn(probe["first_seed"] + index, unit, pictures)
            item = torch.from_numpy(image).permute(2, 0, 1).float() / 255, torch.from_numpy(mask)
            (bank if unit % 2 == 0 else queries).append(item)
    return Labelled(bank, queries, len(CLASS_NAMES))


def halve(path: Path) -> None:
    """Store the weights in half precision."""
    tensors = {name: tensor.half() for name, tensor in load_file(str(path)).items()}
    with whole_file(path) as temporary:
        save_file(tensors, str(temporary), metadata={"format": "pt"})


def _drawn(seed: int, unit: int, pictures: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return one picture ``[H, W, 3]`` and its mask: one light, two lights, or one light in a random tint."""
    random = np.random.default_rng([seed, unit])
    low, high = pictures["difficulty"]
    drawing = draw(
        random_device(seed),
        seed=seed,
        unit=unit,
        lot=seed * 10 + unit,
        size=tuple(pictures["size"]),
        difficulty=float(random.uniform(low, high)),
    )
    bright, dark = drawing.bright_field.astype(np.float32), drawing.dark_field.astype(np.float32)
    kind = random.integers(3)
    if kind == 0:
        planes = [bright] * 3
    elif kind == 1:
        planes = [bright, dark, (bright + dark) / 2]
    else:  # a colour camera: every material between the two lights has a tint of its own
        shares = random.uniform(0, 0.6, 3)
        planes = [random.uniform(0.7, 1.0) * ((1 - share) * bright + share * dark) for share in shares]
    return np.stack(planes, axis=-1).round().clip(0, 255).astype(np.uint8), drawing.mask


def training_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the arguments that both halves of the training take."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--output", type=Path, required=True, help="folder of the encoder that is written")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "pretraining" / "shipped_encoder.yaml")
    parser.add_argument("--max-steps", type=int, default=0, help="stop after so many steps; 0: as configured")
    parser.add_argument("--threads", type=int, default=0, help="threads of torch; 0: all cores")
    parser.add_argument("--accelerator", default="auto", help="auto, cpu or gpu")
    parser.add_argument("--precision", default="32-true", help="32-true, bf16-mixed or 16-mixed")
    return parser


if __name__ == "__main__":
    main()
