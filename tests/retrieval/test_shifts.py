# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Shifted patch grids: crops against numpy's padding, banks and masks against one pixel after the other."""

from collections import Counter

import numpy as np
import pytest
import torch

from anomalib_aoissl.encoder import PatchEncoder
from anomalib_aoissl.retrieval.explaining import explain
from anomalib_aoissl.retrieval.shifts import (
    bank_grids,
    check_shifts,
    mean_over_grids,
    patch_box,
    shift_offsets,
    shifted_images,
    shifted_masks,
)
from anomalib_aoissl.retrieval.torch_model import RetrievalModel

SIZE = (32, 48)
CLASSES = ["background", "wire", "ball"]
OFFSETS = [(0, 0), (4, 4), (0, 4), (4, 0)]


def make_model(tiny_encoder: dict, **arguments: object) -> tuple[RetrievalModel, torch.Tensor, torch.Tensor]:
    encoder = PatchEncoder(tiny_encoder, image_size=SIZE, pretrained=False)
    model = RetrievalModel(encoder, k=7, temperature=0.05, **arguments)
    pictures, masks = torch.rand(2, 3, *SIZE), torch.randint(0, 3, (2, *SIZE)).to(torch.uint8)
    masks[0, 8:21, :13] = 255
    model.bank.class_names = list(CLASSES)
    model.fill(pictures, masks, ["a", "b"], ["x", "y"])
    model.bank.finish()
    return model, pictures, masks


def crop(plane: np.ndarray, offset: tuple[int, int], **padding: object) -> np.ndarray:
    return np.pad(plane[offset[0] :, offset[1] :], ((0, offset[0]), (0, offset[1])), **padding)


def test_crops_are_mirrored_and_masks_ignored_beyond_the_edges() -> None:
    images, masks = torch.rand(2, 3, 6, 8), torch.randint(0, 5, (2, 6, 8)).to(torch.uint8)
    assert shift_offsets(4, (4, 6)) == [(0, 0), (2, 3), (0, 3), (2, 0)]
    assert shift_offsets(2, (7, 7)) == [(0, 0), (3, 3)]
    crops = shifted_images(images, shift_offsets(4, (4, 6)))
    assert crops.shape == (8, 3, 6, 8)
    for grid, offset in enumerate(shift_offsets(4, (4, 6))):
        for b in range(2):
            expected = [crop(images[b, c].numpy(), offset, mode="reflect") for c in range(3)]
            np.testing.assert_array_equal(crops[2 * grid + b], expected)
            expected_mask = crop(masks[b].numpy(), offset, constant_values=255)
            np.testing.assert_array_equal(shifted_masks(masks, offset)[b], expected_mask)


def test_the_mean_is_over_the_grids_that_see_a_pixel() -> None:
    maps, offsets = torch.rand(8, 2, 6, 8), [(0, 0), (2, 3), (0, 3), (2, 0)]
    result = mean_over_grids(maps, offsets)
    assert result.shape == (2, 2, 6, 8)
    for b, c, y, x in np.ndindex(2, 2, 6, 8):
        seen = [float(maps[2 * g + b, c, y - dy, x - dx]) for g, (dy, dx) in enumerate(offsets) if y >= dy and x >= dx]
        assert float(result[b, c, y, x]) == pytest.approx(np.mean(seen), abs=1e-6)


@pytest.mark.parametrize("shifts", [2, 4])
def test_the_bank_holds_the_patches_of_all_grids(tiny_encoder: dict, shifts: int) -> None:
    model, pictures, masks = make_model(tiny_encoder, bank_shifts=shifts)
    bank, seen = model.bank, set()
    for row in range(len(bank)):
        image, position = int(bank.image_ids[row]), int(bank.positions[row])
        grid, patch = divmod(position, 24)
        y, x = 8 * (patch // 6), 8 * (patch % 6)
        labels = crop(masks[image].numpy(), OFFSETS[grid], constant_values=255)[y : y + 8, x : x + 8]
        np.testing.assert_array_equal(bank.labels[row].reshape(8, 8), labels)
        seen.add((image, grid, patch))
    assert len(seen) == len(bank)
    wanted = set()
    for image, grid, patch in np.ndindex(2, shifts, 24):
        y, x = 8 * (patch // 6), 8 * (patch % 6)
        labels = crop(masks[image].numpy(), OFFSETS[grid], constant_values=255)[y : y + 8, x : x + 8]
        wanted |= {(image, grid, patch)} if (labels != 255).any() else set()
    assert seen == wanted
    assert len(wanted) < 2 * shifts * 24  # patches that are ignored whole are left out
    # the embeddings are those of the crops
    picture = torch.tensor(np.stack([crop(plane.numpy(), OFFSETS[1], mode="reflect") for plane in pictures[1]]))
    expected = model.extract(picture[None])[0]
    rows = (bank.image_ids == 1) & (bank.positions >= 24) & (bank.positions < 48)
    torch.testing.assert_close(bank.embeddings[rows], expected[bank.positions[rows].long() - 24])


def brute_force(model: RetrievalModel, image: torch.Tensor, shifts: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each class's mean share of the vote ``[H, W, C]``, of the grids that see a pixel, and its mean novelty."""
    shares, novelty, grids = np.zeros((*SIZE, 3)), np.zeros(SIZE), np.zeros(SIZE)
    for dy, dx in OFFSETS[:shifts]:
        picture = torch.tensor(np.stack([crop(plane.numpy(), (dy, dx), mode="reflect") for plane in image]))
        similarities = (model.extract(picture[None])[0] @ model.bank.embeddings.T).numpy()
        best = torch.tensor(1 - similarities.max(1)).reshape(1, 1, 4, 6)
        smooth = torch.nn.functional.interpolate(best, size=SIZE, mode="bilinear")[0, 0].numpy()
        for y, x in np.ndindex(SIZE[0] - dy, SIZE[1] - dx):
            values = similarities[y // 8 * 6 + x // 8]
            votes = np.zeros(3)
            for row in np.argsort(-values)[:7]:
                label = int(model.bank.labels[row][y % 8 * 8 + x % 8])
                if label != 255:
                    votes[label] += np.exp((values[row] - values.max()) / 0.05)
            shares[y + dy, x + dx] += votes / max(votes.sum(), 1e-12)
            novelty[y + dy, x + dx] += smooth[y, x]
            grids[y + dy, x + dx] += 1
    return shares / grids[..., None], novelty / grids


@pytest.mark.parametrize("shifts", [2, 4])
def test_masks_and_novelty_are_means_over_the_grids(tiny_encoder: dict, shifts: int) -> None:
    model, *_ = make_model(tiny_encoder, query_shifts=shifts)
    images = torch.rand(2, 3, *SIZE)
    result = model(images)
    for index, image in enumerate(images):
        shares, novelty = brute_force(model, image, shifts)
        assert (result.pred_mask[index, 0].numpy() == shares.argmax(-1)).mean() > 0.998
        np.testing.assert_allclose(result.anomaly_map[index, 0], novelty, atol=1e-5)
        assert float(result.pred_score[index]) == pytest.approx(novelty.max(), abs=1e-5)
    model.class_thresholds = {"wire": 0.5}
    shares[shares[..., 1] < 0.5, 1] = -1
    assert (model(images).pred_mask[1, 0].numpy() == shares.argmax(-1)).mean() > 0.998


def test_a_labelled_image_finds_itself_on_every_grid(tiny_encoder: dict) -> None:
    model, pictures, _ = make_model(tiny_encoder, bank_shifts=4, query_shifts=4)
    known = model(pictures[1:])
    assert float(known.anomaly_map.abs().max()) < 1e-5


def test_averaged_labels_vote_on_all_grids(tiny_encoder: dict) -> None:
    model, *_ = make_model(tiny_encoder, query_shifts=4, labels="average")
    mask = model(torch.rand(1, 3, *SIZE)).pred_mask[0, 0]
    blocks = mask.reshape(8, 4, 12, 4).permute(0, 2, 1, 3).flatten(2)
    assert bool((blocks == blocks[..., :1]).all())  # half patches are of one class
    assert not bool((mask.reshape(4, 8, 6, 8).permute(0, 2, 1, 3).flatten(2) == mask[::8, ::8, None]).all())


@pytest.mark.parametrize("arguments", [{"query_shifts": 4}, {"query_shifts": 2, "bank_shifts": 4}])
def test_explanations_give_the_class_of_the_mask_and_boxes_in_the_image(tiny_encoder: dict, arguments: dict) -> None:
    model, *_ = make_model(tiny_encoder, **arguments)
    image = torch.rand(3, *SIZE)
    mask = model(image[None]).pred_mask[0, 0]
    for pixel in [(0, 0), (7, 8), (31, 47), (15, 20), (3, 3), (16, 3)]:
        sums: Counter[str] = Counter()
        votes = explain(model, image, pixel)
        for vote in votes:
            sums[vote.label] += vote.weight
            top, left, height, width = vote.box
            assert 0 <= top < top + height <= SIZE[0]
            assert 0 <= left < left + width <= SIZE[1]
        assert sums.most_common(1)[0][0] == CLASSES[mask[pixel]]
        assert [vote.similarity for vote in votes] == sorted((vote.similarity for vote in votes), reverse=True)


@pytest.mark.parametrize(("images", "grids"), [(1, 4), (8, 4), (9, 2), (24, 2), (25, 1), (5000, 1)])
def test_few_images_have_more_grids_where_nothing_is_said(images: int, grids: int) -> None:
    assert bank_grids(None, "patches", images) == grids
    assert bank_grids(2, "patches", images) == 2
    assert bank_grids(None, "images", images) == bank_grids(None, "class_tokens", images) == 1


def test_boxes_of_rows() -> None:
    assert patch_box(0, SIZE, (8, 8)) == (0, 0, 8, 8)
    assert patch_box(7, SIZE, (8, 8)) == (8, 8, 8, 8)
    assert patch_box(24 + 23, SIZE, (8, 8)) == (28, 44, 4, 4)  # the last patch of the grid half a patch down and right
    assert patch_box(3 * 24 + 1, SIZE, (8, 8)) == (4, 8, 8, 8)


def test_numbers_of_grids_that_are_refused(tiny_encoder: dict) -> None:
    encoder = PatchEncoder(tiny_encoder, image_size=SIZE, pretrained=False)
    with pytest.raises(ValueError, match=r"query_shifts=3 must be one of \[1, 2, 4\]"):
        RetrievalModel(encoder, query_shifts=3)
    with pytest.raises(ValueError, match=r"bank_shifts=0 must be one of"):
        RetrievalModel(encoder, bank_shifts=0)
    with pytest.raises(ValueError, match="a patch of 1x1 px has no half to shift by"):
        check_shifts("bank_shifts", 2, (1, 1))
