# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""`PyramidEncoder`: maps against torchvision's MobileNetV2, embeddings and tokens against OpenCV, cell by cell."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from torchvision.models import mobilenet_v2

from anomalib_aoissl.encoder import PyramidEncoder
from anomalib_aoissl.encoder.architecture import DEFAULT_ENCODER, SHIPPED
from anomalib_aoissl.wirebond.drawing.rendering import draw

SIZES = [(32, 48), (24, 40), (40, 16), (64, 8)]  # of the last three, 16 px do not divide both sides
TORCHVISION_LAYERS = (4, 7, 14)
"""Layers of torchvision's ``features`` that end at strides 4, 8 and 16."""


def torchvision_maps(images: torch.Tensor) -> list[torch.Tensor]:
    """Return the maps of torchvision's network, which has the shipped weights in the order of its own layers."""
    stored = load_file(SHIPPED[DEFAULT_ENCODER])
    names = timm.create_model("mobilenetv2_100", num_classes=0).state_dict()
    network = mobilenet_v2().eval()
    own = [name for name in network.state_dict() if not name.startswith("classifier.")]
    state = {name: stored[other].float() for name, other in zip(own, names, strict=True)}
    network.load_state_dict(state, strict=False)
    with torch.no_grad():
        return [network.features[:layers](images) for layers in TORCHVISION_LAYERS]


def unit(values: np.ndarray) -> np.ndarray:
    """Return maps ``[D, rows, columns]`` of unit length at each place."""
    return values / np.linalg.norm(values, axis=0)


def embeddings_by_hand(maps: list[np.ndarray], lengths: np.ndarray) -> np.ndarray:
    """Return an embedding ``[P, D]`` for each patch: its details, and its surroundings with the same weight.

    Details are each fine feature at its four places, then the patch's; surroundings OpenCV's enlargement. A feature's
    share in the square of its own and the usual length is what it keeps; the rest to the squared length 4 comes last.
    """
    kept = []
    for values, usual in zip(maps, lengths, strict=True):
        squared = np.linalg.norm(values, axis=0) ** 2
        kept.append(unit(values) * np.sqrt(squared / (squared + usual**2)))
    fine, patch, coarse = kept
    around = enlarged(coarse, 2, patch.shape[1:])
    rows = []
    for row, column in np.ndindex(patch.shape[1:]):
        corner = fine[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]  # [D, 2, 2]
        shown = [corner.reshape(-1) / 2, patch[:, row, column], around[:, row, column] * np.sqrt(2)]
        one = np.concatenate(shown)
        rows.append(np.append(one, np.sqrt(4 - one @ one)))
    return np.stack(rows)


def enlarged(maps: np.ndarray, factor: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return OpenCV's bilinear enlargement of maps, cut to (rows, columns)."""
    size = (maps.shape[2] * factor, maps.shape[1] * factor)  # OpenCV says (width, height)
    planes = [cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in maps]
    return np.stack(planes)[:, : shape[0], : shape[1]]


def tokens_by_hand(maps: list[np.ndarray]) -> np.ndarray:
    """Return tokens ``[T, rows, columns]``: the finest map, and the coarser ones enlarged."""
    fine, patch, coarse = maps
    return np.concatenate([fine, enlarged(patch, 2, fine.shape[1:]), enlarged(coarse, 4, fine.shape[1:])])


@pytest.mark.parametrize("size", SIZES)
def test_the_default_reads_torchvisions_maps(size: tuple[int, int]) -> None:
    encoder = PyramidEncoder(image_size=size).eval()
    images = torch.randn(2, 3, *size)
    expected = torchvision_maps(images)
    with torch.no_grad():
        for found, wanted in zip(encoder._maps(images), expected, strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
        read = encoder.read(images)
    assert encoder.grid_size == (size[0] // 8, size[1] // 8)
    assert encoder.token_grid == (size[0] // 4, size[1] // 4) == read.tokens.shape[-2:]
    assert (encoder.embed_dim, encoder.token_dim) == (4 * 24 + 32 + 96 + 1, 24 + 32 + 96)
    for image in range(2):
        maps = [one[image].double().numpy() for one in expected]
        by_hand = embeddings_by_hand(maps, encoder.lengths.double().numpy())
        np.testing.assert_allclose(read.embeddings[image].numpy(), by_hand, atol=1e-4)
        np.testing.assert_allclose(read.tokens[image].numpy(), tokens_by_hand([unit(one) for one in maps]), atol=1e-4)


def test_usual_lengths_are_those_of_pictures() -> None:
    """Of a drawn picture whose greys have mean 0 and deviation 1: within a factor of two at each stride."""
    encoder = PyramidEncoder(image_size=(256, 256)).eval()
    picture = draw("soic8_gold", seed=0, unit=0, size=(256, 256)).bright_field.astype(np.float32)
    shown = torch.from_numpy((picture - picture.mean()) / picture.std()).expand(1, 3, -1, -1)
    with torch.no_grad():
        found = [maps.square().sum(dim=1).mean().sqrt().item() for maps in encoder._maps(shown)]
    np.testing.assert_allclose(np.log2(encoder.lengths.numpy() / found), 0, atol=1)


def test_bare_ground_is_like_other_bare_ground() -> None:
    """Noise that cannot be seen turns short features any way; their embeddings stay alike."""
    encoder = PyramidEncoder(image_size=(64, 64)).eval()
    random = torch.Generator().manual_seed(0)
    grounds = 0.02 * torch.randn(2, 3, 64, 64, generator=random)
    with torch.no_grad():
        one, other = encoder(grounds) / 2
        finest = [unit(maps.numpy()) for maps in encoder._maps(grounds)[0]]
    assert (one @ other.T).amax(dim=1).min() > 0.98
    assert (finest[0] * finest[1]).sum(axis=0).min() < 0.9


def test_forward_gives_the_embeddings() -> None:
    encoder = PyramidEncoder(image_size=(24, 32)).eval()
    images = torch.randn(1, 3, 24, 32)
    torch.testing.assert_close(encoder(images), encoder.read(images).embeddings)


@pytest.mark.parametrize("planes", [1, 2, 5])
def test_other_planes_share_out_the_first_layer(planes: int) -> None:
    """As timm does it: grey is the sum of the colours, and more planes repeat them at the same sum."""
    encoder = PyramidEncoder(image_size=(24, 40), in_channels=planes).eval()
    stored = load_file(SHIPPED[DEFAULT_ENCODER])["conv_stem.weight"].float()
    if planes == 1:
        expected = stored.sum(dim=1, keepdim=True)
    else:
        expected = torch.stack([stored[:, plane % 3] for plane in range(planes)], dim=1) * (3 / planes)
    # timm adapts the layer in half precision, as it is stored
    torch.testing.assert_close(encoder.network.conv_stem.weight, expected, atol=1e-4, rtol=2e-3)
    assert encoder.mean == tuple((0.485, 0.456, 0.406)[plane % 3] for plane in range(planes))
    assert encoder.std == tuple((0.229, 0.224, 0.225)[plane % 3] for plane in range(planes))
    assert encoder.read(torch.rand(2, planes, 24, 40)).tokens.shape == (2, 152, 6, 10)


@pytest.mark.parametrize("planes", [3, 5])
def test_a_description_builds_the_same_encoder(planes: int) -> None:
    given = {"architecture": DEFAULT_ENCODER, "mean": [0.1] * planes, "std": [0.2] * planes}
    encoder = PyramidEncoder(given, image_size=(24, 40), in_channels=planes).eval()
    described = json.loads(json.dumps(encoder.describe()))  # plain data, as checkpoints hold it
    assert described == {**given, "model_args": {}}
    rebuilt = PyramidEncoder(described, image_size=(24, 40), in_channels=planes, pretrained=False).eval()
    images = torch.rand(1, planes, 24, 40)
    assert not torch.equal(rebuilt(images), encoder(images))
    rebuilt.load_state_dict(encoder.state_dict())
    assert torch.equal(rebuilt(images), encoder(images))
    assert (rebuilt.mean, rebuilt.std) == ((0.1,) * planes, (0.2,) * planes)
    assert rebuilt.signature == encoder.signature


def test_random_weights_are_the_same_in_every_run() -> None:
    torch.manual_seed(1)
    first = PyramidEncoder("resnet18", image_size=(24, 40), pretrained=False).eval()
    torch.manual_seed(2)
    second = PyramidEncoder("resnet18", image_size=(24, 40), pretrained=False).eval()
    expected = torch.random.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(torch.random.get_rng_state(), expected)  # the caller's randomness is left as it was
    images = torch.rand(1, 3, 24, 40)
    read = first.read(images)
    assert torch.equal(read.tokens, second.read(images).tokens)
    assert (first.embed_dim, first.token_dim) == (4 * 64 + 128 + 256 + 1, 64 + 128 + 256)
    assert read.embeddings.shape == (1, 15, first.embed_dim)
    assert read.tokens.shape == (1, first.token_dim, 6, 10)


def test_resnet_is_read_after_its_first_three_stages() -> None:
    encoder = PyramidEncoder("resnet18", image_size=(32, 48), pretrained=False).eval()
    network, images = encoder.network, torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        maps = [network.layer1(network.maxpool(network.act1(network.bn1(network.conv1(images)))))]
        maps += [network.layer2(maps[0])]
        maps += [network.layer3(maps[1])]
        found = encoder.read(images)
    features = [one[0].double().numpy() for one in maps]
    by_hand = embeddings_by_hand(features, encoder.lengths.double().numpy())
    np.testing.assert_allclose(found.embeddings[0].numpy(), by_hand, atol=1e-5)
    np.testing.assert_allclose(found.tokens[0].numpy(), tokens_by_hand([unit(one) for one in features]), atol=1e-5)


def test_maps_that_were_rounded_down_go_on_to_the_border() -> None:
    """ConvNeXt's map at stride 16 leaves 8 px of 24x40 px uncovered, which have the features beside them."""
    encoder = PyramidEncoder("convnext_atto", image_size=(24, 40), pretrained=False).eval()
    images = torch.randn(1, 3, 24, 40)
    with torch.no_grad():
        coarse = unit(encoder._maps(images)[2][0].numpy())  # [D, 1, 2]
        found = encoder.read(images).tokens[0, -len(coarse) :].numpy()
    assert coarse.shape[1:] == (1, 2)
    planes = [cv2.resize(plane, (8, 4), interpolation=cv2.INTER_LINEAR) for plane in coarse]
    expected = np.pad(np.stack(planes), ((0, 0), (0, 2), (0, 2)), mode="edge")
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_without_a_map_at_stride_16() -> None:
    """A ResNet whose third stage keeps the stride of the second has two maps to read."""
    arguments = {"architecture": "resnet18", "model_args": {"output_stride": 8}}
    encoder = PyramidEncoder(arguments, image_size=(24, 40), pretrained=False).eval()
    assert encoder.strides == [4, 8]
    assert encoder.read(torch.rand(1, 3, 24, 40)).tokens.shape == (1, encoder.token_dim, 6, 10)
    assert encoder.embed_dim == 4 * 64 + 512 + 1  # the last one at stride 8
    assert encoder.signature[0] == [4, 8]


def test_a_network_that_is_made_for_one_size_is_made_for_the_images() -> None:
    arguments = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "window_size": 4}
    description = {"architecture": "swin_tiny_patch4_window7_224", "model_args": arguments}
    encoder = PyramidEncoder(description, image_size=(64, 96), pretrained=False).eval()
    read = encoder.read(torch.rand(1, 3, 64, 96))
    assert read.embeddings.shape == (1, 96, 4 * 16 + 32 + 64 + 1)
    assert read.tokens.shape == (1, 16 + 32 + 64, 16, 24)


def test_a_folder_that_timm_wrote(tmp_path: Path) -> None:
    source = timm.create_model("resnet18", num_classes=0)
    config = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    timm.models.save_for_hf(source, str(tmp_path), model_config={"pretrained_cfg": config}, safe_serialization=True)
    encoder = PyramidEncoder(f"local-dir:{tmp_path}", image_size=(24, 40))
    assert torch.equal(encoder.network.layer3[0].conv1.weight, source.layer3[0].conv1.weight)
    assert (encoder.mean, encoder.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert encoder.describe()["architecture"] == "resnet18"  # a checkpoint does not need the folder


def test_a_folder_of_the_defaults_architecture_has_its_own_weights(tmp_path: Path) -> None:
    source = timm.create_model(DEFAULT_ENCODER, pretrained=False, num_classes=0)
    timm.models.save_for_hf(source, str(tmp_path), safe_serialization=True)
    encoder = PyramidEncoder(f"local-dir:{tmp_path}", image_size=(24, 40))
    assert torch.equal(encoder.network.conv_stem.weight, source.conv_stem.weight)
    assert encoder.mean == (0.485, 0.456, 0.406)
    rebuilt = PyramidEncoder(encoder.describe(), image_size=(24, 40), pretrained=False)
    rebuilt.load_state_dict(encoder.state_dict())
    assert rebuilt.mean == encoder.mean


@pytest.mark.parametrize(
    ("encoder", "size", "match"),
    [
        ("mobilnetv2_100", (64, 64), "is no model that timm knows"),
        ("mixer_s16_224", (224, 224), r"have the strides \[16\], and 4 and 8 px are needed"),
        ("inception_v3", (96, 96), r"cannot read images of 96x96 px .*\(20, 20\).* Choose another image_size"),
        ("convnext_atto", (8, 64), "cannot read images of 8x64 px"),
        (DEFAULT_ENCODER, (60, 64), r"patch is 8x8 px .* Sizes that fit: \(56, 64\) or \(64, 64\)"),
        ("local-dir:/nowhere", (64, 64), "/nowhere must hold the config.json and model.safetensors"),
        ({"name": "resnet18"}, (64, 64), 'needs "architecture"'),
        ({"architecture": "resnet18", "model_args": {"wings": 2}}, (64, 64), "it cannot be loaded .*wings"),
    ],
)
def test_what_is_no_pyramid_raises(encoder: str | dict[str, object], size: tuple[int, int], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        PyramidEncoder(encoder, image_size=size, pretrained=False)
