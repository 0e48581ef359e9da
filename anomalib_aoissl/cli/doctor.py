# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""``python -m anomalib_aoissl doctor model.xml``: one page about an exported model on this machine; needs no torch."""

from __future__ import annotations

import argparse
import json
import statistics
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .dispatching import CommandError

if TYPE_CHECKING:
    from anomalib_aoissl.deployment.doctor.diagnosis import Diagnosis

_WIDTH, _LISTED = 100, 8


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of doctor."""
    parser.add_argument("model", type=Path, help="exported model (.xml, its .bin beside it; or .onnx)")
    parser.add_argument("--device", default="CPU", help="OpenVINO device (%(default)s)")
    parser.add_argument("--image", type=Path, help="picture to time; noise of the model's size without")
    parser.add_argument("--rounds", type=int, default=5, help="predictions to time (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print all that was found as JSON")


def doctor(options: argparse.Namespace) -> int:
    """Say on one page what an exported model is, how it does on this machine, and what is unusual about it.

    Exits with 1 where masks may be wrong by what was found, such as a gate that failed.
    """
    if options.rounds < 1:
        msg = f"--rounds {options.rounds}: at least 1 prediction must be timed."
        raise CommandError(msg)
    from anomalib_aoissl.deployment.doctor.diagnosis import diagnose

    diagnosis = diagnose(options.model, options.device, options.image, options.rounds)
    print(json.dumps(diagnosis.to_dict(), indent=1) if options.json else "\n".join(page(diagnosis)))
    return int(any(finding.fault for finding in diagnosis.findings))


def page(diagnosis: Diagnosis) -> Iterator[str]:
    """Yield the lines of the page."""
    yield f"{diagnosis.path}  ({diagnosis.megabytes:.1f} MB)"
    for title, lines in (
        ("MACHINE", _machine(diagnosis)),
        ("MODEL", _model(diagnosis)),
        ("BANK", _bank(diagnosis.bank)),
        ("SPEED", _speed(diagnosis)),
    ):
        yield ""
        yield title
        for name, value in lines:
            wrapped = textwrap.wrap(value, _WIDTH - 14) or [""]
            yield f"  {name:<12}{wrapped[0]}"
            yield from (f"{'':14}{line}" for line in wrapped[1:])
    yield ""
    yield "UNUSUAL" if diagnosis.findings else "UNUSUAL  nothing"
    for finding in sorted(diagnosis.findings, key=lambda finding: not finding.fault):
        mark = "FAULT" if finding.fault else "note"
        yield from textwrap.wrap(f"{mark}: {finding.what}", _WIDTH, initial_indent="  ", subsequent_indent="        ")
        yield from textwrap.wrap(finding.remedy, _WIDTH, initial_indent="      > ", subsequent_indent="        ")


def _machine(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    """Yield versions and devices."""
    ours = {name: v for name, v in diagnosis.versions.items() if name.startswith("anomalib-aoissl")}
    yield "package", ", ".join(f"{name} {v}" for name, v in ours.items()) or "a source tree that is not installed"
    yield "versions", ", ".join(f"{name} {v}" for name, v in diagnosis.versions.items() if name not in ours)
    devices = [f"{name} ({full})" for name, full in diagnosis.devices.items()]
    yield "devices", f"{', '.join(devices)}; {diagnosis.cores} cores; runs on {diagnosis.device}"


def _model(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    """Yield what the model says of itself."""
    facts = diagnosis.facts
    yield "classes", ", ".join(facts["classes"])
    channels = facts["file_format"]["lighting_channels"]
    bits = facts["file_format"]["bit_depth"]
    height, width = facts["model_size"]
    files = f" ({len(channels)} files: {', '.join(channels)})" if channels else ""
    how = f"{'cut into tiles of' if facts['tiling'] else 'resized to'} {height}x{width} px (height x width)"
    yield "pictures", f"{facts['planes']} planes{files}{f', {bits} bits' if bits else ''}; {how}"
    yield "masks", f"decided by the {facts['decided_by']}"
    threshold = facts["abstains_above"]
    yield "abstention", "never" if threshold is None else f"above an uncertainty of {threshold:.3f}"
    search = "" if facts["search"] is None else f"; bank searched in {facts['search']}"
    yield (
        "precision",
        f"weights in {facts['weights']}; computes in {facts['computes_in'] or 'what OpenVINO likes'}{search}",
    )
    yield (
        "exported",
        f"with OpenVINO {facts['exported_with'].removeprefix('OpenVINO Runtime ') or 'of a version not known'}",
    )
    yield "gate", _gate(diagnosis.gate)


def _gate(gate: Mapping[str, Any] | None) -> str:
    """Return in a line what the gate said."""
    if gate is None:
        return "not run"
    runs = [
        f"{name}{_by(run)} {run['equal_pixels']:.2%} of the pixels equal"
        for name, run in gate.get("runs", {}).items()
        if name != gate.get("reference") and "equal_pixels" in run
    ]
    on = f" on {gate['pictures']} pictures of {gate.get('source', '?')}" if "pictures" in gate else ""
    return f"{'passed' if gate.get('passed') else 'FAILED'}{on}{': ' if runs else ''}{'; '.join(runs)}"


def _by(run: Mapping[str, Any]) -> str:
    """Return the runtime of a comparison in brackets; empty where an older version exported the model."""
    return f" ({run['runtime']})" if run.get("runtime") else ""


def _bank(bank: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    """Yield what the bank holds."""
    if bank is None:
        yield "none", ""
        return
    entries = f"{bank['entries']:,} for {bank['patches']:,} patches of {bank['images']:,} images"
    pixels = f"{bank['pixels']:,} labelled pixels, {bank['megabytes_of_pixels']:.1f} MB"
    yield "entries", f"{entries}, {bank['megabytes']:.1f} MB; {pixels}"
    yield "of class", _counted(bank["entries_of_class"])
    yield "of device", _counted(bank["entries_of_device"])
    yield "of image", _counted({Path(name).name: entries for name, entries in bank["entries_of_image"].items()})


def _counted(counts: Mapping[str, int]) -> str:
    """Return the first few of some names with their numbers."""
    shown = [f"{name} {number:,}" for name, number in list(counts.items())[:_LISTED]]
    more = [f"and {len(counts) - _LISTED} more"] if len(counts) > _LISTED else []
    return ", ".join([*shown, *more])


def _speed(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    """Yield what was timed."""
    times, (height, width) = diagnosis.latency, diagnosis.picture
    middle = statistics.median(times)
    spread = f"(from {1e3 * times[0]:.0f} to {1e3 * times[-1]:.0f}, {len(times)} runs)"
    yield "a picture", f"{1e3 * middle:.0f} ms {spread} at {height}x{width} px, {1 / middle:.2g} pictures/s"
    yield "opening", f"{diagnosis.opening:.1f} s"
