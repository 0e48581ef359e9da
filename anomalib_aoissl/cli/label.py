# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The command ``label``: a page to draw masks on, which learns while one draws."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

DEFAULT_PORT = 8765

_NEEDED = ("starlette", "uvicorn")


def label_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `label`."""
    parser.add_argument("folder", type=Path, help="folder of pictures, or with images/ in it; may be empty")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="port of the page (%(default)s)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address; any other than %(default)s needs the link's token"
    )
    parser.add_argument("--no-open", action="store_true", help="start no browser")
    parser.add_argument("--encoder", help="encoder to learn with, as --model.encoder of train; the shipped one")
    parser.add_argument("--image_size", type=int, nargs=2, default=(512, 512), help="height and width of the model, px")
    parser.add_argument("--bit_depth", type=int, help="bits that the camera uses of a 16-bit file, 8 to 16")


def label(options: argparse.Namespace) -> None:
    """Open a page on which masks are drawn, and a model learns them while you draw."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        msg = f"The page needs {' and '.join(missing)}: pip install 'anomalib-aoissl[label]'."
        raise ValueError(msg)
    from anomalib_aoissl.labelling import share_processors
    from anomalib_aoissl.labelling.server.running import serve
    from anomalib_aoissl.labelling.session import Session
    from anomalib_aoissl.labelling.teaching.settings import ModelSettings

    share_processors()
    size = tuple(options.image_size)
    settings = ModelSettings(options.encoder, size)
    if settings != ModelSettings():
        settings.build(in_channels=3)  # what does not fit is an error now, in place of at the first stroke
    session = Session(options.folder, settings, options.bit_depth)

    def say(address: str) -> None:
        print(f"Labelling {session.folder.root}: {len(session.folder.pictures)} pictures.", flush=True)
        print(f"Open {address}  (Ctrl+C ends; everything is saved as you paint)", flush=True)

    serve(session, options.host, options.port, open_browser=not options.no_open, started=say)
