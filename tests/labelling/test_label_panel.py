# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The page's panel in a real browser: classes are renamed and recoloured, also while others paint."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_browser import Page, actions, in_a_browser, on_disk
from label_pictures import until

from anomalib_aoissl.labelling.storage.masks import Region

pytestmark = in_a_browser

ENTER, ESCAPE, F2 = "\ue007", "\ue00c", "\ue032"


def name_of(page: Page, index: int) -> Any:
    return page.browser.find_elements("css selector", "#classes .name")[index]


@pytest.mark.parametrize("how", ["double click", "F2"])
def test_a_class_is_renamed_while_another_tab_paints(opened: Page, device: Path, session: Any, how: str) -> None:
    if how == "F2":
        name_of(opened, 1).click()  # which chooses the class
        opened.keys(F2)
    else:
        actions(opened.browser).double_click(name_of(opened, 1)).perform()
    opened.keys("so")
    session.stroke("unit_1", Region(0, 0, np.full((5, 5), 2, np.uint8)), "0", "brush", "another")
    opened.until("return labelling.state.counts[2] === 25")
    opened.keys("lder", ENTER)
    opened.until("return labelling.state.classes[1].name === 'solder'")
    assert session.classes.names == ("dark", "solder", "bar")
    assert (device / "classes.txt").read_text().split() == ["dark", "solder", "bar"]
    opened.until("return document.activeElement.textContent === 'solder'")
    opened.keys(F2, "other", ESCAPE)
    assert name_of(opened, 1).text == "solder"
    assert opened.run("return labelling.state.hidden") is False  # no letter was taken as a key


def test_a_class_has_another_colour(opened: Page, session: Any) -> None:
    opened.run(
        "const field = document.querySelectorAll('#classes input')[2];"
        "field.value = '#12ab34'; field.dispatchEvent(new Event('change'))"
    )
    until(lambda: session.state()["classes"][2]["colour"] == "#12ab34")
    session.change_class("recolour", 2, "#ff0000")
    opened.until("return document.querySelectorAll('#classes input')[2].value === '#ff0000'")


def test_an_answer_that_was_overtaken_changes_nothing(opened: Page, session: Any) -> None:
    opened.run(
        "const real = window.fetch;"
        "window.fetch = async (address, ...rest) => {"
        "  const answer = await real(address, ...rest);"
        "  if (!address.startsWith('/api/class')) return answer;"
        "  await new Promise((go) => { window.release = go; });"
        "  answer.json = async () => {"
        "    const content = await Response.prototype.json.call(answer);"
        "    setTimeout(() => { window.arrived = content.classes[2].colour; });"
        "    return content;"
        "  };"
        "  return answer;"
        "};"
        "const field = document.querySelectorAll('#classes input')[2];"
        "field.value = '#12ab34'; field.dispatchEvent(new Event('change'))"
    )
    opened.until("return !!window.release")
    session.change_class("recolour", 2, "#ff0000")
    opened.until("return labelling.state.classes[2].colour === '#ff0000'")
    opened.run("window.release()")
    assert opened.until("return window.arrived") == "#12ab34"
    assert opened.run("return labelling.state.classes[2].colour") == "#ff0000"


def test_hidden_masks_are_said_and_painted_on(opened: Page, device: Path) -> None:
    opened.keys("o")
    assert "The masks are hidden" in opened.notes()
    opened.keys("b", "2")
    opened.drag((10, 10), (30, 10))
    assert (on_disk(device) == 1).any()
    for _ in range(6):
        opened.keys("a")  # says that there is no suggestion
    assert "The masks are hidden" in opened.notes()
    opened.keys("o")
    assert "The masks are hidden" not in opened.notes()


def test_the_size_of_the_brush_stays_with_the_next_picture(opened: Page) -> None:
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    before = opened.run("return labelling.tools.size")
    origin = ScrollOrigin.from_element(opened.browser.find_element("id", "pointer"))
    actions(opened.browser).scroll_from_origin(origin, 0, -100).perform()
    opened.until("return labelling.state.resized")
    size = opened.run("return labelling.tools.size")
    assert size > before
    opened.keys(".")
    opened.until("return labelling.state.item.name === 'unit_1'")
    assert opened.run("return labelling.tools.size") == size


def test_tools_and_tabs_keep_the_focus(opened: Page) -> None:
    for place, row in (("#tools button", 2), ("#tabs button", 1)):
        opened.run("document.querySelectorAll(arguments[0])[arguments[1]].focus()", place, row)
        opened.keys(ENTER)
        script = "return [...document.querySelectorAll(arguments[0])].indexOf(document.activeElement)"
        assert opened.run(script, place) == row
    assert opened.run("return labelling.tools.tool") == "line"


def test_only_one_who_paints_is_told_that_both_are_kept(opened: Page, device: Path, session: Any) -> None:
    opened.keys("2")
    opened.drag((10, 10), (30, 10))
    opened.run("document.querySelectorAll('#classes .drop')[1].click()")
    opened.until("return document.getElementById('removal').open")
    opened.browser.find_element("id", "remove").click()
    opened.until("return labelling.state.mask.values.every((value) => value === 255)")
    until(lambda: session.classes.names == ("dark", "bar"))  # masks are written first
    session.stroke("unit_0", Region(0, 0, np.ones((5, 5), np.uint8)), session.masks.version("unit_0"), "brush", "other")
    opened.until("return labelling.state.mask.values[0] === 1")
    assert "both are kept" not in opened.notes()
