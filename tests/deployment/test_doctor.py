# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The doctor's page: what it says is so, and what is unusual is found."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

from anomalib_aoissl import SegmentationOpenVINOInferencer
from anomalib_aoissl.cli.dispatching import dispatch
from anomalib_aoissl.cli.doctor import page
from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.quality.picture_quality import LabelledQuality
from anomalib_aoissl.deployment.doctor.diagnosis import (
    Diagnosis,
    diagnose,
    noise_picture,
    search_precision,
    weight_precision,
)
from anomalib_aoissl.deployment.doctor.findings import findings
from anomalib_aoissl.deployment.files.model_file import core, read_model, save_model
from anomalib_aoissl.deployment.graph.bank import METADATA_PATH, read_metadata


@pytest.fixture(scope="module")
def diagnosis(models: Path) -> Diagnosis:
    return diagnose(models / "head.xml", rounds=2)


def whats(diagnosis: Diagnosis, **changes: Any) -> str:
    """Return what is unusual about a diagnosis after changes of its fields; of mappings only these keys."""
    for name, value in changes.items():
        old = getattr(diagnosis, name)
        diagnosis = replace(diagnosis, **{name: {**old, **value} if isinstance(old, dict) else value})
    return " ".join(finding.what for finding in findings(diagnosis))


def test_the_page_says_what_is_so(diagnosis: Diagnosis, models: Path) -> None:
    text = "\n".join(page(diagnosis))
    inferencer = SegmentationOpenVINOInferencer(models / "head.xml")
    size = sum((models / f"head.{suffix}").stat().st_size for suffix in ("xml", "bin")) / 1e6
    for said in (
        f"head.xml  ({size:.1f} MB)",
        f"openvino {openvino.__version__.split('-')[0]}",
        f"numpy {np.__version__}",
        "background, wire, ball",
        "3 planes; resized to 32x48 px",
        "decided by the pixel head",
        f"above an uncertainty of {inferencer.threshold:.3f}",
        "weights in 32 bits; computes in f32; bank searched in f32",
        f"{inferencer.bank['entries']} for",
        "old 72",
        "2 runs) at 32x48 px",
        "gate        not run",
    ):
        assert said in text, said
    assert len(text.splitlines()) < 60
    assert max(map(len, text.splitlines()[1:])) <= 100


def test_tiles_have_a_size(diagnosis: Diagnosis) -> None:
    tiled = replace(diagnosis, facts={**diagnosis.facts, "tiling": {"size": [32, 48], "overlap": 8}})
    assert "3 planes; cut into tiles of 32x48 px" in "\n".join(page(tiled))


def test_a_sound_model_is_only_told_that_its_gate_was_not_run(diagnosis: Diagnosis) -> None:
    versions = {"imagecodecs": "2026.3.6", "anomalib-aoissl-line": "0.1.0"}
    alone = {k: v for k, v in diagnosis.versions.items() if k != "anomalib-aoissl"} | versions
    sound = replace(diagnosis, versions=alone)
    assert whats(sound) == "Nobody compared this file with the trained model: the gate was not run."
    assert whats(replace(sound, gate={"passed": True})) == ""


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"facts": {"search": "f16"}}, "The bank is searched in f16"),
        ({"facts": {"abstains_above": None}}, "never says that it does not know"),
        ({"facts": {"knows_labelled_pictures": False}}, "notices no blurred and no dark picture"),
        ({"facts": {"checksum": False}}, "no checksum"),
        ({"facts": {"computes_in": "bf16"}}, "computes in bf16"),
        ({"facts": {"editable": False}}, "no bank that can be edited"),
        ({"facts": {"budget": 10}}, "72 entries, 10 at the export"),
        ({"facts": {"exported_with": "2099.1.0-1-abc"}}, "is older than the exporter's 2099.1.0"),
        (
            {"bank": {"entries_of_class": {"background": 3, "wire": 0, "ball": 0}}},
            "No entry of the bank shows wire, ball",
        ),
        ({"bank": {"images": 1}}, "a single image"),
        ({"bank": {"pixels": 0}}, "no labelled pixels"),
        ({"versions": {"anomalib-aoissl": "0.1.0", "anomalib-aoissl-line": "0.2.0"}}, "over each other"),
        ({"devices": {"CPU": "c", "GPU": "g"}}, "other devices: GPU"),
        ({"gate": {"passed": False, "runs": {"openvino": {"faults": ["12 % differ"]}}}}, "openvino: 12 % differ"),
    ],
)
def test_what_is_unusual_is_found(diagnosis: Diagnosis, changes: dict[str, Any], found: str) -> None:
    assert found in whats(diagnosis, **changes)
    assert found not in whats(diagnosis)


def test_a_model_that_cannot_abstain_is_not_asked_to(diagnosis: Diagnosis) -> None:
    """A segmenter takes no argument abstain."""
    facts = {**diagnosis.facts, "can_abstain": False, "abstains_above": None}
    assert "never says that it does not know" not in whats(replace(diagnosis, facts=facts))


def test_the_doctors_own_noise_is_not_said_to_be_unlike_the_labelled_pictures(
    models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is measured all the same, since that is part of the time."""
    graph = read_model(models / "head.xml")
    metadata = read_metadata(graph)
    metadata["bank"]["own_novelty"] = 1e-6
    for measures in metadata["quality"]["pictures"].values():
        measures[0] = [9.0, 9.0, 9.0]  # contrast
    graph.set_rt_info(json.dumps(metadata), METADATA_PATH)
    inferencer = SegmentationOpenVINOInferencer(save_model(graph, tmp_path / "m.xml"))
    found = inferencer.predict(noise_picture(inferencer.file_format, (32, 48), 3))
    assert "dark or empty" in found.fault
    assert "novel all over" in found.fault
    assert "unlike the labelled pictures" in caplog.text
    caplog.clear()
    measured, fault = [], LabelledQuality.fault

    def counted(quality: LabelledQuality, planes: np.ndarray) -> str:
        measured.append(planes.shape)
        return fault(quality, planes)

    monkeypatch.setattr(LabelledQuality, "fault", counted)
    diagnose(tmp_path / "m.xml", rounds=2)
    assert caplog.text == ""
    assert measured == [(3, 32, 48)] * 3


def test_a_machine_without_imagecodecs_is_told(diagnosis: Diagnosis) -> None:
    without = {name: v for name, v in diagnosis.versions.items() if name != "imagecodecs"}
    assert "imagecodecs is not installed" in whats(replace(diagnosis, versions=without))


def test_the_gates_report_is_read_beside_the_model(models: Path, tmp_path: Path, capsys: Any) -> None:
    SegmentationOpenVINOInferencer(models / "bank.xml").save(tmp_path / "m.xml")
    run = {"equal_pixels": 0.9123, "faults": ["too few"], "runtime": "OpenVINO 2.0"}
    report = {"passed": False, "reference": "torch", "pictures": 7, "source": "mine", "runs": {"openvino": run}}
    (tmp_path / "m.gate.json").write_text(json.dumps(report))
    assert dispatch(["doctor", str(tmp_path / "m.xml"), "--rounds", "1"]) == 1
    said = capsys.readouterr().out
    assert "FAILED on 7 pictures of mine: openvino (OpenVINO 2.0) 91.23% of the pixels equal" in said
    assert "FAULT: The gate failed (openvino: too few)" in said
    (tmp_path / "m.gate.json").write_text(json.dumps({**report, "passed": True}))
    assert dispatch(["doctor", str(tmp_path / "m.xml"), "--rounds", "1", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["gate"]["pictures"] == 7
    assert content["facts"]["decided_by"] == "bank"
    assert len(content["latency"]) == 1


@pytest.mark.parametrize("key", ["lighting_channels", "illuminations"])
def test_lighting_channels_of_this_version_and_of_0_2_0_are_said(
    key: str, models: Path, tmp_path: Path, capsys: Any
) -> None:
    graph = read_model(models / "bank.xml")
    metadata = read_metadata(graph)
    metadata["file_format"] = {key: ["_ch0", "_ch1"], "bit_depth": 12, "planes": [1, 1]}
    graph.set_rt_info(json.dumps(metadata), METADATA_PATH)
    model = save_model(graph, tmp_path / "m.xml")
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        inferencer = SegmentationOpenVINOInferencer(model)
        assert inferencer.file_format == FileFormat(("_ch0", "_ch1"), 12, (1, 1))
    for name in ("u_ch0.png", "u_ch1.png"):
        (tmp_path / name).touch()
    assert [path.name for path in inferencer.file_format.files(tmp_path / "u_ch1.png")] == ["u_ch0.png", "u_ch1.png"]
    assert dispatch(["doctor", str(model), "--rounds", "1"]) == 0
    assert "3 planes (2 files: _ch0, _ch1), 12 bits" in capsys.readouterr().out


def test_the_gates_report_in_the_model_is_of_before_an_edit(models: Path, tmp_path: Path, capsys: Any) -> None:
    graph = read_model(models / "bank.xml")
    metadata = {**read_metadata(graph), "gate": {"version": 1, "passed": True, "pictures": 3, "source": "mine"}}
    graph.set_rt_info(json.dumps(metadata), METADATA_PATH)
    model = str(save_model(graph, tmp_path / "m.xml"))
    assert dispatch(["doctor", model, "--rounds", "1"]) == 0
    assert "passed on 3 pictures of mine\n" in capsys.readouterr().out
    assert dispatch(["bank", "remove", model, "--image", "0", "--in_place"]) == 0
    assert dispatch(["doctor", model, "--rounds", "1"]) == 0
    assert "gate        not run" in capsys.readouterr().out


def test_precisions_are_those_of_the_graph(models: Path) -> None:
    model = read_model(models / "bank.xml")
    assert (search_precision(model), weight_precision(model)) == ("f32", "32 bits")
    named = {name: port for node in model.get_ordered_ops() for port in node.outputs() for name in port.get_names()}
    queries = named["queries"]
    readers = list(queries.get_target_inputs())
    rounded = ops.convert(ops.convert(queries, "f16"), "f32")
    for reader in readers:
        reader.replace_source_output(rounded.output(0))
    assert search_precision(model) == "f16"
    assert search_precision(core().read_model(models / "head.xml")) == "f32"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.xml"], "no.xml: the model does not exist"),
        (["{head}", "--device", "TPU"], "device='TPU': OpenVINO has no such device"),
        (["{head}", "--rounds", "0"], "--rounds 0: at least 1"),
        (["{head}", "--image", "no.png"], "no.png"),
    ],
)
def test_what_cannot_be_looked_at_is_one_line(models: Path, capsys: Any, arguments: list[str], message: str) -> None:
    assert dispatch(["doctor", *(a.format(head=models / "head.xml") for a in arguments)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("planes", [None, (1,), (3,), (1, 1), (1, 1, 1)])
def test_noise_has_the_planes_of_the_models_pictures(planes: tuple[int, ...] | None) -> None:
    file_format = FileFormat(planes=planes)
    assert file_format.read_array(noise_picture(file_format, (16, 24), 3)).shape == (3, 16, 24)
