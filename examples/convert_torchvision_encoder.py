# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Write the default encoder's weights from torchvision's file of MobileNetV2 on ImageNet.

Usage: python examples/convert_torchvision_encoder.py mobilenet_v2-b0353104.pth aoissl_mobilenetv2.safetensors

The file is torchvision's ``MobileNet_V2_Weights.IMAGENET1K_V1``. Layers get timm's names; the classifier is left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file


def main() -> None:
    """Read, rename and write."""
    parser = argparse.ArgumentParser(description="Weights of torchvision's MobileNetV2 under timm's names.")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    given = torch.load(arguments.source, map_location="cpu", weights_only=True)
    layers = [value for name, value in given.items() if not name.startswith("classifier.")]
    names = timm.create_model("mobilenetv2_100", num_classes=0).state_dict()  # both list their layers in one order
    renamed = dict(zip(names, layers, strict=True))
    for name, value in renamed.items():
        if value.shape != names[name].shape:
            msg = f"{arguments.source}: {name} has the shape {tuple(value.shape)}, expected {tuple(names[name].shape)}."
            raise SystemExit(msg)
    halves = {name: value.half() if value.dim() == 4 else value for name, value in renamed.items()}
    save_file({name: value.contiguous() for name, value in halves.items()}, arguments.target)


if __name__ == "__main__":
    main()
