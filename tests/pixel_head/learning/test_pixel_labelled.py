# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Views of labelled images: how many, which pixels are drawn, and which are left out of a fit together."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pixel_oracles import labelled

from anomalib_aoissl.pixel_head.learning import labelled as labelled_module
from anomalib_aoissl.pixel_head.learning import views
from anomalib_aoissl.pixel_head.learning.labelled import LabelledImage, Reader, effort, fold_map, labelled_views
from anomalib_aoissl.pixel_head.learning.views import views_of

PLAIN = Reader(see=lambda seen: seen, tokens=lambda seen: seen, novelty=lambda view: np.full(len(view.points), 0.5))


@pytest.fixture(autouse=True)
def _few_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelled_module, "PIXELS", 1500)


def test_the_model_sees_what_see_gives() -> None:
    images = labelled(1)
    reader = replace(PLAIN, see=lambda seen: seen * 0 + 0.3, tokens=lambda seen: seen[:, :1] * 2)
    for view in labelled_views(images, reader):
        assert (view.image == 0.3).all()
        assert (view.tokens == 0.6).all()


@pytest.mark.parametrize(("number", "each"), [(1, 8), (3, 6), (7, 4), (9, 4), (25, 1)])
def test_images_are_seen_in_as_many_views_as_they_are_few(number: int, each: int) -> None:
    images = labelled(number, (12, 16))
    found = list(labelled_views(images, PLAIN, effort(number)))
    assert [view.source.name for view in found] == [10 + order for order in range(number) for _ in range(each)]
    lit = [index % 2 == 0 for order in range(number) for index in views_of(order, number)]
    assert [view.plain for view in found] == lit
    wanted = (3000 if number == 9 else 1500) // (number * each)
    assert all(wanted - 2 <= len(view.points) <= wanted for view in found)  # shares of classes are rounded down
    rows, columns = found[0].points.T  # the first view is the image itself
    assert np.array_equal(found[0].labels, images[0].mask.numpy()[rows, columns])
    assert torch.equal(found[0].image, images[0].image)


def test_labels_of_views_move_with_their_images() -> None:
    for view in labelled_views(labelled(1, (30, 44)), PLAIN):
        assert view.mask.shape == view.parts.shape == view.image.shape[-2:]
        assert np.array_equal(view.labels, [view.mask[row, column] for row, column in view.points])
        values = view.image[0].mean(dim=0).numpy()[view.points[:, 0], view.points[:, 1]]
        assert np.median(values[view.labels == 1]) > np.median(values[view.labels == 0]) + 0.1


def test_ignored_pixels_are_not_drawn_and_images_without_labels_have_no_views() -> None:
    images = labelled(3)
    images[0].mask[:] = 255
    images[1].mask[:, :30] = 255
    found = list(labelled_views(images, PLAIN))
    assert {view.source.name for view in found} == {11, 12}
    assert all(255 not in view.labels for view in found)
    plain = next(view for view in found if view.plain)
    assert plain.points[:, 1].min() >= 30


def test_images_are_dealt_to_three_folds() -> None:
    found = list(labelled_views(labelled(5), PLAIN))
    assert all((view.parts == view.folds[0])[view.mask != 255].all() for view in found)
    folds = {view.source.name: set(view.folds.tolist()) for view in found}
    assert folds == {10: {0}, 11: {1}, 12: {2}, 13: {0}, 14: {1}}


@pytest.mark.parametrize("size", [(16, 21), (21, 16), (18, 18)])
def test_the_blocks_of_a_single_image_are_its_folds_in_each_view(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "drawn_light", lambda planes, *_: planes)
    second = torch.from_numpy(fold_map(0, 1, size).astype(np.float32))  # bright, wherever a view has it
    image = LabelledImage(second.expand(1, 3, *size), torch.zeros(size, dtype=torch.uint8), 0, 10)
    found = list(labelled_views([image], PLAIN))
    assert len(found) == 8
    for view in found:
        values = view.image[0, 0].numpy()
        assert np.array_equal(view.parts[view.mask != 255], values[view.mask != 255])
        assert np.array_equal(view.folds, values[view.points[:, 0], view.points[:, 1]])
        assert set(view.folds.tolist()) == {0, 1}


def test_views_are_those_of_their_seed() -> None:
    (first, again, other) = (list(labelled_views(labelled(2), replace(PLAIN, seed=seed))) for seed in (1, 1, 2))
    assert all(np.array_equal(one.points, two.points) for one, two in zip(first, again, strict=True))
    assert all(torch.equal(one.image, two.image) for one, two in zip(first, again, strict=True))
    assert not any(np.array_equal(one.points, two.points) for one, two in zip(first, other, strict=True))


def test_folds_of_a_single_image_are_the_fields_of_a_chessboard() -> None:
    field = np.kron([[0, 1], [1, 0]], np.ones((3, 5), int))  # of 24x40 px, each is 3x5
    assert np.array_equal(fold_map(0, 1, (24, 40)), np.tile(field, (4, 4)))
    assert fold_map(4, 6, (2, 3)).tolist() == [[1, 1, 1]] * 2
