# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Text files and arguments of datasets: encodings, classes as other tools write them, and values out of their range."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rows import Row, table

from anomalib_aoissl.data.describing.description import read_description
from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.folder import SegmentationFolder
from anomalib_aoissl.wirebond.datamodule import WireBond

NAMES = ["background", "wire", "pad"]
TEXT = "\n".join(NAMES) + "\n"


def classes_txt(content: bytes) -> Callable[[Path], object]:
    """Return an act that reads class names from this classes.txt."""

    def act(folder: Path) -> object:
        (folder / "classes.txt").write_bytes(content)
        return list(read_description(folder).classes)

    return act


def described(attribute: str = "classes", **content: Any) -> Callable[[Path], object]:
    """Return an act that reads a dataset.json and gives one attribute of the description."""
    return in_json(json.dumps({"classes": NAMES, **content}).encode(), attribute)


def in_json(content: bytes, attribute: str = "classes") -> Callable[[Path], object]:
    def act(folder: Path) -> object:
        (folder / "dataset.json").write_bytes(content)
        value = getattr(read_description(folder), attribute)
        return list(value) if isinstance(value, tuple) else value

    return act


def argument(**given: Any) -> Callable[[Path], object]:
    """Return an act that makes a datamodule with this argument."""
    return lambda folder: SegmentationFolder(folder, **given)


def drawn(**given: Any) -> Callable[[Path], object]:
    return lambda folder: WireBond(folder, **given)


TEXTS = table(
    Row("byte-order mark", classes_txt(TEXT.encode("utf-8-sig")), value=NAMES),
    Row("UTF-16 with a mark", classes_txt(TEXT.replace("\n", "\r\n").encode("utf-16")), value=NAMES),
    Row("UTF-16 without a mark", classes_txt(TEXT.encode("utf-16-le")), value=NAMES),
    Row("UTF-32", classes_txt(TEXT.encode("utf-32")), value=NAMES),
    Row("old Mac line ends", classes_txt(TEXT.replace("\n", "\r").encode()), value=NAMES),
    Row("code page 1252", classes_txt("Grund\nLötstelle\n".encode("cp1252")), r"classes\.txt: line 2 is not UTF-8"),
    Row("code page GBK", classes_txt("背景\n焊线\n".encode("gbk")), r"classes\.txt: line 1 .* Save the file as UTF-8"),
    Row("letters beyond ASCII", classes_txt("背景\n焊线\n".encode()), value=["背景", "焊线"]),
    Row("a program", classes_txt(b"\x7fELF\x02\x01\0\0\0\0wire\npad"), r"classes\.txt"),
    Row("an empty file", classes_txt(b""), r"classes\.txt: there must be 2 to 255 classes .* got 0"),
    Row("names on one line", classes_txt(b"background,wire\n"), "got 1"),
    Row("a name twice", classes_txt(b"background\nwire\nwire \n"), "'wire' is there twice"),
    Row("JSON with a mark", in_json(json.dumps({"classes": NAMES}).encode("utf-8-sig")), value=NAMES),
    Row("JSON in UTF-16", in_json(json.dumps({"classes": NAMES}).encode("utf-16")), value=NAMES),
    Row("a key twice", in_json(b'{"classes": ["a", "b"], "classes": ["c", "d"]}'), "the key 'classes' is there twice"),
    Row("no JSON", in_json(b"classes: [a, b]"), r"dataset\.json: cannot be read as JSON"),
    Row("deep JSON", in_json(b"[" * 100_000), r"dataset\.json: cannot be read as JSON"),
)

CLASSES = table(
    Row("index to name", described(classes={"1": "wire", "0": "background"}), value=NAMES[:2]),
    Row("name to index", described(classes={"wire": 1, "background": 0}), value=NAMES[:2]),
    Row("objects", described(classes=[{"id": 1, "name": "wire"}, {"id": 0, "name": "background"}]), value=NAMES[:2]),
    Row("objects from 1", described(classes=[{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]), "the indices 0"),
    Row("an index twice", described(classes={"a": 0, "b": 1, "c": 1}), r"the indices 0 \(background\) to 2, each once"),
    Row("objects without a name", described(classes=[{"id": 0}, {"id": 1}]), 'need "id" and "name"'),
    Row("a text", described(classes="background,wire"), r"dataset\.json: \"classes\": the classes must be a list"),
    Row("a number", described(classes=3), "must be a list of names"),
    Row("numbers", described(classes=[0, 1]), "each class must be a name .* got 0"),
    Row("null among names", described(classes=["a", None]), "got None"),
    Row("an empty name", described(classes=["a", " "]), "got ' '"),
    Row("a name twice", described(classes=["a", "b", "a"]), "'a' is there twice"),
    Row("none", described(classes=[]), "got 0"),
    Row("256 classes", described(classes=[str(n) for n in range(256)]), "got 256"),
    Row("the argument as a text", lambda f: read_description(f, "ab"), "The argument classes: .* a list of names"),
)

KEYS = table(
    Row(
        "colours",
        described("colours", colours={"wire": [1, 2, 3], "ignore": [9, 9, 9]}),
        value={(1, 2, 3): 1, (9, 9, 9): 255},
    ),
    Row("one colour for two", described(colours={"wire": [1, 2, 3], "pad": [1, 2, 3]}), "have one colour"),
    Row("a colour of four numbers", described(colours={"wire": [1, 2, 3, 255]}), r"not three numbers: \['wire'\]"),
    Row("a colour beyond 255", described(colours={"wire": [0, 0, 256]}), "0 to 255 each"),
    Row("a colour of fractions", described(colours={"wire": [0, 0, 0.5]}), "not three numbers"),
    Row("a colour as a text", described(colours={"wire": "#ff0000"}), "not three numbers"),
    Row("American spelling", described(colors={"wire": [1, 2, 3]}), '"colors" is no key .* Did you mean "colours"'),
    Row("a key misspelt", described(illumination=["_a"]), 'Did you mean "lighting_channels"'),
    Row("a key of one's own", described(source="camera 3"), value=NAMES),
    Row("an ignore index that is a class", described(ignore_index=1), "the index of the class 'wire'"),
    Row("an ignore index as a text", described(ignore_index="255"), '"ignore_index" must be a int, got str'),
    Row("an ignore index of true", described(ignore_index=True), "got bool"),
    Row("groups as a list", described(groups=["a"]), '"groups" must be a dict, got list'),
    Row("a group without a name", described(groups={"u1": None}), "'u1' has None"),
    Row("a group as a number", described("groups", groups={"u1": 7}), value={"u1": "7"}),
    Row(
        "lighting_channels as a text", described(lighting_channels="_a"), '"lighting_channels" must be a list, got str'
    ),
    Row(
        "a lighting channel twice",
        described(lighting_channels=["_a", "_a"]),
        r"dataset\.json: lighting_channels=.* of both",
    ),
    Row("the key of 0.2.0", described("lighting_channels", illuminations=["_a", "_b"]), value=["_a", "_b"]),
    Row("the key of 0.2.0 as a text", described(illuminations="_a"), '"illuminations" must be a list, got str'),
    Row("the key of 0.2.0, null", described("lighting_channels", illuminations=None), value=[]),
    Row(
        "both keys",
        described(lighting_channels=["_a"], illuminations=["_a"]),
        r'dataset\.json: has "lighting_channels" and "illuminations", .* Remove "illuminations"\.',
    ),
    Row("another word of the key", described(lights=["_a"]), 'Did you mean "lighting_channels"'),
    Row("one that ends with another", described(lighting_channels=["_1", "x_1"]), "'x_1' ends with '_1'"),
    Row("an empty lighting channel", described(lighting_channels=["", "_a"]), "a list of suffixes"),
)

ARGUMENTS = table(
    Row("bit_depth 7", argument(bit_depth=7), "bit_depth=7 must be a whole number from 8 to 16"),
    Row("bit_depth 17", argument(bit_depth=17), "bit_depth=17 must be"),
    Row("bit_depth as a text", argument(bit_depth="12"), "bit_depth='12' must be"),
    Row("a negative seed", argument(seed=-1), r"seed=-1 must lie in \[0, 4294967295\]"),
    Row("a batch of none", argument(train_batch_size=0), "train_batch_size=0 must be at least 1"),
    Row("a negative test batch", argument(eval_batch_size=-4), "eval_batch_size=-4 must be"),
    Row("negative workers", argument(num_workers=-1), "num_workers=-1 must not be negative"),
    Row("no shots", argument(shots=0), "shots=0 must be"),
    Row("classes as a text", argument(classes="wire"), "classes='wire' must be a list of names or null"),
    Row("no root", lambda _: SegmentationFolder(None), "root=None must be a path"),
    Row("devices as a text", argument(test_devices="board"), "test_devices='board' must be a list of names"),
    Row("a negative ratio", argument(test_ratio=-0.1), r"test_ratio=-0\.1 must lie in \[0, 1\)"),
    Row("a ratio that is no number", argument(val_ratio=float("nan")), "val_ratio=nan must be a number"),
    Row(
        "ratios of all",
        argument(val_ratio=0.5, test_ratio=0.5),
        "val_ratio=0.5 and test_ratio=0.5 must sum to less than",
    ),
    Row("lighting_channels as a text", argument(lighting_channels="_a"), "lighting_channels='_a' must be a list"),
    Row("a negative seed of drawings", drawn(seed=-1), "seed=-1 must lie in"),
    Row("no image of a device", drawn(images_per_device=0), "images_per_device=0 must be"),
    Row("a negative lot", drawn(lot=-1), "lot=-1 must not be negative"),
    Row("a size of nothing", drawn(image_size=(0, 64)), r"image_size=\(0, 64\) must be at least 32 px"),
    Row("a stored bit depth", lambda _: FileFormat.from_dict({"bit_depth": 40}), "bit_depth=40 must be"),
)


@pytest.mark.parametrize("row", [*TEXTS, *CLASSES, *KEYS])
def test_text_files(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)


@pytest.mark.parametrize("row", ARGUMENTS)
def test_arguments_of_datamodules(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)
