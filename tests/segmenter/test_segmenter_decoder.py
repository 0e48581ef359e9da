# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The decoder: scores of any image's size, nothing at first, images apart from each other, every weight learns."""

import pytest
import torch
from torch.nn import functional

from anomalib_aoissl.segmenter.decoder import TOKENS, Decoder

SIZES = [((64, 64), (8, 8)), ((56, 70), (4, 5)), ((50, 70), (5, 7)), ((32, 96), (4, 12)), ((14, 14), (1, 1))]


def awake(planes: int, classes: int, tokens: int = 96) -> Decoder:
    """Return a decoder whose last layers are not 0 any more."""
    decoder = Decoder(planes, classes, tokens)
    for layer in (decoder.coarse_scores, decoder.fine_scores):
        torch.nn.init.normal_(layer.weight)
        torch.nn.init.normal_(layer.bias)
    return decoder


def inputs(
    batch: int, planes: int, classes: int, size: tuple[int, int], grid: tuple[int, int], tokens: int = 96
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    probabilities = torch.randn(batch, classes, *size).softmax(dim=1)
    return torch.randn(batch, planes, *size), probabilities, torch.randn(batch, tokens, *grid)


@pytest.mark.parametrize(("size", "grid"), SIZES)
@pytest.mark.parametrize(("batch", "planes", "classes"), [(1, 3, 2), (3, 1, 5), (2, 4, 3)])
def test_scores_have_the_image_s_size(
    size: tuple[int, int], grid: tuple[int, int], batch: int, planes: int, classes: int
) -> None:
    scores = awake(planes, classes)(*inputs(batch, planes, classes, size, grid))
    assert scores.shape == (batch, classes, *size)
    assert scores.isfinite().all()
    assert scores.std() > 0.1


@pytest.mark.parametrize(("size", "grid"), SIZES)
def test_an_untrained_one_finds_all_classes_equally_likely(size: tuple[int, int], grid: tuple[int, int]) -> None:
    assert not Decoder(3, 4)(*inputs(2, 3, 4, size, grid)).any()


def test_every_weight_learns_once_the_last_layers_have_taken_a_step() -> None:
    decoder, given = Decoder(3, 4), inputs(2, 3, 4, (64, 64), (8, 8))
    labels, optimizer = torch.randint(0, 4, (2, 64, 64)), torch.optim.SGD(decoder.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        functional.cross_entropy(decoder(*given), labels).backward()
        optimizer.step()
    assert [name for name, p in decoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_images_of_a_batch_do_not_see_each_other() -> None:
    decoder, given = awake(3, 4).train(), inputs(3, 3, 4, (50, 70), (5, 7))
    alone = torch.cat([decoder(*(part[index : index + 1] for part in given)) for index in range(3)])
    torch.testing.assert_close(decoder(*given), alone, atol=1e-4, rtol=1e-4)


def test_image_head_and_tokens_each_count() -> None:
    decoder, given = awake(3, 4), inputs(1, 3, 4, (64, 64), (8, 8))
    scores = decoder(*given)
    for index, part in enumerate(given):
        changed = [*given]
        changed[index] = part.flip(1)
        assert (decoder(*changed) - scores).abs().max() > 1e-2


@pytest.mark.parametrize(("directions", "read"), [(200, TOKENS), (TOKENS, TOKENS), (24, 24)])
def test_the_first_directions_of_the_tokens_are_read(directions: int, read: int) -> None:
    decoder = awake(3, 4, directions)
    images, probabilities, tokens = inputs(1, 3, 4, (64, 64), (8, 8), directions)
    assert decoder.tokens == read
    scores = decoder(images, probabilities, tokens)
    assert torch.equal(scores, decoder(images, probabilities, tokens[:, :read]))
    changed = tokens.clone()
    changed[:, read:] += 1
    assert torch.equal(scores, decoder(images, probabilities, changed))


def test_a_wire_of_two_pixels_is_learnt() -> None:
    """Fine detail comes through: a line that the tokens and the head know nothing of."""
    image = 0.1 * torch.randn(1, 3, 32, 32)
    mask = torch.zeros(1, 32, 32, dtype=torch.long)
    mask[:, torch.arange(4, 28), torch.arange(4, 28)] = 1
    mask[:, torch.arange(4, 28), torch.arange(5, 29)] = 1
    image += mask[:, None] * 1.5
    given = image, torch.full((1, 2, 32, 32), 0.5), torch.zeros(1, 96, 4, 4)
    decoder = Decoder(3, 2, 96)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        functional.cross_entropy(decoder(*given), mask, weight=torch.tensor([1.0, 5.0])).backward()
        optimizer.step()
    found = decoder(*given).argmax(dim=1)
    assert ((found & mask).sum() / (found | mask).sum()).item() > 0.9
