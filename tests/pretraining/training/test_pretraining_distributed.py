# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Two processes on the CPU (gloo): equal weights, and centres of the global batch."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.pretraining.objectives.distillation import Center

FIT = """
    import sys
    from dataclasses import replace
    from pathlib import Path
    from types import SimpleNamespace
    import torch
    torch.set_num_threads(1)
    from lightning.pytorch import LightningDataModule, LightningModule, Trainer
    from torch import distributed
    from anomalib_aoissl.encoder.vit import PatchEncoder
    from anomalib_aoissl.pretraining import make_pretraining
    from anomalib_aoissl.pretraining.objectives.distillation import Center
    from anomalib_aoissl.pretraining.watching import watcher as watching

    # The probe is a real one, in the first process alone, but the last weights are kept whatever it says.
    probe, scores = watching.probe_mean_iou, iter((0.1, 0.9))
    watching.probe_mean_iou = lambda *args, **kwargs: replace(probe(*args, **kwargs), mean_iou=next(scores))

    objective, pictures, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    small = {"crops": {"size": 32}} if objective == "mae" else {
        "crops": {"global_size": 32, "local_size": 16, "local_count": 1},
        "head": {"outputs": 16, "hidden": 16, "bottleneck": 8}}

    class Data(LightningDataModule):
        unlabelled_dir = pictures
        train_data = [SimpleNamespace(image=i, gt_mask=(i[0] > 0.5).byte()) for i in torch.rand(4, 3, 48, 64)]
        def train_dataloader(self):
            return torch.utils.data.DataLoader([torch.zeros(1)] * 2)

    class Model(LightningModule):
        def __init__(self):
            super().__init__()
            arguments = {"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
            encoder = {"architecture": "vit_tiny_patch16_224", "model_args": arguments}
            self.model = torch.nn.Module()
            self.model.encoder = PatchEncoder(encoder, image_size=(48, 64), pretrained=False).requires_grad_(False)
            self.weight = torch.nn.Parameter(torch.zeros(1))
        def training_step(self, batch, index):
            vit = self.model.encoder.vit
            torch.save(vit.state_dict(), out / f"weights_{self.global_rank}.pt")
            return self.weight.sum()
        def configure_optimizers(self):
            return torch.optim.SGD([self.weight], lr=0.1)

    def center():
        rank, center = distributed.get_rank(), Center(6)
        for step in torch.load(out / "logits.pt"):
            # Shares of unequal size, accumulated in two parts; the second process has nothing in the last step.
            share = step[:7] if rank == 0 else step[7:]
            for part in share.split(3):
                center.add(part)
            center.update()
        torch.save(center.value, out / f"center_{rank}.pt")

    if __name__ == "__main__":
        callback = make_pretraining({"objective": objective, "max_epochs": 1, "batch_size": 1, "probe": {"every": 1},
                                     "cache_dir": out / "cache", **small})
        trainer = Trainer(accelerator="cpu", devices=2, strategy=sys.argv[4], max_epochs=1, callbacks=[callback],
                          logger=False, enable_checkpointing=False, enable_progress_bar=False, default_root_dir=out)
        trainer.fit(Model(), datamodule=Data())
        center()  # Lightning's two processes and their group are still there
"""


def _environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[3])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of what two processes wrote: weights, a measurement, and centres of logits that lie there."""
    pictures, out = tmp_path_factory.mktemp("pictures"), tmp_path_factory.mktemp("out")
    random = np.random.default_rng(0)
    for index in range(6):
        Image.fromarray(random.integers(0, 256, (60, 70, 3), dtype=np.uint8)).save(pictures / f"unit_{index}.png")
    generator = torch.Generator().manual_seed(0)
    torch.save([torch.randn(count, 6, generator=generator) for count in (10, 8, 7)], out / "logits.pt")
    script = out / "fit.py"
    script.write_text(textwrap.dedent(FIT))
    command = [sys.executable, str(script), "ibot", str(pictures), str(out), "ddp"]
    result = subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return out


def test_the_center_of_two_processes_is_that_of_one_on_the_same_batch(out: Path) -> None:
    single = Center(6)
    for step in torch.load(out / "logits.pt"):
        single.add(step)
        single.update()
    for rank in (0, 1):
        torch.testing.assert_close(torch.load(out / f"center_{rank}.pt"), single.value)


def test_ranks_end_with_equal_weights(out: Path, make_encoder: Callable[..., PatchEncoder]) -> None:
    first, second = (torch.load(out / f"weights_{rank}.pt") for rank in (0, 1))
    start = make_encoder().vit.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], start[name]) for name in first)
    (record,) = (out / "cache").glob("*/pretraining.json")
    assert [measure["mean_iou"] for measure in json.loads(record.read_text())["measures"]] == [0.1, 0.9]
