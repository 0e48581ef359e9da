# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Training crops: where they are cut, and that the encoder sees them at their place."""

import pytest
import torch

from anomalib_aoissl.encoder import PatchEncoder
from anomalib_aoissl.segmenter.cropping import crop_of, cut_crops
from anomalib_aoissl.segmenter.torch_model import SegmenterModel


def make_encoder(size: tuple[int, int] = (64, 48)) -> PatchEncoder:
    arguments = {"patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}
    description = {"architecture": "vit_tiny_patch16_224", "model_args": arguments}
    return PatchEncoder(description, image_size=size, pretrained=False).eval()


def test_crops_are_parts_of_their_images() -> None:
    torch.manual_seed(0)
    images, masks = torch.rand(6, 3, 64, 48), torch.randint(0, 3, (6, 64, 48))
    crops, labels, places = cut_crops(images, masks, (32, 24), (8, 8))
    assert crops.shape == (6, 3, 32, 24)
    for index, (row, column) in enumerate(places.tolist()):
        top, left = row * 8, column * 8
        assert torch.equal(crops[index], images[index, :, top : top + 32, left : left + 24])
        assert torch.equal(labels[index], masks[index, top : top + 32, left : left + 24])
    assert len({tuple(place) for place in places.tolist()}) > 1


def test_few_images_give_as_many_crops_as_are_asked_for() -> None:
    images, masks = torch.arange(2.0).view(2, 1, 1, 1).expand(2, 3, 64, 48), torch.zeros(2, 64, 48, dtype=torch.uint8)
    crops, labels, places = cut_crops(images, masks, (32, 24), (8, 8), 5)
    assert crops[:, 0, 0, 0].tolist() == [0, 1, 0, 1, 0]
    assert len(labels) == len(places) == 5
    assert len(cut_crops(images, masks, (32, 24), (8, 8), 1)[0]) == 2


def test_three_of_four_crops_hold_the_rare_class() -> None:
    torch.manual_seed(0)
    masks = torch.zeros(400, 64, 64, dtype=torch.uint8)
    masks[:, 3, 60] = 1  # one pixel in a corner, which 1 of 49 random crops of 2 x 2 patches holds
    _, labels, _ = cut_crops(torch.zeros(400, 1, 64, 64), masks, (16, 16), (8, 8))
    held = (labels == 1).flatten(1).any(dim=1).float().mean().item()
    assert held == pytest.approx(0.75 + 0.25 / 49, abs=0.07)


def test_a_crop_of_the_whole_image_gives_the_encoder_s_features() -> None:
    encoder = make_encoder()
    model = SegmenterModel(encoder, head="upernet", head_channels=16)
    model.make_head(3)
    model.eval()
    for parameter in model.head.parameters():  # some are 0 before training, and would hide a difference
        torch.nn.init.normal_(parameter, std=0.1)
    images = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        whole = model.scores(images)
        crop = model.scores(images, torch.zeros(2, 2, dtype=torch.long))
    torch.testing.assert_close(crop, whole, atol=1e-4, rtol=1e-4)


def test_a_crop_takes_the_positions_of_its_place() -> None:
    encoder = make_encoder()
    model = SegmenterModel(encoder, head="linear")
    image = torch.zeros(1, 3, 16, 16)
    table = encoder.vit.pos_embed[0, 1:].unflatten(0, (8, 6))
    with torch.no_grad():
        first, second = (model.extract(image, torch.tensor([place]))[0] for place in ([0, 0], [5, 3]))
        encoder.vit.pos_embed[0, 1:].unflatten(0, (8, 6))[:2, :2] = table[5:7, 3:5].clone()
        moved = model.extract(image, torch.tensor([[0, 0]]))[0]
    assert not torch.allclose(first, second, atol=1e-4)
    torch.testing.assert_close(moved, second)


@pytest.mark.parametrize("head", ["upernet", "conv", "linear"])
def test_every_weight_learns_from_a_crop(head: str) -> None:
    model = SegmenterModel(make_encoder(), head=head, head_channels=16)
    model.make_head(3)
    model.train()
    scores = model.scores(torch.randn(2, 3, 32, 24), torch.tensor([[0, 0], [4, 3]]))
    assert scores.shape == (2, 3, 32, 24)
    scores.square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_what_a_crop_may_be() -> None:
    encoder = make_encoder()
    assert crop_of(encoder, 32) == (32, 32)
    assert crop_of(encoder, (32, 16)) == (32, 16)
    assert crop_of(encoder, 56) == (56, 48)
    assert crop_of(encoder, 512) is None
    assert crop_of(encoder, None) is None
    for wrong in (20, 0, -8, (32,), (32, 12)):
        with pytest.raises(ValueError, match=r"crop_size=.*multiples of the patch's 8x8 px"):
            crop_of(encoder, wrong)
