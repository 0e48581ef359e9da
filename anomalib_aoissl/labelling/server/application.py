# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The page's server: a few addresses, each a question to the session."""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from anomalib_aoissl.labelling.session import Session
from anomalib_aoissl.labelling.storage.masks import Region
from anomalib_aoissl.labelling.storage.problems import Problem, StaleError

from .security import Guard

logger = logging.getLogger(__name__)

PAGE = Path(__file__).parent.parent / "page"

LARGEST_FILE = 2_000_000_000
"""Bytes of a picture that is dropped on the page."""

_LARGEST = {"stroke": 64_000_000}  # bytes of a request
_DRAINED = 16_000_000  # bytes of a rejected request that are read: browsers see the answer when they have sent all
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FOREVER = {"cache-control": "private, max-age=31536000, immutable"}  # addresses that hold a version
_NEVER = {"cache-control": "no-store"}


def application(session: Session, host: str = "127.0.0.1", token: str | None = None) -> Any:
    """Return the ASGI application of a session."""
    routes = [
        *(_file_route(path) for path in sorted(PAGE.iterdir()) if path.suffix in _TYPES),
        *(
            Route(f"/api/{name}", _endpoint(partial(act, session), name), methods=[method])
            for name, (method, act) in _ACTS.items()
        ),
        *(Route(f"/api/{name}", _file_endpoint(session, act), methods=["POST"]) for name, act in _TAKING.items()),
        Route("/api/events", partial(_events, session)),
    ]
    return Guard(Starlette(routes=routes), host, token)


def _file_route(path: Path) -> Route:
    """Return the route of one file of the page."""
    address = "/" if path.name == "index.html" else f"/{path.name}"

    async def answer(_: Request) -> Response:
        return FileResponse(path, media_type=_TYPES[path.suffix], headers={"cache-control": "no-cache"})

    return Route(address, answer)


def _endpoint(act: Callable[[Request, bytes], Response], name: str) -> Any:
    """Return an endpoint of a short request."""

    async def work(request: Request) -> Response:
        return await run_in_threadpool(act, request, await _body(request, _LARGEST.get(name, 1_000_000)))

    return _answering(work)


def _file_endpoint(session: Session, act: Callable[[Session, Request, Path], Response]) -> Any:
    """Return an endpoint that takes a picture's file, which never lies in memory whole."""

    async def work(request: Request) -> Response:
        with session.arrivals.receiving(request.query_params["file"]) as received:
            with received.open("wb") as file:
                async for part in _parts(request, LARGEST_FILE):
                    await run_in_threadpool(file.write, part)
            return await run_in_threadpool(act, session, request, received)

    return _answering(work)


def _answering(work: Callable[[Request], Awaitable[Response]]) -> Any:
    """Return an endpoint that answers with what went wrong where something did."""

    async def answer(request: Request) -> Response:
        try:
            return await work(request)
        except StaleError as error:
            return JSONResponse({"error": str(error), "version": error.version}, status_code=error.status)
        except Problem as error:
            return JSONResponse({"error": str(error)}, status_code=error.status)
        except (ValueError, OSError, KeyError) as error:
            logger.debug("%s", request.url.path, exc_info=True)
            return JSONResponse({"error": str(error)}, status_code=400)

    return answer


async def _body(request: Request, largest: int) -> bytes:
    """Return the body of a request, no longer than it may be."""
    return b"".join([part async for part in _parts(request, largest)])


async def _parts(request: Request, largest: int) -> AsyncIterator[bytes]:
    """Give the parts of a request's body, which may have so many bytes."""
    announced, size = int(request.headers.get("content-length", 0)), 0
    async for part in request.stream():
        size += len(part)
        if max(size, announced) <= largest:
            yield part
        elif size > _DRAINED:
            break
    if max(size, announced) > largest:
        msg = f"More than {largest // 1_000_000} MB were sent."
        raise Problem(msg, 413)


async def _events(session: Session, _: Request) -> Response:
    """Tell a tab what happens."""
    lines = iterate_in_threadpool(session.events.listen())
    return StreamingResponse(lines, media_type="text/event-stream", headers=_NEVER)


# --- the addresses ---------------------------------------------------------------------------------------------------


def _state(session: Session, _: Request, __: bytes) -> Response:
    return JSONResponse(session.state(), headers=_NEVER)


def _open(session: Session, request: Request, _: bytes) -> Response:
    return JSONResponse(session.open(_name(request)), headers=_NEVER)


def _tile(session: Session, request: Request, _: bytes) -> Response:
    ask = request.query_params
    place = int(ask["level"]), int(ask["column"]), int(ask["row"])
    window = float(ask.get("low", 0)), float(ask.get("high", 1))
    tile = session.pictures.tile(_name(request), int(ask.get("channel", 0)), place, window)
    return Response(tile, media_type="image/png", headers=_FOREVER)


def _thumbnail(session: Session, request: Request, _: bytes) -> Response:
    return Response(session.pictures.thumbnail(_name(request)), media_type="image/jpeg", headers=_FOREVER)


def _mask(session: Session, request: Request, _: bytes) -> Response:
    mask, version = session.masks.read(_name(request))
    headers = {**_NEVER, "x-version": version, "x-width": str(mask.shape[1]), "x-height": str(mask.shape[0])}
    return Response(zlib.compress(mask.tobytes(), 1), media_type="application/octet-stream", headers=headers)


def _stroke(session: Session, request: Request, body: bytes) -> Response:
    ask = request.query_params
    left, top, width, height = (int(part) for part in ask["box"].split(","))
    region = Region.unpacked((left, top, width, height), body)
    kind = ask.get("kind", "brush")[:20]
    drawn = _drawn(ask.get("drawn", "{}"))
    version = session.stroke(_name(request), region, ask["version"], kind, _who(request), drawn)
    return JSONResponse({"version": version})


def _drawn(text: str) -> dict[int, str]:
    """Return the names of the classes that a stroke draws, by their indices, from JSON."""
    content = json.loads(text)
    if not isinstance(content, dict):
        msg = "The page is older than the program. Load it again."
        raise Problem(msg, 409)
    return {int(index): str(name) for index, name in content.items()}


def _step(session: Session, request: Request, _: bytes) -> Response:
    done = session.step(_name(request), request.query_params["back"] == "1", _who(request))
    if done is None:
        return Response(status_code=204)
    region, version = done
    height, width = region.values.shape
    headers = {**_NEVER, "x-version": version, "x-box": f"{region.left},{region.top},{width},{height}"}
    packed = zlib.compress(region.values.tobytes(), 1)
    return Response(packed, media_type="application/octet-stream", headers=headers)


def _set_aside(session: Session, request: Request, _: bytes) -> Response:
    return JSONResponse({"where": session.set_aside(_name(request), _who(request))})


def _class(session: Session, _: Request, body: bytes) -> Response:
    ask = json.loads(body)
    session.change_class(str(ask["act"]), int(ask.get("index", 0)), str(ask.get("value", "")), ask.get("name"))
    return JSONResponse(session.state())


def _teach(session: Session, request: Request, _: bytes) -> Response:
    session.lessons.teach(request.query_params.get("name", ""))
    return JSONResponse({})


def _suggestion(session: Session, request: Request, _: bytes) -> Response:
    stored = session.lessons.suggestion(_name(request), fine=request.query_params.get("fine") == "1")
    if stored is None:
        return Response(status_code=204)
    headers = {
        **_NEVER,
        "x-lesson": str(stored.lesson),
        "x-height": str(stored.size[0]),
        "x-width": str(stored.size[1]),
        "x-info": json.dumps(stored.info),
    }
    return Response(stored.data, media_type="application/octet-stream", headers=headers)


def _export(session: Session, _: Request, __: bytes) -> Response:
    session.lessons.export()
    return JSONResponse({})


def _upload(session: Session, request: Request, received: Path) -> Response:
    ask = request.query_params
    return JSONResponse({"name": session.upload(ask["file"], received, more=ask.get("more") == "1")})


def _try(session: Session, request: Request, received: Path) -> Response:
    ask = request.query_params
    shown = session.try_on(ask["file"], received, _who(request), more=ask.get("more") == "1")
    if shown is None:
        return Response(status_code=204)
    return Response(shown, media_type="image/png", headers=_NEVER)


def _name(request: Request) -> str:
    """Return the name of the picture that is asked for."""
    return request.query_params["name"]


def _who(request: Request) -> str:
    """Return which tab asks."""
    return request.headers.get("x-tab", "")[:40]


_ACTS: dict[str, tuple[str, Callable[[Session, Request, bytes], Response]]] = {
    "state": ("GET", _state),
    "open": ("GET", _open),
    "tile": ("GET", _tile),
    "thumbnail": ("GET", _thumbnail),
    "mask": ("GET", _mask),
    "stroke": ("POST", _stroke),
    "step": ("POST", _step),
    "set_aside": ("POST", _set_aside),
    "class": ("POST", _class),
    "teach": ("POST", _teach),
    "suggestion": ("GET", _suggestion),
    "export": ("POST", _export),
}

_TAKING: dict[str, Callable[[Session, Request, Path], Response]] = {"upload": _upload, "try": _try}
