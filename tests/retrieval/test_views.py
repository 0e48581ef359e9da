# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What `AOISSLRetrieval` takes for the same part: turned or not, under other lights or not; on the line too."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from editable_models import ENCODER, array_of

from anomalib_aoissl import AOISSLRetrieval, SegmentationOpenVINOInferencer, Tiling
from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.deployment.files.model_file import read_model
from anomalib_aoissl.deployment.graph.bank import head_of, read_metadata
from anomalib_aoissl.pixel_head.learning.views import Variation, view

pytestmark = pytest.mark.usefixtures("all_filters")

SIZE = (64, 96)
CLASSES = ["background", "first", "second"]
GREYS = {0: 0.3, 1: 0.45, 2: 0.7}


def by_grey(shown: tuple[int, ...], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a picture [1, 3, H, W] with squares whose grey tells their class, of these classes in turn, and mask."""
    random = np.random.default_rng(seed)
    mask = np.zeros(SIZE, np.uint8)
    for index, (row, column) in enumerate((r, c) for r in (4, 36) for c in (6, 36, 66)):
        mask[row : row + 24, column : column + 24] = shown[index % len(shown)]
    grey = np.vectorize(GREYS.get)(mask) + random.normal(0, 0.01, SIZE)
    picture = torch.from_numpy(np.clip(255 * grey, 0, 255).round().astype(np.float32) / 255)
    return picture.expand(1, 3, *SIZE).contiguous(), torch.from_numpy(mask)[None]


def by_direction(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a picture [1, 3, H, W] with stripes across (first) and down (second) on even ground, and its mask."""
    random = np.random.default_rng(seed)
    mask, grey = np.zeros(SIZE, np.uint8), np.full(SIZE, 0.5)
    rows, columns = np.indices(SIZE)
    kinds = random.permutation([1, 1, 2, 2])
    for kind, (row, column) in zip(kinds, ((r, c) for r in (0, 32) for c in (16, 56)), strict=True):
        window = np.s_[row : row + 32, column : column + 32]
        mask[window] = kind
        grey[window] = np.where((rows if kind == 1 else columns)[window] // 2 % 2, 0.8, 0.2)
    grey += random.normal(0, 0.01, SIZE)
    picture = torch.from_numpy(np.clip(255 * grey, 0, 255).round().astype(np.float32) / 255)
    return picture.expand(1, 3, *SIZE).contiguous(), torch.from_numpy(mask)[None]


def learnt(pictures: list[tuple[torch.Tensor, torch.Tensor]], **arguments: Any) -> AOISSLRetrieval:
    """Return a model that has learnt labelled pictures."""
    encoder = {**ENCODER, "pretrained": False}
    model = AOISSLRetrieval(encoder=encoder, image_size=SIZE, vote={"temperature": 0.1}, **arguments).eval()
    model.set_dataset(CLASSES, FileFormat())
    images, masks = (torch.cat(parts) for parts in zip(*pictures, strict=True))
    model.add(images, masks, ["device"] * len(images), [str(index) for index in range(len(images))])
    return model


def right(model: AOISSLRetrieval, picture: torch.Tensor, mask: torch.Tensor) -> float:
    """Return the share of the squares' pixels that have their class."""
    found = model(picture).pred_mask[0, 0]
    return float((found == mask[0])[mask[0] > 0].float().mean())


@pytest.fixture(scope="module")
def fixed_model(all_filters: None, short_fits: None) -> AOISSLRetrieval:
    """Return a model that tells classes by their grey, unturned and under fixed light, with tiles."""
    pictures = [by_grey((1, 2), seed) for seed in range(3)]
    return learnt(pictures, views={"light": "fixed", "turned": False}, tiling=Tiling(SIZE, 16), seed=1)


def test_under_fixed_light_a_grey_is_known_where_no_other_is_shown(fixed_model: AOISSLRetrieval) -> None:
    darker = by_grey((1,), seed=9)
    assert right(fixed_model, *darker) > 0.9
    # Where light is taken out of each picture, the brightest squares are the brighter class.
    usual = learnt([by_grey((1, 2), seed) for seed in range(3)])
    assert right(usual, *by_grey((2, 1), seed=9)) > 0.9
    assert right(usual, *darker) < 0.5


def test_unturned_views_tell_directions_apart() -> None:
    picture, mask = by_direction(9)
    sure = []
    for turned in (False, True):
        model = learnt([by_direction(seed) for seed in range(3)], views={"turned": turned})
        seen = model.pre_processor(picture)
        said = model.model.head_probabilities(seen, model.model.read(seen).tokens)  # the vote never turns
        sure.append(float(said[0].gather(0, mask.long())[mask > 0].mean()))
    assert sure[0] > 0.7
    assert sure[1] < 0.6


def test_the_line_keeps_light_and_learns_as_the_model_does(
    fixed_model: AOISSLRetrieval, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    xml = fixed_model.to_openvino(tmp_path)
    exported = read_model(xml)
    assert read_metadata(exported)["light"] == "fixed"
    head = head_of(exported)
    assert head is not None
    assert head.varied == Variation(turned=False, lit=False)
    inferencer = SegmentationOpenVINOInferencer(xml)
    darker, mask = by_grey((1,), seed=9)
    wide = torch.cat([darker, darker.flip(-1)], dim=-1)  # two tiles wide
    answer, expected = inferencer.predict(array_of(wide[0])), fixed_model(wide)
    assert (answer.class_map == expected.pred_mask[0, 0].numpy()).mean() > 0.999
    np.testing.assert_allclose(answer.novelty, expected.anomaly_map[0, 0].detach().numpy(), atol=1e-4)
    drawn: list[Variation] = []

    def remembered(*given: Any) -> tuple[np.ndarray, np.ndarray]:
        drawn.append(given[-1])
        return view(*given)

    monkeypatch.setattr("anomalib_aoissl.deployment.editing.refitting.view", remembered)
    inferencer.adapt(array_of(darker[0]), mask[0].numpy(), device="device")
    assert set(drawn) == {Variation(turned=False, lit=False)}
