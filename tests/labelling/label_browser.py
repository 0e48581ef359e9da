# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The page in a real browser; its tests are skipped where there is no Chromium with its driver, or no selenium."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_pictures import until
from PIL import Image

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
READY = "return !!(window.labelling && labelling.state.mask && labelling.view.width > 10)"

in_a_browser = [
    pytest.mark.usefixtures("short_fits"),
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="the tests of the page need chromium and chromedriver"),
]
"""Marks of the tests of the page."""


def chromium() -> Any:
    """Return a browser whose requests are logged."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="the tests of the page need selenium")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--window-size=1366,900")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(DRIVER))


def actions(browser: Any, duration: int = 0) -> Any:
    """Return actions of mouse and keyboard, ms each."""
    from selenium.webdriver import ActionChains

    return ActionChains(browser, duration=duration)


class Page:
    """A page in a browser's tab."""

    def __init__(self, browser: Any, address: str) -> None:
        self.browser = browser
        browser.get(address)
        self.until(READY)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def until(self, script: str) -> Any:
        return until(lambda: self.run(script), 120)

    def keys(self, *keys: str) -> None:
        actions(self.browser).send_keys(*keys).perform()

    def drag(self, *places: tuple[float, float]) -> None:
        """Press at the first place, px of the picture, move to the others, and let go; saved afterwards."""
        canvas = self.browser.find_element("id", "pointer")
        script = (
            "const [x, y] = labelling.view.toScreen(...arguments[0]);"
            "return [Math.round(x - labelling.view.width / 2), Math.round(y - labelling.view.height / 2)]"
        )
        moves = actions(self.browser, 10)
        for index, place in enumerate(places):
            moves.move_to_element_with_offset(canvas, *self.run(script, place))
            if index == 0:
                moves.click_and_hold()
        moves.release().perform()
        self.until("return labelling.saver.idle")

    def mask(self) -> np.ndarray:
        """Return the mask ``[H, W]`` that the page holds."""
        height, width, values = self.run(
            "const m = labelling.state.mask; return [m.height, m.width, Array.from(m.values)]"
        )
        return np.array(values, np.uint8).reshape(height, width)

    def notes(self) -> str:
        return str(self.run("return document.getElementById('notes').textContent"))


def on_disk(device: Path, name: str = "unit_0") -> np.ndarray:
    with Image.open(device / "masks" / f"{name}.png") as image:
        return np.array(image)
