# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Each format of labels gives the same mask from files that are written by hand; what is written keeps areas."""

import base64
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from exports import EXPORTS, drawing, export, pad, runs
from PIL import Image

from anomalib_aoissl import SegmentationFolder
from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.label_formats import FORMATS, WRITTEN, cache, masks, read_labels
from anomalib_aoissl.data.label_formats.label_studio import unpacked
from anomalib_aoissl.data.label_formats.pascal_voc import voc_colour
from anomalib_aoissl.data.labels.content import LabelledPicture, LabelSet
from anomalib_aoissl.data.labels.converting import Choices, convert
from anomalib_aoissl.data.labels.shapes.geometry import decoded_counts
from anomalib_aoissl.data.labels.source import Source
from anomalib_aoissl.data.reading import read_mask

ORDER = ("pad", "wire", "ball")


def snapshot(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def blobs(seed: int = 0) -> np.ndarray:
    """Return a mask of thin lines, specks, holes and touching classes."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((120, 160), dtype=np.uint8)
    rows, columns = np.indices(mask.shape)
    for index in (1, 2, 3, 1, 2):
        y, x, radius = rng.uniform(20, 100), rng.uniform(20, 140), rng.uniform(8, 25)
        ring = np.hypot(rows - y, columns - x)
        mask[(ring < radius) & (ring > rng.uniform(0, radius / 2))] = index
    for _ in range(4):
        slope, at, width = rng.uniform(-1, 1), rng.uniform(20, 100), rng.uniform(2, 4)
        mask[abs(rows - at - slope * (columns - 80)) < width / 2 * np.hypot(1, slope)] = 2
    return mask


@pytest.mark.parametrize("name", EXPORTS)
def test_a_format_is_found_by_itself_and_read_right(name: str, tmp_path: Path) -> None:
    source = Source(export(name, tmp_path / "export"))
    before = snapshot(tmp_path / "export")
    labels = read_labels(source)
    assert labels.format == name
    report = convert(labels, source, tmp_path / "out", masks.FORMAT, Choices(classes=ORDER))
    (path,) = (tmp_path / "out" / "masks").rglob("*.png")
    np.testing.assert_array_equal(read_mask(path), drawing())
    assert report.class_names == ("background", *ORDER)
    assert report.pixels[:4].tolist() == np.bincount(drawing().ravel()).tolist()
    assert snapshot(tmp_path / "export") == before
    data = SegmentationFolder(tmp_path / "out", val_ratio=0, test_ratio=0)
    assert data.load_splits()[0].classes == ("background", *ORDER)


def test_labelme_names_what_is_not_counted(tmp_path: Path) -> None:
    path = export("LabelMe", tmp_path / "export") / "u1.json"
    content = json.loads(path.read_text())
    content["shapes"].append({"label": "__ignore__", "points": [[60, 2], [70, 12]], "shape_type": "rectangle"})
    path.write_text(json.dumps(content))
    source = Source(path.parent)
    report = convert(read_labels(source), source, tmp_path / "out", masks.FORMAT, Choices(classes=ORDER))
    expected = drawing()
    expected[2:12, 60:70] = 255
    np.testing.assert_array_equal(read_mask(tmp_path / "out" / "masks" / "u1.png"), expected)
    assert report.class_names == ("background", *ORDER)


def test_every_format_has_a_test() -> None:
    assert {form.name for form in FORMATS} == set(EXPORTS)


@pytest.mark.parametrize("name", [name for name in EXPORTS if name != "masks"])
def test_a_datamodule_reads_an_export(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = export(name, tmp_path / "export")
    made = [cache.as_masks(root, ["background", *ORDER]) for _ in range(2)]
    assert made[0] == made[1]
    assert made[0].parent == Path("datasets")
    assert (made[0] / "classes.txt").read_text().split() == ["background", *ORDER]
    data = SegmentationFolder(root, classes=["background", *ORDER], val_ratio=0, test_ratio=0)
    _, splits = data.load_splits()
    assert [record.mask_path is not None for record in splits.train] == [True]


@pytest.mark.parametrize("first", ["background", "board"])
def test_given_classes_name_yolo_s_indices_without_the_background(
    first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = export("YOLO", tmp_path / "export")
    (root / "data.yaml").unlink()
    data = SegmentationFolder(root, classes=[first, *ORDER], val_ratio=0, test_ratio=0)
    (record,) = data.load_splits()[1].train
    assert record.mask_path is not None
    np.testing.assert_array_equal(read_mask(record.mask_path), drawing())
    for number, classes in enumerate([ORDER, ("background", *ORDER)]):
        source, target = Source(root, classes=classes), tmp_path / str(number)
        convert(read_labels(source), source, target, masks.FORMAT, Choices(classes=classes))
        np.testing.assert_array_equal(read_mask(target / "masks" / "u1.png"), drawing())


@pytest.mark.parametrize("classes", [("wire", "ball"), ("background", "wire", "ball")])
@pytest.mark.parametrize("named", ["classes.txt", "dataset.json", None])
def test_given_classes_order_those_that_masks_name_themselves(
    named: str | None, classes: tuple[str, ...], tmp_path: Path
) -> None:
    mask = np.zeros((60, 80), dtype=np.uint8)
    mask[0, :10], mask[1, :5] = 1, 2
    for folder in ("images", "masks"):
        (tmp_path / "mine" / folder).mkdir(parents=True)
        Image.fromarray(mask).save(tmp_path / "mine" / folder / "u1.png")
    if named is not None:
        own = ["background", "ball", "wire"]
        (tmp_path / "mine" / named).write_text("\n".join(own) if named[0] == "c" else json.dumps({"classes": own}))
    source = Source(tmp_path / "mine", classes=classes)
    report = convert(read_labels(source), source, tmp_path / "out", masks.FORMAT, Choices(classes=classes))
    areas = dict(zip(report.class_names[1:], report.pixels[1:3].tolist(), strict=True))
    assert areas == ({"wire": 10, "ball": 5} if named is None else {"wire": 5, "ball": 10})
    assert (read_mask(tmp_path / "out" / "masks" / "u1.png") == 1).sum() == areas["wire"]


@pytest.mark.parametrize("form", WRITTEN)
@pytest.mark.parametrize("seed", range(3))
def test_masks_keep_each_area_through_a_format_and_back(form: str, seed: int, tmp_path: Path) -> None:
    mask = blobs(seed)
    mask[:5, :9] = 255
    root = tmp_path / "mine"
    for folder in ("images", "masks"):
        (root / folder / "board").mkdir(parents=True)
        Image.fromarray(mask).save(root / folder / "board" / "u1.png")
    (root / "classes.txt").write_text("background\npad\nwire\nball\n")
    for start, end, written in ((root, tmp_path / "there", form), (tmp_path / "there", tmp_path / "back", "masks")):
        source = Source(start)
        convert(read_labels(source), source, end, WRITTEN[written])
    back = read_mask(tmp_path / "back" / "masks" / "board" / "u1.png")
    assert (tmp_path / "back" / "classes.txt").read_text().split() == ["background", "pad", "wire", "ball"]
    for index in (1, 2, 3, 255):
        area = (mask == index).sum()
        assert abs(int((back == index).sum()) - area) <= 0.01 * area
        assert ((back == index) != (mask == index)).sum() <= 0.06 * area


def test_pycocotools_sees_the_areas_that_are_written(tmp_path: Path) -> None:
    coco_mask = pytest.importorskip("pycocotools.mask")
    mask = blobs()
    source = Source(export("masks", tmp_path / "any"))
    labels = LabelSet("masks", ORDER, [LabelledPicture("u1", source.path, indices=lambda: mask)])
    Image.fromarray(mask).save(tmp_path / "any" / "images" / "u1.png")
    convert(labels, source, tmp_path / "coco", WRITTEN["coco"])
    content = json.loads((tmp_path / "coco" / "annotations" / "instances_default.json").read_text())
    areas = np.zeros(4)
    for entry in content["annotations"]:
        (run,) = coco_mask.frPyObjects(entry["segmentation"], *mask.shape)
        assert int(coco_mask.area(run)) == pytest.approx(entry["area"], rel=0.03, abs=6)
        areas[entry["category_id"]] += coco_mask.area(run)
    np.testing.assert_allclose(areas[1:], np.bincount(mask.ravel())[1:4], rtol=0.01)


def test_compressed_run_lengths_are_those_of_pycocotools() -> None:
    coco_mask = pytest.importorskip("pycocotools.mask")
    for seed in range(5):
        mask = blobs(seed) > 0
        text = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        assert decoded_counts(text) == runs(mask.ravel(order="F"))
    # the text that the file above would hold for one run of 5 outside, 3 inside, in COCO's own groups of 5 bits
    assert decoded_counts("53") == [5, 3]


def test_a_brush_of_literals_and_short_runs() -> None:
    header = f"{6:032b}{7:05b}" + "0010001101111111"
    body = "10000100000111" + "0010011" + "".join(f"{v:08b}" for v in (1, 2, 3, 255))
    bits = header + body
    bits += "0" * (-len(bits) % 8)
    assert unpacked([int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]).tolist() == [7, 7, 1, 2, 3, 255]


def test_label_studio_s_bitmask_is_where_its_png_is_opaque(tmp_path: Path) -> None:
    path = export("Label Studio", tmp_path / "export") / "project-1.json"
    content = json.loads(path.read_text())
    value = content[0]["annotations"][0]["result"][2]
    value["type"] = "bitmasklabels"
    url = f"data:image/png;base64,{base64.b64encode(png(pad())).decode()}"
    value["value"] = {"imageDataURL": url, "bitmasklabels": ["pad"]}
    path.write_text(json.dumps(content))
    source = Source(path.parent)
    convert(read_labels(source), source, tmp_path / "out", masks.FORMAT, Choices(classes=ORDER))
    np.testing.assert_array_equal(read_mask(tmp_path / "out" / "masks" / "u1.png"), drawing())


def png(opaque: np.ndarray) -> bytes:
    """Return a PNG, by its specification: black, opaque where the array is true, and half so at its left edge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = opaque.shape
    alpha = np.where(opaque, 255, 0).astype(np.uint8)
    alpha[opaque & ~np.roll(opaque, 1, axis=1)] = 128
    pixels = np.zeros((height, width, 4), dtype=np.uint8)
    pixels[..., 3] = alpha
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)  # no filter
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)  # 8 bits, red, green, blue, alpha
    end = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + end


def test_coco_rings_are_holes_where_the_area_says_so(tmp_path: Path) -> None:
    outer, inner = [10, 40, 30, 40, 30, 55, 10, 55], [15, 45, 20, 45, 20, 50, 15, 50]
    found = {}
    for area in (275, 300, None):
        root = export("COCO", tmp_path / str(area))
        path = root / "annotations" / "instances.json"
        content = json.loads(path.read_text())
        content["annotations"] = [{"image_id": 7, "category_id": 1, "segmentation": [outer, inner], "area": area}]
        path.write_text(json.dumps(content))
        source = Source(root)
        convert(read_labels(source), source, root / ".." / f"{area}_out", masks.FORMAT)
        found[area] = read_mask(tmp_path / f"{area}_out" / "masks" / "u1.png") == 1
    np.testing.assert_array_equal(found[275], pad())
    assert [found[area].sum() for area in (300, None)] == [300, 300]


SQUARE = [2, 2, 12, 2, 12, 12, 2, 12]
BESIDE = [8, 2, 18, 2, 18, 12, 8, 12]  # 4 of 10 columns are of both
FRAME, HOLE, ISLAND = ([a, a, b, a, b, b, a, b] for a, b in ((20, 50), (25, 45), (30, 40)))
OTHER, OTHER_HOLE = ([60, a, 60 + side, a, 60 + side, a + side, 60, a + side] for a, side in ((2, 20), (2, 15)))


@pytest.mark.parametrize(
    ("rings", "area", "pixels"),
    [
        ([SQUARE, BESIDE], 0, 160),
        ([SQUARE, BESIDE], 120, 160),
        ([SQUARE, SQUARE], 0, 100),
        ([SQUARE, [3, 3, 12.4, 3, 12.4, 12, 3, 12]], 104, 100),
        ([FRAME, HOLE], 0, 900),
        ([FRAME, HOLE], 500, 500),
        ([HOLE, FRAME], 520, 500),  # of pixels that were counted along the edge
        ([FRAME, HOLE], 900, 900),
        ([FRAME, HOLE, ISLAND], 600, 600),
        ([FRAME, OTHER, HOLE, OTHER_HOLE], 500 + 175, 675),  # the second hole touches the edge
        ([FRAME, SQUARE], 800, 1000),  # beside each other
        ([FRAME, []], 900, 900),
    ],
)
def test_coco_rings_are_holes_where_they_lie_inside(
    rings: list[list[float]], area: int, pixels: int, tmp_path: Path
) -> None:
    root = export("COCO", tmp_path / "coco")
    path = root / "annotations" / "instances.json"
    content = json.loads(path.read_text())
    content["annotations"] = [{"image_id": 7, "category_id": 1, "segmentation": rings, "area": area}]
    path.write_text(json.dumps(content))
    source = Source(root)
    assert convert(read_labels(source), source, tmp_path / "out", masks.FORMAT).pixels[1] == pixels


def test_the_upper_layer_is_on_top_then_the_later_of_the_file_or_the_smaller(tmp_path: Path) -> None:
    root = export("COCO", tmp_path / "coco")
    path = root / "annotations" / "instances.json"
    content = json.loads(path.read_text())
    content["annotations"] = content["annotations"][1::-1]  # the ball first
    path.write_text(json.dumps(content))
    for on_top, ball in (("file", 18), ("area", 36)):
        source = Source(root)
        report = convert(read_labels(source), source, tmp_path / on_top, masks.FORMAT, Choices(on_top=on_top))
        assert report.pixels[3] == ball
        assert any("18 px have two classes" in note for note in report.notes)


def test_lighting_channels_and_devices_stay_known(drawn_folder: Path, tmp_path: Path) -> None:
    channels = FileFormat(("_ch0", "_ch1"))
    source = Source(drawn_folder, file_format=channels)
    report = convert(read_labels(source), source, tmp_path / "coco", WRITTEN["coco"])
    assert report.devices == {"sot23_copper": 4, "soic8_gold": 4}
    source = Source(tmp_path / "coco", file_format=channels)
    convert(read_labels(source), source, tmp_path / "back", masks.FORMAT)
    written = json.loads((tmp_path / "back" / "dataset.json").read_text())
    assert written["lighting_channels"] == ["_ch0", "_ch1"]
    assert set(written) == {"groups", "lighting_channels"}
    data = SegmentationFolder(tmp_path / "back", train_devices=["soic8_gold"], val_ratio=0)
    data.setup()
    assert len(data.train_data) == 4
    assert data.suffixes == ("_ch0", "_ch1")


@pytest.mark.parametrize("key", ["u1", "u1.png", "b/u1.png", "u1_ch0.png", "u1_ch1", None])
def test_devices_that_are_named_by_files_stay_known(key: str | None, tmp_path: Path) -> None:
    channels = ("_ch0", "_ch1") if key and "_ch" in key else ()
    for name in ("u1", "u2"):
        for place in [f"images/b/{name}{channel}.png" for channel in channels or ("",)] + [f"masks/b/{name}.png"]:
            (tmp_path / "mine" / place).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(drawing()).save(tmp_path / "mine" / place)
    groups = {} if key is None else {key: "board_7"}
    content = {"classes": ["background", *ORDER], "groups": groups}
    (tmp_path / "mine" / "dataset.json").write_text(json.dumps(content))
    source = Source(tmp_path / "mine", file_format=FileFormat(channels))
    report = convert(read_labels(source), source, tmp_path / "out", masks.FORMAT)
    assert report.devices == ({"b": 2} if key is None else {"board_7": 1, "b": 1})
    written = tmp_path / "out" / "dataset.json"
    assert (json.loads(written.read_text()).get("groups") if written.is_file() else None) == (
        None if key is None else {"b/u1": "board_7"}
    )


def test_colours_of_pascal_voc() -> None:
    expected = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)]  # of the development kit
    assert [tuple(map(int, voc_colour(index))) for index in range(5)] == expected
    assert tuple(map(int, voc_colour(20))) == (0, 64, 128)
