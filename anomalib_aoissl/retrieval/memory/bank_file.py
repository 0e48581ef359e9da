# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Bank files, and whose embeddings they hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anomalib_aoissl.bank.content import BankArrays
from anomalib_aoissl.bank.storage import METADATA_KEY, BankFileError, check_encoder, read_bank
from anomalib_aoissl.bank.storage import write_bank as save_bank
from anomalib_aoissl.encoder.base import Encoder

__all__ = ["METADATA_KEY", "BankFileError", "encoder_hash", "load_bank", "save_bank"]


def encoder_hash(encoder: Encoder, options: Mapping[str, Any] | None = None) -> str:
    """Return 64 hexadecimal digits that tell encoders apart whose embeddings differ: weights, size, patch.

    Args:
        encoder: The encoder.
        options: What else decides the embeddings, a model's `embedding_options`.
    """
    digest = hashlib.sha256(json.dumps(encoder.signature).encode())
    digest.update(json.dumps([encoder.mean, encoder.std]).encode())
    if options:
        digest.update(json.dumps(dict(options), sort_keys=True).encode())
    for name, tensor in sorted(encoder.network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_bank(path: str | Path, encoder: str = "") -> BankArrays:
    """Return the bank in the file.

    Args:
        path: File that `save_bank` wrote.
        encoder: `encoder_hash` of the encoder that it is to be used with; not checked if empty.

    Raises:
        BankFileError: If the file is missing, damaged, of another version, or of another encoder.
    """
    bank = read_bank(path)
    check_encoder(path, bank.encoder_hash, encoder)
    return bank
