# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Two processes on the CPU (gloo) fill the bank that one process fills, of unequal shares and doubled images."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from anomalib.engine import Engine

from anomalib_aoissl import AOISSLRetrieval, SegmentationFolder
from anomalib_aoissl.retrieval.memory.memory_bank import MemoryBank

FILL = """
    import sys
    import torch
    from torch import distributed
    from anomalib_aoissl.retrieval.memory.memory_bank import MemoryBank

    rank, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    content = torch.load(f"{out}/images.pt")
    for case, options, shares in torch.load(f"{out}/cases.pt"):
        bank = MemoryBank(16, (4, 4), **options)
        for i in shares[rank]:
            bank.add(content["embeddings"][i : i + 1], content["masks"][i : i + 1], [f"d{i % 2}"], [f"image{i}"])
        bank.gather()
        bank.finish()
        torch.save(bank.state_dict(), f"{out}/{case}_{rank}.pt")
    distributed.destroy_process_group()
"""

FIT = """
    import sys
    from pathlib import Path
    import torch
    torch.set_num_threads(1)
    from anomalib.engine import Engine
    from lightning.pytorch import Callback
    from anomalib_aoissl import AOISSLRetrieval, SegmentationFolder
    from anomalib_aoissl.pixel_head.learning import labelled, stages

    stages.STEPS, labelled.PIXELS = 40, 3000

    class Keep(Callback):
        def on_train_end(self, trainer, pl_module):
            torch.save(pl_module.model.bank.state_dict(), f"{sys.argv[2]}/rank_{trainer.global_rank}.pt")
            head = pl_module.model.head
            if head is not None:
                torch.save(head.state_dict(), f"{sys.argv[2]}/head_{trainer.global_rank}.pt")
            torch.save(pl_module.model.abstention.pixels, f"{sys.argv[2]}/pixels_{trainer.global_rank}.pt")

    shape = {"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    encoder = {"architecture": "vit_tiny_patch16_224", "model_args": shape}
    torch.manual_seed(0)
    arguments = {"bank": {"size": None}, "abstain": 0.1, "visualizer": False, "head": sys.argv[5] or None}
    model = AOISSLRetrieval({**encoder, "pretrained": False}, image_size=(64, 96), **arguments)
    split = {"train_devices": ["sot23_copper"], "test_devices": ["soic8_gold"], "val_ratio": float(sys.argv[4])}
    data = SegmentationFolder(sys.argv[1], num_workers=0, train_batch_size=2, **split)
    devices = int(sys.argv[3])
    engine = Engine(default_root_dir=sys.argv[2], accelerator="cpu", devices=devices, callbacks=[Keep()], logger=False,
                    strategy="ddp" if devices > 1 else "auto", enable_progress_bar=False, enable_model_summary=False)
    engine.train(model, datamodule=data)
"""

CASES = [
    ("whole", {}, [[5, 0, 3], [4, 2, 1, 5]]),  # image 5 fills up both shares
    ("alone", {}, [[3, 1, 2, 0, 5, 4], []]),
    ("condensed", {"budget": 40}, [[5, 0, 3], [4, 2, 1]]),
]


def run(script: str, folder: Path, *arguments: object, processes: int = 1) -> None:
    """Run a script, once or with each rank as its first argument."""
    path = folder / "script.py"
    path.write_text(textwrap.dedent(script))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"}
    ranks = [[str(rank)] for rank in range(processes)] if processes > 1 else [[]]
    commands = [[sys.executable, "-W", "ignore", str(path), *rank, *map(str, arguments)] for rank in ranks]
    running = [subprocess.Popen(c, env=environment, stderr=subprocess.PIPE, text=True) for c in commands]
    errors = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0] * len(running), errors[0][-3000:] + errors[-1][-3000:]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    generator = torch.Generator().manual_seed(2)
    masks = torch.randint(0, 3, (6, 16, 16), generator=generator).to(torch.uint8)
    masks[4] = 255  # an image without any label
    torch.save({"embeddings": torch.randn(6, 16, 16, generator=generator), "masks": masks}, folder / "images.pt")
    torch.save(CASES, folder / "cases.pt")
    run(FILL, folder, folder / "store", folder, processes=2)
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


def test_training_on_two_processes_gives_the_bank_of_one(drawn_folder: Path, tmp_path: Path) -> None:
    banks, pixels = [], []
    for devices in (2, 1):
        folder = tmp_path / f"devices_{devices}"
        folder.mkdir()
        run(FIT, folder, drawn_folder, folder, devices, 0.25, "pixel")  # three images to train on
        banks += [torch.load(path) for path in sorted(folder.glob("rank_*.pt"))]
        pixels += [torch.load(path) for path in sorted(folder.glob("pixels_*.pt"))]
    first, second, alone = banks
    assert alone["_extra_state"]["image_names"] == first["_extra_state"]["image_names"]
    assert len(alone["_extra_state"]["image_names"]) == 3  # one image fills up the second share
    for name, tensor in alone.items():
        if name != "_extra_state":
            assert torch.equal(first[name], second[name])
            torch.testing.assert_close(first[name], tensor)
    assert int(pixels[2].sum()) == 64 * 96  # one validation image, which each of two processes sees
    assert torch.equal(pixels[0], pixels[1])
    assert torch.equal(pixels[0], 2 * pixels[2])
    heads = [torch.load(tmp_path / "devices_2" / f"head_{rank}.pt") for rank in (0, 1)]
    assert len(heads[0]["first_0"])
    assert all(torch.equal(tensor, heads[1][name]) for name, tensor in heads[0].items())
    (checkpoint,) = (tmp_path / "devices_2").rglob("model.ckpt")
    model, data = (
        AOISSLRetrieval(encoder={"pretrained": False}, visualizer=False),
        SegmentationFolder(drawn_folder, num_workers=0),
    )
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_progress_bar=False)
    assert engine.test(model, datamodule=data, ckpt_path=checkpoint)[0]["mean_iou"] > 0


def test_two_processes_calibrate_on_the_labelled_images_as_one(drawn_folder: Path, tmp_path: Path) -> None:
    run(FIT, tmp_path, drawn_folder, tmp_path, 2, 0.0, "")  # four images to train on
    torch.manual_seed(0)
    arguments = {"bank": {"size": None}, "abstain": 0.1, "visualizer": False, "head": None}
    shape = {"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    encoder = {"architecture": "vit_tiny_patch16_224", "model_args": shape}
    model = AOISSLRetrieval({**encoder, "pretrained": False}, image_size=(64, 96), **arguments)
    split = {"train_devices": ["sot23_copper"], "test_devices": ["soic8_gold"], "val_ratio": 0.0}
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_progress_bar=False)
    engine.train(model, datamodule=SegmentationFolder(drawn_folder, num_workers=0, **split))
    alone = model.model.abstention.pixels
    assert int(alone.sum()) == 4 * 64 * 96
    for rank in (0, 1):
        assert torch.equal(torch.load(tmp_path / f"pixels_{rank}.pt"), alone)
