# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Masks and their history: what is on the disk after each stroke, and after bad ones."""

import errno
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_pictures import SIZE, truth
from label_steps import on_disk, paint
from PIL import Image

from anomalib_aoissl.data.reading import read_mask
from anomalib_aoissl.labelling.session import Session
from anomalib_aoissl.labelling.storage.in_memory import Held
from anomalib_aoissl.labelling.storage.masks import Region
from anomalib_aoissl.labelling.storage.pictures import read_channels
from anomalib_aoissl.labelling.storage.problems import Problem, StaleError


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


def test_undo_of_what_another_program_changed_is_rejected(session: Session, device: Path) -> None:
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
    described = [Session(tmp_path, bit_depth=bits).open("a")["channels"][0]["bits"] for bits in (None, 12)]
    assert described == [16, 12]


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


@pytest.mark.parametrize("suffix", [".tiff", ".BMP", ".PNG"])
def test_a_painted_mask_is_one_png(session: Session, device: Path, suffix: str) -> None:
    (device / "masks").mkdir()
    Image.fromarray(np.ones(SIZE, np.uint8)).save(device / "masks" / f"unit_0{suffix}")
    paint(session, "unit_0", 0, 0, np.array([[2]]))
    assert on_disk(device)[0, :2].tolist() == [2, 1]
    assert [path.name for path in (device / "masks").iterdir()] == ["unit_0.png"]
