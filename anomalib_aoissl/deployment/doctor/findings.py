# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What is unusual about an exported model on this machine, and what to do about it; needs no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .diagnosis import Diagnosis


@dataclass(frozen=True)
class Finding:
    """Something unusual.

    Attributes:
        fault: Whether masks may be wrong by it; else it is for your information.
        what: What was found.
        remedy: What to do.
    """

    fault: bool
    what: str
    remedy: str


def findings(diagnosis: Diagnosis) -> Iterator[Finding]:
    """Yield what is unusual, faults first where they are known by then."""
    yield from _of_gate(diagnosis.gate)
    yield from _of_installs(diagnosis.versions)
    yield from _of_model(diagnosis)
    if diagnosis.bank is not None:
        yield from _of_bank(diagnosis.bank, diagnosis.facts)


def _of_gate(gate: Mapping[str, Any] | None) -> Iterator[Finding]:
    """Yield what the gate says."""
    if gate is None:
        what = "Nobody compared this file with the trained model: the gate was not run."
        yield Finding(False, what, "Export again with the gate on; for an edited model, compare a few masks.")
    elif not gate.get("passed"):
        faults = [f"{name}: {text}" for name, run in gate.get("runs", {}).items() for text in run.get("faults", ())]
        what = f"The gate failed ({'; '.join(faults) or 'no reason is given'})."
        yield Finding(True, what, "Do not ship it. Export without --compression_type.")


def _of_installs(versions: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what is missing beside this package, or installed twice."""
    if {"anomalib-aoissl", "anomalib-aoissl-line"} <= versions.keys():
        whole, line = versions["anomalib-aoissl"], versions["anomalib-aoissl-line"]
        what = f"anomalib-aoissl {whole} and anomalib-aoissl-line {line} are installed over each other."
        remedy = "pip uninstall both, then install one; anomalib-aoissl has all of the other."
        yield Finding(whole != line, what, remedy)
    if "imagecodecs" not in versions:
        what = "imagecodecs is not installed: compressed TIFF files cannot be read."
        yield Finding(False, what, "pip install imagecodecs, if your camera writes such files.")


def _of_model(diagnosis: Diagnosis) -> Iterator[Finding]:
    """Yield what is unusual about the graph and what runs it."""
    facts = diagnosis.facts
    exported, here = _numbers(facts["exported_with"]), _numbers(diagnosis.versions.get("openvino", ""))
    if exported and here and here < exported:
        what = f"OpenVINO {_text(here)} here is older than the exporter's {_text(exported)}."
        yield Finding(False, what, f"pip install 'openvino>={_text(exported)}', or compare masks on this machine.")
    if facts["search"] in {"f16", "bf16"}:
        what = f"The bank is searched in {facts['search']}: novelty is a small difference and loses its digits."
        yield Finding(True, what, "Export again with this version; it searches in 32 bits.")
    if facts["computes_in"] not in {"f32", None}:
        yield Finding(False, f"It computes in {facts['computes_in']}.", "Leave INFERENCE_PRECISION_HINT out of config.")
    if facts["can_abstain"] and facts["abstains_above"] is None:
        what = "The model never says that it does not know: it has no threshold of abstention."
        yield Finding(False, what, "Train with --model.abstain 0.05 and a validation split, or set .threshold.")
    if not facts["knows_labelled_pictures"]:
        what = "The model does not know what its labelled pictures are like: it notices no blurred and no dark picture."
        yield Finding(False, what, "Train on all labelled pictures with this version, and export again.")
    if facts["checksum"] is False:
        what = "The .xml has no checksum: another program wrote it, so damage is not noticed."
        yield Finding(False, what, "Save it with inferencer.save, or export it again.")
    if len(diagnosis.devices) > 1 and diagnosis.device == "CPU":
        others = ", ".join(name for name in diagnosis.devices if name != "CPU")
        yield Finding(False, f"There are other devices: {others}.", "Try doctor --device; compare the masks.")
    if not facts["editable"]:
        what = "The model has no bank that can be edited: adapt and remove are not possible."
        yield Finding(False, what, "Export an AOISSLRetrieval to OpenVINO, if you want to edit on the line.")


def _of_bank(bank: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what is unusual about what the model has learnt."""
    empty = [name for name, entries in bank["entries_of_class"].items() if not entries]
    if empty:
        what = f"No entry of the bank shows {', '.join(empty)}."
        yield Finding(False, what, "Teach an image with it (adapt), else no mask will show it.")
    if facts["budget"] is not None and bank["entries"] > facts["budget"]:
        what = f"The bank has {bank['entries']:,} entries, {facts['budget']:,} at the export: the search takes longer."
        yield Finding(False, what, f"python -m anomalib_aoissl bank condense <model> {facts['budget']} --in_place")
    if facts["decided_by"] == "pixel head" and not bank["pixels"]:
        what = "The model has no labelled pixels: adapt changes novelty, not masks."
        yield Finding(False, what, "Export to OpenVINO (not ONNX) from a model that was trained on images.")
    if bank["images"] == 1:
        what = "It has learnt a single image: what that one does not show is missed."
        yield Finding(False, what, "Label a second one; label-next says which.")


def _numbers(text: str) -> tuple[int, ...]:
    """Return the first three numbers of a version in a text; empty where there are none."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return () if found is None else tuple(int(part or 0) for part in found.groups())


def _text(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
