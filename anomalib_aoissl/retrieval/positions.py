# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the embeddings of a vision transformer say of the place in the image alone, and embeddings without it."""

from __future__ import annotations

import torch

from anomalib_aoissl.encoder import PatchEncoder

_NOISE_IMAGES = 8
"""Images of noise whose embeddings are averaged, beside as many of one grey each: what remains is the place."""


def check_directions(directions: int, embed_dim: int) -> None:
    """Refuse a number of directions that embeddings do not have, or that would leave nothing of them.

    Raises:
        ValueError: If it is negative or not below the embeddings' dimensions.
    """
    if not 0 <= directions < embed_dim:
        msg = (
            f"position_directions={directions} must be 0 (positions stay in the embeddings) or less than the "
            f"{embed_dim} dimensions of an embedding."
        )
        raise ValueError(msg)


def position_basis(encoder: PatchEncoder, directions: int) -> torch.Tensor:
    """Return the orthonormal directions ``[n, D]`` along which embeddings differ by their place in the image.

    Images without content are embedded: normal noise and constant greys, in normalised values. The mean over the
    images, less its mean over the places, is what the place adds; the directions are its first right singular vectors,
    the strongest first [0].

    [0]: INSID3, 2026, arXiv 2603.28480; differs in that several images are averaged, that there are constant ones among
    them, and that the mean over the places stays, since it says nothing of a place.

    Args:
        encoder: The encoder, D its `embed_dim`.
        directions: n.
    """
    parameter = next(encoder.parameters())
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(_NOISE_IMAGES, encoder.in_channels, *encoder.image_size, generator=generator)
    greys = torch.linspace(-2.0, 2.0, _NOISE_IMAGES).reshape(-1, 1, 1, 1).expand_as(noise)
    total = torch.zeros(1, device=parameter.device)
    with torch.no_grad():
        for image in torch.cat([noise, greys]).to(parameter):
            total = total + encoder(image[None])[0].float()  # [P, D]
    places = total / (2 * _NOISE_IMAGES)
    _, _, rows = torch.linalg.svd((places - places.mean(dim=0)).cpu().double(), full_matrices=False)
    basis = torch.zeros(directions, encoder.embed_dim)
    found = min(directions, len(rows))  # an image of few patches has fewer directions
    basis[:found] = rows[:found].float()
    return basis.to(parameter.device)


def without_directions(embeddings: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """Return embeddings ``[..., D]`` less their part in the space of orthonormal directions ``[n, D]``."""
    return embeddings - (embeddings @ basis.transpose(0, 1)) @ basis
