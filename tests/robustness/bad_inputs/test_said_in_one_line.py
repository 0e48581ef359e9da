# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Commands that cannot do what they are asked, or whose texts are long: one line that names the argument, and fits."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from editable_models import make_model
from PIL import Image, ImageFont
from small_exports import bank

from anomalib_aoissl.bank.storage import write_bank
from anomalib_aoissl.cli.bank import describe
from anomalib_aoissl.cli.dispatching import dispatch
from anomalib_aoissl.models.protocols import UntrainedError
from anomalib_aoissl.plugin.command_line import attach
from anomalib_aoissl.retrieval.asking.contact_sheet import contact_sheet, fitted


def test_a_model_without_a_checkpoint_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    asked = make_model(1, seed=1, head=None)
    asked.model.bank.clear()

    class CommandLine:
        model, subcommand = SimpleNamespace(left_out=0), "predict"
        init_parser = staticmethod(lambda: None)

        def instantiate_classes(self) -> None:
            """Nothing."""

        def add_export_arguments(self, parser: Any) -> None:
            """Nothing."""

        def _run_subcommand(self) -> None:
            asked.predictions(torch.zeros(1, 3, *asked.input_size))

    attach(CommandLine)
    with pytest.raises(SystemExit) as ended:
        CommandLine()._run_subcommand()
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "error: The memory bank is empty: train on labelled images first, or load a checkpoint (ckpt_path).\n"
    )
    assert issubclass(UntrainedError, RuntimeError)


@pytest.mark.parametrize("kind", ["to_onnx", "to_openvino", "to_torch"])
def test_what_was_not_trained_is_not_exported(kind: str, tmp_path: Path) -> None:
    asked = make_model(1, seed=1, head=None)
    asked.model.bank.clear()
    with pytest.raises(UntrainedError, match="memory bank is empty: train on labelled images first, or load a check"):
        getattr(asked, kind)(tmp_path)
    assert not list(tmp_path.iterdir())


def test_explain_names_the_output_whose_suffix_it_cannot_write(tmp_path: Path, capsys: Any) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    arguments = ["--model", "no.xml", "--image", str(tmp_path / "a.png"), "--at", "1,1"]
    assert dispatch(["explain", *arguments, "--output", str(tmp_path / "why.xyz")]) == 2
    assert "--output " in (said := capsys.readouterr().err)
    assert "why.xyz: no picture has this suffix. Give a name that ends with .png." in said


def test_describe_says_how_large_the_labelled_pixels_are(tmp_path: Path) -> None:
    content = bank()
    assert content.pixels is not None
    printed = describe(write_bank(content, tmp_path / "bank.safetensors"))
    assert f" MB, 3 labelled pixels, {content.pixels.megabytes:.2f} MB, encoder " in printed


def test_texts_of_a_contact_sheet_stay_below_their_picture() -> None:
    font = ImageFont.load_default(size=14)
    assert fitted("1  u1.png", font, 320) == "1  u1.png"
    short = fitted(f"1  {'a' * 99}_ch0.png", font, 320)
    assert short.startswith("1  aaa")
    assert short.endswith("a_ch0.png")
    assert "..." in short
    assert 280 < font.getlength(short) <= 320
    picture = np.zeros((24, 32, 3), np.uint8)
    sheet = contact_sheet([(picture, "x" * 99, "y" * 99)] * 2, "pink")
    between = np.asarray(sheet)[:, 332:338]  # a letter may stand over its width by a px
    assert (between == between[0, 0]).all()
