# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The head as a torch module: against dense layers on standardised features, and what it keeps."""

import numpy as np
import pytest
import torch
from pixel_oracles import bilinear, dense, random_network

from anomalib_aoissl.pixel_head.autocontext import context_maps
from anomalib_aoissl.pixel_head.features import feature_maps
from anomalib_aoissl.pixel_head.head import PixelHead, between, standardising

DEPTH, DIRECTIONS = 12, 6  # of a token


def head_of(planes: int, classes: int, *, autocontext: bool) -> PixelHead:
    """Return a head with random arrays, whose features are far from standardised."""
    fine, coarse = 19 * planes, 20 * planes + DIRECTIONS
    head = PixelHead()
    head.directions, head.centre = torch.randn(DEPTH, DIRECTIONS), torch.randn(DEPTH)
    head.mean, head.scale = torch.randn(fine + coarse) / 4, torch.rand(fine + coarse) + 0.2
    head.set_layers("first", random_network((fine + coarse, 9, 7, classes)))
    if autocontext:
        head.set_layers("second", random_network((fine + coarse + 6 * classes, 8, 6, classes), seed=1))
    head.offsets = torch.linspace(-1, 1.5, classes)
    return head


def rows_of(fine: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """Return the features of each pixel ``[H * W, F]`` of maps of an image."""
    large = bilinear(coarse, *fine.shape[-2:])
    return np.concatenate([fine, large]).reshape(len(fine) + len(coarse), -1).T


@pytest.mark.parametrize(("size", "grid"), [((32, 48), (4, 6)), ((42, 56), (3, 4))])
@pytest.mark.parametrize("planes", [1, 3, 4])
def test_probabilities_are_those_of_dense_layers_at_each_pixel(
    size: tuple[int, int], grid: tuple[int, int], planes: int
) -> None:
    images, tokens = torch.rand(2, planes, *size), torch.randn(2, DEPTH, *grid)
    head = head_of(planes, 3, autocontext=True)
    with torch.no_grad():
        found = head(images, tokens)
    assert found.shape == (2, 3, *size)
    centred = tokens - head.centre[None, :, None, None]
    maps = feature_maps(images, torch.einsum("bdhw,de->behw", centred, head.directions))
    mean, scale = head.mean.double().numpy(), head.scale.double().numpy()
    for index in range(2):
        rows = (rows_of(maps.fine[index].numpy(), maps.coarse[index].numpy()) - mean) / scale
        first = dense(head.layers("first"), rows).softmax(dim=1)
        probabilities = first.T.reshape(1, 3, *size)
        with torch.no_grad():
            alone = head.first(head.features(images, tokens))[index]
        assert torch.allclose(alone.double(), probabilities[0], atol=1e-4)
        around = bilinear(context_maps(probabilities)[0].numpy(), *size).reshape(15, -1).T
        fine = 19 * planes
        rows = np.concatenate([rows[:, :fine], first.numpy() * 4, rows[:, fine:], around * 4], axis=1)
        second = (dense(head.layers("second"), rows) + head.offsets).softmax(dim=1)
        assert torch.allclose(found[index].double(), second.T.reshape(3, *size), atol=1e-4)


def test_without_a_second_network_the_first_one_decides() -> None:
    images, tokens, head = torch.rand(1, 3, 32, 48), torch.randn(1, DEPTH, 4, 6), head_of(3, 3, autocontext=False)
    with torch.no_grad():
        found, first = head(images, tokens), head.first(head.features(images, tokens))
    moved = first * head.offsets.exp()[None, :, None, None]
    assert torch.allclose(found, moved / moved.sum(dim=1, keepdim=True), atol=1e-5)


def test_an_empty_head_is_not_fitted() -> None:
    head = PixelHead()
    assert not head.fitted
    assert not head.has_autocontext
    assert head.num_classes == 0
    assert head.layers("first") == head.layers("second") == ()


def test_a_head_tells_what_it_has_and_forgets_it() -> None:
    head = head_of(3, 5, autocontext=True)
    assert head.fitted
    assert head.has_autocontext
    assert head.num_classes == 5
    head.set_layers("second", ())
    assert head.fitted
    assert not head.has_autocontext
    head.clear()
    assert not head.fitted
    assert all(not buffer.numel() for buffer in head.buffers())


def test_layers_come_back_as_they_were() -> None:
    head, layers = PixelHead(), random_network((5, 4, 3, 2))
    head.set_layers("second", layers)
    assert all(np.array_equal(*pair) for pair in zip(head.layers("second"), layers, strict=True))
    assert head.layers("first") == ()


@pytest.mark.parametrize("autocontext", [False, True])
def test_a_state_loads_into_an_empty_head(autocontext: bool) -> None:
    head, other = head_of(3, 4, autocontext=autocontext), PixelHead()
    other.load_state_dict(head.state_dict())
    images, tokens = torch.rand(1, 3, 42, 56), torch.randn(1, DEPTH, 3, 4)
    with torch.no_grad():
        assert torch.equal(other(images, tokens), head(images, tokens))
    assert other.has_autocontext == autocontext
    assert other.basis() == head.basis()
    # And an empty one's state empties a fitted head.
    other.load_state_dict(PixelHead().state_dict())
    assert not other.fitted


def test_basis_is_of_the_features_alone() -> None:
    head = head_of(1, 3, autocontext=False)
    basis = head.basis()
    head.set_layers("first", random_network((5, 4, 3, 2)))
    assert head.basis() == basis
    for name in ("directions", "centre", "mean", "scale"):
        values = head.get_buffer(name)
        setattr(head, name, values * 1.001)
        assert head.basis() != basis
        setattr(head, name, values)
    assert head.basis() == basis


def test_values_of_autocontext_stand_after_the_fine_ones_and_at_the_end() -> None:
    assert between(torch.tensor([1.0, 2, 3]), 9.0, 2, 1, 3).tolist() == [1, 2, 9, 3, 9, 9, 9]


def test_layers_that_standardise_their_inputs_give_the_same_scores() -> None:
    layers, values = random_network((6, 5, 3)), torch.randn(20, 6) * 7 + 2
    mean, scale = torch.randn(6), torch.rand(6) + 0.1
    found = dense(standardising([torch.from_numpy(layer) for layer in layers], mean, scale), values)
    assert torch.allclose(found, dense(layers, (values - mean) / scale), atol=1e-4)


def test_a_head_takes_what_another_was_fitted_to() -> None:
    head, other = PixelHead(), PixelHead()
    for name, buffer in other.named_buffers():
        setattr(other, name, buffer.new_tensor([1.0, 2.0]))
    head.take(other)
    assert all(buffer.tolist() == [1, 2] for buffer in head.buffers())
    other.mean += 1  # a copy: what becomes of the other one does not matter
    assert head.mean.tolist() == [1, 2]
