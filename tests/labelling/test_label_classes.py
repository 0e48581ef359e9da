# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Classes of the page: added, renamed, recoloured and removed, also by others."""

import errno
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_steps import on_disk, paint
from PIL import Image

from anomalib_aoissl.labelling.session import Session
from anomalib_aoissl.labelling.storage import classes
from anomalib_aoissl.labelling.storage.masks import Region, write_mask
from anomalib_aoissl.labelling.storage.problems import Problem


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


def test_no_class_gets_the_index_of_ignored_pixels(device: Path, settings: Any) -> None:
    text = '{"classes": ["a", "b"], "ignore_index": 2}'
    (device / "dataset.json").write_text(text)
    session = Session(device, settings)
    with pytest.raises(Problem, match="'c' would get the index 2, which is the"):
        session.change_class("add", 0, "c")
    assert session.classes.names == ("a", "b")
    assert (device / "dataset.json").read_text() == text
    session.change_class("rename", 1, "d")
    (device / "dataset.json").write_text('{"classes": ["a", "d"], "ignore_index": 255}')
    session.look()
    session.change_class("add", 0, "c")
    paint(session, "unit_0", 0, 0, np.array([[2, 2]]))
    assert Session(device, settings).masks.read("unit_0")[0][0, :3].tolist() == [2, 2, 255]


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


@pytest.mark.parametrize("suffix", [".png", ".BMP", ".tif"])
def test_a_class_is_removed_of_masks_whose_picture_is_away(session: Session, device: Path, suffix: str) -> None:
    values = np.repeat(np.array([[0, 1, 2, 255]], np.uint8), 3, axis=0)
    (device / "masks" / "lot").mkdir(parents=True)
    Image.fromarray(values).save(device / "masks" / "lot" / f"away{suffix}")
    with pytest.raises(Problem, match=r"'bright' is painted in 1 picture\(s\), 3 px \(lot/away\)"):
        session.change_class("remove", 1, "")
    session.change_class("remove", 1, "bar")
    assert on_disk(device, "lot/away")[0].tolist() == [0, 1, 1, 255]
    assert [path.name for path in (device / "masks" / "lot").iterdir()] == ["away.png"]  # of two, training takes none


def test_no_class_is_removed_where_a_mask_cannot_be_read(session: Session, device: Path) -> None:
    paint(session, "unit_0", 0, 0, np.array([[1, 2]]))
    (device / "masks" / "away.png").write_bytes(b"no mask")
    with pytest.raises(Problem, match=r"away.png"):
        session.change_class("remove", 1, "unpainted")
    assert session.classes.names == ("dark", "bright", "bar")
    assert on_disk(device)[0, :2].tolist() == [1, 2]


def test_a_removal_that_was_given_up_leaves_nothing_for_the_next(
    session: Session, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("unit_0", "unit_1"):
        paint(session, name, 0, 0, np.array([[0, 1, 2]]))
    session.change_class("add", 0, "chip")

    def write(path: Path, mask: np.ndarray) -> None:
        if path.name == "unit_1.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_mask(path, mask)

    with monkeypatch.context() as patch:
        patch.setattr(classes, "write_mask", write)
        with pytest.raises(Problem, match="the disk is full"):
            session.change_class("remove", 1, "unpainted")
    session.change_class("remove", 3, "unpainted")  # of no mask
    for name in ("unit_0", "unit_1"):
        assert on_disk(device, name)[0, :3].tolist() == [0, 1, 2]


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


@pytest.mark.parametrize("stopped", ["masks/unit_1.png", "classes.txt"])
def test_nothing_is_painted_until_a_removal_is_finished(
    session: Session, device: Path, stopped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk stops it on the way, when masks have other indices already than the page knows."""
    session.change_class("add", 0, "chip")
    for name in ("unit_0", "unit_1"):
        paint(session, name, 0, 0, np.array([[1, 2, 3]]))
    bar, real = Region(0, 1, np.full((1, 3), 2, np.uint8)), Path.replace

    def replace(path: Path, target: Path) -> Path:
        if target == device / stopped:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, target)

    def stroke() -> None:
        session.stroke("unit_0", bar, session.masks.version("unit_0"), "brush", "", {2: "bar"})

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        for act in (
            lambda: session.change_class("remove", 1, "unpainted"),
            stroke,
            lambda: session.step("unit_0", True, ""),
            lambda: session.change_class("add", 0, "void"),
            lambda: session.open("unit_0"),
            lambda: session.set_aside("unit_0", ""),
            lambda: session.lessons._painted(["unit_0"]),
        ):
            with pytest.raises(Problem, match="the disk is full"):
                act()
        session.look()
    assert on_disk(device)[:2, :3].tolist() == [[255, 1, 2], [255, 255, 255]]
    with pytest.raises(Problem, match="'bar' is not that class any more"):
        stroke()
    assert session.classes.names == ("dark", "bar", "chip")
    for name in ("unit_0", "unit_1"):
        assert on_disk(device, name)[:2, :3].tolist() == [[255, 1, 2], [255, 255, 255]]
    assert session.state()["counts"] == [0, 2, 2]


def test_a_removal_that_a_full_disk_stopped_is_finished_by_itself(
    session: Session, device: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(session, "unit_0", 0, 0, np.array([[1, 2]]))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(classes.ClassNames, "_save", full)
        with pytest.raises(Problem, match="the disk is full"):
            session.change_class("remove", 1, "unpainted")
        again = Session(device, settings)  # the page opens all the same
    again.look()
    assert again.classes.names == ("dark", "bar")
    session.look()
    assert session.classes.names == ("dark", "bar")
    assert on_disk(device)[0, :2].tolist() == [255, 1]


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
