# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Two processes on the CPU (gloo) fill the bank that one process fills, of unequal shares and doubled images."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib.engine import Engine

from anomalib_aoissl import AOISSLRetrieval, SegmentationFolder
from anomalib_aoissl.retrieval.memory.memory_bank import MemoryBank

pytestmark = pytest.mark.usefixtures("all_filters")  # which the two processes have

SCRIPT = """
    import sys
    import torch
    torch.set_num_threads(1)
    from anomalib.engine import Engine
    from lightning.pytorch import Callback
    from torch import distributed
    from anomalib_aoissl import AOISSLRetrieval, SegmentationFolder
    from anomalib_aoissl.pixel_head.learning import labelled, stages
    from anomalib_aoissl.retrieval.memory.memory_bank import MemoryBank

    stages.STEPS, labelled.PIXELS = 40, 3000
    root, out = sys.argv[1:]

    class Keep(Callback):
        def __init__(self, name):
            self.name = name
        def on_train_end(self, trainer, pl_module):
            torch.save(pl_module.model.bank.state_dict(), f"{out}/{self.name}_rank_{trainer.global_rank}.pt")
            head = pl_module.model.head
            if head is not None:
                torch.save(head.state_dict(), f"{out}/{self.name}_head_{trainer.global_rank}.pt")
            torch.save(pl_module.model.abstention.pixels, f"{out}/{self.name}_pixels_{trainer.global_rank}.pt")

    def train(name, val_ratio, head):
        shape = {"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
        encoder = {"architecture": "vit_tiny_patch16_224", "model_args": shape}
        torch.manual_seed(0)
        arguments = {"bank": {"size": None}, "abstain": 0.1, "visualizer": False, "head": head}
        model = AOISSLRetrieval({**encoder, "pretrained": False}, image_size=(64, 96), **arguments)
        split = {"train_devices": ["sot23_copper"], "test_devices": ["soic8_gold"], "val_ratio": val_ratio}
        data = SegmentationFolder(root, num_workers=0, train_batch_size=2, **split)
        engine = Engine(default_root_dir=f"{out}/{name}", accelerator="cpu", devices=2, strategy="ddp", logger=False,
                        callbacks=[Keep(name)], enable_progress_bar=False, enable_model_summary=False)
        engine.train(model, datamodule=data)

    def fill(name, options, shares):
        bank, rank = MemoryBank(16, (4, 4), **options), distributed.get_rank()
        for i in shares[rank]:
            bank.add(content["embeddings"][i : i + 1], content["masks"][i : i + 1], [f"d{i % 2}"], [f"image{i}"])
        bank.gather()
        bank.finish()
        torch.save(bank.state_dict(), f"{out}/{name}_{rank}.pt")

    train("validated", 0.25, "pixel")  # three images to train on
    train("calibrated", 0.0, None)  # four
    content = torch.load(f"{out}/images.pt")  # Lightning's processes and their group are still there
    for case in torch.load(f"{out}/cases.pt"):
        fill(*case)
"""

CASES = [
    ("whole", {}, [[5, 0, 3], [4, 2, 1, 5]]),  # image 5 fills up both shares
    ("alone", {}, [[3, 1, 2, 0, 5, 4], []]),
    ("condensed", {"budget": 40}, [[5, 0, 3], [4, 2, 1]]),
]


@pytest.fixture(scope="module")
def filled(drawn_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of what two processes trained and filled."""
    folder = tmp_path_factory.mktemp("filled")
    generator = torch.Generator().manual_seed(2)
    masks = torch.randint(0, 3, (6, 16, 16), generator=generator).to(torch.uint8)
    masks[4] = 255  # an image without any label
    torch.save({"embeddings": torch.randn(6, 16, 16, generator=generator), "masks": masks}, folder / "images.pt")
    torch.save(CASES, folder / "cases.pt")
    (folder / "script.py").write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", str(folder / "script.py"), str(drawn_folder), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    return folder


@pytest.mark.parametrize("case", range(len(CASES)))
def test_two_processes_fill_the_bank_of_one(filled: Path, case: int) -> None:
    name, options, _ = CASES[case]
    content, bank = torch.load(filled / "images.pt"), MemoryBank(16, (4, 4), **options)
    for i in (2, 0, 5, 1, 4, 3):
        bank.add(content["embeddings"][i : i + 1], content["masks"][i : i + 1], [f"d{i % 2}"], [f"image{i}"])
    bank.gather()
    bank.finish()
    assert len(bank) == options.get("budget", 80)
    for rank in (0, 1):
        state = torch.load(filled / f"{name}_{rank}.pt")
        assert state.pop("_extra_state") == bank.get_extra_state()
        for key, tensor in bank.named_buffers():
            assert torch.equal(state[key], tensor), key


def test_gathering_keeps_the_names_and_entries_that_the_bank_had() -> None:
    bank = MemoryBank(4, (2, 2))
    embeddings, masks = torch.randn(3, 4, 4), torch.zeros(3, 4, 4, dtype=torch.uint8)
    bank.add(embeddings[:1], masks[:1], ["z"], ["z0"])
    bank.finish()
    before = bank.embeddings.clone()
    bank.add(embeddings[1:], masks[1:], ["b", "a"], ["b0", "a0"])
    bank.gather()
    bank.finish()
    assert (bank.device_names, bank.image_names) == (["z", "a", "b"], ["z0", "a0", "b0"])
    assert torch.equal(bank.embeddings[:4], before)
    expected = torch.nn.functional.normalize(embeddings[[2, 1]], dim=-1).flatten(0, 1)
    torch.testing.assert_close(bank.embeddings[4:], expected)
    bank.undo()
    assert bank.image_names == ["z0"]


def test_gathering_nothing_leaves_the_bank_as_it_is() -> None:
    bank = MemoryBank(4, (2, 2))
    bank.gather()
    bank.finish()
    assert len(bank) == 0
    with pytest.raises(RuntimeError, match="no edit of the bank"):
        bank.undo()


def fitted_alone(drawn_folder: Path, folder: Path, head: str | None, **data: Any) -> AOISSLRetrieval:
    """Return the model of one process, this one."""
    torch.manual_seed(0)
    arguments = {"bank": {"size": None}, "abstain": 0.1, "visualizer": False, "head": head}
    shape = {"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    encoder = {"architecture": "vit_tiny_patch16_224", "model_args": shape}
    model = AOISSLRetrieval({**encoder, "pretrained": False}, image_size=(64, 96), **arguments)
    split = {"train_devices": ["sot23_copper"], "test_devices": ["soic8_gold"], **data}
    engine = Engine(default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False)
    engine.fit(model, datamodule=SegmentationFolder(drawn_folder, num_workers=0, **split))
    return model


def test_training_on_two_processes_gives_the_bank_of_one(drawn_folder: Path, filled: Path, tmp_path: Path) -> None:
    model = fitted_alone(drawn_folder, tmp_path, "pixel", val_ratio=0.25, train_batch_size=2)
    alone = model.model.bank.state_dict()
    first, second = (torch.load(filled / f"validated_rank_{rank}.pt") for rank in (0, 1))
    assert alone["_extra_state"]["image_names"] == first["_extra_state"]["image_names"]
    assert len(alone["_extra_state"]["image_names"]) == 3  # one image fills up the second share
    for name, tensor in alone.items():
        if name != "_extra_state":
            assert torch.equal(first[name], second[name])
            torch.testing.assert_close(first[name], tensor)
    pixels = [torch.load(filled / f"validated_pixels_{rank}.pt") for rank in (0, 1)]
    expected = model.model.abstention.pixels
    assert int(expected.sum()) == 64 * 96  # one validation image, which each of two processes sees
    assert torch.equal(pixels[0], pixels[1])
    assert torch.equal(pixels[0], 2 * expected)
    heads = [torch.load(filled / f"validated_head_{rank}.pt") for rank in (0, 1)]
    assert len(heads[0]["first_0"])
    assert all(torch.equal(tensor, heads[1][name]) for name, tensor in heads[0].items())
    (checkpoint,) = (filled / "validated").rglob("model.ckpt")
    model, data = (
        AOISSLRetrieval(encoder={"pretrained": False}, visualizer=False),
        SegmentationFolder(drawn_folder, num_workers=0),
    )
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_progress_bar=False)
    assert engine.test(model, datamodule=data, ckpt_path=checkpoint)[0]["mean_iou"] > 0


def test_two_processes_calibrate_on_the_labelled_images_as_one(
    drawn_folder: Path, filled: Path, tmp_path: Path
) -> None:
    alone = fitted_alone(drawn_folder, tmp_path, None, val_ratio=0.0).model.abstention.pixels
    assert int(alone.sum()) == 4 * 64 * 96
    for rank in (0, 1):
        assert torch.equal(torch.load(filled / f"calibrated_pixels_{rank}.pt"), alone)
