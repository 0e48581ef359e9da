# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Running the page's server until it is ended."""

from __future__ import annotations

import errno
import socket
import threading
import webbrowser
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

from anomalib_aoissl.labelling.session import Session

from .application import application
from .security import new_token


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        ValueError: If there is no such port, it is in use, or the address is none of this machine; says what to do.
    """
    if not 0 <= port < 65536:
        msg = f"--port {port}: must lie in 0 to 65535; 0 takes a free one."
        raise ValueError(msg)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        one.bind((host, port))
    except OSError as error:
        one.close()
        if error.errno == errno.EADDRINUSE:
            msg = f"--port {port}: is in use, perhaps by a page that is open already. Give another: --port {port + 1}."
        else:
            reason = error.strerror or error
            msg = f"--host {host} --port {port}: cannot be listened on ({reason}). Give an address of this machine."
        raise ValueError(msg) from error
    one.listen(128)
    return one


def serve(
    session: Session,
    host: str,
    port: int,
    *,
    open_browser: bool,
    started: Callable[[str], Any] = lambda _: None,
) -> None:
    """Serve a session until the program is interrupted.

    Args:
        session: The session.
        host: Address to bind to.
        port: Of it; 0 for a free one.
        open_browser: Whether to show the page at once.
        started: Is called with the page's address.

    Raises:
        ValueError: If the address cannot be bound.
    """
    token, bound = new_token(host), bound_socket(host, port)
    shown = f"[{host}]" if ":" in host else {"0.0.0.0": socket.gethostname()}.get(host, host)  # noqa: S104
    address = f"http://{shown}:{bound.getsockname()[1]}/" + (f"?token={token}" if token else "")
    config = uvicorn.Config(
        application(session, host, token), log_level="warning", access_log=False, timeout_graceful_shutdown=1
    )
    server = _Server(config)
    server.ends = session.stop
    session.start()
    started(address)
    if open_browser:
        threading.Timer(0.5, webbrowser.open, (address,)).start()
    try:
        server.run(sockets=[bound])
    except KeyboardInterrupt:
        pass
    finally:
        session.stop()
        bound.close()


class _Server(uvicorn.Server):
    """Ends the streams of events first, which would never end by themselves."""

    ends: Callable[[], None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End."""
        if self.ends is not None:
            self.ends()
        super().handle_exit(sig, frame)
