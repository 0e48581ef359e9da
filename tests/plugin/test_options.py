# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Options: which fields were given, and what a mapping or text makes of them."""

import copy
import pickle
from dataclasses import FrozenInstanceError, dataclass
from typing import ClassVar

import pytest

from anomalib_aoissl.encoder.options import EncoderOptions
from anomalib_aoissl.plugin.arguments import ArgumentError, whole
from anomalib_aoissl.plugin.options import Options, flat, nested, options_of, plain
from anomalib_aoissl.retrieval.options import RULES, BankOptions, VoteOptions
from anomalib_aoissl.segmenter.options import TrainingOptions


@dataclass(frozen=True)
class Size(Options):
    RULES: ClassVar[dict] = {"height": whole("[1, inf)"), "width": whole("[1, inf)")}

    height: int = 4
    width: int = 6


def test_options_know_which_fields_were_given() -> None:
    assert Size().written == set()
    assert Size(4).written == {"height"}
    assert Size(4, width=2).written == {"height", "width"}
    assert Size(4) == Size()  # what was given is no part of the value
    for again in (copy.deepcopy(Size(4)), pickle.loads(pickle.dumps(Size(4)))):  # noqa: S301
        assert again.written == {"height"}
    with pytest.raises(FrozenInstanceError):
        Size().width = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("value", "written", "every"),
    [
        (Size(width=2), {"width": 2}, {"height": 4, "width": 2}),
        ({"width": 2}, {"width": 2}, {"height": 4, "width": 2}),
        ("9", {"height": "9"}, {"height": "9", "width": 6}),
    ],
)
def test_values_in_all_forms(value: object, written: dict, every: dict) -> None:
    rule = options_of(Size, short="height")
    assert rule.written(value) == written
    assert rule.all(value) == every
    assert flat({"size": value, "seed": 1}, {"size": rule}) == {
        **{f"size.{k}": v for k, v in written.items()},
        "seed": 1,
    }
    assert plain({"size": rule}, {"size": value}) == {"size": every}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"height": 0}, r"^size\.height=0 must be at least 1\.$"),
        ({"depth": 1}, r"^size takes no depth\. It takes height, width\.$"),
        (5, r"^size=5 must be a mapping of height, width\.$"),
        ("5", r"^size='5' must be a mapping of height, width\.$"),
        (Size(width=-1), r"^size\.width=-1 must be at least 1\.$"),
        (VoteOptions(), r"^size=VoteOptions\(.* must be a mapping of height, width\.$"),
    ],
)
def test_a_fault_names_its_field(value: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        options_of(Size).check("size", value)


def test_names_with_dots_become_mappings_and_back() -> None:
    arguments = {"seed": 0, "vote": {"k": 3, "search": "exact"}, "encoder": {"architecture": "vit"}}
    assert nested(flat(arguments, RULES)) == arguments


@pytest.mark.parametrize("options", [VoteOptions, BankOptions, TrainingOptions, EncoderOptions])
def test_every_field_has_a_rule_that_allows_its_default(options: type[Options]) -> None:
    assert set(options.RULES) == set(vars(options())) - {"_written"}
    options_of(options).check("options", options())
