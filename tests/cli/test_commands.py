# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The commands explain and label-next, on drawn images: what they write, and what they say of bad arguments."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from PIL import Image

from anomalib_aoissl import AOISSLRetrieval, SegmentationFolder
from anomalib_aoissl.bank.explaining import Explanation, Vote
from anomalib_aoissl.cli.dispatching import dispatch
from anomalib_aoissl.cli.outputs import write_explanation
from anomalib_aoissl.deployment.images import resize_region
from anomalib_aoissl.encoder.architecture import DEFAULT_ENCODER
from anomalib_aoissl.retrieval.memory.checkpoint_bank import content_of, load_checkpoint, put_content, save_checkpoint
from anomalib_aoissl.visualization.explanation_picture import _lines, _summary

pytestmark = pytest.mark.usefixtures("short_fits")

QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}


@pytest.fixture(scope="module")
def run(short_fits: None, tmp_path_factory: pytest.TempPathFactory, drawn_folder: Path, tiny_encoder: dict) -> Any:
    """Return a checkpoint with a bank of one image of each of two devices, and the images."""
    folder = tmp_path_factory.mktemp("run")
    images = shutil.copytree(drawn_folder, folder / "data") / "images"
    model = AOISSLRetrieval(
        encoder={**tiny_encoder, "pretrained": False}, image_size=(64, 96), visualizer=False, abstain=0.1
    )
    data = SegmentationFolder(folder / "data", num_workers=0, shots=1, val_ratio=0.0, test_ratio=0.25)
    engine = Engine(default_root_dir=folder, **QUIET)
    engine.fit(model, datamodule=data)
    labelled = [Path(name) for name in model.model.bank.image_names]
    return SimpleNamespace(model=model, ckpt=engine.best_model_path, images=images, labelled=labelled)


def test_a_labelled_pixel_is_explained_by_its_own_image(run: Any, tmp_path: Path, capsys: Any) -> None:
    image, data, picture = run.labelled[0], tmp_path / "e.json", tmp_path / "deep" / "e.png"
    arguments = ["--ckpt_path", run.ckpt, "--image", str(image), "--at", "40,20", "--data", str(data)]
    assert dispatch(["explain", *arguments, "--output", str(picture)]) == 0
    content = json.loads(data.read_text())
    first = max(content["votes"], key=lambda vote: vote["similarity"])
    assert (first["image"], first["box"]) == (str(image), [16, 40, 8, 8])
    assert first["similarity"] == pytest.approx(1, abs=1e-5)
    assert content["pixels"] == 1
    with Image.open(picture) as shown:
        assert shown.width > 1000
    assert "of the votes: " in capsys.readouterr().out


def test_the_unit_of_places_is_said_where_pictures_are_not_found(
    run: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load_checkpoint(Path(run.ckpt))
    bank = content_of(checkpoint)
    names = tuple(Path(name).relative_to(run.images.parent).as_posix() for name in bank.image_names)
    save_checkpoint(put_content(checkpoint, replace(bank, image_names=names)), tmp_path / "relative.ckpt")
    arguments = ["--ckpt_path", str(tmp_path / "relative.ckpt"), "--image", str(run.labelled[0]), "--at", "40,20"]
    arguments += ["--output", str(tmp_path / "e.png"), "--data", str(tmp_path / "e.json"), "--overwrite"]
    monkeypatch.chdir(run.images.parent)
    assert dispatch(["explain", *arguments]) == 0
    assert "note:" not in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    assert dispatch(["explain", *arguments]) == 0
    said = capsys.readouterr().out
    assert "labelled pictures shown are not found, such as images/" in said
    assert "relative to the folder of training" in said
    assert "given in px of the model's size" in said
    votes = json.loads((tmp_path / "e.json").read_text())["votes"]
    assert {vote["unit"] for vote in votes} == {"px of the model's size"}


def test_explain_says_in_what_the_picture_is_unlike_the_labelled_ones(run: Any, tmp_path: Path, capsys: Any) -> None:
    arguments = ["--ckpt_path", run.ckpt, "--at", "10,20", "--output", str(tmp_path / "e.png"), "--overwrite"]
    assert dispatch(["explain", *arguments, "--image", str(run.labelled[0])]) == 0
    assert "unlike" not in capsys.readouterr().out
    for channel, file in enumerate(run.model.file_format.files(run.labelled[0])):
        with Image.open(file) as picture:
            picture.crop((0, 0, 48, picture.height)).save(tmp_path / f"narrow_ch{channel}.png")
    assert dispatch(["explain", *arguments, "--image", str(tmp_path / "narrow_ch0.png")]) == 0
    assert "note: the picture is unlike the labelled ones: stretched (" in capsys.readouterr().out


def test_a_novelty_is_never_shown_below_zero(tmp_path: Path, capsys: Any) -> None:
    explanation = Explanation((0, 0, 8, 8), 64, {"disc": 1.0}, {"disc": 1.0}, 0.0, -2e-4, 0.25, None, [])
    options = SimpleNamespace(output=tmp_path / "e.png", data=None)
    write_explanation(explanation, Image.new("RGB", (8, 8)), options)  # type: ignore[arg-type]
    assert "novelty 0.000, uncertainty 0.250;" in capsys.readouterr().out
    assert ("novelty 0.00, uncertainty 0.25", None, 0.0) in _summary(explanation)


def test_a_place_in_a_picture_that_is_not_found_has_its_unit() -> None:
    vote = Vote("b/second.png", "device", (72, 104, 8, 8), 0.9, 1.0, "disc", 1, 0)
    assert _lines(vote, np.zeros((120, 160, 3), np.uint8), (96, 128))[2] == "second.png x 130 y 90"
    assert _lines(vote, None, (96, 128))[2] == "second.png x 104 y 72 model px"


def test_a_mask_and_a_box_of_the_same_pixels_agree(run: Any, tmp_path: Path) -> None:
    image, mask = run.labelled[1], np.zeros((64, 96), dtype=np.uint8)
    mask[10:30, 20:50] = 1
    Image.fromarray(mask).save(tmp_path / "m.png")
    found = []
    for region in (["--box", "20,10,50,30"], ["--mask", str(tmp_path / "m.png")]):
        arguments = ["--ckpt_path", run.ckpt, "--image", str(image), *region, "--data", str(tmp_path / "e.json")]
        assert dispatch(["explain", *arguments, "--output", str(tmp_path / "e.png"), "--overwrite"]) == 0
        found.append(json.loads((tmp_path / "e.json").read_text()))
    assert found[0] == found[1]
    assert found[0]["pixels"] == 600


def test_a_region_is_moved_to_the_models_size_and_never_lost() -> None:
    region = np.zeros((100, 200), dtype=bool)
    region[99, 199] = True
    assert np.argwhere(resize_region(region, (10, 20))).tolist() == [[9, 19]]
    region[20:40, 100:120] = True
    expected = np.zeros((10, 20), dtype=bool)
    expected[2:4, 10:12] = True
    assert np.array_equal(resize_region(region, (10, 20)), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--at", "96,0"], "--at 96,0: lies outside of"),
        (["--box", "5,5,5,9"], "or has no area"),
        (["--at", "1"], "--at '1': 2 whole numbers are needed, such as 120,80"),
        (["--at", "0,0", "--ckpt_path", "no.ckpt"], "no.ckpt: the checkpoint does not exist"),
        (["--at", "0,0", "--image", "no.png"], "no.png: the file does not exist"),
        (["--mask", "MASK"], "is 4x4 px with 0 px marked; it must be of the image's 96x64 px"),
    ],
)
def test_bad_arguments_of_explain(run: Any, tmp_path: Path, capsys: Any, arguments: list[str], message: str) -> None:
    Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(tmp_path / "m.png")
    arguments = [str(tmp_path / "m.png") if argument == "MASK" else argument for argument in arguments]
    before = ["--ckpt_path", run.ckpt, "--image", str(run.labelled[0]), "--output", str(tmp_path / "e.png")]
    assert dispatch(["explain", *before, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "e.png").exists()


def test_label_next_leaves_out_what_is_labelled_and_what_cannot_be_read(run: Any, tmp_path: Path, capsys: Any) -> None:
    pool = shutil.copytree(run.images, tmp_path / "pool")
    for channel in (0, 1):
        (pool / f"broken_ch{channel}.png").write_bytes(b"no picture")
    (pool / "lonely_ch1.png").write_bytes(next(pool.glob("*_ch1.png")).read_bytes())
    arguments = ["--ckpt_path", run.ckpt, "--pool", str(pool), "--count", "3"]
    assert dispatch(["label-next", *arguments, "--output", str(tmp_path / "next.csv")]) == 1
    rows = list(csv.DictReader((tmp_path / "next.csv").open()))
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert [float(row["gain"]) for row in rows] == sorted((float(row["gain"]) for row in rows), reverse=True)
    copies = {path.name for path in run.labelled}
    assert not copies & {Path(row["image"]).name for row in rows}  # the bank's own images add nothing
    printed = capsys.readouterr()
    faults = [line for line in printed.err.splitlines() if line.startswith("left out: ")]
    assert len(faults) == 2
    assert "lonely_ch1.png: the file of the lighting channel '_ch0' is missing" in faults[0]
    assert "broken_ch0.png" in faults[1]
    with Image.open(tmp_path / "next.png") as sheet:
        assert sheet.width > 3 * 320
    inside = ["--ckpt_path", run.ckpt, "--pool", str(run.images), "--output", str(tmp_path / "next.csv")]
    assert dispatch(["label-next", *inside]) == 2
    assert "next.csv: exists already" in capsys.readouterr().err
    assert dispatch(["label-next", *inside, "--overwrite"]) == 0
    rows = list(csv.DictReader((tmp_path / "next.csv").open()))
    assert len(rows) == 8 - 2
    assert not {Path(row["image"]) for row in rows} & set(run.labelled)


def test_outputs_never_replace_inputs(run: Any, tmp_path: Path, capsys: Any) -> None:
    pool = shutil.copytree(run.images, tmp_path / "pool")
    before = {path: path.read_bytes() for path in pool.iterdir()}
    picture = sorted(before)[0]
    label_next = ["label-next", "--ckpt_path", run.ckpt, "--pool", str(pool), "--output"]
    explain = ["explain", "--ckpt_path", run.ckpt, "--image", str(picture), "--at", "1,1", "--overwrite", "--output"]
    for arguments in (
        [*label_next, str(picture.with_suffix(".csv")), "--overwrite"],
        [*explain, str(picture)],
        [*explain, str(tmp_path / "e.png"), "--data", str(picture)],
        [*explain, str(sorted(before)[1])],  # its other lighting channel
        [*explain, run.ckpt],
    ):
        assert dispatch(arguments) == 2
        assert "is a file that the command reads" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in pool.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pool"]


def test_label_next_begins_with_an_encoder_alone(run: Any, tmp_path: Path) -> None:
    encoder = ["--encoder", DEFAULT_ENCODER, "--image_size", "64", "96", "--lighting_channels", "_ch0", "_ch1"]
    arguments = [*encoder, "--pool", str(run.images), "--count", "2", "--output", str(tmp_path / "next.csv")]
    assert dispatch(["label-next", *arguments]) == 0
    rows = list(csv.DictReader((tmp_path / "next.csv").open()))
    assert [row["novelty"] for row in rows] == ["1.000000", "1.000000"]
    assert float(rows[0]["gain"]) == pytest.approx(float(rows[0]["coverage"]), abs=1e-5)
    assert len({Path(row["image"]).name.split("_ch")[0] for row in rows}) == 2


def test_bad_arguments_of_label_next(run: Any, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "empty").mkdir()
    torch.save({"state_dict": {"model.head": torch.zeros(1)}}, tmp_path / "other.ckpt")
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    (tmp_path / "model.xml").write_text("<net/>")
    checkpoint, pool = ["--ckpt_path", run.ckpt], ["--pool", str(run.images)]
    for arguments, message in [
        ([*checkpoint, *pool, "--count", "0"], "--count 0: at least 1"),
        ([*checkpoint, "--pool", str(tmp_path / "empty")], "empty"),
        ([*checkpoint, "--pool", str(tmp_path / "no")], "no"),
        ([*checkpoint, *pool, "--image_size", "64", "64"], "a checkpoint brings its own"),
        (["--ckpt_path", str(tmp_path / "other.ckpt"), *pool], "other.ckpt: is no checkpoint of AOISSLRetrieval"),
        (["--ckpt_path", str(tmp_path / "text.ckpt"), *pool], "text.ckpt: cannot be read as a checkpoint"),
        (["--ckpt_path", str(tmp_path / "model.xml"), *pool], "model.xml: is of an exported model"),
        (["--encoder", "no_such_model", *pool], "no_such_model"),
    ]:
        assert dispatch(["label-next", *arguments, "--output", str(tmp_path / "n.csv")]) == 2
        assert message in capsys.readouterr().err
    assert dispatch(["label-next", *checkpoint, *pool, "--output", str(tmp_path / "n.png")]) == 2
    assert not list(tmp_path.glob("n.*"))


def test_unknown_commands_and_help(capsys: Any) -> None:
    assert dispatch(["explian"]) == 2
    assert (
        "'explian' is no command. usage: python -m anomalib_aoissl [doctor | explain | label | label-next | labels | "
        "measure | report | bank]" in capsys.readouterr().err
    )
    assert dispatch(["--help"]) == 0
    assert "label-next" in capsys.readouterr().out
