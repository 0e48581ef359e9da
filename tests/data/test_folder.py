# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""`SegmentationFolder`: the three layouts, devices from every source, and one clear error for each bad file."""

import inspect
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.folder import SegmentationFolder


def write(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def write_pair(root: Path, stem: str, value: int = 10, size: tuple[int, int] = (8, 12), label: int = 1) -> None:
    mask = np.zeros(size, dtype=np.uint8)
    mask[2:4] = label
    write(root / "images" / f"{stem}.png", np.full(size, value, dtype=np.uint8))
    write(root / "masks" / f"{stem}.png", mask)


def make_folder(root: Path, stems: tuple[str, ...] = ("a_0", "a_1", "b_0", "b_1")) -> Path:
    for value, stem in enumerate(stems):
        write_pair(root, stem, value)
    (root / "classes.txt").write_text("background\nwire\n")
    return root


def stems(data: Any) -> list[str]:
    return [Path(path).stem for path in data.samples.image_path]


def test_flat_folder_split_by_device_from_a_pattern(tmp_path: Path) -> None:
    data = SegmentationFolder(make_folder(tmp_path), device_pattern=r"^([ab])_", test_devices=["b"], val_ratio=0.0)
    data.setup()
    assert stems(data.train_data) == ["a_0", "a_1"]
    assert stems(data.test_data) == ["b_0", "b_1"]
    assert data.class_names == ("background", "wire")
    item = data.test_data[0]
    assert item.device_name == "b"
    torch.testing.assert_close(item.image, torch.full((3, 8, 12), 2 / 255))
    assert item.gt_mask[:, 0].tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    assert item.gt_label.item() is True


def test_devices_from_sub_folders_and_from_dataset_json(tmp_path: Path) -> None:
    nested = make_folder(tmp_path / "nested", ("a/0", "a/1", "b/0"))
    data = SegmentationFolder(nested, train_devices=["a"], val_ratio=0.0)
    data.setup()
    assert stems(data.test_data) == ["0"]
    described = make_folder(tmp_path / "described")
    content = {"classes": ["bg", "w"], "groups": {"a_0": "x", "a_1": "x", "b_0": "x", "b_1": "y"}}
    (described / "dataset.json").write_text(json.dumps(content))
    data = SegmentationFolder(described, train_devices=["y"], val_ratio=0.0)
    data.setup()
    assert stems(data.train_data) == ["b_1"]
    assert data.class_names == ("bg", "w")
    assert SegmentationFolder(described, classes=["n", "m"]).class_names == ("n", "m")


def test_split_folders_are_taken_as_they_are_and_may_lack_masks_outside_train(tmp_path: Path) -> None:
    for split, names in {"train": ("a",), "val": ("b",), "test": ("c", "d")}.items():
        for name in names:
            write_pair(tmp_path / split, name)
    (tmp_path / "test" / "masks" / "d.png").unlink()
    data = SegmentationFolder(tmp_path, classes=["background", "wire"])
    data.setup()
    assert [stems(part) for part in (data.train_data, data.val_data, data.test_data)] == [["a"], ["b"], ["c", "d"]]
    assert data.test_data[1].gt_mask is None
    batch = next(iter(data.test_dataloader()))
    assert batch.gt_mask[1].unique().tolist() == [255]
    with pytest.raises(DatasetError, match="train_devices would split again"):
        SegmentationFolder(tmp_path, classes=["background", "wire"], train_devices=["unknown"]).setup()


def test_ratio_split_and_shots(tmp_path: Path) -> None:
    root = make_folder(tmp_path, tuple(f"a_{i}" for i in range(10)))
    data = SegmentationFolder(root, shots=2, val_ratio=0.1, test_ratio=0.4, num_workers=0)
    data.setup()
    assert [len(part) for part in (data.train_data, data.val_data, data.test_data)] == [2, 1, 4]
    assert len({*stems(data.train_data), *stems(data.val_data), *stems(data.test_data)}) == 7
    data = SegmentationFolder(root, val_ratio=0.0, num_workers=0)
    data.setup()
    assert data.val_dataloader() == []


def test_lighting_channels_from_the_argument_make_one_item(tmp_path: Path) -> None:
    for unit in range(2):
        for channel in (0, 1):
            write(tmp_path / "images" / f"u{unit}_ch{channel}.png", np.full((8, 12), 100 * channel, dtype=np.uint8))
        mask = np.eye(8, 12, dtype=np.uint8)
        write(tmp_path / "masks" / f"u{unit}.png", mask)
    arguments = {"classes": ["background", "wire"], "lighting_channels": ["_ch0", "_ch1"], "test_ratio": 0.5}
    data: Any = SegmentationFolder(tmp_path, **arguments)
    data.setup()
    item = data.train_data[0]
    assert [round(255 * float(plane.mean())) for plane in item.image] == [0, 100, 50]
    assert data.train_data.file_format.lighting_channels == ("_ch0", "_ch1")
    (tmp_path / "images" / "u1_ch1.png").unlink()
    with pytest.raises(DatasetError, match=r"u1_ch0\.png: the file of the lighting channel '_ch1' is missing"):
        SegmentationFolder(tmp_path, **arguments).setup()


def test_the_old_name_of_the_lighting_channels_is_taken_with_one_warning(tmp_path: Path) -> None:
    suffixes = ["_ch0", "_ch1"]
    message = "SegmentationFolder: old names of arguments, .*: illuminations is lighting_channels now"
    with pytest.warns(DeprecationWarning, match=message) as caught:
        data: Any = SegmentationFolder(tmp_path, illuminations=suffixes)  # type: ignore[call-arg]
    assert [warning.filename for warning in caught] == [__file__]
    assert data.lighting_channels == suffixes
    assert data.suffixes == ("_ch0", "_ch1")
    with pytest.warns(DeprecationWarning, match=r"SegmentationFolder\.illuminations is lighting_channels now"):
        assert data.illuminations == suffixes
    with pytest.warns(DeprecationWarning, match=r"SegmentationFolder\.illuminations is lighting_channels now"):
        data.illuminations = ["_a"]  # as a datamodule of the user's own may do
    assert data.lighting_channels == ["_a"]
    assert "illuminations" not in inspect.signature(SegmentationFolder).parameters


def test_the_old_names_of_a_file_format_are_taken_and_plain_data_has_the_new_one() -> None:
    with pytest.warns(DeprecationWarning, match="FileFormat: .* illuminations is lighting_channels now"):
        made: Any = FileFormat(illuminations=("_a", "_b"))  # type: ignore[call-arg]
    assert made == FileFormat(("_a", "_b"))
    with pytest.warns(DeprecationWarning, match=r"FileFormat\.illuminations is lighting_channels now"):
        assert made.illuminations == ("_a", "_b")
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        plain = made.to_dict()
        old = {"illuminations": plain.pop("lighting_channels"), **plain}  # as 0.2.0 wrote it
        assert FileFormat.from_dict(old) == made
        assert FileFormat.from_dict(made.to_dict()) == made
        assert FileFormat.from_dict({}) == FileFormat()
    assert made.to_dict()["lighting_channels"] == ["_a", "_b"]
    assert "illuminations" not in made.to_dict()


def test_a_description_of_0_2_0_is_read_as_the_new_one_without_a_warning(drawn_folder: Path, tmp_path: Path) -> None:
    items = []
    for key in ("lighting_channels", "illuminations"):
        root = shutil.copytree(drawn_folder, tmp_path / key)
        content = json.loads((root / "dataset.json").read_text())
        content[key] = content.pop("lighting_channels")
        (root / "dataset.json").write_text(json.dumps(content))
        data = SegmentationFolder(root, train_devices=["soic8_gold"], val_ratio=0.0)
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)
            data.setup()
        assert data.suffixes == ("_ch0", "_ch1")
        assert len(data.train_data) == 4
        items.append(data.train_data[0])
    assert torch.equal(items[0].image, items[1].image)
    assert torch.equal(items[0].gt_mask, items[1].gt_mask)


def test_drawn_folder_is_read_with_its_own_lighting_channels(drawn_folder: Path) -> None:
    data = SegmentationFolder(drawn_folder, train_devices=["soic8_gold"], val_ratio=0.0)
    data.setup()
    assert (len(data.train_data), len(data.test_data)) == (4, 4)
    assert data.class_names == ("background", "wire", "ball", "wedge", "epoxy")
    planes = data.train_data[0].image
    torch.testing.assert_close(planes[2], (planes[0] + planes[1]) / 2)


def setup(root: Path, **arguments: object) -> None:
    SegmentationFolder(root, **{"test_ratio": 0.25, "val_ratio": 0.0, **arguments}).setup()


def test_missing_mask_names_the_image_and_the_place(tmp_path: Path) -> None:
    make_folder(tmp_path)
    for mask in (tmp_path / "masks").iterdir():
        if mask.stem != "a_0":
            mask.unlink()
    with pytest.raises(DatasetError, match=r"images/.*\.png: has no mask; .*masks/.*\.png was expected"):
        setup(tmp_path)


def test_mask_of_another_size(tmp_path: Path) -> None:
    make_folder(tmp_path)
    write(tmp_path / "masks" / "b_1.png", np.ones((8, 8), dtype=np.uint8))
    with pytest.raises(DatasetError, match=r"b_1\.png: the mask has 8x8 px .* its image b_1\.png has 8x12"):
        setup(tmp_path)


def test_class_index_without_a_name_is_found_before_training(tmp_path: Path) -> None:
    make_folder(tmp_path)
    write_pair(tmp_path, "b_1", label=7)
    with pytest.raises(DatasetError, match=r"b_1\.png: the class index 7 .* has no name; 2 classes"):
        setup(tmp_path)


def test_truncated_training_image_is_found_before_training(tmp_path: Path) -> None:
    make_folder(tmp_path)
    noise = np.random.default_rng(0).integers(0, 255, (8, 12), dtype=np.uint8)
    whole = write(tmp_path / "images" / "a_0.png", noise)
    whole.write_bytes(whole.read_bytes()[:-30])
    with pytest.raises(DatasetError, match=r"a_0\.png: cannot be read as an image"):
        setup(tmp_path, test_ratio=0.0 + 0.25, device_pattern="^(a|b)_", test_devices=["b"])


def test_empty_splits_and_folders(tmp_path: Path) -> None:
    make_folder(tmp_path)
    with pytest.raises(DatasetError, match="The test split is empty"):
        setup(tmp_path, test_ratio=0.0)
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(DatasetError, match=r"images: the image folder does not exist\.$"):
        setup(tmp_path)
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(DatasetError, match=r"holds 1 images itself: move them into that folder\.$"):
        setup(tmp_path)
    (tmp_path / "export").mkdir()  # as the labelling page leaves it
    with pytest.raises(DatasetError, match=r"Or train on a dataset below .*export"):
        setup(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(DatasetError, match="images: holds no image"):
        setup(tmp_path)
    with pytest.raises(DatasetError, match="nowhere: the folder does not exist"):
        setup(tmp_path / "nowhere")


def test_masks_written_as_0_and_255(tmp_path: Path) -> None:
    for stem in ("a_0", "a_1", "a_2", "a_3"):
        write_pair(tmp_path, stem, label=255)
    with pytest.raises(DatasetError, match=r"only 0 \(background\) and 255 \(ignore\); write the class as 1"):
        setup(tmp_path, classes=["background", "wire"])


def test_files_with_one_stem_and_a_pattern_that_does_not_match(tmp_path: Path) -> None:
    make_folder(tmp_path)
    with pytest.raises(DatasetError, match=r"b_0\.png: device_pattern='\^\(a\)_' does not match"):
        setup(tmp_path, device_pattern="^(a)_")
    with pytest.raises(DatasetError, match="is no regular expression"):
        setup(tmp_path, device_pattern="(")
    write(tmp_path / "images" / "a_0.bmp", np.zeros((8, 12), dtype=np.uint8))
    with pytest.raises(DatasetError, match=r"a_0\.png: has the same name as a_0\.bmp"):
        setup(tmp_path)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "must hold one JSON object, got list"),
        ('{"classes": ["a", "b"], "groups": []}', '"groups" must be a dict, got list'),
        ('{"classes": ["a", "a"]}', "each with a name of its own"),
        ('{"classes": ["a", "b"], "colours": {"c": [0, 0, 0]}}', r"not a class: \['c'\]"),
    ],
)
def test_faulty_dataset_json(tmp_path: Path, content: str, match: str) -> None:
    make_folder(tmp_path)
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(DatasetError, match=match):
        setup(tmp_path)


def test_unknown_class_names_are_asked_for(tmp_path: Path) -> None:
    write_pair(tmp_path, "a")
    with pytest.raises(DatasetError, match="the class names are not known"):
        setup(tmp_path)


def test_foreground_merges_the_named_classes(drawn_folder: Path) -> None:
    arguments = {"test_ratio": 0.25, "val_ratio": 0.0}
    plain = SegmentationFolder(drawn_folder, **arguments)
    merged = SegmentationFolder(drawn_folder, foreground=["wire", "ball"], **arguments)
    assert merged.class_names == ("background", "foreground")
    plain.setup()
    expected, result = plain.test_data[0].gt_mask, merged.test_data[0].gt_mask
    assert torch.equal(result == 1, (expected == 1) | (expected == 2))
    assert set(result.unique().tolist()) == {0, 1}
    with pytest.raises(DatasetError, match=r"foreground=\['wires'\] must name classes"):
        SegmentationFolder(drawn_folder, foreground=["wires"], **arguments).setup()
