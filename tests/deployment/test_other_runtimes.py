# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What others load an export with, in an environment that has it: OpenVINO's Model API and ONNX Runtime."""

from pathlib import Path

import cv2
import numpy as np
import pytest


def test_the_model_api_s_own_class_gives_torch_s_masks(models: Path, arrays: dict[str, np.ndarray]) -> None:
    wrappers = pytest.importorskip("model_api.models", reason="openvino-model-api is not installed")
    model = wrappers.SegmentationModel.create_model(str(models / "head_model_api.xml"), device="CPU")
    for picture, right in zip(arrays["pictures"], arrays["head_mask"][:, 0], strict=True):
        found = np.asarray(model(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)).resultImage)
        height, width = picture.shape[:2]
        right = cv2.resize(right, (width, height), interpolation=cv2.INTER_NEAREST)  # noqa: PLW2901 - its own size
        assert (found == right).mean() > 0.999
    assert [model.get_label_name(index) for index in range(3)] == ["background", "wire", "ball"]


def test_onnx_runtime_gives_torch_s_masks(models: Path, arrays: dict[str, np.ndarray]) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    session = runtime.InferenceSession(str(models / "head.onnx"), providers=["CPUExecutionProvider"])
    images = arrays["pictures"].transpose(0, 3, 1, 2).astype(np.float32) / 255
    found, novelty = session.run(["pred_mask", "anomaly_map"], {session.get_inputs()[0].name: images})
    assert (found == arrays["head_mask"]).mean() > 0.999
    np.testing.assert_allclose(novelty, arrays["head_novelty"], atol=1e-5)
