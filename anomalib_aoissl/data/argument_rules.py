# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the arguments of the datamodules may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anomalib_aoissl.plugin.arguments import (
    NAMES,
    PATH,
    SEED,
    TEXT,
    ArgumentError,
    Rule,
    null_or,
    number,
    validate,
    whole,
)

from .describing.file_format import validate_suffixes
from .reading import validate_bit_depth

_SHARE, _NAMES, _COUNT = number("[0, 1)"), null_or(NAMES), whole("[1, inf)")

DATA_RULES: dict[str, Rule] = {
    "devices": _NAMES,
    "train_devices": _NAMES,
    "val_devices": _NAMES,
    "test_devices": _NAMES,
    "shots": null_or(_COUNT),
    "foreground": _NAMES,
    "val_ratio": _SHARE,
    "test_ratio": _SHARE,
    "train_batch_size": _COUNT,
    "eval_batch_size": _COUNT,
    "num_workers": whole("[0, inf)"),
    "seed": SEED,
}
"""What all datamodules take."""

OF_ANOMALIB = (
    "train_batch_size",
    "eval_batch_size",
    "num_workers",
    "train_augmentations",
    "val_augmentations",
    "test_augmentations",
    "augmentations",
    "seed",
)
"""Arguments that a datamodule hands on to anomalib's."""

FOLDER_RULES: dict[str, Rule] = {
    **DATA_RULES,
    "root": PATH,
    "classes": _NAMES,
    "device_pattern": null_or(TEXT),
    "unlabelled_dir": null_or(PATH),
}
"""What `SegmentationFolder` takes; the suffixes and the bit depth are validated where files are read with them."""


def validate_data(rules: Mapping[str, Rule], values: Mapping[str, Any]) -> None:
    """Validate the arguments of a datamodule.

    Raises:
        ArgumentError: At the first that is not allowed, or if the ratios leave nothing to train on.
    """
    validate(rules, values)
    shares = {name: values[name] for name in ("val_ratio", "test_ratio")}
    if sum(shares.values()) >= 1:
        given = " and ".join(f"{name}={share}" for name, share in shares.items())
        msg = f"{given} must sum to less than 1, so that images are left to train on."
        raise ArgumentError(msg)
    try:
        validate_bit_depth(values.get("bit_depth"))
        validate_suffixes(values.get("lighting_channels") or ())
    except ValueError as error:
        raise ArgumentError(str(error)) from error
