# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Fitting a small network in numpy: gradients, optimizer and schedule against torch, and toy problems."""

import numpy as np
import pytest
import torch
from pixel_oracles import dense, random_network

from anomalib_aoissl.pixel_head.learning import fitting
from anomalib_aoissl.pixel_head.learning.fitting import (
    Schedule,
    _Adam,
    _rate,
    fit_network,
    probabilities,
    random_layers,
    scores,
    slopes,
)


def gaussians(number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels of two classes whose means are 3 deviations apart in the first two of five features."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, number).astype(np.uint8)
    values = random.normal(size=(number, 5)).astype(np.float32)
    values[:, :2] += 3 * labels[:, None] - 1.5
    return values, labels


@pytest.mark.parametrize("sizes", [(7, 3), (7, 6, 4, 3), (5, 9, 2)])
def test_slopes_are_those_of_autograd(sizes: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    layers = random_network(sizes)
    inputs = random.normal(size=(40, sizes[0])).astype(np.float32)
    labels = random.integers(0, sizes[-1], 40).astype(np.uint8)
    tensors = [torch.tensor(layer, dtype=torch.float64, requires_grad=True) for layer in layers]
    outputs = torch.from_numpy(inputs).double()
    for index in range(0, len(tensors), 2):
        outputs = outputs if not index else outputs.relu()
        outputs = outputs @ tensors[index] + tensors[index + 1]
    loss = torch.nn.functional.cross_entropy(outputs, torch.from_numpy(labels).long())
    expected = torch.autograd.grad(loss, tensors)
    for found, wanted in zip(slopes(layers, inputs, labels), expected, strict=True):
        assert found.shape == tuple(wanted.shape)
        assert np.allclose(found, wanted.numpy(), atol=1e-6)


def test_scores_and_probabilities_are_those_of_linear_layers() -> None:
    layers, values = random_network((6, 8, 5, 4)), np.random.default_rng(1).normal(size=(30, 6)).astype(np.float32)
    assert np.allclose(scores(layers, values), dense(layers, values), atol=1e-5)
    assert np.allclose(probabilities(layers, values), dense(layers, values).softmax(dim=1), atol=1e-6)


def test_probabilities_of_large_scores_are_finite() -> None:
    layers = (np.array([[1000.0, -1000.0]], np.float32), np.zeros(2, np.float32))
    assert probabilities(layers, np.ones((1, 1), np.float32)).tolist() == [[1.0, 0.0]]


def test_adam_is_that_of_torch_with_biases_that_do_not_decay() -> None:
    random = np.random.default_rng(0)
    layers = [layer.astype(np.float64) for layer in random_network((6, 5, 3))]
    tensors = [torch.nn.Parameter(torch.from_numpy(layer.copy())) for layer in layers]
    groups = [{"params": tensors[::2], "weight_decay": 1e-2}, {"params": tensors[1::2], "weight_decay": 0.0}]
    theirs, ours = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.999), eps=1e-8), _Adam(layers)
    for rate in (0.01, 0.3, 0.3, 0.1, 0.02):
        gradients = [random.normal(size=layer.shape) for layer in layers]
        for group in theirs.param_groups:
            group["lr"] = rate
        for tensor, gradient in zip(tensors, gradients, strict=True):
            tensor.grad = torch.from_numpy(gradient.copy())
        theirs.step()
        ours.step(gradients, rate)
    for found, wanted in zip(layers, tensors, strict=True):
        assert np.allclose(found, wanted.detach().numpy(), atol=1e-9)


def test_rate_rises_for_30_steps_and_falls_along_a_cosine() -> None:
    rates = [_rate(step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(3e-3 / 30)
    assert np.argmax(rates) == 29
    assert rates[500] == pytest.approx(1.5e-3)
    assert rates[250] == pytest.approx(3e-3 * (0.5 + 0.5 * 2**-0.5))
    assert 0 < rates[-1] < 1e-7
    assert (np.diff(rates[30:]) < 0).all()


def test_random_layers_are_spread_by_their_inputs_and_the_last_is_small() -> None:
    layers = random_layers((400, 300, 200, 3), np.random.default_rng(0))
    assert [layer.shape for layer in layers] == [(400, 300), (300,), (300, 200), (200,), (200, 3), (3,)]
    assert all(layer.dtype == np.float32 for layer in layers)
    spreads = [layer.std() for layer in layers[::2]]
    assert np.allclose(spreads, [(2 / 400) ** 0.5, (2 / 300) ** 0.5, 0.1 * (2 / 200) ** 0.5], rtol=0.1)
    assert not any(layer.any() for layer in layers[1::2])


def test_features_are_hidden_and_get_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []

    def watched(layers: list[np.ndarray], inputs: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
        seen.append(inputs.copy())
        return slopes(layers, inputs, labels)

    monkeypatch.setattr(fitting, "slopes", watched)
    labels = np.arange(50, dtype=np.uint8) % 2
    fit_network(np.ones((50, 6), np.float32), labels, 2, tokens=slice(3, 6), schedule=Schedule(3))
    assert not np.array_equal(seen[0], seen[1])
    inputs = np.concatenate(seen)
    others, tokens = inputs[:, :3], inputs[:, 3:]
    assert (others == 0).mean() == pytest.approx(0.1, abs=0.02)
    assert others[others != 0].mean() == pytest.approx(1 / 0.9, abs=0.01)
    assert others[others != 0].std() == pytest.approx(0.05 / 0.9, abs=0.005)
    hidden = (tokens == 0).all(axis=1)  # by chance alone, 0.1 ** 3
    assert hidden.mean() == pytest.approx(0.3, abs=0.04)
    assert (tokens[~hidden] == 0).mean() == pytest.approx(0.1, abs=0.02)


def test_two_gaussians_are_told_apart_in_few_steps() -> None:
    layers = fit_network(*gaussians(2000, 0), 2, schedule=Schedule(60))
    values, labels = gaussians(4000, 1)
    wrong = (scores(layers, values).argmax(axis=1) != labels).mean()
    assert wrong < 0.025  # the best there is: 1.7 %


def test_same_seed_gives_the_same_layers_and_another_seed_others() -> None:
    fits = [fit_network(*gaussians(300, 0), 2, schedule=Schedule(4, seed)) for seed in (5, 5, 6)]
    assert all(np.array_equal(one, two) for one, two in zip(fits[0], fits[1], strict=True))
    assert not np.allclose(fits[0][0], fits[2][0])


def test_stored_values_are_read_in_units_of_the_scale() -> None:
    values, labels = gaussians(300, 0)
    units = np.clip(np.rint(values / 0.05), -127, 127).astype(np.int8)
    stored = fit_network(units, labels, 2, scale=0.05, schedule=Schedule(4))
    plain = fit_network(units.astype(np.float32) * np.float32(0.05), labels, 2, schedule=Schedule(4))
    assert all(np.array_equal(one, two) for one, two in zip(stored, plain, strict=True))


def test_a_fit_goes_on_from_layers_and_leaves_them_as_they_are() -> None:
    start = random_network((5, 6, 4, 2))
    before = [layer.copy() for layer in start]
    same = fit_network(*gaussians(300, 0), 2, start=start, schedule=Schedule(0))
    assert all(np.array_equal(one, two) for one, two in zip(start, same, strict=True))
    moved = fit_network(*gaussians(300, 0), 2, start=start, schedule=Schedule(1))
    assert all(np.array_equal(one, two) for one, two in zip(start, before, strict=True))
    # The first step of Adam moves each bias by the rate of that step.
    assert np.allclose(np.abs(moved[-1] - start[-1]), 3e-3 / 30, rtol=1e-2)


def test_a_network_whose_tokens_are_hidden_leans_on_the_filters_too() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 2000).astype(np.uint8)
    values = np.stack([2.0 * labels - 1, 8.0 * labels - 4], axis=1) + random.normal(0, 0.3, (2000, 2))
    layers = fit_network(values.astype(np.float32), labels, 2, tokens=slice(1, 2), schedule=Schedule(80))
    alone = values.astype(np.float32) * [1, 0]
    assert (scores(layers, alone).argmax(axis=1) == labels).mean() > 0.98


@pytest.mark.parametrize("steps", [1, 50, 110])
def test_shares_of_the_work_that_are_reported_sum_up_to_1(steps: int) -> None:
    told: list[float] = []
    fit_network(*gaussians(50, 0), 2, schedule=Schedule(steps, report=told.append))
    assert sum(told) == pytest.approx(1)
    assert len(told) == -(-steps // 50)
