# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Teaching on the labelling page: seconds from the press to masks, and of the first order of a large folder.

Usage: python benchmarks/teach.py [--pictures 4] [--size 512] [--log teach.jsonl]

Draws pictures of one device, paints three of them, and teaches as the page does it: once, and then after each of five
strokes. Further pictures are linked files, as a folder of 10,000 has them.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from anomalib_aoissl.labelling import share_processors
from anomalib_aoissl.labelling.session import Session
from anomalib_aoissl.labelling.storage.masks import Region

DRAWN, PAINTED, STROKES = 8, 3, 5


def main() -> None:
    """Paint, teach, and print a line of JSON."""
    parser = argparse.ArgumentParser(description="Seconds of teaching on the labelling page.")
    parser.add_argument("--device", default="qfp100_gold")
    parser.add_argument("--pictures", type=int, default=DRAWN, help="pictures in the folder (%(default)s)")
    parser.add_argument("--size", type=int, default=512, help="height and width, px (%(default)s)")
    parser.add_argument("--log", type=Path, default=None)
    arguments = parser.parse_args()
    share_processors()  # as the command does; what follows loads torch
    from table import give_line

    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        root = drawn(Path(folder), arguments.device, arguments.size, arguments.pictures)
        session = Session(root)
        told = session.events.listen()
        next(told)  # listens from here on
        session.start()
        row = {"set": f"wirebond:{arguments.device}", "pictures": arguments.pictures, **seconds(session, told)}
        session.stop()
    give_line(row, arguments.log)


def drawn(folder: Path, device: str, size: int, pictures: int) -> Path:
    """Return a folder of pictures of a device, the first three with masks; those beyond the drawn ones are links."""
    from anomalib_aoissl import WireBond

    data = WireBond(folder / "drawn", devices=[device], images_per_device=DRAWN, image_size=(size, size))
    data.prepare_data()
    images, masks = sorted((data.root / "images").glob("*_ch0.png")), sorted((data.root / "masks").glob("*.png"))
    root = folder / "page"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for index in range(max(pictures, DRAWN)):
        os.link(images[index % DRAWN], root / "images" / f"unit_{index:05d}.png")
    for index in range(PAINTED):
        shutil.copy(masks[index], root / "masks" / f"unit_{index:05d}.png")
    classes = json.loads((data.root / "dataset.json").read_text(encoding="utf-8"))["classes"]
    (root / "classes.txt").write_text("\n".join(classes), encoding="utf-8")
    return root


def seconds(session: Session, told: Iterator[str]) -> dict[str, Any]:
    """Return the wall seconds of a first lesson, of later ones (median and longest), and of the order of the folder."""
    session.lessons.prepare("unit_00000")  # as opening a picture does: the model is loaded, tokens are kept
    for index in range(PAINTED):
        session.lessons.teacher.reader.see(f"unit_{index:05d}")
    session.lessons.teach("unit_00000")
    first = awaited(told, "taught")["seconds"]
    started = time.monotonic()
    awaited(told, "next")
    ordered = time.monotonic() - started
    later = []
    for stroke in range(STROKES):
        version = session.masks.version("unit_00000")
        session.masks.apply("unit_00000", Region(8, 8 + 4 * stroke, np.zeros((3, 40), np.uint8)), version, "brush")
        session.lessons.teach("unit_00000")
        later.append(awaited(told, "taught")["seconds"])
    return {
        "first, s": first,
        "later, s": round(float(np.median(later)), 2),
        "longest of them, s": max(later),
        "order, s": round(ordered, 1),
    }


def awaited(told: Iterator[str], kind: str) -> dict[str, Any]:
    """Return the next event of a kind."""
    for text in told:
        if text.startswith("data: "):
            event: dict[str, Any] = json.loads(text[6:])
            if event["kind"] == kind:
                return event
    msg = f"The session ended before {kind!r}."
    raise RuntimeError(msg)


if __name__ == "__main__":
    main()
