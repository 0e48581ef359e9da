# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0
"""The generator of the built-in demonstration set WireBond: drawn images of wire-bonded semiconductors with labels."""

from __future__ import annotations

from .devices import CLASS_NAMES, DEVICES, GENERATOR_VERSION, DeviceType, random_device
from .files.writing import write_images
from .rendering import Drawing, draw

__all__ = [
    "CLASS_NAMES",
    "DEVICES",
    "GENERATOR_VERSION",
    "DeviceType",
    "Drawing",
    "draw",
    "random_device",
    "write_images",
]
