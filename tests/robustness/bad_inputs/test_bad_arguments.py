# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Impossible arguments: an error before any work that names argument, value, and what is allowed."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonargparse import ArgumentError as ParserError
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback
from PIL import Image
from rows import Row, table

from anomalib_aoissl import AOISSLRetrieval, AOISSLSegmenter, WireBond
from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.plugin.command_line import one_line
from anomalib_aoissl.pretraining import DINOPretraining, IBOTPretraining, MAEPretraining
from anomalib_aoissl.pretraining.options import CropOptions
from anomalib_aoissl.retrieval.options import VoteOptions

ENCODER = {
    "architecture": "vit_tiny_patch16_224",
    "model_args": {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2},
}
NAN, INFINITY = math.nan, math.inf


def made(cls: Callable[..., Any], **arguments: Any) -> Callable[[Path], Any]:
    """Return an act that makes an instance."""
    small = {"encoder": {**ENCODER, "pretrained": False}, "image_size": (64, 96)}
    own = small if cls in {AOISSLRetrieval, AOISSLSegmenter} else {}
    return lambda _: cls(**{**own, **arguments})


def bad(cls: Callable[..., Any], error: str, **argument: Any) -> Row:
    """Return a row of one impossible argument."""
    ((name, value),) = argument.items()
    return Row(f"{cls.__name__} {name}={value!r:.40}", made(cls, **argument), error)


RETRIEVAL = (
    bad(AOISSLRetrieval, r"vote\.k=0 must be at least 1\.", vote={"k": 0}),
    bad(AOISSLRetrieval, r"vote\.k=True must be a whole number, and be at least 1", vote={"k": True}),
    bad(AOISSLRetrieval, r"vote\.k='3' must be a whole number", vote={"k": "3"}),
    bad(AOISSLRetrieval, r"vote\.k=2\.5 must be a whole number", vote={"k": 2.5}),
    bad(AOISSLRetrieval, r"vote\.k=None must be a whole number", vote={"k": None}),
    bad(AOISSLRetrieval, r"vote\.temperature=nan must be a number, and be greater than 0", vote={"temperature": NAN}),
    bad(AOISSLRetrieval, r"vote\.temperature=inf must be a number", vote={"temperature": INFINITY}),
    bad(AOISSLRetrieval, r"vote\.temperature=-0\.1 must be greater than 0", vote={"temperature": -0.1}),
    bad(AOISSLRetrieval, r"seed=-1 must lie in \[0, 4294967295\]", seed=-1),
    bad(AOISSLRetrieval, r"seed=4294967296 must lie in", seed=2**32),
    bad(AOISSLRetrieval, r"seed=False must be a whole number", seed=False),
    bad(AOISSLRetrieval, r"abstain=1\.5 must lie in \(0, 1\)", abstain=1.5),
    bad(AOISSLRetrieval, r"abstain=nan must be a number or null, and lie in \(0, 1\)", abstain=NAN),
    bad(AOISSLRetrieval, r"abstain='0\.05' must be a number or null", abstain="0.05"),
    bad(AOISSLRetrieval, r"image_size=\(0, 64\) must be whole numbers of px, greater than 0", image_size=(0, 64)),
    bad(AOISSLRetrieval, r"image_size=\(64, nan\) must be one size or \(height, width\)", image_size=(64, NAN)),
    bad(AOISSLRetrieval, r"image_size='512' must be one size", image_size="512"),
    bad(AOISSLRetrieval, r"image_size=\[64, 64, 3\] must be one size", image_size=[64, 64, 3]),
    bad(AOISSLRetrieval, r"image_size=True must be one size", image_size=True),
    bad(AOISSLRetrieval, r"image_size=\(63, 96\) does not fit 'vit_tiny_patch16_224'", image_size=(63, 96)),
    bad(AOISSLRetrieval, r"in_channels=0 must lie in \[1, 64\]", in_channels=0),
    bad(AOISSLRetrieval, r"encoder\.pretrained=1 must be true or false", encoder={"pretrained": 1}),
    bad(AOISSLRetrieval, r"head='conv' must be one of \['pixel'\]", head="conv"),
    bad(AOISSLRetrieval, r"vote\.aggregation='majority' must be one of", vote={"aggregation": "majority"}),
    bad(AOISSLRetrieval, r"vote\.level=3 must be text", vote={"level": 3}),
    bad(AOISSLRetrieval, r"vote=5 must be a mapping of k, temperature, aggregation, level, search", vote=5),
    bad(AOISSLRetrieval, r"vote takes no kk\. It takes k, temperature, aggregation, level, search", vote={"kk": 3}),
    bad(AOISSLRetrieval, r"vote=None must be a mapping of k, temperature", vote=None),
    bad(AOISSLRetrieval, r"vote\.search='' must be one of", vote={"search": ""}),
    bad(AOISSLRetrieval, r"bank\.size=0 must be at least 1", bank={"size": 0}),
    bad(AOISSLRetrieval, r"bank\.size=nan must be a whole number or text or null", bank={"size": NAN}),
    bad(AOISSLRetrieval, r"bank\.size=True must be a whole number", bank={"size": True}),
    bad(AOISSLRetrieval, r"bank\.size='8' must be at least 1 or be megabytes such as '8MB'", bank={"size": "8"}),
    bad(AOISSLRetrieval, r"bank\.size='8GB' must be at least 1 or be megabytes such as '8MB'", bank={"size": "8GB"}),
    bad(AOISSLRetrieval, r"bank\.precision='fp8' must be one of", bank={"precision": "fp8"}),
    bad(AOISSLRetrieval, r"encoder=5 must be text, or a mapping of architecture, pretrained", encoder=5),
    bad(AOISSLRetrieval, r"encoder\.architecture='' must be text", encoder=""),
    bad(AOISSLRetrieval, r"pretraining=3 must be mae, dino or ibot", pretraining=3),
    bad(
        AOISSLRetrieval,
        r"pretraining: max_epochs=-1 must be greater than 0",
        pretraining={"objective": "mae", "max_epochs": -1},
    ),
)

SEGMENTER = (
    bad(
        AOISSLSegmenter,
        r"training\.learning_rate=nan must be a number, and be greater than 0",
        training={"learning_rate": NAN},
    ),
    bad(AOISSLSegmenter, r"training\.learning_rate='fast' must be a number", training={"learning_rate": "fast"}),
    bad(AOISSLSegmenter, r"training\.validations=0 must be at least 1", training={"validations": 0}),
    bad(AOISSLSegmenter, r"training\.select='first' must be one of \['best', 'last'\]", training={"select": "first"}),
    bad(
        AOISSLSegmenter,
        r"training\.budget='soon' must be at least 1 or be a time as DD:HH:MM:SS",
        training={"budget": "soon"},
    ),
)

PRETRAINING = (
    bad(MAEPretraining, r"max_epochs=0 must be greater than 0", max_epochs=0),
    bad(MAEPretraining, r"max_epochs=1\.5 must be a whole number", max_epochs=1.5),
    bad(MAEPretraining, r"max_steps=0 must be greater than 0, or -1 for no limit", max_steps=0),
    bad(MAEPretraining, r"batch_size=True must be a whole number", batch_size=True),
    bad(MAEPretraining, r"start='warm' must be one of \['auto', 'given', 'whitened'\]", start="warm"),
    bad(MAEPretraining, r"light\.gain=-0\.1 must not be negative", light={"gain": -0.1}),
    bad(MAEPretraining, r"optimizer\.learning_rate=0 must be greater", optimizer={"learning_rate": 0}),
    bad(MAEPretraining, r"optimizer takes no betas\. It takes learning_rate", optimizer={"betas": (0.9, 0.95)}),
    bad(MAEPretraining, r"loading\.memory_mb=inf must be a number", loading={"memory_mb": INFINITY}),
    bad(MAEPretraining, r"loading\.num_workers=-1 must not be negative", loading={"num_workers": -1}),
    bad(MAEPretraining, r"probe=5 must be a mapping of every, images", probe=5),
    bad(MAEPretraining, r"crops=CropOptions\(.* must be a mapping of per_image, size", crops=CropOptions()),
    bad(MAEPretraining, r"seed=-5 must lie in", seed=-5),
    bad(MAEPretraining, r"save_to='' must be a path or null", save_to=""),
    bad(MAEPretraining, r"crops\.size=-8 must be whole numbers of px, greater than 0", crops={"size": -8}),
    bad(MAEPretraining, r"mask_ratio=-0\.1 must lie in \[0, 1\]", mask_ratio=-0.1),
    bad(MAEPretraining, r"mask_ratio=1\.2 must lie in \[0, 1\]", mask_ratio=1.2),
    bad(MAEPretraining, r"crops\.zoom=\(2, 1\) must be greater than 0 both, the smaller", crops={"zoom": (2, 1)}),
    bad(MAEPretraining, r"decoder\.dims=0 must be greater than 0", decoder={"dims": 0}),
    bad(MAEPretraining, r"decoder\.dims=30 must be a multiple of 4 and of decoder\.heads=4", decoder={"dims": 30}),
    bad(DINOPretraining, r"crops\.local_count=-1 must not be negative", crops={"local_count": -1}),
    bad(DINOPretraining, r"teacher\.temperature=0 must be greater than 0", teacher={"temperature": 0}),
    bad(DINOPretraining, r"teacher\.momentum=1\.5 must lie in \[0, 1\]", teacher={"momentum": 1.5}),
    bad(IBOTPretraining, r"head\.outputs=0 must be greater than 0", head={"outputs": 0}),
)

DRAWING = (
    bad(WireBond, r"seed=-1 must lie in \[0, 4294967295\]", seed=-1),
    bad(WireBond, r"seed=None must be a whole number", seed=None),
    bad(WireBond, r"images_per_device=0 must be at least 1", images_per_device=0),
    bad(WireBond, r"images_per_device=2\.5 must be a whole number", images_per_device=2.5),
    bad(WireBond, r"image_size=\(16, 512\) must be at least 32 px both", image_size=(16, 512)),
    bad(WireBond, r"image_size=512 must be \(height, width\)", image_size=512),
    bad(WireBond, r"difficulty=nan must be a number, and lie in \[0, 1\]", difficulty=NAN),
    bad(WireBond, r"lot=-1 must not be negative", lot=-1),
    bad(WireBond, r"val_ratio=1\.0 must lie in \[0, 1\)", val_ratio=1.0),
    bad(WireBond, r"shots=0 must be at least 1", shots=0),
    bad(WireBond, r"devices='soic8_gold' must be a list of names", devices="soic8_gold"),
    bad(WireBond, r"train_batch_size=0 must be at least 1", train_batch_size=0),
    bad(WireBond, r"num_workers=-1 must not be negative", num_workers=-1),
)


@pytest.mark.parametrize("row", table(*RETRIEVAL, *SEGMENTER, *PRETRAINING, *DRAWING))
def test_an_impossible_argument_is_named(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)


def test_crops_that_the_patches_do_not_fill_are_named_before_training(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((64, 96, 3), dtype=np.uint8)).save(tmp_path / "u.png")
    callback = MAEPretraining(crops={"size": 36}, cache_dir=tmp_path / "cache")
    encoder = PatchEncoder(ENCODER, image_size=(64, 96), pretrained=False)
    with pytest.raises(ValueError, match=r"crops\.size=\(36, 36\) must be multiples of the encoder's patch, 8x8 px"):
        callback.pretrain(encoder, [(tmp_path / "u.png",)])


VOTE = {"k": 15, "temperature": 0.03, "aggregation": "attention", "level": "patches", "search": "exact"}
BANK = {"size": 4000, "precision": "fp32", "extends": None}


def hparam(name: str, **arguments: Any) -> Callable[[Path], Any]:
    """Return an act that makes a model and returns one of its arguments as a checkpoint holds it."""
    return lambda folder: made(AOISSLRetrieval, head=None, **arguments)(folder).hparams[name]


@pytest.mark.parametrize(
    "row",
    table(
        Row("numpy's whole number", hparam("vote", vote={"k": np.int64(7)}), value={**VOTE, "k": 7}),
        Row(
            "numpy's number", hparam("vote", vote={"temperature": np.float32(0.5)}), value={**VOTE, "temperature": 0.5}
        ),
        Row("one size", hparam("image_size", image_size=64), value=(64, 64)),
        Row(
            "a whole number where any number may be",
            hparam("vote", vote={"temperature": 1}),
            value={**VOTE, "temperature": 1},
        ),
        Row("megabytes", hparam("bank", bank={"size": " 8 MB "}), value={**BANK, "size": " 8 MB "}),
        Row("a path", hparam("bank", bank={"extends": Path("a.ckpt")}), value={**BANK, "extends": "a.ckpt"}),
        Row("a dataclass", hparam("vote", vote=VoteOptions(k=3)), value={**VOTE, "k": 3}),
        Row("null", hparam("abstain", abstain=None), value=None),
    ),
)
def test_an_odd_argument_is_taken(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)


def said_of(*arguments: str) -> Callable[[Path], str | None]:
    """Return an act that parses arguments as anomalib's command line does, and returns what is said of them."""

    def act(_: Path) -> str | None:
        from anomalib.models.components import AnomalibModule

        parser = ArgumentParser(exit_on_error=False)
        parser.add_subclass_arguments(AnomalibModule, "model")
        parser.add_argument("--callbacks", type=list[Callback] | Callback | None)
        with pytest.raises(ParserError) as caught:
            parser.parse_args(list(arguments))
        return one_line(str(caught.value))

    return act


RETRIEVAL_OF = ("--model", "AOISSLRetrieval")


@pytest.mark.parametrize(
    "row",
    table(
        Row(
            "text for a number",
            said_of(*RETRIEVAL_OF, "--model.vote.k", "abc"),
            value="AOISSLRetrieval: vote.k=abc must be a whole number.",
        ),
        Row(
            "a name that is none",
            said_of(*RETRIEVAL_OF, "--model.vote.aggregation=majority"),
            value="AOISSLRetrieval: vote.aggregation=majority must be one of 'attention', 'similarity'.",
        ),
        Row(
            "text for a number or null",
            said_of(*RETRIEVAL_OF, "--model.abstain=never"),
            value="AOISSLRetrieval: abstain=never must be a number or null.",
        ),
        Row(
            "a misspelt argument",
            said_of(*RETRIEVAL_OF, "--model.temprature=0.1"),
            value="AOISSLRetrieval: takes no argument temprature. Did you mean vote.temperature?",
        ),
        Row(
            "a misspelt field",
            said_of(*RETRIEVAL_OF, "--model.vote.kk=3"),
            value="AOISSLRetrieval: takes no argument vote.kk. Did you mean vote.k?",
        ),
        Row(
            "a value for options",
            said_of(*RETRIEVAL_OF, "--model.vote=5"),
            value="AOISSLRetrieval: vote=5 must be a mapping of k, temperature, aggregation, level, search.",
        ),
        Row(
            "a field of what text may stand for",
            said_of(*RETRIEVAL_OF, "--model.encoder.pretrained=maybe"),
            value="AOISSLRetrieval: encoder.pretrained=maybe must be true or false.",
        ),
        Row(
            "a callback's argument",
            said_of("--callbacks=MAEPretraining", "--callbacks.max_epochs=abc"),
            value="MAEPretraining: max_epochs=abc must be a whole number.",
        ),
        Row(
            "a field of a callback's options",
            said_of("--callbacks=MAEPretraining", "--callbacks.optimizer.warmup=abc"),
            value="MAEPretraining: optimizer.warmup=abc must be a number.",
        ),
        Row(
            "a callback's argument of 0.2.0",
            said_of("--callbacks=DINOPretraining", "--callbacks.noise=0.1"),
            value="DINOPretraining: arguments that are gone and have no effect: noise. Leave them out.",
        ),
        Row("another model's argument", said_of("--model", "Padim", "--model.n_features", "abc"), value=None),
        Row("a model that is none", said_of("--model", "AOISSLRetreival"), value=None),
    ),
)
def test_the_command_line_says_it_in_one_line(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)


def test_anomalibs_command_ends_with_one_line(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    from anomalib.cli import AnomalibCLI

    model = [*RETRIEVAL_OF, "--model.encoder.pretrained=false", "--default_root_dir", str(tmp_path)]
    callback, crops = "--trainer.callbacks+=MAEPretraining", "--trainer.callbacks.crops"
    for arguments, said in (
        (["--model.vote.k=abc"], "AOISSLRetrieval: vote.k="),
        (["--model.vote.k=-3"], "AOISSLRetrieval: vote.k="),
        (["--model.k=abc"], "AOISSLRetrieval: vote.k="),
        (["--model.vote=null"], "AOISSLRetrieval: vote=null must be a mapping of k"),
        ([callback, f"{crops}=null"], "MAEPretraining: crops=null must be a mapping of per_image"),
        ([callback, f"{crops}.size=-8"], "MAEPretraining: crops.size=-8 must be whole numbers of px"),
        ([callback, f"{crops}.sise=8"], "MAEPretraining: takes no argument crops.sise. Did you mean crops.size"),
        ([callback, "--trainer.callbacks.crop_size=x"], "MAEPretraining: crops.size=x must be"),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            AnomalibCLI(["train", *model, *arguments, "--data", "WireBond"])
        assert caught.value.code == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        assert line.startswith(f"error: {said}")


def test_what_is_written_is_told_from_defaults_on_the_command_line(tmp_path: Path) -> None:
    from anomalib.cli import AnomalibCLI

    (tmp_path / "c.yaml").write_text("model:\n  class_path: AOISSLRetrieval\n  init_args:\n    vote:\n      k: 15\n")
    arguments = ["--config", str(tmp_path / "c.yaml"), "--model.abstain=null", "--model.encoder.pretrained=false"]
    cli = AnomalibCLI(["test", *arguments, "--data", "WireBond", "--default_root_dir", str(tmp_path)], run=False)
    assert cli.model.written_arguments == {"vote.k", "abstain", "encoder.pretrained"}
