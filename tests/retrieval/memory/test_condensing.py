# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Condensing: the budget is kept, nothing vanishes, what decides stays, and the same seed gives the same bank."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from anomalib_aoissl.bank import condensing
from anomalib_aoissl.bank.condensing import (
    Entries,
    balancing_weights,
    condense,
    covering_entries,
    farthest,
    joint_points,
)
from anomalib_aoissl.bank.dividing import divide, nearest_to_centres
from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.retrieval.memory.bank_size import entries_of_size
from anomalib_aoissl.retrieval.memory.memory_bank import MemoryBank
from anomalib_aoissl.retrieval.options import VoteOptions
from anomalib_aoissl.retrieval.torch_model import RetrievalModel

PATCH = (4, 4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def make_entries(embeddings: torch.Tensor, labels: torch.Tensor, devices: torch.Tensor | None = None) -> Entries:
    """Return entries that each stand for one patch, of one device where none are given."""
    number = len(labels)
    devices = torch.zeros(number, dtype=torch.int32) if devices is None else devices
    counts = np.ones(number, np.int32)
    return Entries(embeddings.float().numpy(), labels.to(torch.uint8).numpy(), devices.numpy(), counts, PATCH)


def random_entries(number: int = 600, classes: int = 4, devices: int = 3, dims: int = 64, seed: int = 1) -> Entries:
    """Return entries of random looks, each of one class or of two; one entry has a pixel of a rare class."""
    g = generator(seed)
    labels = torch.randint(0, classes, (number, 1), generator=g).repeat(1, 16)
    other = torch.randint(0, classes, (number, 1), generator=g)
    labels[:, 9:] = torch.where(torch.rand(number, 1, generator=g) < 0.3, other, labels[:, :1])
    labels[number // 2, 3] = classes
    looks = functional.normalize(torch.randn(number, dims, generator=g), dim=-1)
    return make_entries(looks, labels, torch.randint(0, devices, (number,), generator=g))


@pytest.mark.parametrize("budget", [5, 6, 8, 50, 299, 600, 1000])
def test_the_budget_is_kept_exactly_and_no_class_or_device_vanishes(budget: int) -> None:
    entries = random_entries()
    kept, counts = condense(entries, budget, random())
    assert len(kept) == len(counts) == min(budget, 600)
    assert kept.tolist() == sorted(set(kept.tolist()))
    assert np.unique(entries.labels[kept]).tolist() == [0, 1, 2, 3, 4]
    assert np.unique(entries.devices[kept]).tolist() == [0, 1, 2]
    assert int(counts.sum()) == 600


def test_a_budget_below_the_classes_and_devices_raises() -> None:
    with pytest.raises(ValueError, match=r"A bank of 3 entries cannot hold .* 5 entries at least. Allow a larger bank"):
        condense(random_entries(), 3, random())


def test_balancing_weights_by_hand() -> None:
    # 14 patches of background, 7 of wire, 4 of both by halves: 16 / 25 and 9 / 25 of all, whose roots are 4/5 and 3/5.
    labels = torch.tensor([[0] * 16, [1] * 16, [0] * 8 + [1] * 8])
    entries = replace(make_entries(torch.eye(3), labels), counts=np.array([14, 7, 4]))
    expected = [14 / 0.8, 7 / 0.6, 4 * (0.5 / 0.8 + 0.5 / 0.6)]
    assert balancing_weights(entries).tolist() == pytest.approx(expected, rel=1e-6)


def test_labels_count_twice_as_far_as_looks_of_equal_spread() -> None:
    # Two looks and two labels, each half of the entries: equal spread, so that distances between them are the weights.
    labels = torch.tensor([[0] * 16, [1] * 16, [0] * 16, [1] * 16])
    points = joint_points(make_entries(torch.eye(2)[[0, 0, 1, 1]], labels), random())
    looks, both, marks = (float(np.linalg.norm(points[0] - points[other])) for other in (2, 3, 1))
    assert marks == pytest.approx(2 * looks, rel=1e-5)
    assert both == pytest.approx(5**0.5 * looks, rel=1e-5)
    assert looks == pytest.approx(2, rel=1e-5)


def test_covering_entries_show_every_class_and_device_with_few_entries() -> None:
    entries = random_entries(devices=40)
    cover = covering_entries(entries)
    assert np.unique(entries.labels[cover]).tolist() == [0, 1, 2, 3, 4]
    assert len(np.unique(entries.devices[cover])) == 40
    assert len(cover) <= 45


def test_the_same_seed_gives_the_same_entries() -> None:
    entries = random_entries()
    first, second, other = (condense(entries, 70, random(seed))[0].tolist() for seed in (0, 0, 1))
    assert first == second
    assert first != other


def test_near_duplicates_with_equal_labels_become_one_entry_that_counts_them() -> None:
    g = generator()
    looks = functional.normalize(torch.randn(6, 32, generator=g), dim=-1)
    embeddings = functional.normalize(looks.repeat_interleave(20, 0) + 1e-4 * torch.randn(120, 32, generator=g), dim=-1)
    labels = torch.tensor([0, 0, 0, 1, 1, 2], dtype=torch.uint8).repeat_interleave(20)[:, None].repeat(1, 16)
    kept, counts = condense(make_entries(embeddings, labels), 6, random())
    assert (kept // 20).tolist() == [0, 1, 2, 3, 4, 5]
    assert counts.tolist() == [20] * 6


def test_patches_that_look_alike_and_are_labelled_otherwise_are_kept_before_those_that_look_otherwise() -> None:
    looks = functional.normalize(torch.ones(64, 32) + 0.3 * torch.randn(64, 32, generator=generator()), dim=-1)
    labels = (torch.arange(16) < torch.arange(64)[:, None] % 4 * 4 + 2).to(torch.uint8)  # an edge at one of four places
    kept, counts = condense(make_entries(looks, labels), 4, random())
    assert sorted(labels[kept].sum(dim=1).tolist()) == [2, 6, 10, 14]
    assert counts.tolist() == [16] * 4


def test_the_entry_in_the_middle_stands_for_its_group() -> None:
    middle = 10 * torch.eye(9)  # nine groups far from each other
    embeddings = torch.cat([middle, middle + 0.3, middle - 0.3])
    labels = torch.zeros(27, 16, dtype=torch.uint8)
    kept, counts = condense(make_entries(embeddings, labels), 9, random())
    assert kept.tolist() == list(range(9))
    assert counts.tolist() == [3] * 9


def test_entries_that_are_the_same_leave_the_budget_unused() -> None:
    one = random_entries(10)
    nine = [np.concatenate([column] * 9) for column in (one.embeddings, one.labels, one.devices, one.counts)]
    entries = Entries(nine[0], nine[1], nine[2], nine[3], PATCH)
    kept, counts = condense(entries, 40, random())
    assert len(kept) == 10
    assert counts.tolist() == [9] * 10


@pytest.mark.parametrize("few", [3, 50, 2048])
def test_the_farthest_points_equal_brute_force(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(condensing, "_FEW", few)
    points = np.random.default_rng(3).normal(size=(300, 8)).astype(np.float32)
    known = [5, 17]
    bounds = np.square(points - points[5]).sum(axis=1)
    for _ in range(12):
        gaps = np.linalg.norm(points[:, None] - points[known], axis=2).min(axis=1)
        known.append(int(gaps.argmax()))
    assert farthest(points, np.array([5, 17]), bounds, 12).tolist() == known[2:]


@pytest.mark.parametrize("few", [1, 2, 2048])
def test_no_point_is_farthest_that_is_the_same_as_another(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(condensing, "_FEW", few)
    points = np.array([[0, 0], [0, 0], [3, 4], [3, 4], [0, 0]], np.float32)
    assert farthest(points, np.array([1]), np.square(points).sum(axis=1), 4).tolist() in ([2], [3])


def test_patches_that_look_like_no_other_are_kept_in_a_tenth_of_the_budget() -> None:
    g = generator()
    common, rare = torch.randn(2000, 32, generator=g) * 0.1, torch.randn(5, 32, generator=g)
    common[:, 0] += 1
    looks = functional.normalize(torch.cat([common, rare]), dim=-1)
    kept, counts = condense(make_entries(looks, torch.zeros(2005, 16, dtype=torch.uint8)), 100, random())
    assert set(range(2000, 2005)) <= set(kept.tolist())
    assert counts[np.isin(kept, range(2000, 2005))].tolist() == [1] * 5
    assert counts.sum() == 2005


def test_boundary_patches_and_rare_classes_stay_when_background_is_thinned() -> None:
    g = generator()
    number = 2000
    labels = torch.zeros(number, 16, dtype=torch.uint8)
    boundary = torch.arange(number) % 40 == 0  # 50 entries, each with another pattern of wire and background
    labels[boundary] = (torch.rand(50, 16, generator=g) < 0.4).to(torch.uint8)
    embeddings = 0.2 * torch.randn(number, 32, generator=g) + torch.where(boundary, 1.0, -1.0)[:, None]
    entries = make_entries(functional.normalize(embeddings, dim=-1), labels)
    for budget in (20, 100, 200):
        kept = int(boundary[condense(entries, budget, random())[0]].sum())
        by_chance = int(boundary[random().permutation(number)[:budget]].sum())
        assert kept > 3 * by_chance
        assert kept >= budget // 8


def test_counts_carry_over_when_a_condensed_bank_is_condensed_again() -> None:
    entries = random_entries()
    kept, counts = condense(entries, 100, random())
    again = Entries(entries.embeddings[kept], entries.labels[kept], entries.devices[kept], counts, PATCH)
    assert int(condense(again, 30, random())[1].sum()) == 600


def test_divide_cuts_within_the_groups_and_lowers_the_error() -> None:
    g = random()
    points, weights = g.standard_normal((300, 5), dtype=np.float32), g.random(300, dtype=np.float32) + np.float32(0.1)
    start = g.permutation(np.arange(300) % 4)
    previous = np.inf
    for budget in (4, 10, 50, 299, 300):
        groups = divide(points, weights, start, budget)
        assert np.unique(groups).tolist() == list(range(budget))
        error = 0.0
        for group in range(budget):
            inside = groups == group
            assert len(np.unique(start[inside])) == 1
            mean = np.average(points[inside], axis=0, weights=weights[inside])
            error += float((np.square(points[inside] - mean).sum(axis=1) * weights[inside]).sum())
        assert error < previous
        previous = error


def test_two_lumps_are_cut_apart_wherever_their_points_stand() -> None:
    lump = np.array([0, 1, 0, 0, 1, 1, 0, 1])
    points = np.stack([10.0 * lump, np.linspace(0, 1, 8)], axis=1).astype(np.float32)
    groups = divide(points, np.ones(8, np.float32), np.zeros(8, np.int64), 2)
    assert (groups == groups[0]).tolist() == (lump == 0).tolist()


def test_the_entry_nearest_to_the_weighted_middle_by_hand() -> None:
    points = np.array([[0.0], [1.0], [4.0], [7.0], [9.0], [9.0]], np.float32)
    weights = np.array([1.0, 1.0, 6.0, 1.0, 1.0, 1.0], np.float32)  # middles: 25 / 8 of entries 0, 1 and 2; 25 / 3
    groups = np.array([1, 1, 1, 0, 0, 0])
    assert nearest_to_centres(points, weights, groups).tolist() == [4, 2]


def fill(bank: MemoryBank, order: list[int], batch: int = 2) -> int:
    """Add images of 8 x 8 patches in the order; return the largest number of entries that waited."""
    g = generator(9)
    embeddings = torch.randn(10, 64, bank.embeddings.shape[1], generator=g)
    masks = (torch.rand(10, 32, 32, generator=g) < 0.05).to(torch.uint8)
    waited: list[int] = []
    condensed = bank._condensed

    def watched(entries: dict[str, torch.Tensor], budget: int) -> dict[str, torch.Tensor]:
        waited.append(len(entries["labels"]))
        return condensed(entries, budget)

    bank._condensed = watched  # type: ignore[method-assign]
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        names = [f"image{i}" for i in chosen]
        bank.add(embeddings[chosen], masks[chosen], [f"device{i % 2}" for i in chosen], names)
        waited.append(bank.pending_entries)
    bank.finish()
    return max(waited)


def test_a_bank_with_a_budget_holds_never_more_than_the_budget_and_the_batch_times_a_constant() -> None:
    bank = MemoryBank(32, PATCH, budget=4)
    largest = fill(bank, list(range(10)) * 4)
    assert 4 * 4 + 8 * 128 < largest <= 4 * 4 + 16 * 128 < 40 * 64
    assert len(bank) == 4
    bank = MemoryBank(32, PATCH, budget=40)
    fill(bank, list(range(10)))
    assert len(bank) == 40
    assert len(bank.device_names) == len(bank.device_ids.unique()) == 2
    assert int(bank.counts.sum()) == 640


def test_the_seed_of_a_bank_decides_what_is_random() -> None:
    # the distances of 64 dims are compared in a random projection
    banks = [MemoryBank(64, PATCH, budget=100, seed=seed) for seed in (0, 0, 1)]
    for bank in banks:
        fill(bank, list(range(10)))
    first, second, other = (bank.embeddings for bank in banks)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_bank_without_a_budget_keeps_every_patch_in_its_order() -> None:
    bank = MemoryBank(32, PATCH)
    assert fill(bank, list(range(10))) == 640
    assert len(bank) == 640
    assert len(bank.counts) == 0
    assert bank.positions.tolist() == list(range(64)) * 10


def test_a_bank_condensed_at_once_does_not_depend_on_the_order_of_the_images() -> None:
    banks = [MemoryBank(32, PATCH, budget=300) for _ in range(2)]
    fill(banks[0], list(range(10)))
    fill(banks[1], [3, 7, 0, 9, 1, 8, 2, 6, 5, 4])
    first, second = (
        {
            (bank.image_names[i], p): n
            for i, p, n in zip(bank.image_ids.tolist(), bank.positions.tolist(), bank.counts, strict=True)
        }
        for bank in banks
    )
    assert len(banks[0]) == 300
    assert first == second


@pytest.mark.parametrize(
    ("size", "entries"), [(None, None), (500, 500), ("1MB", 1179), (" 0.5 mb", 589), ("8MB", 9433)]
)
def test_megabytes_are_entries_of_embedding_labels_and_four_numbers(
    size: int | str | None, entries: int | None
) -> None:
    assert entries_of_size(size, 192, (8, 8)) == entries  # 192 * 4 + 64 + 16 = 848 bytes an entry


def test_megabytes_are_those_that_the_bank_describes() -> None:
    budget = entries_of_size("0.02MB", 32, PATCH, "fp16")
    bank = MemoryBank(32, PATCH, budget=budget, precision="fp16")
    fill(bank, list(range(10)))
    assert bank.embeddings.dtype == torch.float16
    assert 0.0199 < bank.describe()["megabytes"] <= 0.02


@pytest.mark.parametrize("size", [0, -1, "0MB", "0.0001MB"])
def test_sizes_that_raise(size: int | str) -> None:
    with pytest.raises(ValueError, match=r"bank\.size=.*must be"):
        entries_of_size(size, 192, (8, 8))


@pytest.mark.parametrize(("aggregation", "k"), [("similarity", 9), ("attention", 18)])
def test_an_entry_that_stands_for_four_votes_like_two_of_the_same(tiny_encoder: dict, aggregation: str, k: int) -> None:
    size = (16, 24)
    encoder = PatchEncoder(tiny_encoder, image_size=size, pretrained=False)
    pictures = torch.rand(2, 3, *size)
    masks = torch.randint(0, 3, (2, *size)).to(torch.uint8)

    def model(counts: list[int], repeats: list[int]) -> RetrievalModel:
        bank = MemoryBank(encoder.embed_dim, encoder.patch_size)
        result = RetrievalModel(encoder, VoteOptions(k, 0.3, aggregation), bank=bank)
        result.fill(pictures, masks, ["a", "a"], ["x", "y"])
        bank.finish()
        entries = bank.content().entries
        chosen = torch.arange(12).repeat_interleave(torch.tensor(repeats))
        taken = {name: torch.from_numpy(array)[chosen] for name, array in entries.items()}
        bank._take_entries({**taken, "counts": torch.tensor(counts, dtype=torch.int32)})
        bank.class_names = ["background", "wire", "ball"]
        return result

    condensed, repeated = model([4] * 6 + [1] * 6, [1] * 12), model([1] * 18, [2] * 6 + [1] * 6)
    images = torch.rand(2, 3, *size)
    assert torch.equal(condensed(images).pred_mask, repeated(images).pred_mask)
    assert not torch.equal(model([1] * 12, [1] * 12)(images).pred_mask, repeated(images).pred_mask)
