# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Steps that tests of the page take: a stroke, a dropped file, a look at the disk."""

from pathlib import Path

import numpy as np
from label_pictures import scribbles
from PIL import Image

from anomalib_aoissl.labelling.session import Session
from anomalib_aoissl.labelling.storage.masks import Region


def paint(session: Session, name: str, left: int, top: int, values: np.ndarray, kind: str = "brush") -> str:
    return session.stroke(name, Region(left, top, values.astype(np.uint8)), session.masks.version(name), kind, "me")


def scribble(session: Session, *numbers: int) -> None:
    for number in numbers:
        name = f"unit_{number}"
        session.stroke(name, Region(0, 0, scribbles()), session.masks.version(name), "brush", "me")


def dropped(session: Session, name: str, content: bytes, *, more: bool = False) -> str:
    with session.arrivals.receiving(name) as received:
        received.write_bytes(content)
        return session.upload(name, received, more=more)


def on_disk(device: Path, name: str = "unit_0") -> np.ndarray:
    with Image.open(device / "masks" / f"{name}.png") as image:
        return np.array(image)
