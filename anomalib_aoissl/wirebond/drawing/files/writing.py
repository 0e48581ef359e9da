# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0
"""Write drawn units to a folder: images, masks and the description of the data set; whole files only, resumable."""

from __future__ import annotations

import json
import logging
import os
import uuid
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from anomalib_aoissl.data.indices import IGNORE_INDEX
from anomalib_aoissl.plugin.arguments import validate, whole

from ..devices import CLASS_NAMES, DEVICES, GENERATOR_VERSION, DeviceType
from ..rendering import check_arguments
from .unit_files import LIGHTING_CHANNELS, DrawingJob, is_complete, stem_of, write_bytes, write_job
from .workers import run_in_workers

logger = logging.getLogger(__name__)


def write_images(
    root: str | Path,
    *,
    devices: Sequence[str | DeviceType] | None = None,
    units: int,
    seed: int,
    lot: int = 0,
    size: tuple[int, int] = (512, 512),
    difficulty: float = 0.5,
    workers: int = 2,
) -> Path:
    """Return ``root`` after drawing every unit of every device type into it.

    Writes ``images/{stem}_ch0.png`` (bright field), ``images/{stem}_ch1.png`` (dark field), ``masks/{stem}.png``
    (class index with a palette) and at last ``dataset.json``; a stem is ``{device}_{lot:02d}_{unit:03d}``. Files
    appear whole or not at all. A run that was broken off goes on where it stopped, and two runs with the same settings
    may write to the same folder at once.

    Args:
        root: The folder; made if need be.
        devices: Names or device types; all built-in types if None.
        units: Number of units of each type, 1 or more.
        seed: Seed of the data set.
        lot: Number of the lot.
        size: Height and width in px.
        difficulty: 0 to 1, see ``draw``.
        workers: Number of worker processes; 0 or 1 draws in this process.

    Raises:
        ValueError: If an argument is out of its range, or the folder holds a set with other settings.
        RuntimeError: If a worker process fails.
    """
    types = _resolve(devices)
    validate({"units": whole("[1, inf)"), "workers": whole("[0, inf)")}, {"units": units, "workers": workers})
    for device in types:
        check_arguments(device, seed=seed, unit=units - 1, lot=lot, size=size, difficulty=difficulty)
    root = Path(root)
    settings = _settings(types, units=units, seed=seed, lot=lot, size=size, difficulty=difficulty)
    _claim(root, settings)
    jobs = []
    for device in types:
        missing = tuple(unit for unit in range(units) if not is_complete(root, stem_of(device, lot, unit)))
        if missing:
            jobs.append(DrawingJob(device, missing, seed, lot, (int(size[0]), int(size[1])), float(difficulty)))
    _run(root, jobs, workers)
    groups = {stem_of(device, lot, unit): device.name for device in types for unit in range(units)}
    write_bytes(root / "dataset.json", _dataset(groups, settings))
    return root


def _resolve(devices: Sequence[str | DeviceType] | None) -> list[DeviceType]:
    """Return the device types behind names or types, each once."""
    types: list[DeviceType] = []
    for device in DEVICES if devices is None else devices:
        if isinstance(device, str) and device not in DEVICES:
            msg = f"There is no device type {device!r}; choose from {sorted(DEVICES)} or give a DeviceType."
            raise ValueError(msg)
        types.append(DEVICES[device] if isinstance(device, str) else device)
    names = [device.name for device in types]
    if not names or len(set(names)) < len(names):
        msg = f"devices are {names}; give at least one device type, and each name once."
        raise ValueError(msg)
    return types


def _settings(types: list[DeviceType], **given: Any) -> dict[str, Any]:
    """Return all that decides what the files hold, as it reads back from JSON."""
    described = json.dumps([asdict(device) for device in types], sort_keys=True)
    settings = {
        "version": GENERATOR_VERSION,
        **given,
        "size": list(given["size"]),
        "devices": [device.name for device in types],
        "devices_crc32": zlib.crc32(described.encode()),
    }
    return dict(json.loads(json.dumps(settings)))


def _claim(root: Path, settings: dict[str, Any]) -> None:
    """Make the folders and note the settings; validate that the folder holds no others."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    note = root / "generator.json"
    if not note.exists():
        _create(note, json.dumps(settings, indent=2).encode())
    for path in (note, root / "dataset.json"):
        if path.exists():
            _compare(path, settings)


def _compare(path: Path, settings: dict[str, Any]) -> None:
    """Raise ValueError if the settings in a file are not the given ones."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if path.name == "dataset.json" and isinstance(found, dict):
        found = found.get("generator")
    if found != settings:
        msg = (
            f"{path} was written with other settings: {json.dumps(found)}; now asked for: {json.dumps(settings)}. "
            f"Choose another root, or delete {path.parent} to draw it anew."
        )
        raise ValueError(msg)


def _create(path: Path, content: bytes) -> None:
    """Write a file unless it exists by now: of two processes at once, the first one settles its content."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex}.tmp")
    temporary.write_bytes(content)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _dataset(groups: dict[str, str], settings: dict[str, Any]) -> bytes:
    """Return the description of the data set as JSON."""
    description = {
        "name": "wire_bond",
        "classes": list(CLASS_NAMES),
        "ignore_index": IGNORE_INDEX,
        "groups": groups,
        "lighting_channels": list(LIGHTING_CHANNELS),
        "generator": settings,
    }
    return json.dumps(description, indent=2).encode()


def _run(root: Path, jobs: list[DrawingJob], workers: int) -> None:
    """Work off the jobs, here or in worker processes, and log about ten times how far it is."""
    total = sum(len(job.units) for job in jobs)
    if workers > 1 and total > workers:
        stems: Iterator[str] = run_in_workers(root, jobs, workers)
    else:
        stems = (stem for job in jobs for stem in write_job(root, job))
    every = max(1, total // 10)
    for done, _ in enumerate(stems, start=1):
        if done % every == 0 or done == total:
            logger.info("drew %d of %d units into %s", done, total, root)
