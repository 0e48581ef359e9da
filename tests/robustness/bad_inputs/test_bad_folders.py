# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Folders: what other programs leave in them, what is missing, and prediction past pictures that are broken."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from anomalib.engine import Engine
from PIL import Image
from rows import Row, table

from anomalib_aoissl import AOISSLRetrieval, SegmentationFolder
from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.models.pictures.predicting import PredictImages
from anomalib_aoissl.plugin.command_line import attach

Change = Callable[[Path], object]


def write(path: Path, value: int = 9, shape: tuple[int, ...] = (8, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value, dtype=np.uint8)).save(path)


def make(root: Path, names: tuple[str, ...] = ("u0", "u1", "u2", "u3")) -> None:
    """Write a picture and a mask of each name, and the class names."""
    for value, name in enumerate(names):
        write(root / "images" / f"{name}.png", value)
        write(root / "masks" / f"{name}.png", 1)
    (root / "classes.txt").write_text("background\nwire\n")


def cut(path: Path) -> None:
    """Write a picture of noise whose end is missing."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-60])


def said(act: Callable[[], Any]) -> tuple[Any, list[str]]:
    """Return what a function returns, and the lines that our data package logs meanwhile."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("anomalib_aoissl")
    logger.addHandler(handler)
    try:
        return act(), lines
    finally:
        logger.removeHandler(handler)


def names_in(data: SegmentationFolder) -> list[str]:
    """Return the names of the pictures of all splits."""
    parts = (data.train_data, data.val_data, data.test_data)
    return sorted(Path(path).stem for part in parts for path in part.samples.image_path)


def folder(change: Change, line: str | None = None, **arguments: Any) -> Callable[[Path], object]:
    """Return an act that sets up a folder after a change, and gives its pictures; ``line`` must be said."""

    def act(root: Path) -> object:
        make(root)
        change(root)
        data = SegmentationFolder(root, **{"test_ratio": 0.25, "val_ratio": 0.0, **arguments})
        _, lines = said(data.setup)
        assert line is None or any(line in text for text in lines), lines
        return names_in(data)

    return act


def devices(groups: dict[str, str], line: str | None = None) -> Callable[[Path], object]:
    """Return an act that gives the devices of pictures with these groups."""

    def act(root: Path) -> object:
        make(root)
        (root / "dataset.json").write_text(json.dumps({"groups": groups}))
        data = SegmentationFolder(root, test_ratio=0.5, val_ratio=0.0)
        _, lines = said(data.setup)
        assert line is None or any(line in text for text in lines), lines
        return sorted({*data.train_data.samples.device_name, *data.test_data.samples.device_name})

    return act


def copied(name: str) -> Change:
    """Return a change that lays copies of all pictures and masks into a folder of another program."""

    def change(root: Path) -> None:
        for kind in ("images", "masks"):
            files = list((root / kind).iterdir())
            for file in files:
                (root / kind / name).mkdir(exist_ok=True)
                shutil.copy(file, root / kind / name / f"{file.stem}-copy.png")

    return change


def nested(*splits: str, masks: bool = True) -> Change:
    def change(root: Path) -> None:
        for split in splits:
            for kind in ("images", "masks"):
                write(root / split / kind / f"{split}.png", 1)
        if not masks:
            shutil.rmtree(root / splits[-1] / "masks")

    return change


def linked(root: Path) -> None:
    for kind in ("images", "masks"):
        (root / "store" / kind).mkdir(parents=True)
        write(root / "store" / kind / "far.png", 1)
        (root / kind / "board").symlink_to(root / "store" / kind)
    (root / "images" / "round").symlink_to(root / "images")


def two_masks(root: Path) -> None:
    Image.fromarray(np.ones((8, 12), np.uint8)).save(root / "masks" / "u1.tif")


def orientation(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(root / "images" / "u1.png") as image:
        image.copy().save(root / "images" / "u1.png", exif=exif)


def ignored(root: Path) -> None:
    write(root / "masks" / "u1.png", 255)


def of_some_devices(root: Path) -> None:
    for kind in ("images", "masks"):
        for name, device in (("u0", "a"), ("u1", "a"), ("u2", "b"), ("u3", "b")):
            (root / kind / device).mkdir(exist_ok=True)
            (root / kind / f"{name}.png").rename(root / kind / device / f"{name}.png")


ALL = ["u0", "u1", "u2", "u3"]
NESTED = {"classes": ["background", "wire"]}

FOLDERS = table(
    *[
        Row(f"{name} of another program", folder(copied(name), "left out (hidden, of another program"), value=ALL)
        for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX", "#recycle", "thumbnails", ".@__thumb", "$RECYCLE.BIN")
    ],
    Row("a picture that begins with a dot", folder(lambda r: write(r / "images" / "._u0.png")), value=ALL),
    Row("a folder called old.png", folder(lambda r: (r / "images" / "old.png").mkdir()), value=ALL),
    Row("a file of another kind", folder(lambda r: (r / "images/u9.webp").touch(), "u9.webp"), value=ALL),
    Row("linked folders, and a circle", folder(linked), value=["far", *ALL]),
    Row("a broken link", folder(lambda r: (r / "images/x.png").symlink_to("no")), r"x\.png: is a link to no"),
    Row("two masks of one name", folder(two_masks), r"u1\.tif: is a second mask beside u1\.png"),
    Row(
        "a mask without a picture", folder(lambda r: write(r / "masks/x.png", 1), "no picture of their name"), value=ALL
    ),
    Row("no masks at all", folder(lambda r: shutil.rmtree(r / "masks")), "masks/.* but that folder does not exist"),
    Row(
        "masks in JPEG",
        folder(lambda r: [p.rename(p.with_suffix(".jpg")) for p in (r / "masks").iterdir()]),
        "holds no lossless mask",
    ),
    Row(
        "a test folder without masks",
        folder(nested("train", "test", masks=False), **NESTED),
        r"test\.png: has no mask\. No test picture has one, so nothing can be measured",
    ),
    Row(
        "test masks that ignore every pixel",
        folder(ignored, device_pattern="[01]|[23]", train_devices=["0", "2", "3"]),
        r"u1\.png: the masks of the test ignore every pixel",
    ),
    Row(
        "a validation folder of another name",
        folder(nested("train", "valid", "test"), "valid", **NESTED),
        value=["test", "train"],
    ),
    Row(
        "a cut picture of the test",
        folder(lambda r: cut(r / "images/u1.png"), device_pattern="[01]|[23]", train_devices=["0", "2", "3"]),
        r"u1\.png: cannot be read .* truncated",
    ),
    Row("a picture turned by its orientation", folder(orientation), "u1.png has 12x8, whose orientation tag turns it"),
    Row(
        "unlabelled_dir that is not there",
        folder(lambda _: None, unlabelled_dir="no"),
        "unlabelled_dir=.*no: the folder",
    ),
    Row(
        "a root that is a file", lambda r: (r / "f").touch() or SegmentationFolder(r / "f").setup(), "f: is a file, not"
    ),
    Row(
        "a device of the training folder alone",
        folder(of_some_devices, devices=["a"], test_ratio=0.5),
        value=["u0", "u1"],
    ),
    Row("groups by file name", devices({f"u{i}.png": "ab"[i % 2] for i in range(4)}), value=["a", "b"]),
    Row("groups by stem", devices({f"u{i}": "ab"[i % 2] for i in range(4)}), value=["a", "b"]),
    Row(
        "a group that names nobody",
        devices({"u0": "a", "u1": "a", "v": "b"}, "are those of no picture: v"),
        value=["a", "unknown"],
    ),
    Row("groups that name nobody", devices({"v": "a"}), r'dataset\.json: "groups" names none of the pictures'),
)


@pytest.mark.parametrize("row", FOLDERS)
def test_folders(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)


def predicted(change: Change, line: str | None = None, **file_format: Any) -> Callable[[Path], object]:
    """Return an act that reads a folder as prediction does, and gives the names of what was read."""

    def act(root: Path) -> object:
        change(root)
        images = PredictImages(root, lambda: FileFormat(**file_format))
        found = [Path(item.image_path).relative_to(root).as_posix() for item in images]
        _, lines = said(images.report)
        assert line is None or any(line in text for text in lines), lines
        return found

    return act


def pool(*names: str) -> Change:
    return lambda root: [write(root / name) for name in names]


def with_cut(name: str, *names: str) -> Change:
    return lambda root: (pool(*names)(root), cut(root / name))


PREDICTED = table(
    Row(
        "a cut picture among others",
        predicted(with_cut("b.png", "a.png", "c.png"), "b.png: cannot be read"),
        value=["a.png", "c.png"],
    ),
    Row("nothing but a cut picture", predicted(with_cut("b.png")), r"b\.png: cannot be read .* truncated"),
    Row(
        "folders beyond ASCII",
        predicted(pool("Bilder_ä/1.png", "新图片/1.png")),
        value=["Bilder_ä/1.png", "新图片/1.png"],
    ),
    Row("no picture", predicted(lambda root: (root / "a.txt").touch()), "holds no image"),
    Row("no folder", lambda root: PredictImages(root / "no", FileFormat), "no: does not exist"),
    Row(
        "two lighting channels, each once",
        predicted(pool("u_a.png", "u_b.png"), lighting_channels=("_a", "_b")),
        value=["u_a.png"],
    ),
    Row(
        "two lighting channels of two kinds of file",
        predicted(pool("u_a.png", "u_b.bmp"), lighting_channels=("_a", "_b")),
        value=["u_a.png"],
    ),
    Row(
        "a missing light",
        predicted(
            pool("u_a.png", "v_a.png", "v_b.png"),
            "u_b.png: this lighting channel's file is missing",
            lighting_channels=("_a", "_b"),
        ),
        value=["v_a.png"],
    ),
    Row(
        "a third lighting channel",
        predicted(pool("u_a.png", "u_b.png", "u_c.png"), lighting_channels=("_a", "_b")),
        value=["u_a.png"],
    ),
    Row(
        "no lighting channel at all",
        predicted(pool("u.png"), lighting_channels=("_a", "_b")),
        r"u\.png: .* ends with none of them",
    ),
    Row(
        "sizes of all kinds",
        predicted(lambda r: (write(r / "a.png"), write(r / "b.png", 1, (99, 7, 3)))),
        value=["a.png", "b.png"],
    ),
)


@pytest.mark.parametrize("row", PREDICTED)
def test_prediction_of_folders(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: dict) -> SimpleNamespace:
    """Return a model with a bank, without a pixel head, and what it was trained on."""
    root = tmp_path_factory.mktemp("trained")
    make(root)
    model = AOISSLRetrieval(encoder={**tiny_encoder, "pretrained": False}, image_size=(16, 16), head=None)
    data = SegmentationFolder(root, num_workers=0, val_ratio=0.0, test_ratio=0.25)
    engine(root).fit(model, datamodule=data)
    return SimpleNamespace(model=model, root=root)


def engine(folder: Path) -> Engine:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return Engine(default_root_dir=folder, accelerator="cpu", devices=1, **quiet)


def test_predict_mirrors_folders_of_any_name_and_goes_past_a_broken_picture(
    trained: SimpleNamespace, tmp_path: Path
) -> None:
    given = tmp_path / "Bilder_ä"
    pool("boardA/1.png", "boardB/1.png", "boardB/1.bmp", "boardB/2.png")(given)
    write(given / "large.png", 30, (40, 20))
    cut(given / "broken.png")
    results, lines = said(lambda: engine(tmp_path / "out").predict(trained.model, data_path=given))
    masks = {p.relative_to(p.parents[1]).as_posix() for p in (tmp_path / "out").rglob("masks/*/*.png")}
    assert masks == {"boardA/1.png", "boardB/1.png.png", "boardB/1.bmp.png", "boardB/2.png"}
    (large,) = (tmp_path / "out").rglob("masks/large.png")
    with Image.open(large) as image:
        assert image.size == (20, 40)
    assert len(results) == 5
    assert any("1 pictures were not predicted" in line and "broken.png" in line for line in lines)
    assert trained.model.left_out == 1


@pytest.mark.parametrize(("left_out", "code"), [(0, None), (2, 1)])
def test_the_command_ends_with_1_where_pictures_were_left_out(left_out: int, code: int | None) -> None:
    class CommandLine:
        model, subcommand = SimpleNamespace(left_out=left_out), "predict"
        init_parser = staticmethod(lambda: None)
        ran = False

        def instantiate_classes(self) -> None:
            """Nothing."""

        def add_export_arguments(self, parser: Any) -> None:
            """Nothing."""

        def _run_subcommand(self) -> None:
            self.ran = True

    attach(CommandLine)
    cli, ended = CommandLine(), None
    try:
        cli._run_subcommand()
    except SystemExit as end:
        ended = end.code
    assert (cli.ran, ended) == (True, code)


def test_the_test_of_colour_lights_asks_for_their_planes(trained: SimpleNamespace, tmp_path: Path) -> None:
    make(tmp_path)
    for path in list((tmp_path / "images").iterdir()):
        for channel in "ab":
            lamp = 0 if channel == "b" and path.stem == "u1" else 200  # the lamp of one was off
            image = np.zeros((8, 12, 3), np.uint8)
            image[..., 0] = lamp
            Image.fromarray(image).save(path.with_name(f"{path.stem}_{channel}.png"))
        path.unlink()
    data: Any = SegmentationFolder(
        tmp_path, num_workers=0, val_ratio=0.0, test_ratio=0.25, lighting_channels=["_a", "_b"], train_batch_size=4
    )
    data.setup()
    assert data.train_data.file_format.planes == (3, 3)
    assert {len(data.train_data[index].image) for index in range(3)} == {6}
    with pytest.raises(ValueError, match=r"\(3 \+ 3 of its files\) has 6 planes\. Set in_channels=6"):
        engine(tmp_path / "out").test(trained.model, datamodule=data)


def test_other_models_predict_as_they_did(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stock: Any = vars(Engine.predict)["__wrapped__"]
    with pytest.raises(ValueError, match="requires an"):
        Engine.predict(SimpleNamespace(model=None), None, data_path=tmp_path)
    assert Engine.predict.__doc__ == stock.__doc__
    with pytest.raises(DatasetError):
        PredictImages(tmp_path, FileFormat)
