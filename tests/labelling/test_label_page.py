# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The page in a real browser: paint, teach, accept, undo, reload, two tabs, a token, 25 megapixels."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from label_browser import READY, Page, actions, in_a_browser, on_disk
from label_pictures import SIZE, truth, until
from PIL import Image

pytestmark = in_a_browser


def paint_three_classes(page: Page) -> None:
    page.run("labelling.tools.size = 6")
    for key, rows in (("1", [(60, 10), (90, 10)]), ("2", [(5, 10), (40, 10)]), ("3", [(5, 32), (90, 32)])):
        page.keys("b", key)
        page.drag(*rows)


def test_from_two_strokes_to_a_mask_on_the_disk(opened: Page, device: Path, browser: Any) -> None:
    paint_three_classes(opened)
    painted = opened.mask()
    assert np.array_equal(on_disk(device), painted)
    assert painted[10, 70] == 0
    assert painted[10, 20] == 1
    assert painted[32, 50] == 2
    assert 0.02 < (painted != 255).mean() < 0.4
    opened.keys("t")
    opened.until("return !!labelling.state.suggestion")
    first = opened.run("return Array.from(labelling.state.suggestion.classes)")
    assert (np.array(first).reshape(SIZE) == truth()).mean() > 0.8  # of three strokes

    opened.keys("3")  # what is painted otherwise is learned otherwise
    opened.run("labelling.tools.size = 16")
    opened.drag((5, 52), (40, 52))
    opened.keys("t")
    opened.until("return labelling.state.suggestion?.lesson === 2")
    second = opened.run("return Array.from(labelling.state.suggestion.classes)")
    assert first != second

    opened.keys("a")
    opened.until("return labelling.saver.idle")
    accepted = opened.mask()
    assert (accepted != 255).mean() > 0.9
    assert np.array_equal(on_disk(device), accepted)
    browser.refresh()
    opened.until(READY)
    assert np.array_equal(opened.mask(), accepted)
    opened.browser.find_element("id", "undo").click()
    opened.until("return labelling.state.mask.values.includes(255)")
    assert np.array_equal(on_disk(device), opened.mask())
    opened.browser.find_element("id", "redo").click()
    until(lambda: np.array_equal(on_disk(device), accepted))
    _check_requests(browser)


def _check_requests(browser: Any) -> None:
    """Nothing was asked of another server, and no script complained."""
    asked = set()
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.add(message["params"]["request"]["url"].split("/")[2])
    assert len(asked) == 1, asked
    assert next(iter(asked)).startswith("127.0.0.1:")
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_line_polygon_fill_and_eraser(opened: Page, device: Path) -> None:
    opened.run("labelling.tools.size = 4")
    opened.keys("2", "l")
    opened.drag((10, 20))
    opened.drag((60, 20))
    line = on_disk(device)
    assert (line[18:22, 12:58] == 1).all()
    assert (line == 1).sum() == pytest.approx(4 * 50 + np.pi * 4, abs=6)
    opened.keys("3", "p")
    for corner in ((20, 30), (40, 30), (40, 50), (20, 50)):
        opened.drag(corner)
    opened.keys("\ue007")
    opened.until("return labelling.saver.idle")
    assert (on_disk(device) == 2).sum() == pytest.approx(400, abs=45)
    opened.keys("1", "f")
    opened.drag((80, 5))
    assert (on_disk(device) != 255).all()
    opened.keys("e")
    opened.run("labelling.tools.size = 8")
    opened.drag((30, 20))
    assert (on_disk(device)[18:22, 28:32] == 255).all()


def test_painting_by_keyboard_alone(opened: Page, device: Path) -> None:
    right, space = "\ue014", " "
    opened.run("document.getElementById('pointer').focus(); labelling.tools.size = 6")
    opened.keys("b", "2", space, *[right] * 12, space)
    opened.until("return labelling.saver.idle")
    found = on_disk(device)
    assert (found == 1).sum() > 60
    opened.keys("?")
    assert opened.run("return document.getElementById('keys').open")
    opened.keys("\ue00c")


def test_two_tabs_keep_what_both_paint(opened: Page, device: Path, browser: Any) -> None:
    first = browser.current_window_handle
    opened.run("labelling.tools.size = 6")
    browser.switch_to.new_window("tab")
    try:
        second = Page(browser, browser_address(browser, first))
        second.run("labelling.tools.size = 6; sessionStorage.clear()")
        second.keys("2")
        second.drag((10, 10), (30, 10))
        browser.switch_to.window(first)
        opened.until("return labelling.state.mask.values.includes(1)")
        opened.run("labelling.state.mask.version = '1.1.1'")  # as if the other's stroke had not been heard of
        opened.keys("3")
        opened.drag((50, 40), (80, 40))
        found = on_disk(device)
        assert {1, 2} <= set(np.unique(found).tolist())
        assert np.array_equal(opened.mask(), found)
        assert "both are kept" in opened.notes()
    finally:
        for handle in browser.window_handles:
            if handle != first:
                browser.switch_to.window(handle)
                browser.close()
        browser.switch_to.window(first)


def test_a_class_that_another_tab_replaces_while_one_draws(opened: Page, device: Path, session: Any) -> None:
    opened.run("labelling.tools.size = 6; labelling.saver.busy = true")  # as if the server did not answer for a while
    script = (
        "const [key, ...rows] = arguments, t = labelling.tools; labelling.state.chosen = key;"
        "t.cursor = rows[0]; t.press(); t.goTo(rows[1]); t.finish()"
    )
    opened.run(script, 2, [10, 20], [60, 20])
    opened.run(script, 1, [10, 22], [60, 22])  # its box holds pixels of the first
    session.change_class("remove", 2, "unpainted")
    session.change_class("add", 0, "void")
    opened.until("return labelling.state.classes[2]?.name === 'void'")
    opened.run("labelling.saver.busy = false; labelling.saver.run()")
    opened.until("return labelling.saver.idle && document.getElementById('notes').textContent.includes('not taken')")
    assert "'bar' is not that class any more" in opened.notes()
    assert set(np.unique(on_disk(device)).tolist()) == {1, 255}
    assert (on_disk(device) == 1).sum() > 250
    assert np.array_equal(opened.mask(), on_disk(device))


def test_where_the_chosen_class_is_gone_nothing_is_painted(opened: Page, device: Path, session: Any) -> None:
    opened.run("labelling.tools.size = 6")
    opened.keys("2")
    opened.drag((10, 10), (30, 10))
    opened.keys("3")
    session.change_class("remove", 2, "unpainted")
    opened.until("return labelling.state.classes.length === 2")
    assert "The class 'bar' is gone" in opened.notes()
    opened.drag((50, 40), (80, 40))
    assert set(np.unique(on_disk(device)).tolist()) == {1, 255}
    assert not opened.run("return labelling.state.mask.values.slice(40 * 96).some((value) => value !== 255)")
    opened.keys("2")
    assert "is gone" not in opened.notes()
    opened.drag((50, 40), (80, 40))
    assert opened.run("return labelling.state.mask.values.slice(40 * 96).some((value) => value === 1)")


def test_undo_waits_for_a_stroke_and_a_stroke_for_undo(opened: Page, device: Path, session: Any) -> None:
    opened.run("labelling.tools.size = 6")
    opened.keys("2")
    opened.drag((10, 10), (80, 10))
    first = on_disk(device)
    opened.drag((10, 50), (80, 50))
    real, going, asked = session.step, threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Any:
        done = real(*arguments)
        asked.set()
        going.wait(30)
        return done

    session.step = slow
    opened.browser.find_element("id", "undo").click()
    assert asked.wait(30)
    begin = "const t = labelling.tools; t.cursor = [10, 50]; t.press(); t.goTo([80, 50]); return t.drawing"
    assert not opened.run(begin)
    going.set()
    opened.until("return !labelling.tools.held")
    assert np.array_equal(opened.mask(), first)
    assert np.array_equal(on_disk(device), first)
    assert opened.run(begin)
    for _ in range(2):  # the stroke ends, and is undone; then the first one
        opened.run("document.getElementById('undo').click()")
    opened.until("return labelling.saver.idle && labelling.state.mask.values.every((value) => value === 255)")
    assert (on_disk(device) == 255).all()


def browser_address(browser: Any, window: str) -> str:
    """Return the address of a window, and stay in the present one."""
    here = browser.current_window_handle
    browser.switch_to.window(window)
    address = str(browser.execute_script("return location.origin"))
    browser.switch_to.window(here)
    return address


def test_a_failed_save_is_said_and_tried_again(opened: Page, device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from anomalib_aoissl.labelling.storage import masks

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    canvas_size = "labelling.tools.size = 6"
    opened.run(canvas_size)
    real = masks.write_mask
    monkeypatch.setattr(masks, "write_mask", full)
    actions(opened.browser).move_to_element(opened.browser.find_element("id", "pointer")).click().perform()
    opened.until("return document.getElementById('saved').textContent === 'not saved'")
    assert "disk is full" in opened.notes()
    monkeypatch.setattr(masks, "write_mask", real)
    opened.until("return document.getElementById('saved').textContent === 'saved'")
    assert np.array_equal(on_disk(device), opened.mask())


def test_a_wrong_token_and_the_right_one(browser: Any, session: Any, serving: Callable[..., SimpleNamespace]) -> None:
    server = serving(session, "0.0.0.0", "7" * 48)  # noqa: S104 - the token's rules; it is bound to this machine
    for query in ("", "?token=8"):
        browser.get(f"{server.address}/{query}")
        assert "token is missing or wrong" in browser.page_source
    page = Page(browser, f"{server.address}/?token={'7' * 48}")
    assert "token" not in browser.current_url
    page.drag((10, 10))
    assert (page.mask() != 255).any()


def test_twenty_five_megapixels(
    browser: Any, device: Path, settings: Any, serving: Callable[..., SimpleNamespace]
) -> None:
    from anomalib_aoissl.labelling.session import Session

    tile = np.random.default_rng(0).integers(0, 255, (500, 500), np.uint8)
    Image.fromarray(np.tile(tile, (10, 10))).save(device / "images" / "a_large.png", compress_level=1)
    page = Page(browser, serving(Session(device, settings)).address)
    assert page.run("return labelling.state.mask.values.length") == 25_000_000
    page.run("labelling.tools.size = 60")
    page.keys("2")
    page.drag((500, 500), (4000, 3000), (4500, 600))
    found = on_disk(device, "a_large")
    assert found.shape == (5000, 5000)
    box = page.run("const m = labelling.state.mask; return [m.values[2000 * 5000 + 2600], m.values.indexOf(1)]")
    assert int((found.ravel() == 1).argmax()) == box[1]
    assert 60 * 6000 * 0.8 < (found == 1).sum() < 60 * 8000 * 1.2
    page.keys("0")
    page.until("return [...labelling.view.tiles.values()].some((tile) => tile.complete && tile.naturalWidth)")
    for _ in range(8):
        page.keys("+")
    page.until("return labelling.view.scale > 0.5 && !labelling.view.asked")
    assert page.run("return labelling.view.overlay.width * labelling.view.overlay.height") < 2_000_000


def test_pictures_that_vanish_are_said(opened: Page, device: Path, session: Any) -> None:
    (device / "images" / "unit_0.png").unlink()
    session.look()
    opened.until("return document.getElementById('notes').textContent.includes('the file is gone')")
    opened.keys(".")
    opened.until("return labelling.state.item?.name === 'unit_1'")
    opened.drag((10, 10))
    assert (on_disk(device, "unit_1") != 255).any()


def test_an_empty_folder_takes_dropped_pictures(
    browser: Any, device: Path, tmp_path: Path, settings: Any, serving: Callable[..., SimpleNamespace]
) -> None:
    from anomalib_aoissl.labelling.session import Session

    (tmp_path / "empty").mkdir()
    server = serving(Session(tmp_path / "empty", settings))
    browser.get(server.address)
    until(lambda: browser.execute_script("return !!window.labelling"))
    until(lambda: browser.find_element("id", "empty").is_displayed())
    browser.find_element("id", "files").send_keys(str(device / "images" / "unit_2.png"))
    until(lambda: browser.execute_script("return labelling.state.item?.name === 'unit_2'"))
    assert (tmp_path / "empty" / "images" / "unit_2.png").read_bytes() == (
        device / "images" / "unit_2.png"
    ).read_bytes()


def test_dropped_files_that_are_not_shown_are_said(
    browser: Any, device: Path, tmp_path: Path, settings: Any, serving: Callable[..., SimpleNamespace]
) -> None:
    from anomalib_aoissl.labelling.session import Session

    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "dataset.json").write_text('{"classes": ["x", "y"], "lighting_channels": ["_ch0", "_ch1"]}')
    browser.get(serving(Session(tmp_path / "new", settings)).address)
    until(lambda: browser.execute_script("return !!window.labelling"))
    for name in ("a", "b_ch0", "c_ch0", "c_ch1"):
        shutil.copy(device / "images" / "unit_0.png", tmp_path / f"{name}.png")
    files = browser.find_element("id", "files")
    files.send_keys("\n".join(str(tmp_path / f"{name}.png") for name in ("a", "b_ch0", "c_ch1", "c_ch0")))
    until(lambda: browser.execute_script("return labelling.state.item?.name === 'c'"))
    notes = browser.find_element("id", "notes")
    until(lambda: "b: the lighting channel _ch1 is missing." in notes.text)
    assert "a.png: was not taken" in notes.text
    files.send_keys(str(shutil.copy(tmp_path / "b_ch0.png", tmp_path / "b_ch1.png")))
    until(lambda: browser.execute_script("return labelling.state.versions.has('b')"))
    until(lambda: "is missing" not in notes.text)
    assert sorted(p.name for p in (tmp_path / "new" / "images").iterdir()) == [
        "b_ch0.png", "b_ch1.png", "c_ch0.png", "c_ch1.png",
    ]  # fmt: skip


def test_the_export_and_a_trial(opened: Page, device: Path) -> None:
    pytest.importorskip("openvino")
    paint_three_classes(opened)
    opened.browser.find_element("id", "export").click()
    opened.until("return !document.getElementById('try').disabled && !!labelling.state.exported")
    (folder,) = (device / "export").iterdir()
    for path in ("weights/lightning/model.ckpt", "weights/openvino/model.xml", "bank.safetensors", "README.txt"):
        assert (folder / path).is_file()
    opened.browser.find_element("id", "try").click()
    opened.run(
        "fetch('/api/thumbnail?name=unit_1').then((r) => r.blob()).then((b) =>"
        " labelling.tryOn([new File([b], 'one.jpg')]))"
    )
    opened.until("return document.getElementById('trial-result').naturalWidth > 0")
