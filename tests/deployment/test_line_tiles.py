# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures that are cut into tiles, on the line: masks of torch, edits, explanations, many pictures."""

from pathlib import Path

import numpy as np
import pytest

from anomalib_aoissl import SegmentationOpenVINOInferencer


@pytest.fixture
def tiled(models: Path) -> SegmentationOpenVINOInferencer:
    """Return the inferencer of a model with tiles."""
    return SegmentationOpenVINOInferencer(models / "tiled.xml")


def test_masks_are_those_of_torch_at_the_picture_s_size(
    tiled: SegmentationOpenVINOInferencer, arrays: dict[str, np.ndarray]
) -> None:
    found = [result.class_map for result in tiled.predict_many(list(arrays["pictures"]))]
    assert (np.stack(found) == arrays["tiled_mask"][:, 0]).mean() > 0.999
    assert np.array_equal(tiled.predict(arrays["pictures"][1]).class_map, found[1])


def test_a_picture_is_learnt_explained_and_removed(
    tiled: SegmentationOpenVINOInferencer, arrays: dict[str, np.ndarray]
) -> None:
    picture, mask = arrays["pictures"][3], arrays["masks"][3]
    known = mask != 255
    entries, before = sum(tiled.bank["entries_of_image"].values()), tiled.predict(picture)
    tiled.adapt(picture, mask, device="new", name="n")
    after = tiled.predict(picture)
    assert (after.class_map == mask)[known].mean() > (before.class_map == mask)[known].mean()
    assert after.novelty[known].mean() < 0.5 * before.novelty[known].mean()
    assert tiled.explain(picture, (20, 30)).votes[0].image == "n"
    tiled.remove(image="n")
    assert sum(tiled.bank["entries_of_image"].values()) == entries


def test_a_large_picture_is_written_strip_by_strip(
    tiled: SegmentationOpenVINOInferencer, arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    picture = np.tile(arrays["pictures"][0], (5, 3, 1))
    result = tiled.predict(picture, output=tmp_path / "large.tif")
    assert result.class_map.shape == (200, 210)
    assert np.array_equal(result.class_map, tiled.predict(picture).class_map)


def test_tiles_that_are_given_are_saved_with_the_model(
    models: Path, arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    picture, mask = arrays["pictures"][3], arrays["masks"][3]
    given = SegmentationOpenVINOInferencer(models / "head.xml", tiling={"size": (32, 48), "overlap": 8})
    given.adapt(picture, mask, device="new", name="n", refit=False)
    saved = SegmentationOpenVINOInferencer(given.save(tmp_path / "tiles.xml"))
    assert saved.tiling == given.tiling
    assert np.array_equal(saved.predict(picture).class_map, given.predict(picture).class_map)
    whole = SegmentationOpenVINOInferencer(models / "head.xml")
    assert whole.tiling is None
    assert not np.array_equal(whole.predict(picture).class_map, given.predict(picture).class_map)
