# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

import itertools

import pytest
import torch

from anomalib_aoissl.pretraining.objectives.masking import block_mask, random_partition


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("patches", "ratio"), list(itertools.product([1, 7, 48, 60], [0.0, 0.25, 0.75, 1.0])))
def test_visible_and_masked_part_all_patches(patches: int, ratio: float) -> None:
    visible, masked = random_partition(5, patches, ratio, _generator())
    assert masked.shape == (5, round(ratio * patches))
    together = torch.cat([visible, masked], dim=1).sort(dim=1).values
    assert torch.equal(together, torch.arange(patches).expand(5, -1))


def test_each_image_draws_its_own_mask_and_the_seed_repeats_it() -> None:
    first, _ = random_partition(2, 64, 0.5, _generator(1))
    again, _ = random_partition(2, 64, 0.5, _generator(1))
    assert torch.equal(first, again)
    assert not torch.equal(first[0], first[1])


def test_every_patch_is_masked_equally_often() -> None:
    _, masked = random_partition(4000, 16, 0.75, _generator())
    share = torch.bincount(masked.flatten(), minlength=16) / 4000
    # Four standard deviations of a binomial of 4000 draws at 0.75.
    torch.testing.assert_close(share, torch.full((16,), 0.75), atol=0.028, rtol=0)


GRIDS = [(1, 1), (3, 9), (12, 12), (48, 64)]


@pytest.mark.parametrize(("grid", "ratio"), list(itertools.product(GRIDS, [0, 0.1, 0.5, 1])))
def test_blocks_hide_the_exact_count(grid: tuple[int, int], ratio: float) -> None:
    for seed in range(5):
        mask = block_mask(grid, ratio, _generator(seed))
        assert mask.shape == grid
        assert int(mask.sum()) == round(ratio * grid[0] * grid[1])


def test_blocks_are_blocks() -> None:
    mask = block_mask((20, 30), 0.4, _generator())
    same = (mask[:, 1:] == mask[:, :-1]).float().mean()
    loose = torch.rand(20, 30, generator=_generator()) < 0.4
    assert same > (loose[:, 1:] == loose[:, :-1]).float().mean() + 0.2
