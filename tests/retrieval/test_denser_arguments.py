# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Class rules, patch grids, whole images and removed positions in anomalib's engine, checkpoints and exports."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.engine import Engine

from anomalib_aoissl import AOISSLRetrieval, SegmentationFolder
from anomalib_aoissl.retrieval.openvino_file import core

SIZE = (64, 96)
NAMES = ["background", "wire", "ball", "wedge", "epoxy"]
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
RULES = {"class_temperatures": {"wire": 0.05}, "class_thresholds": {"background": 0.6, "wire": 0.3}}
COMBINATIONS = {
    "grids": {**RULES, "query_shifts": 4, "bank_shifts": 2, "position_directions": 3},
    "averages": {"query_shifts": 2, "labels": "average", "bank_size": 60, "context": 0.6},
    "class_tokens": {**RULES, "retrieval": "class_tokens"},
}


def make_model(tiny_encoder: dict, **arguments: Any) -> AOISSLRetrieval:
    return AOISSLRetrieval(
        **{"encoder": tiny_encoder, "pretrained": False, "image_size": SIZE, "visualizer": False, **arguments}
    )


@pytest.mark.parametrize("arguments", COMBINATIONS.values(), ids=COMBINATIONS)
def test_the_exported_graph_gives_the_same_masks(tiny_encoder: dict, tmp_path: Path, arguments: dict) -> None:
    pytest.importorskip("openvino")
    model = make_model(tiny_encoder, image_size=(32, 48), k=7, **arguments).eval()
    masks = torch.randint(0, 3, (3, 32, 48)).to(torch.uint8)
    model.model.fill(torch.rand(3, 3, 32, 48), masks, ["a"] * 3, [f"image{i}" for i in range(3)])
    model.set_dataset(NAMES[:3], model.file_format)
    model.fit()
    compiled = core().compile_model(model.to_onnx(tmp_path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert {next(iter(output.names)) for output in compiled.outputs} == {"pred_mask", "anomaly_map", "pred_score"}
    for batch in (1, 3):
        images = torch.rand(batch, 3, 40, 60)
        expected, outputs = model(images), compiled(images.numpy())
        assert outputs["pred_mask"].shape == (batch, 1, 32, 48)
        assert (outputs["pred_mask"] == expected.pred_mask.numpy()).mean() > 0.995
        np.testing.assert_allclose(outputs["anomaly_map"], expected.anomaly_map.numpy(), atol=1e-5)
        np.testing.assert_allclose(outputs["pred_score"], expected.pred_score.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [{**RULES, "bank_shifts": 2, "query_shifts": 2, "position_directions": 3, "context": 0.6}, {"retrieval": "images"}],
    ids=["patches", "images"],
)
def test_checkpoints_are_plain_data_and_give_the_same_model(
    tiny_encoder: dict, drawn_folder: Path, tmp_path: Path, arguments: dict
) -> None:
    model = make_model(tiny_encoder, **arguments)
    data = SegmentationFolder(drawn_folder, num_workers=0, test_ratio=0.25, val_ratio=0.25)
    engine = Engine(default_root_dir=tmp_path, **QUIET)
    engine.train(model, datamodule=data)
    checkpoint = Path(engine.best_model_path)
    assert torch.load(checkpoint, weights_only=True)["state_dict"]["model.bank.labels"].dtype == torch.uint8
    images = torch.rand(2, 3, 70, 90)
    expected = model.eval()(images)
    loaded = AOISSLRetrieval.load_from_checkpoint(checkpoint).eval()
    adopted = AOISSLRetrieval(query_shifts=1)  # the defaults: the checkpoint's arguments are taken
    adopted.on_load_checkpoint(content := torch.load(checkpoint, weights_only=True))
    adopted.load_state_dict(content["state_dict"])
    for other in (loaded, adopted.eval()):
        assert torch.equal(other(images).pred_mask, expected.pred_mask)
        torch.testing.assert_close(other(images).anomaly_map, expected.anomaly_map)


def test_what_embeddings_depend_on_cannot_be_changed_at_a_checkpoint(tiny_encoder: dict) -> None:
    model = make_model(tiny_encoder, position_directions=2)
    checkpoint: dict[str, Any] = {"hyper_parameters": dict(model.hparams), "state_dict": model.state_dict()}
    model.on_save_checkpoint(checkpoint)
    with pytest.raises(ValueError, match=r"saved with position_directions=2, but --model.position_directions says 3"):
        AOISSLRetrieval(position_directions=3).on_load_checkpoint(checkpoint)


def test_rules_for_other_classes_are_refused_before_the_bank_is_filled(
    tiny_encoder: dict, drawn_folder: Path, tmp_path: Path
) -> None:
    model = make_model(tiny_encoder, class_thresholds={"glue": 0.5})
    data = SegmentationFolder(drawn_folder, num_workers=0, test_ratio=0.25, val_ratio=0.25)
    with pytest.raises(ValueError, match=r"class_thresholds names the classes \['glue'\]"):
        Engine(default_root_dir=tmp_path, **QUIET).fit(model, datamodule=data)
    assert not len(model.model.bank)
    assert not model.model.bank.pending_rows
