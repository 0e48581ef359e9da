# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Pretrain an encoder on a folder of pictures: no labels, no downstream model.

Usage: python examples/pretrain_folder.py pictures/ encoder/ --objective mae --set max_epochs=50 --set crops.size=64

The result is a timm ``local-dir`` folder. Use it with ``--model.encoder local-dir:encoder`` of this package's models,
with ``timm.create_model("local-dir:encoder", pretrained=True)``, or as ``backbone`` of anomalib's Patchcore.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from types import SimpleNamespace

import yaml

from anomalib_aoissl.encoder.architecture import SHIPPED_TRANSFORMER
from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.plugin.options import nested
from anomalib_aoissl.pretraining import make_pretraining
from anomalib_aoissl.pretraining.training.images import pretraining_images


def main() -> None:
    """Pretrain and say what came out."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Pretrain an encoder on a folder of pictures.")
    parser.add_argument("pictures", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--encoder", default=SHIPPED_TRANSFORMER, help="any timm vision transformer")
    parser.add_argument("--pretrained", action="store_true", help="start from the encoder's own weights")
    parser.add_argument("--image-size", type=int, nargs=2, default=(512, 512), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--lighting_channels", nargs="*", default=[], help="suffixes of the files of one item")
    parser.add_argument("--objective", default="mae", choices=["mae", "dino", "ibot"])
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="argument of the objective")
    arguments = parser.parse_args()
    given = {name: yaml.safe_load(value) for name, _, value in (item.partition("=") for item in arguments.set)}
    callback = make_pretraining({"objective": arguments.objective, **nested(given), "save_to": arguments.output})
    if callback is None:
        raise SystemExit
    source = SimpleNamespace(unlabelled_dir=arguments.pictures, lighting_channels=arguments.lighting_channels)
    size = (arguments.image_size[0], arguments.image_size[1])
    encoder = PatchEncoder(arguments.encoder, image_size=size, pretrained=arguments.pretrained)
    callback.pretrain(encoder, pretraining_images(source))
    print(callback.summary)


if __name__ == "__main__":
    main()
