# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The real ``anomalib`` command in an environment that holds the built wheel: train, predict, export, benchmark."""

import csv
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_aoissl.data.reading import read_mask

SIZES = '{"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}'
ENCODER = f'{{"architecture": "vit_tiny_patch16_224", "model_args": {SIZES}}}'
MODEL = ["--model", "AOISSLRetrieval"]
SMALL = ["--model.encoder", ENCODER, "--model.encoder.pretrained", "false", "--model.image_size", "[64,96]"]
DATA = ["--data", "WireBond", "--data.devices", "[sot23_copper,soic8_gold]", "--data.image_size", "[64,96]"]
CPU = ["--trainer.accelerator", "cpu"]
QUICK = (
    "import sys\n"
    "from anomalib_aoissl.pixel_head.learning import labelled, stages\n"
    "from anomalib.cli.cli import main\n"
    "stages.STEPS, labelled.PIXELS = 40, 3000\n"
    "sys.exit(main())\n"
)
"""What ``bin/anomalib`` does, with the short fits of the other tests."""


class Shell:
    """Runs the environment's commands in one folder, away from the checkout."""

    def __init__(self, environment: Path, variables: dict[str, str], folder: Path) -> None:
        self.bin, self.folder = environment / "bin", folder
        self.variables = {**variables, "COLUMNS": "300"}

    def __call__(self, *command: str) -> str:
        result = subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            cwd=self.folder,
            env=self.variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
        return result.stdout + result.stderr


@pytest.fixture(scope="module")
def shell(
    installed_environment: Path, clean_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Shell:
    return Shell(installed_environment, clean_environment, tmp_path_factory.mktemp("user"))


@pytest.fixture(scope="module")
def trained(shell: Shell) -> Path:
    """Return the run's folder after training by short names."""
    output = shell("python", "-c", QUICK, "train", *MODEL, *SMALL, *DATA, *CPU)
    assert "iou_wire" in output
    assert "mean_iou" in output
    return shell.folder / "results" / "AOISSLRetrieval" / "WireBond" / "v0"


def test_train_writes_masks_pictures_and_a_checkpoint(trained: Path, shell: Shell) -> None:
    masks = sorted((trained / "masks").rglob("*.png"))
    assert len(masks) == 6  # half of six units of two devices
    assert len(list((trained / "images").rglob("*.png"))) == 6
    data = next((shell.folder / "datasets" / "WireBond").iterdir())
    for path in masks:
        truth, written = read_mask(data / "masks" / path.name), read_mask(path, num_classes=5)
        assert written.shape == truth.shape == (64, 96)
        assert (written == truth).mean() > 0.5
    assert (trained / "weights" / "lightning" / "model.ckpt").is_file()


def test_predict_writes_masks_at_the_original_size(trained: Path, shell: Shell) -> None:
    data = next((shell.folder / "datasets" / "WireBond").iterdir())
    folder = shell.folder / "new"
    folder.mkdir()
    for channel in (0, 1):
        image = Image.open(data / "images" / f"sot23_copper_00_000_ch{channel}.png")
        image.resize((150, 100)).save(folder / f"unit_ch{channel}.png")
    checkpoint = str(trained / "weights" / "lightning" / "model.ckpt")
    shell("anomalib", "predict", *MODEL, "--data", str(folder), "--ckpt_path", checkpoint, *CPU)
    (mask,) = (shell.folder / "results").rglob("masks/unit.png")
    assert read_mask(mask, num_classes=5).shape == (100, 150)
    assert np.array(Image.open(mask.parent.parent / "images" / "unit.png")).size > 0


def test_export_runs_without_torch(trained: Path, shell: Shell) -> None:
    checkpoint = str(trained / "weights" / "lightning" / "model.ckpt")
    export = ["anomalib", "export", *MODEL, "--export_type", "openvino", "--ckpt_path", checkpoint]
    output = shell(*export, "--export_root", "line", "--gate", "1")
    ours = [line for line in output.splitlines() if "anomalib_aoissl" in line and "INFO" in line]
    assert 3 <= len(ours) <= 10
    assert "Gate passed" in ours[-2]
    assert "initializer" not in output
    folder = shell.folder / "line" / "weights" / "openvino"
    assert json.loads((folder / "model.gate.json").read_text())["passed"] is True
    assert "initializer" in (folder / "model.log").read_text()
    data = next((shell.folder / "datasets" / "WireBond").iterdir())
    script = (
        "import sys\n"
        "from anomalib_aoissl.deployment.inferencer import SegmentationOpenVINOInferencer\n"
        "inferencer = SegmentationOpenVINOInferencer('line/weights/openvino/model.xml')\n"
        f"result = inferencer.predict({str(data / 'images' / 'soic8_gold_00_000_ch0.png')!r})\n"
        "print(result.class_names, result.class_map.shape, sorted({'torch', 'anomalib'} & set(sys.modules)))\n"
    )
    output = shell("python", "-c", script)
    assert "('background', 'wire', 'ball', 'wedge', 'epoxy') (64, 96) []" in output


def test_benchmark_runs_ours_beside_anomalibs(shell: Shell) -> None:
    config = shell.folder / "benchmark.yaml"
    config.write_text(
        f"""
accelerator: [cpu]
benchmark:
  seed: 0
  model:
    class_path: AOISSLRetrieval
    init_args:
      encoder: {ENCODER[:-1]}, "pretrained": false}}
      image_size: [64, 96]
      head: null
      vote:
        k:
          grid: [1, 5]
  data:
    class_path: WireBond
    init_args:
      devices: [sot23_copper, soic8_gold]
      image_size: [64, 96]
"""
    )
    shell("anomalib", "benchmark", "--config", str(config))
    (results,) = (shell.folder / "runs").rglob("results.csv")
    rows = list(csv.DictReader(results.open()))
    (column,) = (name for name in rows[0] if name.endswith("init_args.vote.k"))
    assert [row[column] for row in rows] == ["1", "5"]
    assert all(0 < float(row["mean_iou"]) <= 1 for row in rows)
