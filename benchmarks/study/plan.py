# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A study's YAML file to jobs: what is measured, in slices; each job is known by a hash of its settings."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

__all__ = ["Job", "PlanError", "estimate", "plan", "read_config"]

KINDS = ("masks", "novelty", "pretraining")
"""What a job measures: masks of a set, novelty of drawn defects, or nothing yet: weights that other jobs need."""

_SECTIONS = {"sets", "weights", "models", "slices"}
_AXES = {"sets", "weights", "models", "labels", "seeds", "budgets"}


class PlanError(ValueError):
    """A study's file that cannot be worked with; the message names the entry."""


@dataclass(frozen=True)
class Job:
    """One run, all of its settings in plain data.

    Attributes:
        id: Name of its files; begins with words, ends with the hash of `spec`.
        kind: One of `KINDS`.
        spec: Settings of set, weights and model, and their names, labels, seed and budget.
        slices: Names of the slices that ask for it.
        needs: Ids of the jobs whose results it needs.
    """

    id: str
    kind: str
    spec: Mapping[str, Any] = field(hash=False)
    slices: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


def read_config(path: Path) -> dict[str, Any]:
    """Return a study's file.

    Raises:
        PlanError: If it cannot be read, or a section is missing.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        msg = f"{path}: cannot be read as a study ({error})."
        raise PlanError(msg) from error
    missing = sorted(_SECTIONS - set(config or {}))
    if missing:
        msg = f"{path}: the sections {missing} are missing. configs/benchmark/study.yaml has them all."
        raise PlanError(msg)
    return dict(config)


def plan(config: Mapping[str, Any]) -> list[Job]:
    """Return the jobs of all slices, each once, in the order of the slices; weights stand before what needs them.

    Raises:
        PlanError: If a slice names what is not described, or an axis that there is not.
    """
    jobs: dict[str, Job] = {}
    for name, axes in config["slices"].items():
        for job in _slice_jobs(str(name), axes, config):
            known = jobs.setdefault(job.id, job)
            if str(name) not in known.slices:  # two numbers of labels can be one, of a set that has no more
                jobs[job.id] = replace(known, slices=(*known.slices, str(name)))
    return list(jobs.values())


def _slice_jobs(name: str, axes: Mapping[str, Any], config: Mapping[str, Any]) -> Iterable[Job]:
    """Give the jobs of a slice, the weights that it needs among them."""
    _check_slice(name, axes, config)
    budgets = axes.get("budgets", [None])
    names = (axes["sets"], axes["models"], axes.get("weights", ["none"]), axes.get("labels", [0]))
    for set_name, model, weights, labels, seed, budget in itertools.product(*names, axes["seeds"], budgets):
        entry = config["sets"][set_name]
        labels = min(labels, entry.get("most_labels", labels))  # noqa: PLW2901 - a set that has no more
        spec = {
            "set": set_name,
            "weights": weights,
            "model": model,
            "labels": labels,
            "seed": seed,
            "budget": budget,
            "set_settings": entry,
            "weights_settings": config["weights"].get(weights, {}),
            "model_settings": config["models"][model],
        }
        needs: tuple[str, ...] = ()
        if "pretraining" in spec["weights_settings"]:
            job = _pretraining_job(name, spec, config)
            yield job
            needs = (job.id,)
        kind = "novelty" if config["models"][model].get("measures") == "novelty" else "masks"
        yield Job(_id(kind, spec), kind, spec, (name,), needs)


def _pretraining_job(name: str, spec: Mapping[str, Any], config: Mapping[str, Any]) -> Job:
    """Return the job that trains the weights of a run."""
    settings = spec["weights_settings"]
    trained = {
        "weights": spec["weights"],
        "seed": spec["seed"] if settings.get("each_seed") else 0,
        "weights_settings": settings,
        "set_settings": config["sets"].get(settings["pictures"].get("set"), {}),
        "budget": settings["seconds"],
    }
    return Job(_id("pretraining", trained), "pretraining", trained, (name,))


def _id(kind: str, spec: Mapping[str, Any]) -> str:
    """Return a name that is of these settings alone."""
    text = json.dumps([kind, spec], sort_keys=True)
    words = [spec.get(key) for key in ("set", "model", "weights", "labels", "seed", "budget")]
    said = "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", str(word)) for word in words if word is not None)
    return f"{said}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def _check_slice(name: str, axes: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Validate the names of a slice."""
    unknown, missing = sorted(set(axes) - _AXES), sorted({"sets", "models", "seeds"} - set(axes))
    if unknown or missing:
        msg = f"slice {name!r}: axes {unknown} are unknown, {missing} are missing. The axes are {sorted(_AXES)}."
        raise PlanError(msg)
    for axis in ("sets", "models", "weights"):
        for wanted in axes.get(axis, []):
            if wanted not in config[axis]:
                msg = f"slice {name!r}: {wanted!r} is not described under {axis!r}, which has {sorted(config[axis])}."
                raise PlanError(msg)


def estimate(job: Job) -> float:
    """Return the CPU seconds that a job is expected to take, from the ``cost`` of its model.

    ``cost`` is a mapping with ``fixed`` s, ``label`` s a labelled Mpx, ``most`` labelled images that count and
    ``test`` s a tested Mpx. A budget stands for the fit.
    """
    spec = job.spec
    if job.kind == "pretraining":
        return float(spec["budget"] + 15.0 + spec["set_settings"].get("reading", 0.0))
    cost, entry = spec["model_settings"].get("cost", {}), spec["set_settings"]
    megapixels = entry["size"][0] * entry["size"][1] / 1e6
    labels = min(spec["labels"], cost.get("most", spec["labels"]))
    fit = cost.get("fixed", 0.0) + cost.get("label", 0.0) * labels * megapixels
    fit = fit if spec["budget"] is None else max(fit, spec["budget"])
    return float(fit + cost.get("test", 0.0) * entry.get("test_images", 8) * megapixels + entry.get("reading", 2.0))
