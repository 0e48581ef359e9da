# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The commands labels and measure: what they write and say, from exports, masks and an exported model."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import drawing, export
from PIL import Image
from small_exports import exported, rewritten

from anomalib_aoissl.cli.dispatching import dispatch
from anomalib_aoissl.cli.measure import _item_name
from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.deployment.graph.bank import METADATA_PATH, read_metadata
from anomalib_aoissl.deployment.inferencer import SegmentationOpenVINOInferencer


@pytest.fixture(scope="module")
def xml(made_once: Any) -> Path:
    return exported()


def entries(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_labels_says_what_it_found_and_writes_the_check(tmp_path: Path, capsys: Any) -> None:
    root = export("COCO", tmp_path / "export")
    arguments = [str(root), str(tmp_path / "out"), "--map", "wire=lead", "ball=lead", "--classes", "lead", "pad"]
    assert dispatch(["labels", *arguments]) == 0
    said = capsys.readouterr().out
    pixels = np.bincount(drawing().ravel())
    assert "COCO, 1 pictures, classes pad, wire, ball" in said
    assert [line.split() for line in said.splitlines() if line.startswith(("lead", "pad"))] == [
        ["lead", "1", str(pixels[2] + pixels[3]), f"{(pixels[2] + pixels[3]) / 4800:.2%}"],
        ["pad", "1", str(pixels[1]), f"{pixels[1] / 4800:.2%}"],
    ]
    assert (tmp_path / "out" / "classes.txt").read_text().split() == ["background", "lead", "pad"]
    with Image.open(tmp_path / "out" / "labels_check.png") as picture:
        assert picture.width > 1000
    assert dispatch(["labels", *arguments]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--lighting_channels", "--illuminations"])
def test_lighting_channels_of_labels(option: str, tmp_path: Path, capsys: Any) -> None:
    for channel in ("_ch0", "_ch1"):
        path = tmp_path / "masks_of" / "images" / f"u1{channel}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((60, 80), 90, np.uint8)).save(path)
    root = path.parents[1]
    (root / "masks").mkdir()
    Image.fromarray(drawing()).save(root / "masks" / "u1.png")
    (root / "classes.txt").write_text("background\npad\nwire\nball\n")
    out = tmp_path / "out"
    assert dispatch(["labels", str(root), str(out), option, "_ch0", "_ch1"]) == 0
    assert json.loads((out / "dataset.json").read_text())["lighting_channels"] == ["_ch0", "_ch1"]
    assert sorted(path.name for path in (out / "images").iterdir()) == ["u1_ch0.png", "u1_ch1.png"]
    old = "warning: --illuminations is --lighting_channels now; the next release will not take it.\n"
    assert capsys.readouterr().err == (old if option == "--illuminations" else "")


def test_one_class_beside_a_description_of_channels(tmp_path: Path) -> None:
    root = export("COCO", tmp_path / "export")
    (root / "dataset.json").write_text('{"groups": {"u1": "board_7"}}')
    only = ["--map", "wire=", "pad=", "--classes", "ball"]
    assert dispatch(["labels", str(root), str(tmp_path / "out"), *only]) == 0
    assert (tmp_path / "out" / "classes.txt").read_text().split() == ["background", "ball"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--map", "wire"], "--map 'wire': write OLD=NEW"),
        (["--model", "m.xml", "--images", "."], "do not go with --model"),
        (["--keep_splits", "--format", "coco"], "--keep_splits goes with masks"),
        (["--classes", "pad", "pad", "wire", "ball"], "'pad' is there twice"),
    ],
)
def test_bad_arguments_of_labels(arguments: list[str], message: str, tmp_path: Path, capsys: Any) -> None:
    root = export("COCO", tmp_path / "export")
    assert dispatch(["labels", str(root), str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_predictions_are_written_for_a_labelling_tool(xml: Path, tmp_path: Path) -> None:
    picture = tmp_path / "pictures" / "u1.png"
    picture.parent.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96), dtype=np.uint8)).save(picture)
    out = tmp_path / "out"
    assert dispatch(["labels", str(picture.parent), str(out), "--model", str(xml), "--format", "coco"]) == 0
    content = json.loads((out / "annotations" / "instances_default.json").read_text())
    inferencer = SegmentationOpenVINOInferencer(xml)
    areas = np.bincount(inferencer.predict(picture).class_map.ravel(), minlength=len(inferencer.class_names))
    found = np.zeros_like(areas)
    for entry in content["annotations"]:
        found[entry["category_id"]] += entry["area"]
    assert found[1:].tolist() == areas[1:].tolist()
    assert [entry["name"] for entry in content["categories"]] == list(inferencer.class_names[1:])


def test_measure_of_masks_and_of_a_coco_export_agree(tmp_path: Path, capsys: Any) -> None:
    for name in ("masks", "COCO"):
        root = export(name, tmp_path / name)
        arguments = [
            "--output",
            str(tmp_path / f"{name}.csv"),
            "--scale",
            "2",
            "--overlays",
            str(tmp_path / f"o{name}"),
        ]
        assert dispatch(["measure", str(root), *arguments]) == 0
        assert (tmp_path / f"o{name}" / "u1.png").is_file()
        assert dispatch(["measure", str(root), *arguments]) == 2
        assert "--overlays" in capsys.readouterr().err
    first, second = (entries(tmp_path / f"{name}.csv") for name in ("masks", "COCO"))
    areas = {name: sum(int(e["area_px"]) for e in first if e["class"] == name) for name in ("pad", "wire", "ball")}
    assert areas == dict(zip(areas, np.bincount(drawing().ravel())[1:].tolist(), strict=True))
    assert {e["touching"] for e in first if e["class"] == "wire"} == {"ball"}
    assert sorted(map(tuple, (e.values() for e in first))) == sorted(map(tuple, (e.values() for e in second)))
    wire = next(entry for entry in first if entry["class"] == "wire")
    assert float(wire["length_um"]) == pytest.approx(2 * float(wire["length_px"]), abs=0.02)


def test_measure_leaves_out_a_mask_that_cannot_be_read(tmp_path: Path, capsys: Any) -> None:
    root, output = export("masks", tmp_path / "masks"), tmp_path / "parts.csv"
    mask = next((root / "masks").iterdir())
    for place in ("images", "masks"):
        file = next(path for path in (root / place).iterdir() if path.stem == mask.stem)
        shutil.copy(file, file.with_name(f"broken{file.suffix}"))
    broken = mask.with_name(f"broken{mask.suffix}")
    broken.write_bytes(mask.read_bytes()[:60])
    assert dispatch(["measure", str(root), "--output", str(output)]) == 1
    assert "left out: " in (said := capsys.readouterr().err)
    assert str(broken) in said
    assert {entry["image"] for entry in entries(output)} == {path.stem for path in (root / "masks").iterdir()} - {
        "broken"
    }
    for path in (root / "masks").iterdir():
        path.write_bytes(b"half")
    assert dispatch(["measure", str(root), "--output", str(output), "--overwrite"]) == 2


def test_measure_names_the_classes_of_masks_in_another_order(tmp_path: Path) -> None:
    root = export("Pascal VOC", tmp_path / "voc")
    arguments = ["--output", str(tmp_path / "parts.csv"), "--classes", "ball", "wire", "pad"]
    assert dispatch(["measure", str(root), *arguments]) == 0
    areas = dict.fromkeys(("pad", "wire", "ball"), 0)
    for entry in entries(tmp_path / "parts.csv"):
        areas[entry["class"]] += int(entry["area_px"])
    assert list(areas.values()) == np.bincount(drawing().ravel())[1:].tolist()


def test_overlays_stay_in_their_folder(tmp_path: Path) -> None:
    root = export("Label Studio", tmp_path / "studio")  # it names /data/upload/1/0123abcd-u1.png
    folder = tmp_path / "overlays"
    assert dispatch(["measure", str(root), "--output", str(tmp_path / "parts.csv"), "--overlays", str(folder)]) == 0
    assert [path.relative_to(folder).as_posix() for path in folder.rglob("*.png")] == ["data/upload/1/0123abcd-u1.png"]
    names = {"../../u1.tif": "u1", "C:\\a\\u1.PNG": "C_/a/u1", "unit_1.2": "unit_1.2", "images/b/u1": "b/u1"}
    assert {name: _item_name(name) for name in names} == names


def test_measure_of_a_model_is_that_of_its_masks(xml: Path, tmp_path: Path, capsys: Any) -> None:
    picture = tmp_path / "pictures" / "b" / "u1.png"
    picture.parent.mkdir(parents=True)
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 96), dtype=np.uint8)).save(picture)
    (picture.parent / "broken.png").write_bytes(b"no picture")
    output = ["--output", str(tmp_path / "parts.csv"), "--min_area", "1"]
    assert dispatch(["measure", str(xml), str(tmp_path / "pictures"), *output]) == 1  # as of a picture left out
    assert "1 pictures, 1 left out" in capsys.readouterr().out
    inferencer = SegmentationOpenVINOInferencer(xml)
    counts = np.bincount(inferencer.predict(picture).class_map.ravel(), minlength=len(inferencer.class_names))
    found = dict.fromkeys(inferencer.class_names[1:], 0)
    for entry in entries(tmp_path / "parts.csv"):
        assert entry["image"] == "b/u1"
        found[entry["class"]] += int(entry["area_px"])
    assert list(found.values()) == counts[1:].tolist()


def test_a_picture_without_parts_has_a_row_with_its_fault(
    xml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anomalib_aoissl.deployment.inferencer.novelty_fault", lambda *_: "unlike all")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(np.zeros((64, 96), dtype=np.uint8)).save(pictures / "dark.png")
    (pictures / "broken.png").write_bytes(b"no picture")
    arguments = ["--output", str(tmp_path / "parts.csv"), "--min_area", str(64 * 96 + 1), "--scale", "2"]
    assert dispatch(["measure", str(xml), str(pictures), *arguments]) == 1
    (row,) = entries(tmp_path / "parts.csv")
    assert {name: value for name, value in row.items() if value} == {"image": "dark", "fault": "unlike all"}
    assert {"area_um2", "part", "class"} <= set(row)


def two_channels(folder: Path) -> tuple[Path, Path]:
    """Return a model of two lighting channels, and pictures: of u2 and u3 a channel is missing, one of u4 is broken."""

    def change(graph: Any) -> None:
        content = {**read_metadata(graph), "file_format": FileFormat(("_ch0", "_ch1"), planes=(1, 1)).to_dict()}
        graph.set_rt_info(json.dumps(content), METADATA_PATH)

    rewritten(folder, change)
    pictures = folder / "pictures"
    pictures.mkdir()
    for name in ("u1_ch0", "u1_ch1", "u2_ch0", "u3_ch1", "u4_ch0"):
        values = np.random.default_rng(len(name)).integers(0, 256, (64, 96), dtype=np.uint8)
        Image.fromarray(values).save(pictures / f"{name}.png")
    (pictures / "u4_ch1.png").write_bytes(b"no picture")
    return folder / "model.xml", pictures


def test_items_that_lack_a_lighting_channel_are_left_out(tmp_path: Path, capsys: Any) -> None:
    model, pictures = two_channels(tmp_path)
    parts, out = tmp_path / "parts.csv", tmp_path / "out"
    measure = ["measure", str(model), str(pictures), "--output", str(parts), "--min_area", "1"]
    for arguments in (measure, ["labels", str(pictures), str(out), "--model", str(model), "--format", "coco"]):
        assert dispatch(arguments) == 1
        faults = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out: ")]
        assert len(faults) == 3
        assert [sum(f"{name}_ch" in fault for fault in faults) for name in ("u1", "u2", "u3", "u4")] == [0, 1, 1, 1]
    assert {entry["image"] for entry in entries(parts)} == {"u1"}
    content = json.loads((out / "annotations" / "instances_default.json").read_text())
    assert [entry["file_name"] for entry in content["images"]] == ["u1_ch0.png"]
    assert sorted(path.name for path in out.rglob("u*.png")) == ["u1_ch0.png", "u1_ch1.png"]
    (pictures / "u1_ch1.png").unlink()
    for arguments in ([*measure, "--overwrite"], ["labels", str(pictures), str(tmp_path / "o"), "--model", str(model)]):
        assert dispatch(arguments) == 2
        assert "pictures can be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scale", "0"], "--scale 0.0: must be the size of a pixel"),
        (["--min_area", "0"], "--min_area 0: must be at least 1"),
        (["--measured", "lead"], "--measured lead: is no class beside background. The classes are"),
    ],
)
def test_bad_arguments_of_measure(arguments: list[str], message: str, tmp_path: Path, capsys: Any) -> None:
    root = export("masks", tmp_path / "masks_of_it")
    output = tmp_path / "parts.csv"
    assert dispatch(["measure", str(root), "--output", str(output), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_both_run_without_torch(tmp_path: Path) -> None:
    export("CVAT", tmp_path / "export")
    code = """
import sys
for name in ("torch", "anomalib", "lightning", "timm"):
    sys.modules[name] = None  # an import of it fails
from anomalib_aoissl.cli.dispatching import dispatch
sys.exit(dispatch(["labels", "export", "out"]) or dispatch(["measure", "out", "--output", "parts.csv"]))
"""
    environment = {"ANOMALIB_AOISSL_AUTOLOAD": "0", "PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert len(entries(tmp_path / "parts.csv")) >= 3
