# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Two processes on the CPU (gloo) whose clocks differ: equal weights, and metrics of all images."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from anomalib.engine import Engine

from anomalib_aoissl import AOISSLSegmenter, SegmentationFolder

FIT = """
    import sys
    from pathlib import Path
    import torch
    torch.set_num_threads(1)
    from anomalib.engine import Engine
    from lightning.pytorch import Callback
    from lightning.pytorch.callbacks import Timer
    from anomalib_aoissl import AOISSLSegmenter, SegmentationFolder
    from anomalib_aoissl.pixel_head.learning import fitting, labelled, stages

    stages.STEPS, labelled.PIXELS, fitting.BATCH = 40, 3000, 256
    root, out = Path(sys.argv[1]), Path(sys.argv[2])

    class Clock(Callback):
        def on_train_batch_end(self, trainer, *_):
            timer = next(callback for callback in trainer.callbacks if isinstance(callback, Timer))
            timer._offset = (200 + 50 * trainer.global_rank) * trainer.global_step

    class Keep(Callback):
        def on_test_end(self, trainer, pl_module):
            found = {"weights": pl_module.model.state_dict(), "result": trainer.callback_metrics["mean_iou"],
                     "rates": [group["lr"] for group in self.groups]}
            torch.save(found, out / f"rank_{trainer.global_rank}.pt")
        def on_train_end(self, trainer, pl_module):
            self.groups = trainer.optimizers[0].param_groups

    shape = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    encoder = {"architecture": "vit_tiny_patch16_224", "model_args": shape}
    encoder["pretrained"], training = False, {"validations": 2}
    model = AOISSLSegmenter(encoder, image_size=(64, 96), training=training, visualizer=False)
    data = SegmentationFolder(root, num_workers=0, test_ratio=0.5, val_ratio=0.25, train_batch_size=1)
    engine = Engine(default_root_dir=out, accelerator="cpu", devices=2, strategy="ddp", max_time={"seconds": 1000},
                    callbacks=[Clock(), Keep()], enable_progress_bar=False, enable_model_summary=False, logger=False)
    engine.train(model, datamodule=data)
"""


def test_two_processes_stay_equal_and_measure_all_images(drawn_folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "fit.py"
    script.write_text(textwrap.dedent(FIT))
    package = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": package, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(drawn_folder), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"rank_{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["rates"] == second["rates"]
    assert first["weights"]["head.first_0"].any()
    assert first["weights"]["decoder.coarse_scores.weight"].any()
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name
    (checkpoint,) = tmp_path.rglob("model.ckpt")
    data = SegmentationFolder(drawn_folder, num_workers=0, test_ratio=0.5, val_ratio=0.25)
    engine = Engine(default_root_dir=tmp_path / "one", accelerator="cpu", logger=False, enable_progress_bar=False)
    model = AOISSLSegmenter(encoder={"pretrained": False}, visualizer=False)
    result = engine.test(model, datamodule=data, ckpt_path=checkpoint)[0]["mean_iou"]
    assert float(first["result"]) == float(second["result"]) == pytest.approx(result, abs=1e-6)
