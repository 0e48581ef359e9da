# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Count, length and width of WireBond's wires as `measure` finds them in masks, against the drawn geometry.

Usage: python benchmarks/measure.py [--units 2] [--seed 1] [--size 512 512] [--masks FOLDER]

With ``--masks`` it measures predicted masks of drawn pictures, named as `WireBond` names them, such as those of a test.

The truth of a wire is its drawn centre line, as far as the mask shows it as wire: a ball or a wedge covers its ends. A
wire is *found* where one part holds more than half of its visible centre line and that part holds no other wire's.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from anomalib_aoissl.data.reading import read_mask
from anomalib_aoissl.measuring.parts import Measured, measure
from anomalib_aoissl.wirebond.drawing.devices import DEVICES, DeviceType
from anomalib_aoissl.wirebond.drawing.layouts.geometry import WIRE, Unit, place_unit
from anomalib_aoissl.wirebond.drawing.painting.materials import generator, name_key
from anomalib_aoissl.wirebond.drawing.painting.surfaces import device_layout
from anomalib_aoissl.wirebond.drawing.raster import label_mask
from anomalib_aoissl.wirebond.drawing.rendering import _UNIT

_STEP = 0.1  # px, between the samples of a drawn centre line


def main() -> None:
    """Draw the masks of all device types, measure them, and print a table."""
    parser = argparse.ArgumentParser(description="Measured wires against drawn ones.")
    parser.add_argument("--units", type=int, default=2, help="units of each device type")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, nargs=2, default=(512, 512), help="height and width, px")
    parser.add_argument("--masks", type=Path, help="folder of predicted masks; the drawn ones without")
    arguments = parser.parse_args()
    print("| device | wires | parts | found | length error, px | length error, % | width error, px |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    every: dict[str, list[float]] = defaultdict(list)
    for device in DEVICES.values():
        rows: dict[str, list[float]] = defaultdict(list)
        for unit, path in _units(device, arguments):
            scene = _scene(device, arguments.seed, unit, tuple(arguments.size))
            mask = label_mask(scene, tuple(arguments.size))
            _compare(scene, mask, measure(mask if path is None else read_mask(path), [WIRE]), rows)
        if not rows:
            continue
        for key, values in rows.items():
            every[key] += values
        print(_line(device.name, rows))
    print(_line("**all**", every))


def _units(device: DeviceType, arguments: argparse.Namespace) -> Iterator[tuple[int, Path | None]]:
    """Give the units of a device type that are measured, each with its predicted mask where such are measured."""
    if arguments.masks is None:
        yield from ((unit, None) for unit in range(arguments.units))
        return
    for path in sorted(arguments.masks.glob(f"{device.name}_*.png")):
        yield int(path.stem.rpartition("_")[2]), path


def _scene(device: DeviceType, seed: int, unit: int, size: tuple[int, int]) -> Unit:
    """Return the geometry of a unit of WireBond (lot 0, difficulty 0.5), as `draw` places it."""
    samples = 2 if min(size) >= 384 else 3 if min(size) >= 160 else 4
    rng = generator(seed, name_key(device.name), _UNIT, 0, unit)
    return place_unit(device_layout(device, seed), device, rng, size, samples, 0.5)


def _compare(scene: Unit, mask: np.ndarray, found: Measured, rows: dict[str, list[float]]) -> None:
    """Add the wires of a drawn mask, the parts that were found, and their errors to the rows."""
    owners = [_owner(places, found.labels) for places in _visible(scene, mask)]
    owned = [number for number, share in owners if share > 0.5]
    lengths = [len(places) * _STEP for places in _visible(scene, mask)]
    rows["wires"].append(len(owners))
    rows["parts"].append(len(found.parts))
    good = [
        (found.parts[number - 1], length)
        for (number, share), length in zip(owners, lengths, strict=True)
        if share > 0.5 and owned.count(number) == 1
    ]
    rows["found"].append(len(good))
    rows["length"] += [part.length - length for part, length in good]
    rows["share"] += [100 * (part.length - length) / length for part, length in good]
    rows["width"] += [part.width - 2 * scene.wires.radius for part, _ in good]


def _visible(scene: Unit, mask: np.ndarray) -> Iterator[np.ndarray]:
    """Yield row and column of each sample of a wire's centre line that the mask shows as wire, ``[N, 2]``."""
    for points in scene.wires.points:
        steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
        along = np.concatenate([[0], steps.cumsum()])
        at = np.arange(0, along[-1], _STEP)
        x, y = (np.floor(np.interp(at, along, points[:, axis])).astype(int) for axis in (0, 1))
        inside = (x >= 0) & (y >= 0) & (x < mask.shape[1]) & (y < mask.shape[0])
        places = np.stack([y, x], axis=1)[inside]
        places = places[mask[places[:, 0], places[:, 1]] == WIRE]
        if len(places):
            yield places


def _owner(places: np.ndarray, labels: np.ndarray) -> tuple[int, float]:
    """Return the part that holds most of a centre line, and its share of it."""
    counts = np.bincount(labels[places[:, 0], places[:, 1]])
    counts[0] = 0
    return int(counts.argmax()), float(counts.max() / len(places))


def _line(name: str, rows: dict[str, list[float]]) -> str:
    """Return a line of the table; errors are the median and the median of the absolute values."""
    count = [f"{sum(rows[key]):.0f}" for key in ("wires", "parts", "found")]
    errors = [
        f"{np.median(rows[k]):+.2f} (abs. {np.median(np.abs(rows[k])):.2f})" for k in ("length", "share", "width")
    ]
    return f"| {name} | {' | '.join(count)} | {' | '.join(errors)} |"


if __name__ == "__main__":
    main()
