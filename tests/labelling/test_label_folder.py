# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The folder of the page: which pictures are listed, what is dropped, and what is not taken."""

import errno
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_pictures import SIZE
from label_steps import dropped, paint
from PIL import Image

from anomalib_aoissl.labelling.session import Session
from anomalib_aoissl.labelling.storage.folder import LabelFolder
from anomalib_aoissl.labelling.storage.masks import MaskStore
from anomalib_aoissl.labelling.storage.problems import Problem
from anomalib_aoissl.labelling.teaching.exporting import write_dataset


def test_nothing_outside_of_the_folder_is_read_or_written(session: Session, device: Path) -> None:
    outside = device.parent / "outside"
    outside.mkdir()
    shutil.copy(device / "images" / "unit_0.png", outside / "secret.png")
    (device / "images" / "link.png").symlink_to(outside / "secret.png")
    (device / "images" / "linked").symlink_to(outside)
    session.folder.scan()
    assert not [one.name for one in session.folder.pictures if "secret" in one.name or "link" in one.name]
    (device / "masks").symlink_to(outside)
    with pytest.raises(Problem, match="outside of") as error:
        paint(session, "unit_0", 0, 0, np.ones((4, 4)))
    assert error.value.status == 403
    for name in ("../outside/secret", "/etc/passwd", "..", ""):
        with pytest.raises(Problem, match="There is no picture"):
            session.open(name)
    for name in ("../x.png", "a/b.png", ".hidden.png", "x.exe", "", "a\\b.png", "x" * 300 + ".png"):
        with pytest.raises(Problem, match="no picture's name"):
            dropped(session, name, b"")
    with pytest.raises(Problem, match="There is no picture"):
        session.set_aside("../images/unit_0", "")
    assert (device / "images" / "unit_0.png").is_file()
    assert sorted(path.name for path in outside.iterdir()) == ["secret.png"]


def test_what_is_dropped_must_be_a_picture(session: Session, device: Path) -> None:
    with pytest.raises(Problem, match=r"^new\.png: "):
        dropped(session, "new.png", b"no picture")
    assert not (device / "images" / "new.png").exists()
    content = (device / "images" / "unit_0.png").read_bytes()
    assert dropped(session, "new.png", content) == "new"
    with pytest.raises(Problem, match="in the folder already"):
        dropped(session, "new.png", content)
    with pytest.raises(Problem, match="in the folder already"):
        dropped(session, "unit_0.bmp", content)  # it would come before unit_0.png, and get its mask


def test_what_a_killed_program_received_is_removed(session: Session, device: Path, settings: Any) -> None:
    content = (device / "images" / "unit_0.png").read_bytes()
    with session.arrivals.receiving("new.png") as received:
        received.write_bytes(content)
        assert session.try_on("new.png", received, "tab", more=True) is None  # the tab is closed after one channel
    own = session.folder.own
    assert [path.name for path in (own / "trial").rglob("*.png")] == ["new.png"]
    (own / "received" / ".part-1.png").write_bytes(content)
    again = Session(device, settings)
    assert not (own / "trial").exists()
    assert not (own / "received").exists()
    with again.arrivals.receiving("new.png") as received:
        received.write_bytes(content)
        again.try_on("new.png", received, "tab", more=True)
    again.stop()
    assert not (own / "trial").exists()


def test_an_empty_folder_and_one_with_pictures_in_itself(tmp_path: Path, settings: Any, device: Path) -> None:
    (tmp_path / "empty").mkdir()
    session = Session(tmp_path / "empty", settings)
    assert session.state()["pictures"] == []
    assert session.classes.names == ("background", "class 1")
    dropped(session, "unit_0.png", (device / "images" / "unit_0.png").read_bytes())
    assert (tmp_path / "empty" / "images" / "unit_0.png").is_file()
    paint(session, "unit_0", 0, 0, np.ones((4, 4)))
    assert (tmp_path / "empty" / "classes.txt").read_text() == "background\nclass 1\n"
    flat = LabelFolder(device / "images")
    assert [one.name for one in flat.pictures] == [f"unit_{index}" for index in range(4)]


@pytest.mark.parametrize("kind", ["missing", "file", "read-only"])
def test_folders_that_cannot_be_labelled(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    if kind == "file":
        path.write_text("")
    if kind == "read-only":
        path.mkdir()
        denied = OSError(errno.EACCES, os.strerror(errno.EACCES))

        def fail(**_: Any) -> None:
            raise denied

        monkeypatch.setattr("anomalib_aoissl.labelling.storage.folder.tempfile.TemporaryFile", fail)
    message = {"missing": "does not exist", "file": "is a file", "read-only": "cannot be written to"}[kind]
    with pytest.raises(ValueError, match=message):
        Session(path)


@pytest.mark.parametrize("key", ["lighting_channels", "illuminations"])  # the second is that of 0.2.0
def test_lighting_channels_make_one_item(key: str, tmp_path: Path, settings: Any) -> None:
    (tmp_path / "images").mkdir()
    for channel in ("_ch0", "_ch1"):
        Image.fromarray(np.full(SIZE, 90, np.uint8)).save(tmp_path / "images" / f"a{channel}.png")
    Image.fromarray(np.full(SIZE, 90, np.uint8)).save(tmp_path / "images" / "b_ch0.png")
    (tmp_path / "dataset.json").write_text(json.dumps({"classes": ["x", "y"], key: ["_ch0", "_ch1"]}))
    session = Session(tmp_path, settings)
    assert [one.name for one in session.folder.pictures] == ["a"]
    assert session.state()["faults"] == ["b: the lighting channel _ch1 is missing. Drop b_ch1 too."]
    assert [one["name"] for one in session.open("a")["channels"]] == ["ch0", "ch1"]
    written = write_dataset(session.folder, session.masks, ["a"], tmp_path / "written")
    content = {"classes": ["x", "y"], "lighting_channels": ["_ch0", "_ch1"]}
    assert json.loads((written / "dataset.json").read_text()) == content


def test_no_class_is_removed_while_a_data_set_is_written(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free: list[bool] = []

    def reading(store: MaskStore, name: str) -> Any:
        def taken() -> bool:
            if store._lock.acquire(blocking=False):
                store._lock.release()
                return True
            return False

        with ThreadPoolExecutor(1) as other:  # what removes a class waits for this lock
            free.append(other.submit(taken).result())
        return read(store, name)

    read = MaskStore.read
    paint(session, "unit_0", 0, 0, np.ones((4, 4)))
    monkeypatch.setattr(MaskStore, "read", reading)
    data = write_dataset(session.folder, session.masks, ["unit_0"], tmp_path / "written")
    assert free == [False]
    for split in ("train", "test"):
        mask = np.asarray(Image.open(data / split / "masks" / "unit_0.png"))
        np.testing.assert_array_equal(mask[:6, :6] == 1, np.pad(np.ones((4, 4), bool), (0, 2)))


def channel_folder(root: Path, inner: str) -> bytes:
    """Make a folder of one picture of two lighting channels, and return the content of a channel."""
    (root / inner).mkdir(exist_ok=True)
    for channel in ("_ch0", "_ch1"):
        Image.fromarray(np.full(SIZE, 90, np.uint8)).save(root / inner / f"a{channel}.png")
    (root / "dataset.json").write_text('{"classes": ["x", "y"], "lighting_channels": ["_ch0", "_ch1"]}')
    return (root / inner / "a_ch0.png").read_bytes()


def test_dropped_channels_make_one_item_once_all_are_there(tmp_path: Path, settings: Any) -> None:
    content = channel_folder(tmp_path, "images")
    session = Session(tmp_path, settings)
    assert dropped(session, "c_ch1.png", content, more=True) == ""
    assert session.state()["faults"] == ["c: the lighting channel _ch0 is missing. Drop c_ch0 too."]
    assert dropped(session, "b_ch0.png", content) == ""
    with pytest.raises(Problem, match="is in the folder already"):
        dropped(session, "c_ch1.tif", content)
    assert dropped(session, "c_ch0.png", content) == "c"
    assert [name for name, _ in session.state()["pictures"]] == ["a", "c"]
    assert dropped(session, "b_ch1.png", content) == "b"
    assert [name for name, _ in session.state()["pictures"]] == ["a", "b", "c"]
    assert session.state()["faults"] == []
    assert not session.folder.scan()  # the folder says the same


def test_a_dropped_file_of_no_channel_is_not_taken(tmp_path: Path, settings: Any) -> None:
    content = channel_folder(tmp_path, "images")
    session = Session(tmp_path, settings)
    before = sorted(path.name for path in (tmp_path / "images").iterdir())
    with pytest.raises(Problem, match=r"other\.png: was not taken.* ends in none of _ch0, _ch1 .*other_ch0\.png"):
        dropped(session, "other.png", content)
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == before
    assert session.state()["faults"] == []
    assert dropped(session, "other_ch0.png", content, more=True) == ""
    assert dropped(session, "other_ch1.png", content) == "other"


def test_files_of_no_channel_from_elsewhere_are_said(tmp_path: Path, settings: Any) -> None:
    content = channel_folder(tmp_path, "images")
    session, heard = Session(tmp_path, settings), []
    session.events.send = lambda kind, **_: heard.append(kind)
    (tmp_path / "images" / "x.png").write_bytes(content)
    session.look()
    session.look()
    said = "The name of 1 file ends in none of the lighting channels _ch0, _ch1: x.png."
    assert (heard, session.state()["faults"]) == (["pictures"], [said])
    for name in "wvu":
        (tmp_path / "images" / f"{name}.png").write_bytes(content)
    session.look()
    assert session.state()["faults"] == [
        "The names of 4 files end in none of the lighting channels _ch0, _ch1: u.png, v.png, w.png."
    ]
    assert [name for name, _ in session.state()["pictures"]] == ["a"]


def test_a_channel_that_was_removed_may_be_dropped_again(tmp_path: Path, settings: Any) -> None:
    content = channel_folder(tmp_path, "images")
    session = Session(tmp_path, settings)
    (tmp_path / "images" / "a_ch1.png").unlink()
    assert dropped(session, "a_ch1.bmp", content) == "a"
    assert session.state()["faults"] == []
    assert [file.name for file in session.folder.picture("a").files] == ["a_ch0.png", "a_ch1.bmp"]


def test_tabs_are_told_of_dropped_pictures_once_though_the_last_one_fails(session: Session, device: Path) -> None:
    content = (device / "images" / "unit_0.png").read_bytes()
    heard: list[str] = []
    session.events.send = lambda kind, **_: heard.append(kind)
    dropped(session, "new.png", content, more=True)
    with pytest.raises(Problem, match="is in the folder already"):
        dropped(session, "unit_0.png", content)
    assert heard == []
    session.look()
    session.look()
    assert heard == ["pictures"]


def test_a_picture_that_is_dropped_while_the_folder_is_looked_through_stays(
    session: Session, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (device / "images" / "unit_0.png").read_bytes()
    names = iter(["early.png"])
    walk = os.walk

    def slow(*arguments: Any) -> Any:
        found = list(walk(*arguments))
        yield from found
        for name in names:  # the folder was listed, and its files are not looked at yet
            dropped(session, name, content)

    monkeypatch.setattr(os, "walk", slow)
    session.folder.scan()
    assert "early" in [one.name for one in session.folder.pictures]
    monkeypatch.undo()
    assert not session.folder.scan()


def test_a_picture_dropped_on_a_folder_that_is_no_longer_empty_is_listed(tmp_path: Path, settings: Any) -> None:
    session = Session(tmp_path, settings)
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / "other.png")
    assert dropped(session, "new.png", (tmp_path / "other.png").read_bytes()) == "new"
    assert [one.name for one in session.folder.pictures] == ["new", "other"]


@pytest.mark.parametrize("inner", ["images", "."])
@pytest.mark.parametrize("more", [True, False], ids=["others follow", "the last one"])
def test_dropped_channels_cost_the_same_in_a_large_folder(
    inner: str, more: bool, tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted are looks at the disk: of the files that are there, only the picture's own are asked for."""
    content = channel_folder(tmp_path, inner)
    session, costs = Session(tmp_path, settings), []
    for number in (0, 150):
        for index in range(number):
            for channel in ("_ch0", "_ch1"):
                os.link(tmp_path / inner / f"a{channel}.png", tmp_path / inner / f"more_{index}{channel}.png")
        session.look()
        with monkeypatch.context() as patch:
            seen = looks(patch)
            for channel in ("_ch0", "_ch1"):
                dropped(session, f"new_{number}{channel}.png", content, more=more)
        assert not [path for path in seen if "more_" in path]
        costs.append(len(seen))
    assert len(session.folder.pictures) == 153
    assert abs(costs[1] - costs[0]) <= 2


def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by each file that is asked for, and each entry of a folder that is listed."""
    seen: list[str] = []
    scandir = os.scandir
    for owner, name in ((Path, "stat"), (os, "scandir"), (os, "lstat")):
        real = getattr(owner, name)

        def counting(*arguments: Any, real: Any = real, **keywords: Any) -> Any:
            found = real(*arguments, **keywords)
            if real is not scandir:
                seen.append(str(arguments[0]))
                return found
            entries = list(found)
            seen.extend(entry.path for entry in entries)
            return entries

        monkeypatch.setattr(owner, name, counting)
    return seen


@pytest.mark.parametrize("act", ["stroke", "upload", "thumbnail", "open"])
def test_what_one_waits_for_costs_the_same_in_a_large_folder(
    act: str, session: Session, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted are looks at the disk, and what is sent to the tabs."""
    monkeypatch.setattr(session.lessons, "prepare", lambda _: None)
    content = (device / "images" / "unit_0.png").read_bytes()
    acts = {
        "stroke": lambda: paint(session, "unit_0", 0, 0, np.ones((2, 2))),
        "upload": lambda: dropped(session, f"new_{len(costs)}.png", content),
        "thumbnail": lambda: session.pictures.thumbnail("unit_1"),
        "open": lambda: session.open("unit_1"),
    }
    costs: list[tuple[int, int]] = []
    for more in (0, 120):
        for index in range(more):
            shutil.copy(device / "images" / "unit_0.png", device / "images" / f"more_{index}.png")
            shutil.copy(device / "masks" / "unit_0.png", device / "masks" / f"more_{index}.png")
        paint(session, "unit_0", 0, 0, np.zeros((2, 2)))
        session.look()
        session.count()
        heard = session.events.listen()
        next(heard)
        with monkeypatch.context() as patch:
            seen = looks(patch)
            acts[act]()
        sent = next(heard) if act == "stroke" else ""
        costs.append((len(seen), len(sent)))
    assert len(session.state()["painted"]) == 121
    assert abs(costs[1][0] - costs[0][0]) <= 2
    assert abs(costs[1][1] - costs[0][1]) <= 20
    assert costs[0][0] < 120


def test_ten_thousand_pictures_are_listed(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "images" / "00000.png")
    for index in range(1, 10_000):
        os.link(tmp_path / "images" / "00000.png", tmp_path / "images" / f"{index:05d}.png")
    folder = LabelFolder(tmp_path)
    assert len(folder.pictures) == 10_000
    assert not folder.scan()
