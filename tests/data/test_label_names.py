# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Label files whose names, sizes or identities do not fit their pictures: found right, or an error, never a guess."""

import json
from pathlib import Path

import numpy as np
import pytest
from exports import HEIGHT, WIDTH, WIRE, export, picture
from PIL import Image

from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.label_formats import WRITTEN, masks, read_labels
from anomalib_aoissl.data.labels.converting import convert
from anomalib_aoissl.data.labels.pictures import Pictures
from anomalib_aoissl.data.labels.source import Source
from anomalib_aoissl.data.reading import read_mask


def coco(root: Path, names: list[str], segmentation: object, categories: tuple[int, ...] = (7,)) -> Source:
    """Write a COCO file in which each picture has one object, and return the export."""
    content = {
        "images": [{"id": i, "file_name": n, "height": HEIGHT, "width": WIDTH} for i, n in enumerate(names)],
        "categories": [{"id": key, "name": f"part {place}"} for place, key in enumerate(categories)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 7, "segmentation": segmentation} for i in range(len(names))
        ],
    }
    for name in names:
        picture(root / name)
    (root / "labels.json").write_text(json.dumps(content))
    return Source(root)


def named_otherwise(root: Path, named: list[str], lying: list[str]) -> Source:
    """Write a COCO file of some names, and the pictures at other places."""
    coco(root, lying, [WIRE])
    content = json.loads((root / "labels.json").read_text())
    for entry, name in zip(content["images"], named, strict=True):
        entry["file_name"] = name
    (root / "labels.json").write_text(json.dumps(content))
    return Source(root)


def written(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))


def test_two_pictures_that_would_share_one_mask_are_an_error(tmp_path: Path) -> None:
    source = coco(tmp_path / "export", ["u1.png", "u1.bmp"], [WIRE])
    with pytest.raises(DatasetError, match="but for the suffix, and one mask cannot be of both"):
        convert(read_labels(source), source, tmp_path / "out", masks.FORMAT)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("segmentation", "categories", "message"),
    [
        ({"size": [6, 4], "counts": [4, 20]}, (7,), "its run lengths are of 6x4 px .* the picture has 60x80"),
        ({"size": [6], "counts": [4, 2]}, (7,), 'annotation 1: "size" must be a height and a width'),
        ([WIRE], (7, 7), "two categories have the id 7"),
    ],
)
def test_a_coco_file_that_contradicts_itself(
    segmentation: object, categories: tuple[int, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=message):
        read_labels(coco(tmp_path, ["u1.png"], segmentation, categories))


def test_run_lengths_of_another_size_in_datumaro(tmp_path: Path) -> None:
    path = export("Datumaro", tmp_path) / "annotations" / "default.json"
    content = json.loads(path.read_text())
    content["items"][0]["annotations"][2]["rle"] = {"size": [6, 4], "counts": [4, 20]}
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="annotation 3: its run lengths are of 6x4 px"):
        read_labels(Source(tmp_path))


def test_a_number_behind_a_dot_is_no_suffix(tmp_path: Path) -> None:
    for name in ("unit_1.png", "unit_1.2.png", "unit_3.png"):
        picture(tmp_path / name)
    pictures = Pictures([tmp_path], FileFormat())
    found = {name: pictures.find(name) for name in ("unit_1.2", "unit_1.7", "unit_3.jpg", "unit_3")}
    assert {name: path and path.name for name, path in found.items()} == {
        "unit_1.2": "unit_1.2.png", "unit_1.7": None, "unit_3.jpg": "unit_3.png", "unit_3": "unit_3.png",
    }  # fmt: skip


@pytest.mark.parametrize("folder", ["", "images/", "images/train/"])
def test_an_exact_path_wins_over_pictures_of_the_same_name(folder: str, tmp_path: Path) -> None:
    names = ["a.png", "sub/a.png", "x/sub/a.png"]
    for name in names:
        picture(tmp_path / folder / name)
    pictures = Pictures([tmp_path], FileFormat())
    assert [pictures.find(name) for name in names] == [tmp_path / folder / name for name in names]
    assert [pictures.find(f"./{folder}{name}") for name in names] == [tmp_path / folder / name for name in names]
    assert pictures.find("sub/a") == tmp_path / folder / "sub/a.png"  # without its suffix
    with pytest.raises(DatasetError, match="could be of both"):
        pictures.find("other/a.png")


def test_an_exact_path_keeps_its_own_labels(tmp_path: Path) -> None:
    source = coco(tmp_path / "export", ["a.png", "sub/a.png"], [WIRE])
    report = convert(read_labels(source), source, tmp_path / "out", masks.FORMAT)
    assert report.labelled == 2
    folder = tmp_path / "out" / "masks"
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png")) == ["a.png", "sub/a.png"]


def test_an_address_with_a_query_is_named_by_its_path(tmp_path: Path) -> None:
    path = export("Label Studio", tmp_path) / "project-1.json"
    content = json.loads(path.read_text())
    for address, name in {
        "https://a.b/c/u1.png?id=3": "/c/u1.png",
        "/data/local-files/?d=c/u1.png": "c/u1.png",
    }.items():
        content[0]["data"]["image"] = address
        path.write_text(json.dumps(content))
        assert read_labels(Source(tmp_path)).images[0].name == name


@pytest.mark.parametrize(
    ("named", "lying"),
    [
        (["dev1/002.png", "dev2/001.png"], ["dev1/002.png", "dev1/001.png"]),
        (["lot/dev1/002.png", "lot/dev2/001.png"], ["images/lot/dev1/002.png", "images/lot/dev1/001.png"]),
        (["/home/me/dev1/002.png", "/home/me/dev2/001.png"], ["train/dev1/002.png", "train/dev1/001.png"]),
    ],
)
def test_a_label_of_a_missing_folder_is_of_no_other_picture(named: list[str], lying: list[str], tmp_path: Path) -> None:
    source = named_otherwise(tmp_path / "export", named, lying)
    report = convert(read_labels(source), source, tmp_path / "out", masks.FORMAT)
    assert (report.labelled, report.unlabelled) == (1, 1)
    assert [path.name for path in (tmp_path / "out" / "masks").rglob("*.png")] == ["002.png"]
    assert [note for note in report.notes if f"{named[1]} is not {source.root / lying[1]}" in note]


@pytest.mark.parametrize(
    ("named", "lying", "said"),
    [
        (["/data/upload/1/a.png", "/data/upload/1/b.png"], ["dev1/a.png", "dev2/b.png"], True),  # a project's number
        (["old/dev1/a.png", "old/dev2/b.png"], ["new/a.png", "new/b.png"], True),
        (["old/dev1/a.png", "old/dev2/b.png"], ["a.png", "images/b.png"], False),  # in no folder
        (["dev1/raw/a.png", "dev2/raw/b.png"], ["dev1/a.png", "images/dev2/b.png"], False),
        (["labels/train/a", "labels/val/b"], ["images/train/a.png", "other/b.png"], False),
    ],
)
def test_pictures_that_were_moved_are_found_by_their_names(
    named: list[str], lying: list[str], said: bool, tmp_path: Path
) -> None:
    source = named_otherwise(tmp_path / "export", named, lying)
    report = convert(read_labels(source), source, tmp_path / "out", masks.FORMAT)
    assert report.labelled == 2
    assert [f"{named[0]} is {source.root / lying[0]}, " in note for note in report.notes] == [True] * said


def labelme(path: Path, image_path: str, label: str) -> None:
    """Write a LabelMe file with one wire."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = {"label": label, "points": np.reshape(WIRE, (-1, 2)).tolist(), "shape_type": "polygon"}
    content = {"shapes": [shape], "imagePath": image_path, "imageHeight": HEIGHT, "imageWidth": WIDTH}
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("place", ["board2/u1.json", "labels/board2/u1.json"])
def test_a_labelme_file_is_of_the_picture_that_its_folder_leads_to(place: str, tmp_path: Path) -> None:
    root = tmp_path / "export"
    for name in ("u1.png", "board2/u1.png"):
        picture(root / name)
    labelme(root / place, "u1.png" if place[0] == "b" else r"..\..\board2\u1.png", "wire")
    source = Source(root)
    assert [image.name for image in read_labels(source).images] == ["board2/u1.png"]
    convert(read_labels(source), source, tmp_path / "out", masks.FORMAT)
    assert written(tmp_path / "out") == ["images/board2/u1.png", "masks/board2/u1.png", "unlabelled/u1.png"]


def test_a_labelme_file_without_its_picture_names_it_as_it_does(tmp_path: Path) -> None:
    picture(tmp_path / "pictures" / "u1.png")
    labelme(tmp_path / "labels" / "u1.json", "u1.png", "wire")
    labelme(tmp_path / "labels" / "u2.json", "../pictures/u1.png", "wire")  # not below the export's folder
    labels = read_labels(Source(tmp_path / "labels", tmp_path / "pictures"))
    assert [image.name for image in labels.images] == ["u1.png", "../pictures/u1.png"]


def test_labelme_files_of_two_folders_with_one_name_come_back(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    for index, name in enumerate(("b1/u1.png", "b2/u1.png"), start=1):
        picture(root / "images" / name)
        (root / "masks" / name).parent.mkdir(parents=True)
        mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        mask[10:20, 10 : 20 + 10 * index] = index
        Image.fromarray(mask).save(root / "masks" / name)
    (root / "classes.txt").write_text("background\nwire\nball\n")
    for start, end, form in ((root, tmp_path / "there", "labelme"), (tmp_path / "there", tmp_path / "back", "masks")):
        source = Source(start)
        convert(read_labels(source), source, end, WRITTEN[form])
    for name in ("b1/u1.png", "b2/u1.png"):
        np.testing.assert_array_equal(read_mask(tmp_path / "back/masks" / name), read_mask(root / "masks" / name))


def test_results_of_label_studio_that_are_left_out_are_said_with_the_reason(tmp_path: Path) -> None:
    path = export("Label Studio", tmp_path) / "project-1.json"
    content = json.loads(path.read_text())
    for kind in ("magicwand", "rectangle", "keypointlabels", "rectangle", "choices"):
        content[0]["annotations"][0]["result"].append({"type": kind, "value": {}})
    path.write_text(json.dumps(content))
    assert [note.removeprefix(f"{path}: ") for note in read_labels(Source(tmp_path)).notes] == [
        "1 magicwand results are of a kind that is not read (draw polygons or brushes) and are left out",
        "2 rectangle results have no label of their own and are left out",
        "1 keypointlabels results have no area and are left out",
    ]


def test_tasks_with_several_annotations_are_said(tmp_path: Path) -> None:
    path = export("Label Studio", tmp_path) / "project-1.json"
    content = json.loads(path.read_text())
    first = content[0]["annotations"][0]
    content[0]["annotations"] = [first, {**first, "was_cancelled": True}, {"result": first["result"][:1]}]
    path.write_text(json.dumps(content))
    labels = read_labels(Source(tmp_path))
    assert labels.notes == [f"{path}: 1 tasks have several annotations; the last of each counts"]
    assert [shape.label for shape in labels.images[0].shapes] == ["wire"]


def test_a_list_of_classes_beside_yolo_labels_is_none_of_them(tmp_path: Path) -> None:
    root = export("YOLO", tmp_path)
    (root / "labels" / "train" / "classes.txt").write_text("pad\nwire\nball\n")
    assert [image.name for image in read_labels(Source(root)).images] == ["labels/train/u1"]
