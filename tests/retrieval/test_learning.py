# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Learned rows: the loss by hand, better votes than before, and nothing that vanishes."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from anomalib_aoissl.retrieval import learning, memory_bank
from anomalib_aoissl.retrieval.aggregation import class_votes, winners
from anomalib_aoissl.retrieval.condensing import Rows, condense
from anomalib_aoissl.retrieval.learning import Vote, learned
from anomalib_aoissl.retrieval.memory_bank import MemoryBank

PATCH = (2, 2)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_classes(number: int = 400, dims: int = 8) -> Rows:
    """Return rows whose class is the sign of the first dimension, which the other dimensions drown."""
    embeddings = torch.randn(number, dims, generator=generator(1))
    embeddings[:, 0] = 0.5 * torch.where(embeddings[:, 0] > 0, 1.0, -1.0)
    labels = (embeddings[:, :1] > 0).to(torch.uint8).repeat(1, 4)
    labels[:, 3] = 255  # a pixel that is never labelled
    arrays = functional.normalize(embeddings, dim=1), labels, torch.zeros(number), torch.ones(number, dtype=torch.int32)
    return Rows(*(array.numpy() for array in arrays), PATCH)


def right_votes(rows: Rows, embeddings: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share of rows that get their own labels from the vote of others."""
    weights = torch.softmax(torch.from_numpy(rows.embeddings) @ embeddings.T / learning.TEMPERATURE, dim=1)
    voted = winners(class_votes(weights, labels.expand(len(weights), -1, -1), 3))
    return float((voted == torch.from_numpy(rows.labels))[:, :3].float().mean())


def test_the_loss_by_hand() -> None:
    start = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    labels = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 1.0]]])  # the first row's second pixel: ignored
    vote = Vote(start, labels, torch.tensor([4, 1]))
    query, targets = torch.tensor([[0.8, 0.6]]), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    first, second = 2 * math.exp(0.8 / 0.02 - 40), math.exp(0.6 / 0.02 - 40)  # four patches vote like two rows
    weight = first / (first + second)
    sure = 1.05 / 1.10  # share of the class of a row's pixel
    expected = -(math.log(weight * sure + (1 - weight) * (1 - sure)) + math.log(max((1 - weight) * sure, 1e-4))) / 2
    assert vote.loss(query, targets).item() == pytest.approx(expected, rel=1e-5)
    vote.points.copy_(torch.tensor([[3.0, 0.0], [2.0, 0.0]]))  # the second is a right angle from its start
    apart = vote.loss(query, targets).item()
    weight = 2 / 3
    entropy = -(math.log(weight * sure + (1 - weight) * (1 - sure)) + math.log((1 - weight) * sure)) / 2
    assert apart == pytest.approx(entropy + 0.02 * 0.5, rel=1e-5)


@pytest.mark.parametrize("seen", [6, 5])
def test_the_loss_is_that_of_a_vote_of_the_nearest_rows_and_so_are_its_gradients(
    monkeypatch: pytest.MonkeyPatch, seen: int
) -> None:
    monkeypatch.setattr(learning, "_FEW_ROWS", 0)
    monkeypatch.setattr(learning, "_SEEN", seen)
    rows, dims, classes, pixels = learning.NEIGHBOURS + 20, 6, 3, 4
    used = torch.arange(dims) < seen  # the last is empty where it is not looked at
    start = functional.normalize(torch.randn(rows, dims, generator=generator()) * used, dim=1)
    shown = torch.randint(0, classes, (rows, pixels), generator=generator(1))
    labels, counts = functional.one_hot(shown, classes).transpose(1, 2).float(), torch.arange(1, rows + 1)
    labels[12:, :, 1] = 0  # pixels that are ignored; some queries find no neighbour that has a label there
    queries = functional.normalize(torch.randn(5, dims, generator=generator(2)) * used, dim=1)
    right = torch.randint(0, classes, (5, pixels), generator=generator(3))
    vote = Vote(start, labels, counts)
    assert (vote.seen is None) == (seen == dims)
    vote.points.add_(torch.randn(rows, dims, generator=generator(4)) * used, alpha=0.2)
    targets = functional.one_hot(right, classes).transpose(1, 2).float()
    loss = vote.loss(queries, targets)
    points, scores = (tensor.detach().double().requires_grad_() for tensor in (vote.points, vote.scores))
    expected, clamped = 0.02 * (1 - functional.cosine_similarity(points, start.double(), dim=1)).mean(), 0
    said = torch.softmax(scores, dim=1) * labels.sum(dim=1, keepdim=True)
    for query, classes_of in zip(queries.double(), right.tolist(), strict=True):
        similarity = functional.cosine_similarity(query, points, dim=1)
        asked = similarity.argsort(descending=True)[: learning.NEIGHBOURS]
        weights = counts[asked].sqrt() * (similarity[asked] / 0.02).exp()
        shares = (weights[:, None, None] * said[asked]).sum(dim=0) / weights.sum()
        clamped += bool((shares < 1e-4).any())
        for pixel, index in enumerate(classes_of):
            expected = expected - shares[index, pixel].clamp(min=1e-4).log() / (5 * pixels)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    vote.slopes(queries, targets)
    expected.backward()
    torch.testing.assert_close(vote.scores.grad, scores.grad.float(), rtol=1e-4, atol=1e-6)
    assert 0 < clamped < 5
    away = (vote.points * vote.points.grad).sum(dim=1)  # a step along the row itself changes nothing
    torch.testing.assert_close(away, torch.zeros(rows), rtol=0, atol=1e-4)
    torch.testing.assert_close(vote.points.grad, points.grad.float(), rtol=1e-4, atol=1e-5)


def test_nearest_rows_are_found_in_few_dimensions_where_rows_have_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "_FEW_ROWS", 50)
    plane, _ = torch.linalg.qr(torch.randn(150, 40, generator=generator()))
    start, queries = (
        functional.normalize(torch.randn(number, 40, generator=generator(number)) @ plane.T, dim=1)
        for number in (60, 9)
    )
    seen = learning.strongest_directions(start, 96)
    assert seen is not None
    assert seen.shape == (150, 96)
    torch.testing.assert_close(start @ seen @ seen.T, start)
    np_directions = np.linalg.svd(start.numpy())[2][:5].T  # the strongest first
    fewer = learning.strongest_directions(start, 5)
    assert fewer is not None
    assert np.abs(fewer.numpy() @ fewer.numpy().T - np_directions @ np_directions.T).max() < 1e-4
    shown = torch.randint(0, 2, (60, 3), generator=generator(1))
    vote = Vote(start, functional.one_hot(shown, 2).transpose(1, 2).float(), torch.ones(60))
    assert vote.seen is not None
    asked = vote._ask(queries)
    similarities, nearest = (queries @ start.T).topk(learning.NEIGHBOURS)
    assert torch.equal(asked.nearest, nearest)
    torch.testing.assert_close(asked.weights, (similarities / 0.02).softmax(dim=1), rtol=1e-3, atol=1e-5)
    monkeypatch.setattr(learning, "_FEW_ROWS", 60)
    few = Vote(start, vote.labels.unflatten(1, (2, 3)), torch.ones(60))
    assert few.seen is None
    assert torch.equal(few._ask(queries).nearest, nearest)


def test_learned_rows_vote_better_than_the_patches_they_start_from() -> None:
    rows = two_classes()
    kept, counts = condense(rows, 6, "learned", np.random.default_rng(0))
    before = right_votes(rows, torch.from_numpy(rows.embeddings[kept]), torch.from_numpy(rows.labels[kept]))
    embeddings, labels = learned(rows, kept, counts, generator())
    assert before < 0.8
    assert right_votes(rows, embeddings, labels) > before + 0.15
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(6))
    assert (labels[:, 3] == 255).all()


def test_labels_that_a_row_has_by_chance_are_learned_away() -> None:
    rows = two_classes()
    kept, counts = condense(rows, 6, "learned", np.random.default_rng(0))
    wrong = kept[0]
    rows.labels[wrong, 0] = 1 - rows.labels[wrong, 0]  # one pixel of the patch that stands for its group
    labels = learned(rows, kept, counts, generator())[1]
    assert labels[0, 0] == labels[0, 1] == rows.labels[wrong, 1]


def test_the_same_seed_gives_the_same_rows() -> None:
    rows = two_classes()
    kept, counts = condense(rows, 6, "learned", np.random.default_rng(0))
    first, second, other = (learned(rows, kept, counts, generator(seed))[0] for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_class_of_one_pixel_does_not_vanish() -> None:
    rows = two_classes()
    rows.labels[7, 2] = 2
    kept, counts = condense(rows, 6, "learned", np.random.default_rng(0))
    labels = learned(rows, kept, counts, generator())[1]
    assert labels.unique().tolist() == [0, 1, 2, 255]
    row = kept.tolist().index(7)
    assert int(labels[row, 2]) == 2


def test_work_is_bounded_and_where_rows_are_asked_rarely_the_patches_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = two_classes()
    kept, counts = condense(rows, 6, "learned", np.random.default_rng(0))
    monkeypatch.setattr(learning, "_STEPS", (5,))
    monkeypatch.setattr(learning, "_FEWEST_ASKED", 5)
    one = 2 * 6 * 8 + 90 * 6 * (8 + 4 * 2)  # of a patch: 6 rows, 8 dims, 4 pixels of 2 classes
    steps = 5 * 500 * 6 * (8 + 4 * 2)
    for asked, moved in ((-1000, False), (0.5, False), (5 * 5 - 0.5, False), (5 * 5 + 0.5, True)):
        seconds = (steps + asked * one) / 1e11
        embeddings, labels = learned(rows, kept, counts, generator(), max(seconds, 0))
        assert np.array_equal(embeddings, rows.embeddings[kept]) != moved
        assert moved or np.array_equal(labels, rows.labels[kept])


def test_more_seconds_pay_for_more_steps_and_more_looks() -> None:
    rows, patches, dims, scores = 100, 10_000, 8, 8
    for seconds, steps, looks in ((5, 800, 15), (25, 800, 15), (50, 1600, 30), (99, 1600, 59.4), (1000, 3200, 600)):
        planned = learning._plan(seconds * 1e11, patches, rows, dims, scores)
        assert planned == (steps, int(looks * patches) // steps)


@pytest.mark.parametrize(("patches", "warmth"), [(30, 4), (29, 1)])
def test_the_vote_begins_warm_where_rows_have_many_patches_and_ends_as_the_bank_votes(
    monkeypatch: pytest.MonkeyPatch, patches: int, warmth: float
) -> None:
    warmths: list[float] = []

    class Watched(Vote):
        def slopes(self, queries: torch.Tensor, targets: torch.Tensor) -> None:
            warmths.append(self.temperature)
            super().slopes(queries, targets)

    monkeypatch.setattr(learning, "Vote", Watched)
    monkeypatch.setattr(learning, "_STEPS", (40,))
    rows = two_classes(patches)
    kept, counts = condense(rows, 6, "learned", np.random.default_rng(0))
    learned(rows, kept, counts, generator())
    assert warmths == pytest.approx([0.02 * warmth ** (1 - min(step / 30, 1)) for step in range(40)])


@pytest.mark.parametrize("temperature", [0.02, 0.08])
def test_a_warm_vote_has_the_slopes_of_its_own_loss(temperature: float) -> None:
    start = functional.normalize(torch.randn(30, 6, generator=generator()), dim=1)
    labels = functional.one_hot(torch.randint(0, 2, (30, 4), generator=generator(1)), 2).transpose(1, 2).float()
    queries, targets = functional.normalize(torch.randn(5, 6, generator=generator(2)), dim=1), labels[:5]
    vote = Vote(start, labels, torch.ones(30))
    vote.temperature = temperature
    vote.slopes(queries, targets)
    numbers = []
    for sign in (1, -1):  # the slope along one number of a row, by differences
        moved = Vote(start, labels, torch.ones(30))
        moved.temperature = temperature
        moved.points[vote._ask(queries).nearest[0, 0], 1] += sign * 1e-3
        numbers.append(moved.loss(queries, targets).item())
    slope = vote.points.grad[vote._ask(queries).nearest[0, 0], 1].item()
    assert slope == pytest.approx((numbers[0] - numbers[1]) / 2e-3, rel=0.05)


def test_labels_stay_where_learning_them_takes_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = two_classes()
    kept, counts = condense(rows, 6, "learned", np.random.default_rng(0))
    monkeypatch.setattr(learning, "_LABEL_LIMIT", 6 * 4 * 2 - 1)
    embeddings, labels = learned(rows, kept, counts, generator())
    assert np.array_equal(labels, rows.labels[kept])
    assert not np.array_equal(embeddings, rows.embeddings[kept])


def test_a_bank_learns_once_when_it_is_finished_even_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(rows: Rows, *arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(len(rows.labels))
        return learned(rows, *arguments)

    monkeypatch.setattr(memory_bank, "learned", counted)
    bank = MemoryBank(8, PATCH, budget=5, rule="learned", precision="fp16")
    bank.class_names = ["background", "wire"]
    with torch.inference_mode():  # as validation does
        for i in range(12):  # more than are held, so that they are condensed on the way
            masks = torch.randint(0, 2, (1, 8, 8), generator=generator(i)).to(torch.uint8)
            bank.add(torch.randn(1, 16, 8, generator=generator(i)), masks, ["a"], [f"image{i}"])
        bank.finish()
    assert len(calls) == 1
    assert len(bank) == 5
    assert bank.embeddings.dtype == torch.float16
    assert int(bank.counts.sum()) == 192
    torch.testing.assert_close(bank.embeddings.float().norm(dim=1), torch.ones(5), atol=1e-3, rtol=0)


def test_a_learned_bank_is_a_third_of_its_patches_where_that_pays() -> None:
    labels, ones = torch.randint(0, 3, (9000, 4), generator=generator()).to(torch.uint8), torch.ones(9000)
    assert learning.learned_size(labels, ones, 8, 20000, 25.0) == 3000
    assert learning.learned_size(labels, 1.5 * ones, 8, 20000, 25.0) == 4500  # of 13,500 patches
    assert learning.learned_size(labels, ones, 8, 2500, 25.0) == 2500
    assert learning.learned_size(labels[:5000], ones[:5000], 8, 20000, 25.0) == 2048
    assert learning.learned_size(labels[:4095], ones[:4095], 8, 20000, 25.0) == 20000  # most would be rows themselves
    assert learning.learned_size(labels[:2048], ones[:2048], 8, 20000, 25.0) == 20000  # every patch stays
    assert learning.learned_size(labels, ones, 8, 20000, 0.0) == 20000
    assert learning.learned_size(labels, 3 * ones, 8, 20000, 25.0) == 20000  # rows that stand for three already


def test_rows_that_are_most_of_the_patches_stay_as_they_are() -> None:
    rows = two_classes(40)
    for size, moved in ((20, True), (21, False)):
        kept, counts = condense(rows, size, "learned", np.random.default_rng(0))
        assert np.array_equal(learned(rows, kept, counts, generator())[0], rows.embeddings[kept]) != moved


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, 4608), (5.0, 2048)])
def test_a_bank_is_cut_to_what_is_learned_and_stays_so_in_later_edits(seconds: float, expected: int) -> None:
    def bank_of(images: range) -> MemoryBank:
        bank = MemoryBank(4, PATCH, budget=6000, rule="learned", learning_seconds=seconds)
        bank.class_names = ["background", "wire"]
        for i in images:
            masks = torch.randint(0, 2, (1, 48, 48), generator=generator(i)).to(torch.uint8)
            bank.add(torch.randn(1, 576, 4, generator=generator(i)), masks, ["a"], [f"image{i}"])
        bank.finish()
        return bank

    bank = bank_of(range(8))
    assert len(bank) == expected
    assert int(bank.row_counts().sum()) == 8 * 576
    rows = bank.embeddings.clone()
    bank.merge(bank_of(range(8, 9)))
    assert len(bank) == expected + 576
    assert torch.equal(bank.embeddings[:expected], rows)
