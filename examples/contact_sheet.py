# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0
"""Draw one unit of every device type of the demonstration set and save them as one picture.

Run it with ``python examples/contact_sheet.py --out contact_sheet.png``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from anomalib_aoissl.wirebond.drawing import DEVICES, contact_sheet, draw, random_device


def main() -> None:
    """Read the arguments, draw, save."""
    parser = argparse.ArgumentParser(description="Save a contact sheet of the demonstration set WireBond.")
    parser.add_argument("--out", type=Path, required=True, help="picture to write, for instance contact_sheet.png")
    parser.add_argument("--folder", type=Path, help="show a folder of write_images instead of drawing")
    parser.add_argument("--seed", type=int, default=0, help="seed of the data set")
    parser.add_argument("--lot", type=int, default=0, help="production lot: other light, other materials")
    parser.add_argument("--difficulty", type=float, default=0.5, help="0 (clean) to 1 (hard)")
    parser.add_argument("--random", type=int, default=0, help="show this many random device types instead")
    parser.add_argument("--cell", type=int, default=320, help="width of one view in px")
    parser.add_argument("--columns", type=int, default=2, help="pictures side by side")
    given = parser.parse_args()
    if given.folder is not None:
        sheet = contact_sheet(given.folder, cell=given.cell, columns=given.columns)
    else:
        types = [random_device(given.seed + i) for i in range(given.random)] or list(DEVICES.values())
        drawings = {
            device.name: draw(device, seed=given.seed, lot=given.lot, difficulty=given.difficulty) for device in types
        }
        sheet = contact_sheet(drawings, cell=given.cell, columns=given.columns)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(given.out)


if __name__ == "__main__":
    main()
