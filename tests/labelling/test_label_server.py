# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The page's server: who is let in, what it answers, and that it loads nothing from elsewhere."""

import re
import shutil
import socket
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from label_pictures import SIZE, asker, until
from PIL import Image

from anomalib_aoissl.cli.dispatching import dispatch
from anomalib_aoissl.labelling.server.application import PAGE
from anomalib_aoissl.labelling.server.running import bound_socket
from anomalib_aoissl.labelling.server.security import is_loopback, new_token

TOKEN = "5" * 48
EVERYWHERE = "0.0.0.0"  # noqa: S104 - never bound in the tests


@pytest.fixture
def server(session: Any, serving: Any) -> SimpleNamespace:
    return serving(session)


def stroke(server: SimpleNamespace, version: str, **headers: str) -> tuple[int, Any]:
    query = urlencode({"name": "unit_0", "box": "2,3,4,5", "version": version, "kind": "brush"})
    return server.ask(f"/api/stroke?{query}", zlib.compress(bytes([1]) * 20), **headers)


def test_a_stroke_and_its_undo_by_requests(server: SimpleNamespace, device: Path) -> None:
    status, content = stroke(server, "0")
    assert status == 200
    with Image.open(device / "masks" / "unit_0.png") as image:
        mask = np.array(image)
    assert (mask[3:8, 2:6] == 1).all()
    assert (mask == 255).sum() == SIZE[0] * SIZE[1] - 20
    status, rejected = stroke(server, "0")
    assert (status, rejected["version"]) == (409, content["version"])
    status, values = server.ask("/api/mask?name=unit_0")
    assert (np.frombuffer(zlib.decompress(values), np.uint8).reshape(SIZE) == mask).all()
    status, values = server.ask("/api/step?name=unit_0&back=1", b"")
    assert (status, zlib.decompress(values)) == (200, bytes([255]) * 20)
    assert server.ask("/api/step?name=unit_0&back=1", b"")[0] == 204


@pytest.mark.parametrize(
    "headers",
    [
        {"x_labelling": ""},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"host": "evil.example"},
        {"host": "evil.example:8765"},
        {"host": "192.0.2.7"},
    ],
)
def test_other_pages_change_nothing(server: SimpleNamespace, device: Path, headers: dict[str, str]) -> None:
    status, _ = stroke(server, "0", **headers)
    assert status == 403
    assert not (device / "masks").exists()


def test_other_pages_read_nothing(server: SimpleNamespace) -> None:
    for headers in ({"origin": "http://evil.example"}, {"sec_fetch_site": "cross-site"}, {"host": "evil.example"}):
        assert server.ask("/api/state", **headers)[0] == 403
    assert server.ask("/", sec_fetch_site="cross-site", sec_fetch_mode="navigate")[0] == 200  # a link to the page
    own = f"http://127.0.0.1:{server.port}"
    assert server.ask("/api/state", origin=own, host=f"127.0.0.1:{server.port}")[0] == 200
    assert server.ask("/api/state", host=f"localhost:{server.port}")[0] == 200


def test_another_host_needs_the_token(session: Any, serving: Any) -> None:
    server = serving(session, EVERYWHERE, TOKEN)
    for path in ("/", "/main.js", "/api/state", "/?token=wrong", f"/api/state?token={TOKEN}"):
        status, text = server.ask(path)
        assert status == 403
        assert b"token is missing or wrong" in text
    assert server.ask("/api/state", cookie="labelling_token=wrong")[0] == 403
    assert server.ask("/api/state", cookie=f"labelling_token={TOKEN}")[0] == 200
    assert server.ask("/api/state", cookie=f"labelling_token={TOKEN}", host="evil.example")[0] == 403
    from urllib.request import HTTPRedirectHandler, Request, build_opener

    class Stay(HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            return None

    with pytest.raises(Exception, match="303") as error:
        build_opener(Stay).open(Request(f"{server.address}/?token={TOKEN}"))  # noqa: S310
    headers: Any = error.value
    cookie = headers.headers["set-cookie"]
    assert f"labelling_token={TOKEN}" in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie


def test_only_this_machine_needs_no_token() -> None:
    assert new_token("127.0.0.1") is None
    assert [is_loopback(host) for host in ("localhost", "::1", "127.3.2.1", EVERYWHERE, "192.168.0.4", "box")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip
    first, second = new_token(EVERYWHERE), new_token(EVERYWHERE)
    assert first != second
    assert len(str(first)) == 48


@pytest.mark.parametrize(
    "path",
    [
        "/../storage/folder.py",
        "/%2e%2e/session.py",
        "/..%2fsession.py",
        "/api/open?name=..%2f..%2fetc%2fpasswd",
        "/api/mask?name=%2fetc%2fpasswd",
        "/api/thumbnail?name=..%2fimages%2funit_0",
        "/api/tile?name=unit_0&level=0&column=-1&row=0",
        "/api/tile?name=unit_0&level=x&column=0&row=0",
        "/api/tile?name=unit_0",
        "/masks/unit_0.png",
        "/.labelling/curve.json",
    ],
)
def test_no_path_leads_elsewhere(server: SimpleNamespace, path: str) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", path)
    assert connection.getresponse().status in {400, 403, 404}


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/api/stroke?name=unit_0&box=1,2&version=0", b"", 400, "not enough"),
        ("/api/stroke?name=no&box=0,0,1,1&version=0", zlib.compress(b"\1"), 404, "no picture 'no'"),
        ("/api/class", b'{"act": "fly"}', 400, "added, renamed"),
        ("/api/class", b"no json", 400, "Expecting value"),
        ("/api/class", b"x" * 1_000_001, 413, "More than 1 MB"),
        ("/api/try?file=a.png", b"no picture", 400, "a.png"),
    ],
)
def test_bad_requests_are_answered(server: SimpleNamespace, path: str, body: bytes, status: int, message: str) -> None:
    answered, content = server.ask(path, body)
    assert (answered, message in content["error"]) == (status, True), content


def left(server: SimpleNamespace) -> list[str]:
    received = server.session.folder.own / "received"
    return [path.name for path in received.iterdir()] if received.is_dir() else []


def test_a_dropped_picture_never_lies_in_memory(server: SimpleNamespace, device: Path) -> None:
    import tracemalloc

    content = (device / "images" / "unit_0.png").read_bytes() + bytes(40_000_000)  # PNG readers stop at its end
    tracemalloc.start()
    status, answer = server.ask("/api/upload?file=large.png", content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (status, answer) == (200, {"name": "large"})
    assert (device / "images" / "large.png").read_bytes() == content
    assert peak < 20_000_000
    assert left(server) == []


@pytest.mark.parametrize("how", ["length", "chunks"])
def test_a_picture_that_is_too_large_is_rejected(
    server: SimpleNamespace, device: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    import http.client

    monkeypatch.setattr("anomalib_aoissl.labelling.server.application.LARGEST_FILE", 1_000_000)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    parts = [bytes(600_000)] * 2
    body: Any = b"".join(parts) if how == "length" else iter(parts)
    chunked = how == "chunks"
    connection.request("POST", "/api/upload?file=a.png", body, {"x-labelling": "1"}, encode_chunked=chunked)
    answer = connection.getresponse()
    assert (answer.status, b"More than 1 MB" in answer.read()) == (413, True)
    assert not (device / "images" / "a.png").exists()
    assert left(server) == []


def test_a_picture_whose_sender_goes_away_is_not_taken(server: SimpleNamespace, device: Path) -> None:
    content = (device / "images" / "unit_0.png").read_bytes()
    head = f"POST /api/upload?file=half.png HTTP/1.1\r\nhost: 127.0.0.1:{server.port}\r\nx-labelling: 1\r\n"
    head += f"content-length: {len(content) + 10}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode() + content)  # a whole picture, but not all that was announced
        until(lambda: left(server))
    until(lambda: not left(server))
    assert not (device / "images" / "half.png").exists()


def test_all_tabs_hear_of_a_stroke(server: SimpleNamespace) -> None:
    heard = server.session.events.listen()
    next(heard)
    stroke(server, "0", x_tab="one")
    line = until(lambda: next((text for text in [next(heard)] if '"mask"' in text), None))
    assert '"who": "one"' in line
    assert '"name": "unit_0"' in line


def test_a_change_by_another_program_is_heard(session: Any, device: Path) -> None:
    heard = session.events.listen()
    next(heard)
    (device / "masks").mkdir()
    Image.fromarray(np.ones(SIZE, np.uint8)).save(device / "masks" / "unit_2.png")
    session.look()
    line = next(heard)
    assert '"kind": "mask", "name": "unit_2"' in line
    assert session.state()["counts"] == [0, SIZE[0] * SIZE[1], 0]
    shutil.copy(device / "images" / "unit_0.png", device / "images" / "unit_9.png")
    session.look()
    assert '"pictures"' in next(heard)


def test_the_page_names_no_other_server() -> None:
    allowed = {"http://www.w3.org/2000/svg"}  # a namespace, which is never loaded
    for path in PAGE.iterdir():
        found = set(re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z.]+[^\s\"'`)<]*", path.read_text()))
        assert {text for text in found if text.startswith(("http", "//"))} <= allowed, path


def test_a_policy_forbids_what_the_page_does_not_do(server: SimpleNamespace) -> None:
    from urllib.request import urlopen

    with urlopen(server.address) as answer:  # noqa: S310
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_a_port_in_use_is_said(device: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert dispatch(["label", str(device), "--port", str(port), "--no-open"]) == 2
    assert f"--port {port}: is in use" in capsys.readouterr().err
    with pytest.raises(ValueError, match="address of this machine"):
        bound_socket("192.0.2.1", 0)


@pytest.mark.parametrize(
    ("arguments", "message"), [(["missing"], "does not exist"), (["."], "--port 99999: must lie in 0 to 65535")]
)
def test_bad_arguments_end_with_2(
    device: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert dispatch(["label", str(device / arguments[0]), "--port", "99999", "--no-open"]) == 2
    assert message in capsys.readouterr().err


def test_a_size_that_does_not_fit_the_encoder_is_said_at_once(device: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["label", str(device), "--image_size", "100", "101", "--no-open"]) == 2
    assert "image_size=(100, 101) does not fit" in capsys.readouterr().err


def test_the_command_serves_and_ends(device: Path) -> None:
    import os
    import signal
    import subprocess
    import sys

    command = [sys.executable, "-m", "anomalib_aoissl", "label", str(device), "--port", "0", "--no-open"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        assert process.stdout is not None
        assert "4 pictures" in process.stdout.readline()
        port = int(re.findall(r":(\d+)/", process.stdout.readline())[0])
        status, state = asker(port)("/api/state")
        assert (status, len(state["pictures"])) == (200, 4)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in {0, -signal.SIGINT}
