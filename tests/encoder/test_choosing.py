# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""`create_encoder` takes a plain vision transformer by its tokens, and any other network by its feature maps."""

import pytest
import torch

from anomalib_aoissl.encoder import Encoder, PatchEncoder, PyramidEncoder, create_encoder
from anomalib_aoissl.encoder.architecture import DEFAULT_ENCODER, SHIPPED_TRANSFORMER
from anomalib_aoissl.retrieval.model_editing import encoder_hash

SWIN = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "window_size": 4}


@pytest.mark.parametrize(
    ("encoder", "kind"),
    [
        (DEFAULT_ENCODER, PyramidEncoder),
        (SHIPPED_TRANSFORMER, PatchEncoder),
        ("resnet18", PyramidEncoder),
        ({"architecture": "swin_tiny_patch4_window7_224", "model_args": SWIN}, PyramidEncoder),
        ({"architecture": "deit_tiny_patch16_224", "model_args": {"depth": 1}}, PatchEncoder),
    ],
)
def test_the_kind_is_that_of_the_network(encoder: str | dict[str, object], kind: type[Encoder]) -> None:
    made = create_encoder(encoder, image_size=(32, 64), pretrained=False)
    assert type(made) is kind
    again = create_encoder(made.describe(), image_size=(32, 64), pretrained=False)
    assert type(again) is kind
    assert again.describe() == made.describe()


@pytest.mark.parametrize(
    ("encoder", "match"),
    [
        ("resnte18", "is no model that timm knows"),
        ("mixer_s16_224", r"strides \[16\], and 4 and 8 px are needed"),
        ("local-dir:/nowhere", "/nowhere must hold"),
    ],
)
def test_what_is_neither_raises(encoder: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        create_encoder(encoder, image_size=(224, 224), pretrained=False)


def test_encoders_with_other_embeddings_have_other_hashes() -> None:
    def hash_of(name: str = DEFAULT_ENCODER, **arguments: object) -> str:
        return encoder_hash(create_encoder(name, **{"image_size": (32, 64), **arguments}))

    assert hash_of() == hash_of(image_size=(64, 32))  # a convolution reads any size alike
    others = [
        hash_of(pretrained=False),
        hash_of(SHIPPED_TRANSFORMER),
        hash_of(in_channels=1),
        hash_of("resnet18", pretrained=False),
    ]
    assert len({hash_of(), *others}) == 5


def test_an_encoder_gives_finite_unit_maps_of_a_black_image() -> None:
    made = create_encoder(DEFAULT_ENCODER, image_size=(32, 64)).eval()
    read = made.read(torch.zeros(1, 3, 32, 64))
    torch.testing.assert_close(read.embeddings.norm(dim=-1), torch.full((1, 32), 2.0))  # details, surroundings
    assert torch.isfinite(read.tokens).all()
