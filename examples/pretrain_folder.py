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
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from anomalib_aoissl.encoder.architecture import SHIPPED_TRANSFORMER
from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.plugin.options import nested
from anomalib_aoissl.pretraining import make_pretraining
from anomalib_aoissl.pretraining.training.images import pretraining_images


def main() -> int:
    """Pretrain and say what came out; return the exit code, 2 where arguments or files are at fault."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = _parser().parse_args()
    try:
        print(_pretrained(arguments))
    except (ValueError, OSError) as error:
        print(f"pretrain_folder: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(description="Pretrain an encoder on a folder of pictures.")
    parser.add_argument("pictures", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--encoder", default=SHIPPED_TRANSFORMER, help="any timm vision transformer")
    parser.add_argument("--pretrained", action="store_true", help="start from the encoder's own weights")
    parser.add_argument("--image-size", type=int, nargs=2, default=(512, 512), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--lighting_channels", nargs="*", default=[], help="suffixes of the files of one item")
    parser.add_argument("--objective", default="mae", choices=["mae", "dino", "ibot"])
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="argument of the objective")
    return parser


def _pretrained(arguments: argparse.Namespace) -> str:
    """Pretrain an encoder on the pictures, and return what came out."""
    given = {name: _value(name, value) for name, _, value in (item.partition("=") for item in arguments.set)}
    callback = make_pretraining({"objective": arguments.objective, **nested(given), "save_to": arguments.output})
    assert callback is not None  # noqa: S101 - for the type checker; an objective is given
    source = SimpleNamespace(unlabelled_dir=arguments.pictures, lighting_channels=arguments.lighting_channels)
    images = pretraining_images(source)
    size = (arguments.image_size[0], arguments.image_size[1])
    callback.pretrain(PatchEncoder(arguments.encoder, image_size=size, pretrained=arguments.pretrained), images)
    return str(callback.summary)


def _value(name: str, text: str) -> Any:
    """Return the value of an argument that was written as YAML."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        msg = f"--set {name}={text}: the value is no YAML. Write it like max_epochs=50 or crops.size=[64,64]."
        raise ValueError(msg) from error


if __name__ == "__main__":
    sys.exit(main())
