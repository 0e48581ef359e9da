# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Options of `AOISSLRetrieval`: how the bank is searched and votes, and how large it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from anomalib_aoissl.matching.aggregation import AGGREGATIONS
from anomalib_aoissl.matching.faiss_search import SEARCHES
from anomalib_aoissl.matching.precision import PRECISIONS
from anomalib_aoissl.models.argument_rules import MODEL_RULES
from anomalib_aoissl.plugin.arguments import PATH, Rule, choice, either, null_or, number, whole
from anomalib_aoissl.plugin.options import Options, options_of

from .memory.bank_size import MEGABYTES


@dataclass(frozen=True)
class VoteOptions(Options):
    """Which entries of the memory bank vote, and how.

    Args:
        k: Number of nearest entries that vote on a patch, and that explain it.
        temperature: Of the softmax over their cosine similarities; smaller follows the nearest more closely,
            such as 0.02 with a transformer.
        aggregation: What a neighbour's vote weighs: "attention" (the softmax at the temperature) or "similarity" (the
            cosine similarity).
        level: What is compared: "patches", or whole images by the mean of their patches ("images"); the masks of the k
            nearest then vote pixel by pixel. Only for parts that lie at the same place in every image, without a head.
            An image takes the bytes of its mask, and the bank's size counts images.
        search: How the bank is searched. "exact": all entries are compared. "faiss-flat": the same with FAISS (the
            extra ``faiss``). "faiss-ivf": faster in very large banks, but it misses some neighbours. An exported model
            always compares all entries.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {
        "k": whole("[1, inf)"),
        "temperature": number("(0, inf)"),
        "aggregation": choice(*AGGREGATIONS),
        "level": choice("patches", "images"),
        "search": choice(*SEARCHES),
    }

    k: int = 15
    temperature: float = 0.03
    aggregation: Literal["attention", "similarity"] = "attention"
    level: Literal["patches", "images"] = "patches"
    search: Literal["exact", "faiss-flat", "faiss-ivf"] = "exact"


@dataclass(frozen=True)
class BankOptions(Options):
    """What the memory bank holds.

    Args:
        size: Patches that the bank keeps at most, or its megabytes such as "8MB"; null keeps every patch. One is kept
            of each group of patches that look and are labelled alike, more at boundaries and of rare classes.
        precision: What the embeddings are stored in: "fp32", "fp16" for half the memory, or "int8" for a quarter.
        extends: Bank file or checkpoint (``.ckpt``) whose bank the training images extend; it must be of the same
            encoder. The head is fitted to the training images alone.
    """

    RULES: ClassVar[Mapping[str, Rule]] = {
        "size": null_or(either(whole("[1, inf)"), MEGABYTES)),
        "precision": choice(*PRECISIONS),
        "extends": null_or(PATH),
    }

    size: int | str | None = 4000
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    extends: Path | str | None = None


RULES: dict[str, Rule] = {
    **MODEL_RULES,
    "head": null_or(choice("pixel")),
    "vote": options_of(VoteOptions),
    "bank": options_of(BankOptions),
    "abstain": null_or(number("(0, 1)")),
}
"""What the arguments of `AOISSLRetrieval` may be."""
