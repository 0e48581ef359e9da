# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Views that the decoder learns from: all parts of one move together, in size and place; each is made once."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional

from anomalib_aoissl.segmenter import examples as examples_module
from anomalib_aoissl.segmenter.examples import Example, Examples, turned, zoomed

GRIDS = [((8, 8), 8), ((6, 10), 4), ((5, 3), 14), ((1, 1), 16), ((7, 2), 4)]
CORNERS = [(0.0, 0.0), (0.999, 0.3), (0.5, 0.999), (1.0, 1.0)]


def blocks(grid: tuple[int, int], side: int, planes: int = 2) -> Example:
    """Return an example in which each patch is of one class, which its image, probabilities and tokens show too."""
    labels = torch.randint(0, 3, grid)
    mask = labels.repeat_interleave(side, 0).repeat_interleave(side, 1)
    shown = functional.one_hot(mask, 3).movedim(-1, 0).float()
    return Example(mask.expand(planes, -1, -1).float(), shown, labels[None].float(), mask.to(torch.uint8))


def ramp(grid: tuple[int, int], side: int) -> Example:
    """Return an example whose image and probabilities say where each pixel, and whose tokens where each patch was."""
    size = grid[0] * side, grid[1] * side
    places = torch.stack(torch.meshgrid(*(torch.arange(n) + 0.5 for n in size), indexing="ij"))
    patches = torch.stack(torch.meshgrid(*((torch.arange(n) + 0.5) * side for n in grid), indexing="ij"))
    # 41 is a prime, so that a label says nearly where it was.
    return Example(places, places, patches, ((places[0] * 2 + places[1] * 3).long() % 41).to(torch.uint8))


@pytest.mark.parametrize(("grid", "side"), GRIDS)
@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("scale", [0.3, 0.75, 0.9, 1.0, 1.1, 1.35, 3.0])
def test_sizes_stay_and_labels_are_those_that_the_image_shows(
    grid: tuple[int, int], side: int, corner: tuple[float, float], scale: float
) -> None:
    example = blocks(grid, side)
    found = zoomed(example, scale, corner)
    assert [part.shape for part in vars(found).values()] == [part.shape for part in vars(example).values()]
    assert found.mask.dtype == torch.uint8
    known = found.mask != 255
    assert known.any()
    # Where a patch is of one class, bilinear values between patches lie on both sides of the border alike.
    right = (found.image[0] - found.mask).abs()[known] <= 1
    assert right.float().mean() > 0.9
    assert torch.equal(found.image[0], found.image[1])
    assert set(found.mask[known].tolist()) <= set(example.mask.unique().tolist())
    torch.testing.assert_close(found.probabilities.sum(dim=0), torch.ones(example.mask.shape))


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("scale", [0.75, 0.87, 1.0, 1.2, 1.35])
def test_pixels_probabilities_tokens_and_labels_come_from_one_place(scale: float, corner: tuple[float, float]) -> None:
    grid, side = (8, 6), 8
    found = zoomed(ramp(grid, side), scale, corner)
    known = found.mask != 255
    torch.testing.assert_close(found.image, found.probabilities)
    # A patch's token says the mean place of its pixels; at the window's border both are cut, by part of a patch.
    means = functional.avg_pool2d(found.image[None], side)[0]
    full = functional.avg_pool2d(known.float()[None], side)[0] == 1
    full[0], full[:, 0] = False, False
    assert (means - found.tokens)[:, full].abs().max() < side / 8
    # The label is that of the nearest pixel of the source.
    rows, columns = (torch.from_numpy(np.floor(found.image[axis].numpy().round(4))) for axis in (0, 1))
    expected = ((rows + 0.5) * 2 + (columns + 0.5) * 3).long() % 41
    exact = known & (found.image.frac() - 0.5).abs().lt(0.45).all(dim=0)  # not midway between two pixels
    assert exact.float().mean() > 0.3
    assert (expected == found.mask)[exact].float().mean() > 0.95


@pytest.mark.parametrize("scale", [0.7, 1.0, 1.3])
def test_windows_begin_and_end_at_patches(scale: float) -> None:
    grid, side = (9, 7), 8
    for corner in CORNERS:
        found = zoomed(ramp(grid, side), scale, corner)
        known = found.mask != 255
        height, width = int(known.any(dim=1).sum()), int(known.any(dim=0).sum())
        assert known[:height, :width].all()
        assert height % side == width % side == 0
        if scale >= 1:  # the first pixel is the window's own
            assert ((found.image[:, 0, 0] - 0.5) % side).tolist() == [0, 0]


def test_a_part_begins_where_the_corner_says() -> None:
    grid, side = (8, 8), 4
    starts = {share: zoomed(ramp(grid, side), 2.0, (share, 0.0)).image[0, 0, 0].item() for share in (0.0, 0.25, 0.999)}
    assert [int(value // side) for value in starts.values()] == [0, 1, 4]
    assert zoomed(ramp(grid, side), 2.0, (0.0, 0.999)).image[1, 0, 0].item() // side == 4


def test_what_lies_beyond_a_reduced_image_is_ignored_and_repeats_its_border() -> None:
    found = zoomed(ramp((8, 8), 4), 0.5, (0.4, 0.4))
    assert (found.mask[:16, :16] != 255).all()
    assert (found.mask[16:] == 255).all()
    assert (found.mask[:, 16:] == 255).all()
    for values, last in ((found.image, 15), (found.probabilities, 15), (found.tokens, 3)):
        assert torch.equal(values[:, last + 1 :], values[:, last : last + 1].expand_as(values[:, last + 1 :]))


def test_ignored_pixels_stay_ignored() -> None:
    example = blocks((8, 8), 8)
    example.mask[:, 32:] = 255
    for scale in (0.8, 1.0, 1.3):
        found = zoomed(example, scale, (0.0, 0.0))
        edge = round(32 * (round(8 * scale) / 8 if scale < 1 else round(round(8 / scale) * scale) / round(8 / scale)))
        assert (found.mask[:40, : edge - 2] != 255).all()
        assert (found.mask[:, edge + 2 :] == 255).all()


@pytest.mark.parametrize(("grid", "side", "allowed"), [((4, 4), 4, 8), ((4, 6), 4, 4)])
def test_views_are_turned_as_the_shape_allows(grid: tuple[int, int], side: int, allowed: int) -> None:
    example, seen = ramp(grid, side), set()
    for turns in range(4):
        for mirrored in (False, True):
            found = turned(example, turns, mirrored)
            seen.add(tuple(found.mask.flatten().tolist()))
            assert torch.equal(found.image, found.probabilities)
            torch.testing.assert_close(functional.avg_pool2d(found.image[None], side)[0], found.tokens)
            expected = (found.image[0] * 2 + found.image[1] * 3).long() % 41
            assert torch.equal(expected.to(torch.uint8), found.mask)
    assert len(seen) == allowed


def test_square_images_of_patches_that_are_not_square_are_not_turned_by_quarters() -> None:
    example = Example(torch.rand(3, 8, 8), torch.rand(2, 8, 8), torch.rand(5, 4, 2), torch.zeros(8, 8).byte())
    for turns in range(4):
        assert turned(example, turns, False).tokens.shape == (5, 4, 2)


class Made:
    """Makers of examples that count how often they are called."""

    def __init__(self, number: int, views: int = 1) -> None:
        self.calls: list[tuple[str, int]] = []
        names = [f"{index}.png" for index in range(number)]
        self.makers = {name: [self.maker(name, view) for view in range(views)] for name in names}

    def maker(self, name: str, view: int) -> Callable[[], Example]:
        def make() -> Example:
            self.calls.append((name, view))
            value = float(name.removesuffix(".png")) + 10 * view
            shape = 8, 8
            return Example(
                torch.full((3, *shape), value), torch.rand(2, *shape), torch.rand(4, 2, 2), torch.zeros(shape).byte()
            )

        return make


def test_steps_hold_a_view_of_each_known_image_in_their_order() -> None:
    step = Examples(Made(3).makers, 0).draw(["2.png", "other.png", "0.png", "2.png"])
    assert step is not None
    assert step.images.shape == (3, 3, 8, 8)
    assert step.probabilities.shape == (3, 2, 8, 8)
    assert step.tokens.shape == (3, 4, 2, 2)
    assert step.masks.shape == (3, 8, 8)
    assert step.masks.dtype == torch.uint8
    assert step.images.mean(dim=(1, 2, 3)).round().tolist() == [2, 0, 2]
    assert Examples(Made(3).makers, 0).draw(["other.png"]) is None


def test_a_kept_view_is_not_made_twice_and_no_more_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(4, views=2)
    drawing = Examples(made.makers, 0)
    for _ in range(20):
        drawing.draw(list(made.makers))
    assert sorted(made.calls) == sorted((name, view) for name in made.makers for view in (0, 1))
    monkeypatch.setattr(examples_module, "_KEPT", 3)
    made = Made(5)
    drawing = Examples(made.makers, 0)
    for _ in range(4):
        drawing.draw(list(made.makers))
    counts = [sum(name == called for called, _ in made.calls) for name in made.makers]
    assert counts == [1, 1, 1, 4, 4]
    assert len(drawing._kept) == 3


def test_draws_are_those_of_their_seed() -> None:
    example = blocks((8, 8), 8)
    makers = {"a": [lambda: example] * 3}
    drawings = [Examples(makers, 1), Examples(makers, 1), Examples(makers, 2), Examples(makers, 1, step=3)]
    for _ in range(3):
        one, two, other_seed, gone_on = (drawing.draw(["a"] * 2) for drawing in drawings)
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
        assert not torch.equal(one.images, other_seed.images)
        assert not torch.equal(one.images, gone_on.images)


def test_draws_differ_in_size_turn_and_light_and_stay_in_range() -> None:
    example = blocks((8, 8), 8)
    drawing = Examples({"a": [lambda: example]}, 0)
    steps = [drawing.draw(["a"]) for _ in range(30)]
    assert len({tuple(step.masks.flatten().tolist()) for step in steps}) > 20
    for step in steps:
        known = step.masks[0] != 255
        shown = step.images[0, 0][known]
        light = np.polyfit(step.masks[0][known].numpy(), shown.numpy(), 1)  # contrast, brightness
        assert 0.8 < light[0] < 1.2
        assert abs(light[1]) < 0.15
        assert torch.equal(step.images[0, 0], step.images[0, 1])
        torch.testing.assert_close(step.probabilities.sum(dim=1), torch.ones(1, 64, 64), atol=1e-3, rtol=0)


def test_half_precision_is_what_is_kept_and_single_what_is_drawn() -> None:
    drawing = Examples({"a": [lambda: blocks((4, 4), 4)]}, 0)
    step = drawing.draw(["a"])
    assert step.images.dtype == step.probabilities.dtype == step.tokens.dtype == torch.float32
    kept = drawing._kept["a", 0]
    assert kept.image.dtype == kept.probabilities.dtype == kept.tokens.dtype == torch.float16
    assert kept.mask.dtype == torch.uint8


@pytest.mark.parametrize("moved", [False, True])
def test_parts_that_lie_one_way_alone_are_not_turned(moved: bool) -> None:
    example = ramp((4, 4), 8)
    examples = Examples({"a": [lambda: example]}, seed=0, turned=moved)
    upright = []
    for _ in range(20):
        step = examples.draw(["a"])
        assert step is not None
        rows, columns = step.probabilities[0]
        upright.append(bool((rows.diff(dim=0) >= 0).all() and (columns.diff(dim=1) >= 0).all()))
    assert all(upright) != moved
