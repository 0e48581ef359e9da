# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Who may ask the page's server: this machine's browser, or one with the token; never another page.

A browser shows other pages too, and these can send requests to any address. So the server checks each request:

- It must name this server as its host. An attacker can make his own name point to 127.0.0.1, but that is another name.
- It must come from the page itself.
- It must have the token, if other machines can reach the server.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from starlette.responses import PlainTextResponse, RedirectResponse, Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "labelling_token"
OWN_HEADER = "x-labelling"
"""Header of each request that changes something; another origin cannot send it without being allowed to."""

_LOOPBACK_NAMES = {"localhost", "127.0.0.1", "::1"}
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def is_loopback(host: str) -> bool:
    """Tell whether an address is reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def new_token(host: str) -> str | None:
    """Return a token where others than this machine reach the address; else None."""
    return None if is_loopback(host) else secrets.token_hex(24)


class Guard:
    """ASGI middleware that lets only the page's own requests through.

    Args:
        app: The application.
        host: Address that the server is bound to.
        token: What a browser must know; None where only this machine reaches the server.
    """

    def __init__(self, app: ASGIApp, host: str, token: str | None) -> None:
        self.app, self.token = app, token
        own = {host, socket.gethostname(), socket.getfqdn()} if token else set()
        self._names = {name.lower() for name in {*_LOOPBACK_NAMES, *own}}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or reject it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        rejection = self._rejection(scope, headers)
        if rejection is not None:
            await rejection(scope, receive, _with_headers(send))
            return
        await self.app(scope, receive, _with_headers(send))

    def _rejection(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        """Return the answer to a request that is not let through, or that brings the token."""
        host = headers.get("host", "")
        if not self._is_own_host(host):
            return _rejected(f"This server is not called {host!r}. Open the address that it printed.")
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
        navigation = headers.get("sec-fetch-mode") == "navigate" and scope["path"] == "/"
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return _rejected("A page of another origin asked. Nothing was done.")
        if site not in {"same-origin", "none"} and not navigation:
            return _rejected("A page of another origin asked. Nothing was done.")
        if scope["method"] not in {"GET", "HEAD"} and headers.get(OWN_HEADER) != "1":
            return _rejected("Only the labelling page itself may change something.")
        return self._token_rejection(scope, headers)

    def _token_rejection(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        """Return the answer to a request without the token, or to the one that brings it in its link."""
        if self.token is None:
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and given and hmac.compare_digest(given.encode(), self.token.encode()):
            answer = RedirectResponse("/", status_code=303)
            answer.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
            return answer
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        if cookie is not None and hmac.compare_digest(cookie.value.encode(), self.token.encode()):
            return None
        return _rejected("The token is missing or wrong. Open the link that the program printed when it started.")

    def _is_own_host(self, host: str) -> bool:
        """Tell whether the host that a request names is this server."""
        name = (urlsplit(f"//{host}").hostname or "").lower()
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.token is not None or is_loopback(name)  # an address cannot be rebound


def _rejected(text: str) -> Response:
    """Return the answer to a request that is not let through."""
    return PlainTextResponse(text, status_code=403)


def _with_headers(send: Send) -> Send:
    """Return a send that adds what has browsers load nothing from elsewhere, and show the page in no other."""
    extra = [
        (b"content-security-policy", _POLICY.encode()),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", b"no-referrer"),
    ]

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *extra]
        await send(message)

    return sending
