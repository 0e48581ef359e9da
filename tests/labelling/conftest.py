# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Small folders to label, sessions on them, and a server that listens; skipped without the extra ``label``."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from label_browser import Page, chromium
from label_pictures import SIZE, asker, picture, until
from PIL import Image

pytest.importorskip("starlette", reason="the page needs the extra label")
uvicorn = pytest.importorskip("uvicorn", reason="the page needs the extra label")


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """Return a folder of four pictures and three class names."""
    (tmp_path / "dev" / "images").mkdir(parents=True)
    for index in range(4):
        Image.fromarray(picture(index)).save(tmp_path / "dev" / "images" / f"unit_{index}.png")
    (tmp_path / "dev" / "classes.txt").write_text("dark\nbright\nbar\n")
    return tmp_path / "dev"


@pytest.fixture(scope="session")
def settings(tiny_encoder: dict) -> Any:
    """Return a model that learns in a second."""
    from anomalib_aoissl.labelling.teaching.settings import ModelSettings

    return ModelSettings({**tiny_encoder, "pretrained": False}, SIZE)


@pytest.fixture
def session(device: Path, settings: Any) -> Iterator[Any]:
    """Return a session on the folder that computes nothing by itself."""
    from anomalib_aoissl.labelling.session import Session

    made = Session(device, settings)
    yield made
    made.stop()


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., SimpleNamespace]]:
    """Return a function that serves a session in a thread, with `ask` to send requests to it."""
    from anomalib_aoissl.labelling.server import running
    from anomalib_aoissl.labelling.server.application import application

    servers: list[Any] = []

    def serve(
        session: Any, host: str = "127.0.0.1", token: str | None = None, *, orders: bool = False
    ) -> SimpleNamespace:
        if not orders:  # which would load the model
            monkeypatch.setattr(session.lessons, "order", lambda: None)
            monkeypatch.setattr(session.lessons, "prepare", lambda _: None)
        bound = running.bound_socket("127.0.0.1", 0)
        port = bound.getsockname()[1]
        config = uvicorn.Config(application(session, host, token), log_level="error", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        session.start()
        thread.start()
        until(lambda: server.started)
        servers.append((session, server, thread))
        return SimpleNamespace(port=port, address=f"http://127.0.0.1:{port}", ask=asker(port), session=session)

    yield serve
    for session, server, thread in servers:
        session.stop()
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Return a browser."""
    made = chromium()
    yield made
    made.quit()


@pytest.fixture
def opened(browser: Any, session: Any, serving: Callable[..., SimpleNamespace]) -> Page:
    """Return the page of the session in the browser."""
    browser.get_log("performance")
    browser.get_log("browser")
    return Page(browser, serving(session).address)
