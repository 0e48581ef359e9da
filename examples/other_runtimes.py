# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""One picture through an export without our inferencer: anomalib's two, ONNX Runtime, OpenVINO's Model API.

Usage: python examples/other_runtimes.py openvino exported/weights/openvino/model.xml picture.png
       (or: torch exported/weights/torch/model.pt, onnx exported/weights/onnx/model.onnx,
       model_api exported/weights/openvino/model_model_api.xml)

The masks of the first three have the model's size; the Model API's has the picture's.
"""

import os
import sys

import cv2
import numpy as np


def by_openvino(model: str, picture: str) -> np.ndarray:
    """Return class indices ``[h, w]`` of anomalib's OpenVINOInferencer.

    Its ``predict`` makes the mask true and false; the compiled model that it holds has the classes.
    """
    from anomalib.deploy import OpenVINOInferencer

    pixels = cv2.cvtColor(cv2.imread(picture), cv2.COLOR_BGR2RGB)
    inferencer = OpenVINOInferencer(model, device="CPU")
    print("foreground", inferencer.predict(pixels).pred_mask.mean())
    return class_indices(inferencer.model(inferencer.pre_process(pixels))["pred_mask"])


def by_torch(model: str, picture: str) -> np.ndarray:
    """Return class indices ``[h, w]`` of anomalib's TorchInferencer; a torch file may run code, so trust its source.

    Its ``predict`` makes the mask true and false; the model that it holds has the classes.
    """
    import torch
    from anomalib.deploy import TorchInferencer

    os.environ["TRUST_REMOTE_CODE"] = "1"
    pixels = cv2.cvtColor(cv2.imread(picture), cv2.COLOR_BGR2RGB)
    inferencer = TorchInferencer(model, device="cpu")
    print("foreground", inferencer.predict(pixels).pred_mask.float().mean().item())
    image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    with torch.no_grad():
        return class_indices(inferencer.model(inferencer.pre_process(image)).pred_mask)


def by_onnx(model: str, picture: str) -> np.ndarray:
    """Return class indices ``[h, w]`` of ONNX Runtime."""
    import onnxruntime

    pixels = cv2.cvtColor(cv2.imread(picture), cv2.COLOR_BGR2RGB)
    images = pixels.transpose(2, 0, 1)[np.newaxis].astype(np.float32) / 255
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return class_indices(session.run(["pred_mask"], {"input": images})[0])


def by_model_api(model: str, picture: str) -> np.ndarray:
    """Return class indices ``[H, W]`` of OpenVINO's Model API, which takes the picture as OpenCV reads it."""
    from model_api.models import SegmentationModel

    return np.asarray(SegmentationModel.create_model(model, device="CPU")(cv2.imread(picture)).resultImage)


def class_indices(mask: object) -> np.ndarray:
    """Return a mask ``[1, 1, h, w]`` as class indices ``[h, w]``."""
    return np.asarray(mask).squeeze().astype(np.uint8)


RUNTIMES = {"openvino": by_openvino, "torch": by_torch, "onnx": by_onnx, "model_api": by_model_api}


if __name__ == "__main__":
    found = RUNTIMES[sys.argv[1]](*sys.argv[2:4])
    print(found.shape, dict(zip(*np.unique(found, return_counts=True), strict=True)))
