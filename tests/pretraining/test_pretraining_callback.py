# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The callback as a user sees it: what it trains on, what it keeps, what it leaves on disk."""

import itertools
import json
import logging
import shutil
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import yaml
from filelock import FileLock
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from small_runs import CPU, SMALL, Files, MakeEncoder, callback_of, labelled_of

from anomalib_aoissl import Tiling
from anomalib_aoissl.encoder import Encoder, create_encoder
from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.plugin.arguments import ArgumentError
from anomalib_aoissl.pretraining import MAEPretraining, make_pretraining
from anomalib_aoissl.pretraining.callback import _circumstances
from anomalib_aoissl.pretraining.training.images import CropDataset
from anomalib_aoissl.pretraining.watching import watcher
from anomalib_aoissl.pretraining.watching.labelled import probe_images
from anomalib_aoissl.pretraining.watching.watcher import CollapseError


@pytest.mark.parametrize("objective", list(SMALL))
def test_the_artefact_is_a_timm_folder(
    make_encoder: MakeEncoder, pictures: Files, tmp_path: Path, objective: str
) -> None:
    encoder = make_encoder(reg_tokens=1)
    before = {name: value.clone() for name, value in encoder.vit.state_dict().items()}
    folder = callback_of(objective, tmp_path, save_to=tmp_path / "out").pretrain(
        encoder, pictures, trainer_arguments=CPU
    )
    assert any(not torch.equal(value, before[name]) for name, value in encoder.vit.state_dict().items())
    record = json.loads((folder / "pretraining.json").read_text())
    assert record["objective"] == objective
    assert record["images"]["count"] == 6
    assert [entry["step"] for entry in record["measures"]] == [0, 3, 6]
    images = torch.randn(2, 3, 48, 64)
    expected = encoder.eval()(images)
    again = PatchEncoder(f"local-dir:{tmp_path / 'out'}", image_size=(48, 64)).eval()
    torch.testing.assert_close(again(images), expected)
    plain = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    torch.testing.assert_close(plain.forward_features(images)[:, 2:], expected)
    other = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True, img_size=(64, 64), in_chans=1)
    assert other(torch.zeros(1, 1, 64, 64)).shape == (1, 32)
    assert not list(tmp_path.glob("*.partial"))
    assert (folder / "pictures").is_dir() == (objective == "mae")


def test_the_same_run_again_is_loaded(
    make_encoder: MakeEncoder, pictures: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = make_encoder(), make_encoder()
    folder = callback_of("mae", tmp_path).pretrain(first, pictures, trainer_arguments=CPU)
    with caplog.at_level(logging.INFO, logger="anomalib_aoissl"):
        assert callback_of("mae", tmp_path).pretrain(second, pictures, trainer_arguments=CPU) == folder
    assert "loaded from" in caplog.text
    for name, value in first.vit.state_dict().items():
        assert torch.equal(value, second.vit.state_dict()[name])
    others = [
        callback_of("mae", tmp_path, seed=1).pretrain(make_encoder(), pictures, trainer_arguments=CPU),
        callback_of("mae", tmp_path).pretrain(make_encoder(), pictures[:5], trainer_arguments=CPU),
        callback_of("mae", tmp_path).pretrain(make_encoder(reg_tokens=1), pictures, trainer_arguments=CPU),
        callback_of("mae", tmp_path).pretrain(
            make_encoder(), pictures, trainer_arguments={**CPU, "limit_train_batches": 1}
        ),
    ]
    assert len({folder, *others}) == 5


def test_the_learning_rate_is_lower_from_trained_weights(
    make_encoder: MakeEncoder, pictures: Files, tmp_path: Path
) -> None:
    def rate(encoder: PatchEncoder, **arguments: Any) -> float:
        folder = callback_of("mae", tmp_path, max_steps=1, **arguments).pretrain(encoder, pictures)
        record = json.loads((folder / "pretraining.json").read_text(encoding="utf-8"))
        return float(record["learning_rate"])

    trained = make_encoder()
    with torch.no_grad():
        trained.vit.norm.weight.mul_(1.5)
    assert rate(make_encoder()) == 1.5e-3
    assert rate(trained, optimizer={"learning_rate": None}) == 1e-4
    assert rate(make_encoder(), optimizer={"learning_rate": 0.02}) == 0.02


def test_a_damaged_folder_says_what_to_do(make_encoder: MakeEncoder, pictures: Files, tmp_path: Path) -> None:
    folder = callback_of("mae", tmp_path).pretrain(make_encoder(), pictures, trainer_arguments=CPU)
    (folder / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="Delete the folder"):
        callback_of("mae", tmp_path).pretrain(make_encoder(), pictures, trainer_arguments=CPU)


class _Stop(Callback):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 2 and pl_module is trainer.lightning_module:
            raise self.error


def stopping(patch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Have the third epoch of every trainer end with an error."""
    made = Trainer.__init__

    def with_stop(self: Trainer, *args: Any, **kwargs: Any) -> None:
        kwargs["callbacks"] = [*kwargs["callbacks"], _Stop(error)]
        made(self, *args, **kwargs)

    patch.setattr(Trainer, "__init__", with_stop)


def test_an_interrupt_is_said_and_resumed_with_its_seconds(
    make_encoder: MakeEncoder,
    pictures: Files,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = itertools.count(0, 10)
    monkeypatch.setattr(watcher, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        stopping(patch, KeyboardInterrupt())
        with pytest.raises(SystemExit):
            callback_of("mae", tmp_path, max_epochs=4).pretrain(make_encoder(), pictures, trainer_arguments=CPU)
    signal.signal(signal.SIGINT, handler)  # which Lightning has taken away
    assert "Pretraining was interrupted at step 6. The same command goes on" in caplog.text
    folder = callback_of("mae", tmp_path, max_epochs=4).pretrain(make_encoder(), pictures, trainer_arguments=CPU)
    record = json.loads((folder / "pretraining.json").read_text())
    seconds = [*(measure["seconds"] for measure in record["measures"]), record["seconds"]]
    assert len(seconds) == 6
    assert seconds == sorted(seconds)


def record_of(folder: Path) -> dict[str, Any]:
    """Return the record of a run without the seconds that it took."""
    record = json.loads((folder / "pretraining.json").read_text(encoding="utf-8"))
    measures = [{**measure, "seconds": None} for measure in record["measures"]]
    return {"measures": measures, "kept": record["kept"]}


@pytest.mark.parametrize(
    ("objective", "settings"),
    [
        *((objective, {}) for objective in SMALL),
        ("mae", {"max_steps": 11}),  # ends within the fourth epoch
        ("mae", {"loading": {"num_workers": 2}}),  # which ask for an epoch's order before the epoch begins
    ],
)
def test_a_stopped_run_resumes_to_the_same_weights(
    make_encoder: MakeEncoder,
    pictures: Files,
    tmp_path: Path,
    objective: str,
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, resumed = make_encoder(), make_encoder()
    settings = {"max_epochs": 4, **settings}
    unbroken = callback_of(objective, tmp_path / "a", **settings).pretrain(whole, pictures, trainer_arguments=CPU)
    start = {name: value.clone() for name, value in resumed.vit.state_dict().items()}
    with monkeypatch.context() as patch:
        stopping(patch, OSError("power cut"))
        with pytest.raises(OSError, match="power cut"):
            callback_of(objective, tmp_path / "b", **settings).pretrain(resumed, pictures, trainer_arguments=CPU)
    assert all(torch.equal(value, start[name]) for name, value in resumed.vit.state_dict().items())
    (partial,) = (tmp_path / "b").glob("*.partial")
    assert (partial / "last.ckpt").is_file()
    folder = callback_of(objective, tmp_path / "b", **settings).pretrain(resumed, pictures, trainer_arguments=CPU)
    record = record_of(folder)
    assert record == record_of(unbroken)
    assert [measure["step"] for measure in record["measures"]] == [0, 3, 6, 9, settings.get("max_steps", 12)]
    for name, value in whole.vit.state_dict().items():
        assert torch.equal(resumed.vit.state_dict()[name], value), name


def test_a_run_that_was_stopped_after_its_last_step_trains_no_further(
    make_encoder: MakeEncoder, pictures: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object) -> None:
        msg = "power cut"
        raise OSError(msg)

    callback = callback_of("mae", tmp_path, max_epochs=50, max_steps=5)
    with monkeypatch.context() as patch:
        patch.setattr("anomalib_aoissl.pretraining.run.save_encoder", cut)
        with pytest.raises(OSError, match="power cut"):
            callback.pretrain(make_encoder(), pictures, trainer_arguments=CPU)
    folder = callback.pretrain(make_encoder(), pictures, trainer_arguments=CPU)
    assert [measure["step"] for measure in record_of(folder)["measures"]] == [0, 3, 5]


def test_the_best_encoder_is_kept_and_the_start_where_nothing_beats_it(
    make_encoder: MakeEncoder, pictures: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.7, 0.6])
    monkeypatch.setattr(
        "anomalib_aoissl.pretraining.watching.watcher.probe_mean_iou",
        lambda *_, **__: SimpleNamespace(mean_iou=next(scores), class_iou=()),
    )
    best = callback_of("mae", tmp_path / "a")
    best.pretrain(make_encoder(), pictures, labelled=labelled_of(), trainer_arguments=CPU)
    assert "the encoder of step 3 is kept, the best with 0.700" in best.summary
    scores = iter([0.5, 0.3, 0.4])
    encoder, untouched = make_encoder(), make_encoder()
    start = callback_of("mae", tmp_path / "b")
    start.pretrain(encoder, pictures, labelled=labelled_of(), trainer_arguments=CPU)
    assert "Nothing beat the starting weights" in start.summary
    for name, value in untouched.vit.state_dict().items():
        assert torch.equal(value, encoder.vit.state_dict()[name])


def test_a_collapse_stops_with_advice(
    make_encoder: MakeEncoder, pictures: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anomalib_aoissl.pretraining.watching.watcher._COLLAPSE_RANK", 1e6)
    callback = callback_of("dino", tmp_path, max_epochs=9)
    with pytest.raises(CollapseError, match=r"dino: the patch embeddings collapse.*last 3 checks.*teacher\.temp"):
        callback.pretrain(make_encoder(), pictures, trainer_arguments=CPU)


def test_the_outer_random_numbers_are_left_alone(make_encoder: MakeEncoder, pictures: Files, tmp_path: Path) -> None:
    encoder = make_encoder()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    callback_of("mae", tmp_path).pretrain(encoder, pictures, trainer_arguments=CPU)
    assert torch.equal(torch.rand(2), expected)


class _Model(LightningModule):
    """A model with an encoder of ours, as small as it can be."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.model = torch.nn.Module()
        self.model.encoder = encoder.requires_grad_(False)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[torch.Tensor] = []

    def training_step(self, *_: Any) -> torch.Tensor:
        self.seen.append(self.model.encoder.vit.patch_embed.proj.weight.clone())
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.weight], lr=0.1)


def _outer(callback: Callback, tmp_path: Path, **arguments: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "max_epochs": 1}
    return Trainer(callbacks=[callback], default_root_dir=tmp_path, **{**quiet, **CPU, **arguments})


class _Data(LightningDataModule):
    """Pictures to pretrain on, and one batch for the outer fit."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.unlabelled_dir = folder

    def train_dataloader(self) -> torch.utils.data.DataLoader[Any]:
        return torch.utils.data.DataLoader([torch.zeros(1)])


def test_it_runs_before_the_fit_and_once(make_encoder: MakeEncoder, pictures: Files, tmp_path: Path) -> None:
    model, data = _Model(make_encoder()), _Data(pictures[0][0].parent)
    before = model.model.encoder.vit.patch_embed.proj.weight.clone()
    callback = callback_of("mae", tmp_path)
    callback.setup(_outer(callback, tmp_path), model, "test")
    assert torch.equal(model.model.encoder.vit.patch_embed.proj.weight, before)
    _outer(callback, tmp_path).fit(model, datamodule=data)
    after = model.model.encoder.vit.patch_embed.proj.weight.clone()
    assert not torch.equal(after, before)
    assert torch.equal(model.seen[0], after)  # the outer fit found it done
    assert not model.model.encoder.vit.patch_embed.proj.weight.requires_grad
    _outer(callback, tmp_path).fit(model, datamodule=data)
    assert torch.equal(model.model.encoder.vit.patch_embed.proj.weight, after)


def test_a_model_with_tiles_learns_from_pictures_at_their_own_resolution(
    make_encoder: MakeEncoder, pictures: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is resized, and the result is not that of shrunk pictures."""
    sizes: list[Any] = []

    def spied(*arguments: Any, size: Any, **others: Any) -> CropDataset:
        sizes.append(size)
        return CropDataset(*arguments, size=size, **others)

    monkeypatch.setattr("anomalib_aoissl.pretraining.run.CropDataset", spied)
    for tiling, expected in ((None, {(48, 64)}), (Tiling((48, 64), 16), {None})):
        model = _Model(make_encoder())
        model.tiling = tiling  # type: ignore[assignment]
        _outer(callback_of("mae", tmp_path), tmp_path).fit(model, datamodule=_Data(pictures[0][0].parent))
        assert set(sizes) == expected
        sizes.clear()
    assert len([entry for entry in tmp_path.iterdir() if entry.name.startswith("mae-")]) == 2


def test_a_probe_of_tiles_sees_parts_of_labelled_images_that_show_the_rarest_class() -> None:
    mask = torch.zeros(90, 130, dtype=torch.uint8)
    mask[70:, 100:103] = 1
    items = [SimpleNamespace(image=torch.rand(3, 90, 130), gt_mask=mask)] * 4
    found = probe_images(SimpleNamespace(train_data=items), 2, (48, 64))
    assert found is not None
    for image, part in (*found.bank, *found.queries):
        assert (image.shape, part.shape) == ((3, 48, 64), (48, 64))
        assert (part == 1).any()
    whole = probe_images(SimpleNamespace(train_data=items), 2)
    assert whole is not None
    assert whole.bank[0][0].shape == (3, 90, 130)


def test_metrics_go_to_the_outer_logger(make_encoder: MakeEncoder, pictures: Files, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path / "logs")
    trainer = _outer(callback_of("ibot", tmp_path), tmp_path, logger=logger)
    trainer.fit(_Model(make_encoder()), datamodule=_Data(pictures[0][0].parent))
    content = (Path(logger.log_dir) / "metrics.csv").read_text()
    for name in ("loss", "patch_loss", "teacher_entropy", "rank"):
        assert f"pretraining/{name}" in content


def test_it_is_skipped_when_the_outer_run_resumes(make_encoder: MakeEncoder, tmp_path: Path) -> None:
    callback = callback_of("mae", tmp_path)
    callback.setup(SimpleNamespace(ckpt_path="some.ckpt"), _Model(make_encoder()), "fit")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_resumed_fit_does_not_pretrain_again(make_encoder: MakeEncoder, pictures: Files, tmp_path: Path) -> None:
    data, path = _Data(pictures[0][0].parent), tmp_path / "last.ckpt"
    first = _outer(callback_of("mae", tmp_path / "one"), tmp_path)
    first.fit(_Model(make_encoder()), datamodule=data)
    first.save_checkpoint(path)
    model = _Model(make_encoder())  # another process: other random weights, and a cache that knows nothing
    _outer(callback_of("mae", tmp_path / "two"), tmp_path, max_epochs=2).fit(model, datamodule=data, ckpt_path=path)
    assert not (tmp_path / "two").exists()
    saved = torch.load(path, weights_only=True)["state_dict"]["model.encoder.vit.patch_embed.proj.weight"]
    assert len(model.seen) == 1
    assert torch.equal(model.seen[0], saved)


def test_a_model_without_our_encoder_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"MAEPretraining pretrains model\.encoder"):
        callback_of("mae", tmp_path).setup(SimpleNamespace(ckpt_path=None), LightningModule(), "fit")  # type: ignore[arg-type]


@pytest.mark.parametrize("objective", list(SMALL))
def test_a_convolutional_encoder_raises_and_names_a_transformer(objective: str, tmp_path: Path) -> None:
    model = _Model(create_encoder("resnet18", image_size=(48, 64), pretrained=False))
    match = r"a vision transformer, and model\.encoder is resnet18\. .*--model\.encoder\.architecture aoissl_vit_tiny_"
    with pytest.raises(ArgumentError, match=match):
        callback_of(objective, tmp_path).setup(SimpleNamespace(ckpt_path=None), model, "fit")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_make_pretraining() -> None:
    assert make_pretraining(None) is None
    callback = make_pretraining({"objective": "mae", "max_epochs": 7, "mask_ratio": 0.5})
    assert isinstance(callback, MAEPretraining)
    assert (callback.max_epochs, callback.arguments["mask_ratio"]) == (7, 0.5)
    written = make_pretraining(yaml.safe_load("{objective: dino, optimizer: {learning_rate: 1e-4}, save_to: out/1e-4}"))
    assert written is not None
    assert (written.optimizer.learning_rate, written.save_to) == (1e-4, "out/1e-4")
    with pytest.raises(ValueError, match=r"must be one of \['mae', 'dino', 'ibot'\]"):
        make_pretraining("moco")
    with pytest.raises(ValueError, match="unexpected keyword argument 'ratio'"):
        make_pretraining({"objective": "mae", "ratio": 0.5})
    with pytest.raises(ValueError, match="max_epochs=0 must be greater than 0"):
        make_pretraining({"objective": "mae", "max_epochs": 0})


def test_a_second_run_of_the_same_waits_and_loads_the_first_one_s_result(
    make_encoder: MakeEncoder, pictures: Files, tmp_path: Path
) -> None:
    first, second = make_encoder(), make_encoder()
    folder = callback_of("mae", tmp_path / "first").pretrain(first, pictures, trainer_arguments=CPU)
    shared = tmp_path / "second" / folder.name
    shared.parent.mkdir()
    lock, waiting = FileLock(shared.with_name(f".{folder.name}.lock")), threading.Event()

    class Waiting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "waiting for its result" in record.getMessage():
                waiting.set()

    handler, log = Waiting(), logging.getLogger("anomalib_aoissl.pretraining.callback")
    log.addHandler(handler)
    callback = callback_of("mae", tmp_path / "second")
    try:
        with lock:
            thread = threading.Thread(
                target=callback.pretrain, args=(second, pictures), kwargs={"trainer_arguments": CPU}
            )
            thread.start()
            assert waiting.wait(60)
            shutil.copytree(folder, shared)  # what the first run leaves
        thread.join(60)
    finally:
        log.removeHandler(handler)
    assert not (tmp_path / "second" / f"{folder.name}.partial").exists()  # nothing was trained
    for name, value in first.vit.state_dict().items():
        torch.testing.assert_close(second.vit.state_dict()[name], value)


def test_processes_and_precision_are_part_of_what_a_result_depends_on() -> None:
    def circumstances(world_size: int, precision: str) -> dict[str, Any]:
        return _circumstances(SimpleNamespace(world_size=world_size, precision=precision))  # type: ignore[arg-type]

    assert _circumstances(None) == circumstances(1, "32-true") == {}
    assert circumstances(2, "32-true") == {"processes": 2}
    assert circumstances(1, "bf16-mixed") == {"precision": "bf16-mixed"}
