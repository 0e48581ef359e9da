# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Items and batches: masks keep class indices through everything that anomalib does with them."""

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch, ImageItem
from torchvision.transforms.v2 import Compose, RandomHorizontalFlip, Resize
from torchvision.tv_tensors import Image, Mask

from anomalib_aoissl.data.items import (
    NumpySegmentationBatch,
    NumpySegmentationItem,
    SegmentationBatch,
    SegmentationItem,
)


def make_item(channels: int = 3, *, labelled: bool = True, **fields: object) -> SegmentationItem:
    mask = torch.tensor([[0, 1, 2], [255, 4, 0]], dtype=torch.uint8)
    image = torch.arange(channels * 6).reshape(channels, 2, 3) / (channels * 6)
    labels = {"gt_mask": mask, "gt_label": torch.tensor(True)} if labelled else {}
    return SegmentationItem(image=image, **labels, **fields)


def test_items_are_anomalib_items() -> None:
    assert isinstance(make_item(), ImageItem)
    assert isinstance(SegmentationBatch.collate([make_item()]), ImageBatch)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_any_number_of_channels_survives_collation_and_numpy(channels: int) -> None:
    batch = SegmentationBatch.collate([make_item(channels), make_item(channels)])
    assert batch.image.shape == (2, channels, 2, 3)
    wide = SegmentationItem(image=torch.rand(channels, 8, 9))
    assert wide.to_numpy().image.shape == (8, 9, channels)
    np.testing.assert_allclose(wide.to_numpy().image[..., 0], wide.image[0].numpy())


def test_masks_keep_their_indices_through_batch_items_and_numpy() -> None:
    batch = SegmentationBatch.collate([make_item(), make_item()])
    assert batch.gt_mask.dtype == torch.uint8
    assert batch.gt_mask[1].tolist() == [[0, 1, 2], [255, 4, 0]]
    assert batch.items[0].gt_mask.tolist() == [[0, 1, 2], [255, 4, 0]]
    assert isinstance(batch.to_numpy(), NumpySegmentationBatch)
    assert isinstance(batch.items[0].to_numpy(), NumpySegmentationItem)
    assert batch.to_numpy().gt_mask[0].tolist() == [[0, 1, 2], [255, 4, 0]]


def test_predictions_of_a_model_become_uint8_without_the_channel_axis() -> None:
    batch = SegmentationBatch.collate([make_item(), make_item()])
    batch.update(pred_mask=torch.full((2, 1, 2, 3), 4, dtype=torch.int64), anomaly_map=torch.ones(2, 1, 2, 3))
    assert batch.pred_mask.dtype == torch.uint8
    assert batch.pred_mask.shape == (2, 2, 3)
    assert batch.pred_mask.unique().tolist() == [4]


def test_unlabelled_item_beside_a_labelled_one_is_all_ignored_in_either_order() -> None:
    for items in ([make_item(), make_item(labelled=False)], [make_item(labelled=False), make_item()]):
        unlabelled = 1 if items[1].gt_mask is None else 0
        batch = SegmentationBatch.collate(items)
        assert batch.gt_mask[unlabelled].unique().tolist() == [255]
        assert batch.gt_mask[1 - unlabelled].tolist() == [[0, 1, 2], [255, 4, 0]]
        assert batch.gt_label[unlabelled].item() is False
    assert SegmentationBatch.collate([make_item(labelled=False)]).gt_mask is None


def test_device_names_are_collated() -> None:
    batch = SegmentationBatch.collate([make_item(device_name="a"), make_item()])
    assert batch.device_name == ["a", ""]


def test_images_of_other_sizes_are_resized_with_their_masks_and_no_index_is_mixed() -> None:
    small = SegmentationItem(image=torch.rand(3, 2, 3), gt_mask=torch.tensor([[0, 4, 0], [4, 0, 4]], dtype=torch.uint8))
    large = SegmentationItem(image=torch.rand(3, 8, 12), gt_mask=torch.zeros(8, 12, dtype=torch.uint8))
    batch = SegmentationBatch.collate([small, large])
    assert batch.gt_mask.shape == (2, 8, 12)
    assert set(batch.gt_mask[0].unique().tolist()) == {0, 4}


def test_items_of_other_planes_are_named() -> None:
    with pytest.raises(ValueError, match=r"b\.png: has 6 planes, but a\.png of the same batch has 3"):
        SegmentationBatch.collate([make_item(3, image_path="a.png"), make_item(6, image_path="b.png")])


def test_torchvision_augments_image_and_mask_together() -> None:
    image, mask = Image(make_item().image), Mask(make_item().gt_mask)
    flip = Compose([RandomHorizontalFlip(p=1.0), Resize([4, 6])])
    flipped_image, flipped_mask = flip(image, mask)
    item = SegmentationItem(image=flipped_image, gt_mask=flipped_mask)
    expected = torch.tensor([[2, 1, 0], [0, 4, 255]], dtype=torch.uint8).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert item.gt_mask.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("mask", "error", "match"),
    [
        (torch.zeros(2, 3, dtype=torch.bool), TypeError, "must hold integers"),
        (torch.zeros(2, 3), TypeError, "float32"),
        (torch.zeros(2, 2, 3, dtype=torch.uint8), ValueError, r"\[H, W\] or \[1, H, W\], got \(2, 2, 3\)"),
        (torch.full((2, 3), 256), ValueError, r"0\.\.255, got 256\.\.256"),
        (torch.full((2, 3), -1), ValueError, r"got -1\.\.-1"),
        ([[0]], TypeError, "must be a torch.Tensor"),
    ],
)
@pytest.mark.parametrize("field", ["gt_mask", "pred_mask"])
def test_a_mask_of_wrong_type_shape_or_range_raises(
    field: str, mask: torch.Tensor, error: type[Exception], match: str
) -> None:
    if field == "pred_mask" and getattr(mask, "dtype", None) == torch.bool:
        pytest.skip("anomalib's own models predict boolean masks")
    with pytest.raises(error, match=match):
        SegmentationItem(image=torch.rand(3, 2, 3), **{field: mask})


def test_a_boolean_prediction_of_anomalibs_models_becomes_0_and_1() -> None:
    boolean = torch.tensor([[True, False, True], [False, False, True]])
    item = SegmentationItem(image=torch.rand(3, 2, 3), pred_mask=boolean)
    assert item.pred_mask.dtype == torch.uint8
    assert item.pred_mask.tolist() == [[1, 0, 1], [0, 0, 1]]


def test_numpy_twins_raise_the_same() -> None:
    image = np.zeros((2, 3, 3), dtype=np.float32)
    with pytest.raises(TypeError, match="must hold integers"):
        NumpySegmentationItem(image=image, gt_mask=np.zeros((2, 3), dtype=bool))
    with pytest.raises(ValueError, match=r"got 300\.\.300"):
        NumpySegmentationBatch(image=image[None], pred_mask=np.full((1, 2, 3), 300))
    with pytest.raises(ValueError, match="must have the shape"):
        NumpySegmentationItem(image=image, pred_mask=np.zeros((2, 2, 3), dtype=np.uint8))


@pytest.mark.parametrize("image", [torch.rand(2, 3), torch.rand(1, 3, 2, 3), torch.rand(0, 2, 3)])
def test_an_image_of_wrong_shape_raises(image: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"\[C, H, W\]"):
        SegmentationItem(image=image)
