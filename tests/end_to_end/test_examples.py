# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The examples of deployment: other runtimes, a server, a watched folder, a frame of a camera; with a real export."""

import importlib.util
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from editable_models import bank_files
from test_export import NAMES, drawn_pictures

from anomalib_aoissl import AOISSLRetrieval
from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.reading import read_mask
from anomalib_aoissl.deployment.files.model_file import core
from anomalib_aoissl.plugin.export.options import exporting

openvino = pytest.importorskip("openvino")
pytestmark = pytest.mark.usefixtures("short_fits", "all_filters")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def example(name: str) -> ModuleType:
    """Return an example as a module."""
    spec: Any = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model(traced: Any) -> AOISSLRetrieval:
    return traced.model


@pytest.fixture(scope="module")
def exported(model: AOISSLRetrieval, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the files of all exports."""
    folder = tmp_path_factory.mktemp("export")
    with exporting("off", model_api=True):
        paths = {"openvino": model.to_openvino(folder), "onnx": model.to_onnx(folder), "torch": model.to_torch(folder)}
    return {**paths, "model_api": paths["openvino"].with_name("model_model_api.xml")}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Return a colour picture, 75x140 px."""
    pixels = (255 * drawn_pictures(1)[0]).byte().permute(1, 2, 0).numpy()
    cv2.imwrite(str(tmp_path / "unit.png"), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    return tmp_path / "unit.png"


def expected(model: AOISSLRetrieval, picture: Path) -> np.ndarray:
    """Return torch's class indices at the model's size."""
    pixels = cv2.cvtColor(cv2.imread(str(picture)), cv2.COLOR_BGR2RGB)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        return model(images).pred_mask[0, 0].numpy()


@pytest.mark.parametrize("runtime", ["openvino", "torch", "onnx", "model_api"])
def test_other_runtimes(
    model: AOISSLRetrieval,
    exported: dict[str, Path],
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runtime: str,
) -> None:
    if runtime in {"onnx", "model_api"}:
        package = {"onnx": "onnxruntime", "model_api": "model_api"}[runtime]
        pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.chdir(tmp_path)  # anomalib's inferencer makes a cache folder where it runs
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    mask = example("other_runtimes").RUNTIMES[runtime](str(exported[runtime]), str(picture))
    right = expected(model, picture)
    if runtime == "model_api":  # gives the picture's size
        right = cv2.resize(right, (140, 75), interpolation=cv2.INTER_NEAREST)
    assert mask.shape == right.shape
    assert (mask == right).mean() > 0.999


def test_the_model_api_file_needs_no_wrapper_to_be_right(
    model: AOISSLRetrieval, exported: dict[str, Path], picture: Path
) -> None:
    graph = core().read_model(exported["model_api"])
    information = {name: graph.get_rt_info(["model_info", name]).astype(str) for name in ("model_type", "labels")}
    assert information == {"model_type": "Segmentation", "labels": " ".join(NAMES)}
    scores = core().compile_model(graph, "CPU")(cv2.imread(str(picture))[np.newaxis])["segmentation"]
    assert scores.shape[:2] == (1, len(NAMES))
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    assert (scores[0].argmax(axis=0) == expected(model, picture)).mean() > 0.999


def test_the_model_api_file_of_a_vote(tmp_path: Path, picture: Path) -> None:
    model = torch.load(bank_files() / "model.pt", weights_only=False)
    with exporting("off", model_api=True):
        path = model.to_openvino(tmp_path).with_name("model_model_api.xml")
    scores = core().compile_model(path, "CPU")(cv2.imread(str(picture))[np.newaxis])["segmentation"]
    assert set(np.unique(scores)) == {0, 1}
    assert len(np.unique(expected(model, picture))) > 1
    assert (scores[0].argmax(axis=0) == expected(model, picture)).mean() > 0.999


def test_a_servers_folder(exported: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "serving", tmp_path / "models")
    version = tmp_path / "models" / "aoissl" / "1"
    for suffix in (".xml", ".bin"):
        shutil.copy(exported["openvino"].with_suffix(suffix), version)
    (entry,) = json.loads((tmp_path / "models" / "config.json").read_text())["model_config_list"]
    served = entry["config"]
    assert served["base_path"] == f"/models/{served['name']}"
    config = (tmp_path / "models" / served["name"] / "config.pbtxt").read_text()
    (file,) = re.findall(r'default_model_filename: "(.*)"', config)
    network = core().compile_model(version / file, served["target_device"], served["plugin_config"])
    types = {"TYPE_FP32": "f32", "TYPE_UINT8": "u8"}
    said = re.findall(r'name: "(\w+)" data_type: (\w+) dims: \[ ([-\d, ]+) \]', config)
    assert len(said) == 4
    for port, (name, kind, dims) in zip(
        [*network.inputs, *network.outputs], sorted(said, key=_order(network)), strict=True
    ):
        assert name in port.get_names()
        assert types[kind] == port.get_element_type().get_type_name()
        shape = port.get_partial_shape()
        assert len(shape) == len(dims.split(","))
        for size, text in zip(shape, dims.split(","), strict=True):
            assert int(text) in {-1, size.get_length() if size.is_static else -1}


def _order(network: Any) -> Any:
    names = [port.get_any_name() for port in [*network.inputs, *network.outputs]]
    return lambda entry: names.index(entry[0])


def test_a_watched_folder(
    exported: dict[str, Path], picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    module, incoming = example("watch_folder"), tmp_path / "incoming"
    incoming.mkdir()
    shutil.copy(picture, incoming)
    (incoming / "broken.png").write_bytes(b"nothing")
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    found = module.arrivals(incoming)
    assert [next(found).name, next(found).name] == ["broken.png", "unit.png"]
    monkeypatch.setattr(module, "arrivals", lambda folder: sorted(folder.iterdir()))
    module.main(exported["openvino"], incoming, tmp_path / "masks")
    output = capsys.readouterr()
    assert "broken.png" in output.err
    assert output.out.startswith("unit.png novelty ")
    assert read_mask(tmp_path / "masks" / "unit.png", num_classes=len(NAMES)).shape == (75, 140)


def test_a_watched_folder_waits_for_all_lighting_channels(tmp_path: Path, capsys: Any) -> None:
    """Files come one after the other, of two pictures in turn; one has a name of neither channel."""
    file_format = FileFormat(lighting_channels=("_ch0", "_ch1"))

    def coming() -> Iterator[Path]:
        for name in ("a_ch1.png", "b_ch0.png", "note.png", "a_ch0.png", "c_ch0.png", "b_ch1.png"):
            (tmp_path / name).touch()
            yield tmp_path / name
            seen.append(name)

    seen: list[str] = []
    found = [(path.name, len(seen)) for path in example("watch_folder").complete(coming(), file_format)]
    assert found == [("a_ch0.png", 3), ("b_ch0.png", 5)]
    (said,) = capsys.readouterr().err.splitlines()  # what waits is no error
    assert said.startswith(f"{tmp_path / 'note.png'}: ")
    assert said.endswith("This name ends with none of them.")


def test_files_that_are_there_but_still_written_are_waited_for(tmp_path: Path) -> None:
    """The other channel's file exists when the first one has arrived, and is whole only later."""
    for name in ("a_ch0.png", "a_ch1.png"):
        (tmp_path / name).touch()
    seen: list[Path] = []
    arrived = (seen.append(tmp_path / name) or tmp_path / name for name in ("a_ch0.png", "a_ch1.png"))
    file_format = FileFormat(lighting_channels=("_ch0", "_ch1"))
    assert next(example("watch_folder").complete(arrived, file_format)).name == "a_ch0.png"
    assert len(seen) == 2


def test_a_cameras_frame() -> None:
    pixels = np.random.default_rng(1).integers(0, 4096, (5, 7, 3)).astype("<u2")
    rows = [row.tobytes() + b"\xff" * 6 for row in pixels]  # each with padding
    frame = example("camera_frame").frame_of(b"".join(rows), 5, 7, 7 * 6 + 6)
    np.testing.assert_allclose(frame, pixels / 4095, rtol=1e-6)
    gray = example("camera_frame").frame_of(bytes(range(12)), 3, 3, 4, channels=1, bits=8)
    np.testing.assert_allclose(gray[..., 0] * 255, [[0, 1, 2], [4, 5, 6], [8, 9, 10]], rtol=1e-6)
