# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0
"""Tests of the generator of the demonstration set: determinism, labels that fit the picture, safe writing."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.morphology import skeletonize

from anomalib_aoissl.data.describing.class_colours import palette
from anomalib_aoissl.wirebond.drawing import (
    CLASS_NAMES,
    DEVICES,
    DeviceType,
    Drawing,
    draw,
    random_device,
    write_images,
)
from anomalib_aoissl.wirebond.drawing.files import unit_files, workers

SMALL = (96, 96)
BACKGROUND, WIRE, BALL, WEDGE, EPOXY = range(5)
PAIR = ["qfn48_copper", "power_to220_aluminium"]


@pytest.fixture(scope="module")
def full() -> dict[str, Drawing]:
    """One unit of every type at the nominal size."""
    return {name: draw(name, seed=5) for name in DEVICES}


def digest(drawing: Drawing) -> str:
    parts = (drawing.bright_field, drawing.dark_field, drawing.mask)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def disk(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def test_names_and_number_of_types() -> None:
    assert CLASS_NAMES == ("background", "wire", "ball", "wedge", "epoxy")
    assert len(DEVICES) >= 10
    assert all(name == device.name for name, device in DEVICES.items())


def test_same_arguments_same_bytes() -> None:
    assert digest(draw("qfn48_copper", seed=1, size=SMALL)) == digest(draw("qfn48_copper", seed=1, size=SMALL))


@pytest.mark.parametrize("change", [{"seed": 2}, {"unit": 1}, {"lot": 1}, {"difficulty": 0.6}])
def test_other_arguments_other_images(change: dict) -> None:
    given = {"seed": 1, "unit": 0, "lot": 0, "difficulty": 0.5, "size": SMALL}
    first, second = draw("qfn48_copper", **given), draw("qfn48_copper", **(given | change))
    assert not np.array_equal(first.bright_field, second.bright_field)
    assert not np.array_equal(first.dark_field, second.dark_field)


def test_order_of_drawing_does_not_matter() -> None:
    expected = [digest(draw(name, seed=1, unit=unit, size=SMALL)) for name in PAIR for unit in (0, 1)]
    backwards = [digest(draw(name, seed=1, unit=unit, size=SMALL)) for name in PAIR[::-1] for unit in (1, 0)]
    assert backwards[::-1] == expected


def test_other_process_and_hash_seed_draw_the_same() -> None:
    code = (
        "import sys, hashlib\n"
        "from anomalib_aoissl.wirebond.drawing import draw\n"
        "d = draw('bga_gold_two_tier', seed=3, unit=2, lot=1, size=(64, 96))\n"
        "print(hashlib.sha256(d.bright_field.tobytes() + d.dark_field.tobytes() + d.mask.tobytes()).hexdigest())\n"
        "assert not {'torch', 'anomalib'} & set(sys.modules), 'drawing must not load torch or anomalib'\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest(draw("bga_gold_two_tier", seed=3, unit=2, lot=1, size=(64, 96)))


def test_every_type_has_its_classes(full: dict[str, Drawing]) -> None:
    for name, drawing in full.items():
        for view in (drawing.bright_field, drawing.dark_field, drawing.mask):
            assert view.dtype == np.uint8
            assert view.shape == (512, 512)
        expected = {BACKGROUND, WIRE, WEDGE, EPOXY} | ({BALL} if DEVICES[name].ball_diameter else set())
        assert set(np.unique(drawing.mask)) == expected, name
        shares = np.bincount(drawing.mask.ravel(), minlength=5) / drawing.mask.size
        assert shares[BACKGROUND] > 0.5
        assert all(shares[label] > 5e-4 for label in expected), (name, shares)
    assert BALL not in np.unique(full["power_to220_aluminium"].mask)


def test_types_look_different(full: dict[str, Drawing]) -> None:
    looks = {digest(drawing) for drawing in full.values()}
    assert len(looks) == len(full)
    layouts = {drawing.mask.tobytes() for drawing in full.values()}
    assert len(layouts) == len(full)


def skeleton_length(shape: np.ndarray) -> float:
    """Length of the centre line in px, diagonal steps counted as such."""
    line = skeletonize(shape)
    straight = (line[1:] & line[:-1]).sum() + (line[:, 1:] & line[:, :-1]).sum()
    down = line[1:, 1:] & line[:-1, :-1] & ~line[1:, :-1] & ~line[:-1, 1:]
    up = line[1:, :-1] & line[:-1, 1:] & ~line[1:, 1:] & ~line[:-1, :-1]
    return float(straight + np.sqrt(2) * (down.sum() + up.sum()))


def test_wires_are_two_to_six_pixels_wide(full: dict[str, Drawing]) -> None:
    for name, drawing in full.items():
        wire = drawing.mask == WIRE
        width = wire.sum() / skeleton_length(wire)
        assert 1.8 <= width <= 6.5, (name, width)
        assert abs(width - DEVICES[name].wire_width) < 0.6, (name, width)


def test_wires_are_continuous_from_bond_to_bond(full: dict[str, Drawing]) -> None:
    for name, drawing in full.items():
        bonded = np.isin(drawing.mask, (WIRE, BALL, WEDGE))
        count, labels = cv2.connectedComponents(bonded.astype(np.uint8), connectivity=8)
        for part in range(1, count):
            kinds = set(np.unique(drawing.mask[labels == part]).tolist())
            assert WIRE in kinds, name
            assert kinds & {BALL, WEDGE}, name
        around = bonded[:-2, 1:-1] & bonded[2:, 1:-1] & bonded[1:-1, :-2] & bonded[1:-1, 2:]
        assert (around & ~bonded[1:-1, 1:-1]).sum() < 0.002 * bonded.sum(), name


def test_labels_lie_on_what_is_seen(full: dict[str, Drawing]) -> None:
    for name, drawing in full.items():
        dark = drawing.dark_field.astype(float)
        wire = drawing.mask == WIRE
        near = cv2.dilate(wire.astype(np.uint8), disk(6)) > 0
        beside = near & (drawing.mask == BACKGROUND) & ~(cv2.dilate(wire.astype(np.uint8), disk(2)) > 0)
        assert dark[wire].mean() > dark[beside].mean() + 12, name


def test_labels_are_where_the_wires_are_to_the_pixel() -> None:
    """The bright ridge of the wires over a dark gap must not move when the mask is shifted back and forth."""
    drawing = draw("power_to220_aluminium", seed=5, difficulty=0.0)
    dark = drawing.dark_field.astype(float)
    wire = (drawing.mask == WIRE).astype(np.uint8)
    scores = {(dy, dx): dark[np.roll(wire, (dy, dx), (0, 1)) > 0].mean() for dy in range(-2, 3) for dx in range(-2, 3)}
    best = max(scores, key=lambda shift: scores[shift])
    assert abs(best[0]) <= 1
    assert best[1] == 0


def test_units_share_the_layout_but_not_the_details() -> None:
    first, second = (draw("smart_card_gold", seed=4, unit=unit, difficulty=0.2).mask for unit in (0, 1))
    assert not np.array_equal(first, second)
    for label in (BALL, WEDGE):
        reached = cv2.dilate((first == label).astype(np.uint8), disk(16)) > 0
        assert (reached & (second == label)).sum() > 0.95 * (second == label).sum()
    assert cv2.connectedComponents((first == BALL).astype(np.uint8))[0] == 9  # four pads on each of two sides


def test_a_lot_changes_the_light_and_not_the_labels() -> None:
    nominal, shifted = (draw("sensor_ceramic", seed=4, lot=lot, size=(256, 256)) for lot in (0, 3))
    difference = np.abs(nominal.bright_field.astype(float) - shifted.bright_field).mean()
    assert difference > 8
    shares = [np.bincount(drawing.mask.ravel(), minlength=5) / drawing.mask.size for drawing in (nominal, shifted)]
    np.testing.assert_allclose(shares[0], shares[1], atol=0.03)


def test_difficulty_raises_noise_and_bow() -> None:
    levels = []
    for difficulty in (0.0, 0.5, 1.0):
        image = draw("power_to220_aluminium", seed=2, difficulty=difficulty).dark_field[:120, :60].astype(np.float32)
        levels.append(float((image - cv2.GaussianBlur(image, (0, 0), 2)).std()))
    assert levels[0] < levels[1] < levels[2]


@pytest.mark.parametrize("size", [(64, 64), (64, 128), (200, 120)])
def test_sizes(size: tuple[int, int]) -> None:
    drawing = draw("bga_gold_two_tier", seed=0, size=size)
    assert drawing.mask.shape == drawing.bright_field.shape == drawing.dark_field.shape == size
    assert {WIRE, EPOXY} <= set(np.unique(drawing.mask))


def test_random_types_are_endless_and_drawable() -> None:
    types = [random_device(seed) for seed in range(12)]
    assert len({device.name for device in types}) == len(types)
    assert random_device(3) == types[3]
    assert len({device.arrangement for device in types}) > 3
    for device in types:
        drawing = draw(device, seed=0, size=SMALL)
        assert {WIRE, WEDGE, EPOXY} <= set(np.unique(drawing.mask))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"device": "toaster"}, "choose one of"),
        ({"seed": -1}, "seed=-1 must lie in"),
        ({"unit": -2}, "unit=-2 must not be negative"),
        ({"size": (8, 64)}, "at least 32"),
        ({"difficulty": 1.5}, r"lie in \[0, 1\]"),
    ],
)
def test_wrong_arguments_raise(given: dict, message: str) -> None:
    arguments = {"device": "qfn48_copper", "seed": 0, "size": SMALL} | given
    with pytest.raises(ValueError, match=message):
        draw(arguments.pop("device"), **arguments)


def test_wrong_types_raise() -> None:
    with pytest.raises(ValueError, match="choose one of"):
        DeviceType("odd", "cardboard", "single", "logic")
    with pytest.raises(ValueError, match="2 to 6"):
        DeviceType("thick", "laminate", "single", "logic", wire_width=9)
    with pytest.raises(ValueError, match="0 or more"):
        random_device(-1)


def test_written_set(tmp_path: Path) -> None:
    root = write_images(tmp_path / "set", devices=PAIR, units=2, seed=7, lot=1, size=SMALL, workers=0)
    assert root == tmp_path / "set"
    description = json.loads((root / "dataset.json").read_text())
    stems = [f"{name}_01_{unit:03d}" for name in PAIR for unit in range(2)]
    assert description["name"] == "wire_bond"
    assert description["classes"] == list(CLASS_NAMES)
    assert description["ignore_index"] == 255
    assert description["lighting_channels"] == ["_ch0", "_ch1"]
    assert description["groups"] == {stem: stem[:-7] for stem in stems}
    expected = {"version": 1, "seed": 7, "lot": 1, "size": list(SMALL), "difficulty": 0.5, "units": 2}
    assert expected.items() <= description["generator"].items()
    names = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    images = {f"images/{stem}{view}.png" for stem in stems for view in ("_ch0", "_ch1")}
    assert names == images | {f"masks/{stem}.png" for stem in stems} | {"dataset.json", "generator.json"}
    drawing = draw(PAIR[0], seed=7, unit=1, lot=1, size=SMALL)
    with Image.open(root / "masks" / f"{stems[1]}.png") as mask:
        assert mask.mode == "P"
        assert mask.getpalette()[:15] == palette(len(CLASS_NAMES))[: len(CLASS_NAMES)].flatten().tolist()
        np.testing.assert_array_equal(np.asarray(mask), drawing.mask)
    for view, pixels in (("_ch0", drawing.bright_field), ("_ch1", drawing.dark_field)):
        with Image.open(root / "images" / f"{stems[1]}{view}.png") as image:
            np.testing.assert_array_equal(np.asarray(image), pixels)


def test_broken_off_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"devices": PAIR, "units": 3, "seed": 1, "size": SMALL, "workers": 0}
    whole = files(write_images(tmp_path / "whole", **settings))
    replace, left = Path.replace, [7]

    def fail_after_a_while(path: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return replace(path, target)

    root = tmp_path / "broken"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail_after_a_while)
        with pytest.raises(KeyboardInterrupt):
            write_images(root, **settings)
    assert not (root / "dataset.json").exists()
    partial = files(root)
    assert all(whole[name] == content for name, content in partial.items())
    stamps = {name: (root / name).stat().st_mtime_ns for name in partial}
    drawn: list[int] = []
    monkeypatch.setattr(unit_files, "draw", lambda *given, **named: drawn.append(1) or draw(*given, **named))
    write_images(root, **settings)
    assert files(root) == whole
    assert len(drawn) == 4  # two of six units were complete
    complete = [name for name in partial if "_000" in name or "_001" in name]
    assert all((root / name).stat().st_mtime_ns == stamps[name] for name in complete if PAIR[0] in name)


def test_finished_set_is_not_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"devices": PAIR, "units": 1, "seed": 1, "size": SMALL, "workers": 0}
    write_images(tmp_path, **settings)
    monkeypatch.setattr(unit_files, "draw", None)
    write_images(tmp_path, **settings)


@pytest.mark.parametrize("name", ["dataset.json", "generator.json"])
def test_other_settings_raise(tmp_path: Path, name: str) -> None:
    settings = {"devices": PAIR[:1], "units": 1, "size": (64, 64), "workers": 0}
    write_images(tmp_path, seed=1, **settings)
    for other in {"dataset.json", "generator.json"} - {name}:
        (tmp_path / other).unlink()
    before = files(tmp_path)
    with pytest.raises(ValueError, match="Choose another root") as caught:
        write_images(tmp_path, seed=2, **settings)
    for part in (name, '"seed": 1', '"seed": 2', "delete"):
        assert part in str(caught.value)
    images = {key: content for key, content in files(tmp_path).items() if key.endswith(".png")}
    assert images == {key: content for key, content in before.items() if key.endswith(".png")}


def test_folder_of_another_set_raises(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"name": "mine"}')
    with pytest.raises(ValueError, match="Choose another root"):
        write_images(tmp_path, devices=PAIR, units=1, seed=0, size=SMALL, workers=0)


def test_worker_processes_write_the_same(tmp_path: Path) -> None:
    settings = {"devices": [*PAIR, random_device(9)], "units": 1, "seed": 1, "size": SMALL}
    alone = files(write_images(tmp_path / "alone", workers=0, **settings))
    assert files(write_images(tmp_path / "together", workers=2, **settings)) == alone


def no_room(root: Path, part: object, parent: int) -> str:
    """Fail, in a worker."""
    msg = "no room"
    raise OSError(msg)


def test_failing_worker_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_drawn", no_room)
    with pytest.raises(RuntimeError, match=r"failed \(no room\).*workers=0"):
        write_images(tmp_path, devices=PAIR, units=2, seed=1, size=SMALL, workers=2)


def test_wrong_set_arguments_raise(tmp_path: Path) -> None:
    for given, message in (
        ({"units": 0}, "units=0 must be at least 1"),
        ({"devices": ["toaster"]}, "no device type"),
        ({"devices": [PAIR[0], PAIR[0]]}, "each name once"),
        ({"devices": []}, "at least one"),
        ({"size": (8, 8)}, "at least 32"),
    ):
        with pytest.raises(ValueError, match=message):
            write_images(tmp_path / "set", **({"units": 1, "seed": 0, "workers": 0} | given))
    assert not (tmp_path / "set").exists()
