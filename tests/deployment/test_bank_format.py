# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""``docs/bank-format.md`` names the tensors that an exported model has."""

import re
from pathlib import Path

import pytest

import anomalib_aoissl
from anomalib_aoissl.deployment.files.model_file import read_model

PAGE = Path(anomalib_aoissl.__file__).parents[1] / "docs" / "bank-format.md"


@pytest.mark.skipif(not PAGE.is_file(), reason="the documents lie in a checkout")
def test_the_marked_tensors_are_those_of_exports_with_and_without_a_head(models: Path) -> None:
    section = PAGE.read_text(encoding="utf-8").partition("### Marked tensors\n")[2].partition("\n### ")[0]
    said: dict[bool, set[str]] = {False: set(), True: set()}
    for names, what in re.findall(r"^\| (`.*?) \| (.*) \|$", section, re.MULTILINE):
        said["only with a pixel head" in what] |= set(re.findall(r"`(\w+)`", names))
    assert "class_votes" in said[False]
    assert "joint_probabilities" in said[True]
    for model, has_head in (("head", True), ("bank", False)):
        nodes = read_model(models / f"{model}.xml").get_ordered_ops()
        found = {name for node in nodes for port in node.outputs() for name in port.get_names()}
        assert said[False] <= found
        assert said[True] & found == (said[True] if has_head else set())
