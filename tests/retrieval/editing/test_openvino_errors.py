# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What an exported model cannot learn, and models that are damaged."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from editable_models import CLASSES, ENCODER, SIZE, bank_file, labelled

from anomalib_aoissl import AOISSLRetrieval
from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.deployment.files.model_file import core
from anomalib_aoissl.deployment.graph.bank import NotEditableError, bank_of, with_bank
from anomalib_aoissl.deployment.inferencer import SegmentationOpenVINOInferencer

openvino = pytest.importorskip("openvino")


def test_a_bank_of_another_encoder_raises(inferencer: SegmentationOpenVINOInferencer, tmp_path: Path) -> None:
    other = AOISSLRetrieval(encoder={**ENCODER, "pretrained": False}, image_size=SIZE, head=None)
    torch.nn.init.normal_(other.model.encoder.vit.patch_embed.proj.weight)
    other.set_dataset(CLASSES, FileFormat())
    other.add(*labelled(1, seed=1), ["old"])  # type: ignore[call-arg] # images and masks
    with pytest.raises(ValueError, match=r"was filled with the encoder [0-9a-f]{12}, this model's is [0-9a-f]{12}"):
        inferencer.replace_bank(bank_file(other, tmp_path))


def test_input_that_cannot_be_learnt(inferencer: SegmentationOpenVINOInferencer, tmp_path: Path) -> None:
    image, mask = np.zeros((40, 70, 3), np.uint8), np.zeros((40, 70), np.uint8)
    cases: list[tuple[Any, Any, str]] = [
        (image, mask[:30], r"The image has \(40, 70\) px \(height, width\), its mask \(30, 70\)"),
        (image, mask + 3, "the index 3, which has no name"),
        (image, mask + 255, "every pixel of the mask is ignored"),
        (image, mask / 2, r"integers \(class indices\), got float64"),
        (image[..., :0], mask, "must have the shape"),
    ]
    for picture, labels, message in cases:
        with pytest.raises(ValueError, match=message):
            inferencer.adapt(picture, labels, device="new")
    with pytest.raises(ValueError, match=r"has the image '1-0' already: remove\(image='1-0'\) first"):
        inferencer.adapt(image, mask, device="new", name="1-0")
    with pytest.raises(DatasetError, match=r"mask\.png: the file does not exist"):
        inferencer.adapt(image, tmp_path / "mask.png", device="new")
    with pytest.raises(ValueError, match=r"no device 'x'. It has \['old'\]"):
        inferencer.remove(device="x")
    with pytest.raises(ValueError, match="would leave an empty bank"):
        inferencer.remove(device="old")
    with pytest.raises(ValueError, match="Say what to remove"):
        inferencer.remove()
    with pytest.raises(ValueError, match=r"give a path that ends with \.xml"):
        inferencer.save(tmp_path / "model.onnx")


def test_models_without_a_bank_or_damaged(xml: Path, tmp_path: Path) -> None:
    graph = core().read_model(xml)
    metadata = json.loads(graph.get_rt_info(["framework", "aoissl"]).astype(str))
    path = tmp_path / "model.xml"
    for bank, message in (
        (None, "no memory bank that can be edited"),
        ({**metadata["bank"], "positions": "AAAA"}, "description of its bank is damaged"),
        ({**metadata["bank"], "device_names": []}, "damaged .device_ids up to 0, but 0 names"),
    ):
        graph.set_rt_info(json.dumps({**metadata, "bank": bank}), ["framework", "aoissl"])
        openvino.serialize(graph, path, path.with_suffix(".bin"))
        with pytest.raises(NotEditableError, match=message):
            _ = SegmentationOpenVINOInferencer(path).bank
    path.with_suffix(".bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.bin: the weights of model\.xml are not there"):
        SegmentationOpenVINOInferencer(path)
    path.with_suffix(".bin").write_bytes(b"")
    path.write_text("no model")
    with pytest.raises(ValueError, match=r"model\.xml: cannot be read as a model"):
        SegmentationOpenVINOInferencer(path)


@pytest.mark.parametrize(("exported", "name"), [("xml", "similarities"), ("head_xml", "fine_features")])
def test_a_graph_without_marks_raises(exported: str, name: str, request: pytest.FixtureRequest) -> None:
    graph = core().read_model(request.getfixturevalue(exported))
    bank = bank_of(graph)
    for node in graph.get_ops():
        for output in node.outputs():
            output.set_names(output.get_names() - {name})
    with pytest.raises(NotEditableError, match=rf"no tensor named \['{name}'\]"):
        with_bank(graph, bank)


def test_models_of_the_first_version_predict_and_are_not_edited(xml: Path, tmp_path: Path) -> None:
    graph = core().read_model(xml)
    metadata = json.loads(graph.get_rt_info(["framework", "aoissl"]).astype(str))
    del metadata["bank"]["version"]
    graph.set_rt_info(json.dumps(metadata), ["framework", "aoissl"])
    openvino.serialize(graph, tmp_path / "old.xml", tmp_path / "old.bin")
    inferencer = SegmentationOpenVINOInferencer(tmp_path / "old.xml")
    assert inferencer.predict(np.zeros((40, 70, 3), np.uint8)).class_map.shape == (40, 70)
    with pytest.raises(NotEditableError, match=r"exported by version 0\.1\.0.* Train again"):
        inferencer.remove(image="1-0")
