# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Masks, history, classes and the folder of the page: what is on the disk after each step, and after bad ones."""

import errno
import os
import shutil
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_pictures import SIZE, truth
from PIL import Image

from anomalib_aoissl.data.reading import read_mask
from anomalib_aoissl.labelling.session import Session
from anomalib_aoissl.labelling.storage import classes
from anomalib_aoissl.labelling.storage.folder import LabelFolder
from anomalib_aoissl.labelling.storage.holding import Held
from anomalib_aoissl.labelling.storage.masks import Region, write_mask
from anomalib_aoissl.labelling.storage.pictures import read_channels
from anomalib_aoissl.labelling.storage.problems import Problem, StaleError


def paint(session: Session, name: str, left: int, top: int, values: np.ndarray, kind: str = "brush") -> str:
    return session.stroke(name, Region(left, top, values.astype(np.uint8)), session.masks.version(name), kind, "me")


def dropped(session: Session, name: str, content: bytes, *, more: bool = False) -> str:
    with session.arrivals.receiving(name) as received:
        received.write_bytes(content)
        return session.upload(name, received, more=more)


def on_disk(device: Path, name: str = "unit_0") -> np.ndarray:
    with Image.open(device / "masks" / f"{name}.png") as image:
        return np.array(image)


def test_a_stroke_is_on_the_disk_and_the_rest_is_unpainted(session: Session, device: Path) -> None:
    paint(session, "unit_0", 10, 5, np.full((4, 6), 2))
    expected = np.full(SIZE, 255)
    expected[5:9, 10:16] = 2
    assert np.array_equal(on_disk(device), expected)
    assert session.state()["counts"] == [0, 0, 24]
    assert session.state()["painted"] == {"unit_0": round(24 / (64 * 96), 4)}


def test_undo_and_redo_outlive_the_program(session: Session, device: Path, settings: Any) -> None:
    random = np.random.default_rng(0)
    seen = [np.full(SIZE, 255)]
    for _ in range(4):
        left, top = random.integers(0, 60), random.integers(0, 40)
        paint(session, "unit_0", left, top, random.integers(0, 3, (12, 20)))
        seen.append(on_disk(device))
    for wanted in (seen[3], seen[2]):
        session.step("unit_0", True, "me")
        assert np.array_equal(on_disk(device), wanted)
    again = Session(device, settings)
    again.step("unit_0", True, "me")
    assert np.array_equal(on_disk(device), seen[1])
    for wanted in (seen[2], seen[3], seen[4]):
        again.step("unit_0", False, "me")
        assert np.array_equal(on_disk(device), wanted)
    assert again.step("unit_0", False, "me") is None
    again.step("unit_0", True, "me")
    paint(again, "unit_0", 0, 0, np.ones((2, 2)))
    assert again.step("unit_0", False, "me") is None  # painting ends what could be redone
    for _ in range(4):
        again.step("unit_0", True, "me")
    assert np.array_equal(on_disk(device), seen[0])
    assert again.step("unit_0", True, "me") is None


def test_undo_of_what_another_program_changed_is_refused(session: Session, device: Path) -> None:
    paint(session, "unit_0", 0, 0, np.full((4, 4), 2))
    Image.fromarray(truth()).save(device / "masks" / "unit_0.png")
    with pytest.raises(Problem, match="cannot be undone any more"):
        session.step("unit_0", True, "me")
    assert np.array_equal(on_disk(device), truth())


def test_a_write_on_an_older_mask_is_not_taken(session: Session, device: Path, settings: Any) -> None:
    old = session.masks.version("unit_0")
    other = Session(device, settings)  # another program on the folder
    paint(other, "unit_0", 0, 0, np.ones((4, 4)))
    with pytest.raises(StaleError) as error:
        session.stroke("unit_0", Region(2, 2, np.full((2, 2), 2, np.uint8)), old, "brush", "me")
    assert error.value.version == other.masks.version("unit_0")
    assert (on_disk(device) == 2).sum() == 0
    paint(session, "unit_0", 2, 2, np.full((2, 2), 2))
    assert (on_disk(device)[:4, :4] == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 2, 2], [1, 1, 2, 2]]).all()


@pytest.mark.parametrize(
    ("box", "data", "message"),
    [
        ((0, 0, 4, 4), zlib.compress(bytes(15)), "has 16 values, not 15"),
        ((0, 0, 4, 4), zlib.compress(bytes(10**8)), "has 16 values, not 17"),
        ((0, 0, 4, 4), b"no", "cannot be unpacked"),
        ((-1, 0, 4, 4), zlib.compress(bytes(16)), "must have a place"),
        ((0, 0, 0, 4), b"", "must have a place"),
    ],
)
def test_regions_that_fit_nothing(box: Any, data: bytes, message: str) -> None:
    with pytest.raises(Problem, match=message):
        Region.unpacked(box, data)


@pytest.mark.parametrize(
    ("left", "value", "message"), [(95, 1, "reaches beyond"), (0, 3, "The class 3 is not there any more")]
)
def test_regions_that_do_not_fit_the_mask(session: Session, device: Path, left: int, value: int, message: str) -> None:
    with pytest.raises(Problem, match=message):
        paint(session, "unit_0", left, 0, np.full((2, 2), value))
    assert not (device / "masks").exists()


def test_a_full_disk_is_said_and_the_old_mask_stays(
    session: Session, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(session, "unit_0", 0, 0, np.ones((4, 4)))
    before = on_disk(device)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("PIL.Image.Image.save", full)
        with pytest.raises(Problem, match="disk is full") as error:
            paint(session, "unit_0", 8, 8, np.ones((4, 4)))
    assert error.value.status == 507
    assert np.array_equal(on_disk(device), before)
    paint(session, "unit_0", 8, 8, np.ones((4, 4)))  # the page tries again
    assert (on_disk(device) == 1).sum() == 32


def test_a_mask_of_another_size_is_said_and_can_be_set_aside(session: Session, device: Path) -> None:
    (device / "masks").mkdir()
    Image.fromarray(np.zeros((10, 20), np.uint8)).save(device / "masks" / "unit_1.png")
    told = session.open("unit_1")
    assert "20x10 px (width x height), its picture 96x64" in told["fault"]
    with pytest.raises(Problem, match="Mend the file"):
        paint(session, "unit_1", 0, 0, np.ones((4, 4)))
    where = session.set_aside("unit_1", "me")
    assert read_mask(device / where).shape == (10, 20)
    assert session.open("unit_1")["fault"] == ""
    paint(session, "unit_1", 0, 0, np.ones((4, 4)))


def test_pictures_that_vanish_or_change_are_said(session: Session, device: Path) -> None:
    first = session.open("unit_0")["version"]
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(device / "images" / "unit_0.png")
    assert session.open("unit_0")["version"] != first
    (device / "images" / "unit_2.png").unlink()
    with pytest.raises(Problem, match="unit_2: the file is gone") as error:
        session.open("unit_2")
    assert error.value.status == 410
    assert session.folder.scan()
    assert [one.name for one in session.folder.pictures] == ["unit_0", "unit_1", "unit_3"]


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
        refuse = OSError(errno.EACCES, os.strerror(errno.EACCES))

        def refused(**_: Any) -> None:
            raise refuse

        monkeypatch.setattr("anomalib_aoissl.labelling.storage.folder.tempfile.TemporaryFile", refused)
    message = {"missing": "does not exist", "file": "is a file", "read-only": "cannot be written to"}[kind]
    with pytest.raises(ValueError, match=message):
        Session(path)


def test_classes_are_added_renamed_and_recoloured(session: Session, device: Path, settings: Any) -> None:
    session.change_class("add", 0, "chip")
    session.change_class("recolour", 3, "#123abc")
    session.change_class("rename", 3, "void")
    assert (device / "classes.txt").read_text() == "dark\nbright\nbar\nvoid\n"
    again = Session(device, settings)
    assert again.state()["classes"][3] == {"name": "void", "colour": "#123abc"}
    for act, value in (("add", "bar"), ("add", " "), ("recolour", "red"), ("rename", "dark")):
        with pytest.raises(Problem):
            session.change_class(act, 1, value)
    with pytest.raises(Problem, match="not there any more"):
        session.change_class("rename", 9, "x")
    assert session.classes.names == ("dark", "bright", "bar", "void")


def test_dataset_json_keeps_its_other_keys(device: Path, settings: Any) -> None:
    (device / "dataset.json").write_text('{"classes": ["a", "b"], "groups": {"unit_0": "x"}, "ours": 1}')
    Session(device, settings).change_class("add", 0, "c")
    text = (device / "dataset.json").read_text()
    assert '"ours": 1' in text
    assert Session(device, settings).classes.names == ("a", "b", "c")
    (device / "dataset.json").write_text('{"classes": ["a", "b"], "colours": {"b": [1, 2, 3]}}')
    with pytest.raises(ValueError, match="coded by colours"):
        Session(device, settings)


def test_a_painted_class_is_removed_only_into_another(session: Session, device: Path) -> None:
    session.change_class("add", 0, "chip")
    paint(session, "unit_0", 0, 0, np.array([[0, 1, 2, 3, 255]]))
    paint(session, "unit_1", 0, 0, np.array([[2, 2, 3]]))
    with pytest.raises(Problem, match=r"'bar' is painted in 2 picture\(s\), 3 px \(unit_0, unit_1\)"):
        session.change_class("remove", 2, "")
    session.change_class("remove", 2, "chip")
    assert session.classes.names == ("dark", "bright", "chip")
    assert on_disk(device, "unit_0")[0, :5].tolist() == [0, 1, 2, 2, 255]
    assert on_disk(device, "unit_1")[0, :3].tolist() == [2, 2, 2]
    session.change_class("remove", 1, "unpainted")
    assert on_disk(device, "unit_0")[0, :5].tolist() == [0, 255, 1, 1, 255]
    for index in (0, 1):
        with pytest.raises(Problem, match="cannot be removed"):
            session.change_class("remove", index, "unpainted")


def test_a_stroke_while_a_class_is_removed_waits_and_is_not_taken(
    session: Session, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(session, "unit_0", 0, 0, np.array([[1, 2]]))
    region = Region(0, 0, np.ones((1, 2), np.uint8))
    found: list[BaseException] = []

    def stroke() -> None:
        try:
            session.stroke("unit_1", region, "0", "brush", "", {1: "bright"})
        except Problem as problem:
            found.append(problem)

    other, real = threading.Thread(target=stroke), write_mask

    def write(path: Path, mask: np.ndarray) -> None:
        assert session.masks._between.is_locked
        other.start()
        real(path, mask)

    monkeypatch.setattr(classes, "write_mask", write)
    session.change_class("remove", 1, "unpainted")
    other.join()
    assert "'bright' is not that class any more" in str(found[0])
    assert on_disk(device, "unit_0")[0, :2].tolist() == [255, 1]
    assert not (device / "masks" / "unit_1.png").exists()


def test_classes_that_another_tab_or_program_changed(session: Session, device: Path, settings: Any) -> None:
    session.change_class("add", 0, "chip")
    other = Session(device, settings)
    other.change_class("remove", 1, "unpainted", "bright")
    with pytest.raises(Problem, match="'chip' is not that class any more"):
        session.stroke("unit_0", Region(0, 0, np.full((1, 1), 3, np.uint8)), "0", "brush", "", {3: "chip"})
    assert session.classes.names == ("dark", "bar", "chip")
    with pytest.raises(Problem, match="not there any more"):
        session.change_class("remove", 1, "unpainted", "bright")  # of a page that was not told yet
    (device / "classes.txt").write_text("dark\nbar\nvoid\n")
    session.look()
    assert session.classes.names == ("dark", "bar", "void")


def test_a_stroke_never_becomes_another_class(session: Session, device: Path) -> None:
    """A tab draws with the classes that it knows, while another one changes them."""

    def stroke(index: int, name: str) -> str:
        region = Region(0, 0, np.full((2, 2), index, np.uint8))
        return session.stroke("unit_0", region, session.masks.version("unit_0"), "brush", "", {index: name})

    session.change_class("remove", 2, "unpainted", "bar")
    session.change_class("add", 0, "void")  # at the index of the other
    with pytest.raises(Problem, match="'bar' is not that class any more") as error:
        stroke(2, "bar")
    assert error.value.status == 409
    assert not (device / "masks").exists()
    session.change_class("rename", 1, "light", "bright")
    stroke(1, "bright")  # it is the same class
    assert (on_disk(device)[:2, :2] == 1).all()
    session.change_class("add", 0, "chip")
    session.change_class("remove", 2, "unpainted", "void")
    with pytest.raises(Problem, match="'chip' is not"):
        stroke(3, "chip")
    stroke(2, "chip")
    session.change_class("remove", 1, "unpainted", "light")
    with pytest.raises(Problem, match="'bright' is not"):
        stroke(1, "bright")
    stroke(0, "dark")


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_removal_that_was_killed_is_finished_when_the_folder_is_opened(
    session: Session, device: Path, settings: Any, moved: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("unit_0", "unit_1"):
        paint(session, name, 0, 0, np.array([[0, 1, 2]]))
    moves, real = iter(range(moved)), Path.replace

    def replace(path: Path, target: Path) -> Path:
        if path.parent.name == "removal" and path.name[0] != "." and next(moves, None) is None:
            raise KeyboardInterrupt
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        if moved == 2:
            patch.setattr(session.classes, "write", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            session.change_class("remove", 1, "unpainted")
    again = Session(device, settings)
    assert again.classes.names == ("dark", "bar")
    for name in ("unit_0", "unit_1"):
        assert on_disk(device, name)[0, :3].tolist() == [0, 255, 1]


def test_a_program_that_is_killed_leaves_whole_masks(device: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from anomalib_aoissl.labelling.session import Session\n"
        "from anomalib_aoissl.labelling.storage.masks import Region\n"
        "s = Session(sys.argv[1])\n"
        "for i in range(100000):\n"
        "    v = s.stroke('unit_0', Region(i % 90, 0, np.full((60, 5), i % 3, np.uint8)), s.masks.version('unit_0'),"
        " 'brush', 'me')\n"
        "    print(i, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(device)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = -1
        for line in process.stdout:
            said = int(line)
            if said == 40:
                process.kill()
                break
    expected = np.full(SIZE, 255)
    for index in range(said + 1):
        expected[:60, index % 90 : index % 90 + 5] = index % 3
    found = on_disk(device)
    later = expected.copy()
    columns = [index % 90 for index in range(said + 1, said + 30)]
    kept = np.ones(SIZE[1], bool)
    kept[min(columns) : max(columns) + 5] = False  # may have been painted after the line was printed
    assert np.array_equal(found[:, kept], later[:, kept])


def test_twelve_and_sixteen_bits_are_shown_within_a_window(tmp_path: Path) -> None:
    values = np.linspace(0, 4095, 64 * 96).reshape(64, 96).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    (channel,) = read_channels((tmp_path / "a.png",), None)
    assert channel.values.dtype == np.uint16
    assert np.array_equal(channel.values, values)
    assert channel.window[1] == pytest.approx(4095 * 0.995 / 65535, abs=2e-3)
    (twelve,) = read_channels((tmp_path / "a.png",), 12)
    assert twelve.values.max() == 65535


def test_tiles_are_the_picture(session: Session, device: Path) -> None:
    import io

    with Image.open(device / "images" / "unit_0.png") as image:
        whole = np.array(image)
    shown = np.array(Image.open(io.BytesIO(session.pictures.tile("unit_0", 0, (0, 0, 0), (0, 1)))))
    assert np.array_equal(shown, whole)
    half = np.array(Image.open(io.BytesIO(session.pictures.tile("unit_0", 0, (1, 0, 0), (0, 1))))).astype(int)
    means = whole.reshape(32, 2, 48, 2, 3).mean(axis=(1, 3))
    assert np.abs(half - means).max() <= 1
    for place in ((0, 1, 0), (0, 0, -1), (99, 0, 0)):
        with pytest.raises(Problem, match="no such tile"):
            session.pictures.tile("unit_0", 0, place, (0, 1))


def test_lighting_channels_make_one_item(tmp_path: Path, settings: Any) -> None:
    (tmp_path / "images").mkdir()
    for light in ("_ch0", "_ch1"):
        Image.fromarray(np.full(SIZE, 90, np.uint8)).save(tmp_path / "images" / f"a{light}.png")
    Image.fromarray(np.full(SIZE, 90, np.uint8)).save(tmp_path / "images" / "b_ch0.png")
    (tmp_path / "dataset.json").write_text('{"classes": ["x", "y"], "illuminations": ["_ch0", "_ch1"]}')
    session = Session(tmp_path, settings)
    assert [one.name for one in session.folder.pictures] == ["a"]
    assert session.state()["faults"] == ["b: the lighting channel _ch1 is missing. Drop b_ch1 too."]
    assert [one["name"] for one in session.open("a")["channels"]] == ["channel 1", "channel 2"]


def channel_folder(root: Path, inner: str) -> bytes:
    """Make a folder of one picture of two lighting channels, and return the content of a channel."""
    (root / inner).mkdir(exist_ok=True)
    for light in ("_ch0", "_ch1"):
        Image.fromarray(np.full(SIZE, 90, np.uint8)).save(root / inner / f"a{light}.png")
    (root / "dataset.json").write_text('{"classes": ["x", "y"], "illuminations": ["_ch0", "_ch1"]}')
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
            for light in ("_ch0", "_ch1"):
                os.link(tmp_path / inner / f"a{light}.png", tmp_path / inner / f"more_{index}{light}.png")
        session.look()
        with monkeypatch.context() as patch:
            seen = looks(patch)
            for light in ("_ch0", "_ch1"):
                dropped(session, f"new_{number}{light}.png", content, more=more)
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


def test_masks_in_memory_are_counted_once() -> None:
    held: Held[str] = Held(100)
    for index in range(50):
        held.put(str(index), "1", "x", 10)
    assert (held.size, held.get("39", "1"), held.get("40", "1")) == (100, None, "x")
    held.put("41", "2", "y", 60)  # another version in its place, and the one used last stays
    assert (held.size, held.get("41", "1"), held.get("41", "2"), held.get("40", "1")) == (100, None, "y", "x")
    held.put("large", "1", "z", 500)
    assert (held.size, held.get("large", "1"), held.get("41", "2")) == (500, "z", None)


def test_sums_of_painted_pixels_are_those_of_the_masks(session: Session, device: Path) -> None:
    random = np.random.default_rng(1)
    for step in range(12):
        name = f"unit_{random.integers(0, 3)}"
        paint(session, name, step, step, random.choice([0, 1, 2, 255], (8, 9)))
        if step == 6:
            (device / "masks" / f"{name}.png").unlink()
            session.look()
    masks = {path.stem: on_disk(device, path.stem) for path in (device / "masks").glob("*.png")}
    totals = session.totals()
    assert totals["counts"] == [sum(int((mask == index).sum()) for mask in masks.values()) for index in range(3)]
    assert totals["shown"] == [sum(bool((mask == index).any()) for mask in masks.values()) for index in range(3)]
    shares = {name: round(float((mask != 255).mean()), 4) for name, mask in masks.items() if (mask != 255).any()}
    assert totals["painted"] == shares


def test_ten_thousand_pictures_are_listed(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "images" / "00000.png")
    for index in range(1, 10_000):
        os.link(tmp_path / "images" / "00000.png", tmp_path / "images" / f"{index:05d}.png")
    folder = LabelFolder(tmp_path)
    assert len(folder.pictures) == 10_000
    assert not folder.scan()
