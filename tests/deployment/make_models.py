# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Small exported models and what torch says of them, written where torch is, for the tests that go without.

Usage: python tests/deployment/make_models.py <folder>
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

CLASSES = ["background", "wire", "ball"]
SIZE, PICTURE = (32, 48), (40, 70)


def write_models(folder: Path) -> Path:
    """Write the models and what they are compared with, and return the folder.

    ``head.xml``, ``bank.xml``, and ``tiled.xml``, whose tiles have the size of the others; the first one as
    ``head.onnx`` and ``head_model_api.xml`` too. ``arrays.npz`` has four pictures ``[N, 40, 70, 3]`` uint8, their
    masks, and torch's answers: of the models, and of the one whose bank decides once it has learnt the last picture
    too. ``explained.json`` is torch's explanation.
    """
    import numpy as np
    import torch

    from anomalib_aoissl import exporting
    from anomalib_aoissl.data.quality.picture_quality import LabelledQuality
    from anomalib_aoissl.pixel_head import filters
    from anomalib_aoissl.pixel_head.learning import labelled, stages

    torch.manual_seed(0)
    stages.STEPS, labelled.PIXELS = 40, 3000  # what the head can is not what the tests are about
    filters.FINE_SIGMAS, filters.COARSE_SIGMAS = (1.0,), (10.0,)  # whose tracing takes most of an export's time
    pictures, masks = drawn(4)
    head, bank, taught = (
        _model(pictures[:n], masks[:n], **a) for n, a in ((3, {}), (3, {"head": None}), (4, {"head": None}))
    )
    _abstaining(head)
    head.labelled_quality = LabelledQuality.of(((str(i), pictures[i].numpy()) for i in range(3)), SIZE)
    arrays: dict[str, Any] = {"pictures": _as_camera(pictures), "masks": masks.numpy()}
    for name, model in (("head", head), ("bank", bank), ("taught", taught)):
        with torch.no_grad():
            answer, share = model.model.answer(model.pre_processor(pictures))
            arrays[f"{name}_mask"], arrays[f"{name}_novelty"] = answer.pred_mask.numpy(), answer.anomaly_map.numpy()
            arrays[f"{name}_uncertainty"] = model.model.uncertainty(answer, share).numpy()
    tiled = _model(pictures[:3], masks[:3], tiling={"size": SIZE, "overlap": 8})
    with torch.no_grad():
        arrays["tiled_mask"] = tiled(pictures).pred_mask.numpy()
    with exporting("off", model_api=True):  # the tests compare
        head.to_openvino(folder / "export", model_file_name="head")
        head.to_onnx(folder / "export", model_file_name="head")
    with exporting("off"):
        for name, model in (("bank", bank), ("tiled", tiled)):
            model.to_openvino(folder / "export", model_file_name=name)
    for file in (folder / "export").rglob("*.*"):
        shutil.move(file, folder / file.name)
    (folder / "explained.json").write_text(json.dumps({"region": _explained(head, pictures[3])}))
    np.savez(folder / "arrays.npz", **arrays)
    return folder


def drawn(number: int, seed: int = 7) -> tuple[Any, Any]:
    """Return pictures ``[N, 3, 40, 70]`` of 8 bits with coarse structure and masks that follow their brightness."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    coarse = torch.nn.functional.interpolate(torch.rand(number, 3, 5, 7, generator=generator), size=PICTURE)
    noise = torch.rand(number, 3, *PICTURE, generator=generator)
    pictures = (255 * (0.8 * coarse + 0.2 * noise)).round() / 255
    masks = (coarse.mean(dim=1) * 3).clamp(max=2).to(torch.uint8)
    masks[:, :6, :9] = 255
    return pictures, masks


def _model(pictures: Any, masks: Any, **arguments: Any) -> Any:
    """Return a model that has learnt the pictures as those of the device "old", named "0", "1" and so on."""
    from anomalib_aoissl import AOISSLRetrieval
    from anomalib_aoissl.data.describing.file_format import FileFormat

    sizes = {"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    encoder = {"architecture": "vit_tiny_patch16_224", "model_args": sizes, "pretrained": False}
    import torch

    torch.manual_seed(3)  # the same random encoder each time
    model: Any = AOISSLRetrieval(encoder=encoder, image_size=SIZE, abstain=0.1, **arguments).eval()
    model.set_dataset(CLASSES, FileFormat())
    model.add(pictures, masks, ["old"] * len(pictures), [str(index) for index in range(len(pictures))])
    return model


def _abstaining(model: Any) -> None:
    """Give the model a calibration, hence a threshold."""
    import torch

    model.model.abstention.add(torch.linspace(0, 1, 1000))


def _explained(model: Any, picture: Any) -> dict[str, Any]:
    """Return torch's explanation of a region, whose pixels are those of rows 8 to 20 and columns 10 to 30."""
    import torch

    from anomalib_aoissl.retrieval.asking.explaining import explain_region

    region = torch.zeros(SIZE, dtype=torch.bool)
    region[8:20, 10:30] = True
    return explain_region(model.model, model.pre_processor(picture[None])[0], region)[0].to_dict()


def _as_camera(pictures: Any) -> Any:
    """Return pictures ``[N, 3, H, W]`` in [0, 1] as ``[N, H, W, 3]`` uint8."""
    return (255 * pictures).round().byte().permute(0, 2, 3, 1).numpy()


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    write_models(target)
