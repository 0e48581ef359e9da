# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the labelled images of the probe are to a run: part of what its result depends on."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_runs import CPU, Files, MakeEncoder, callback_of, labelled_of

from anomalib_aoissl.pretraining.watching.labelled import labelled_fingerprint
from anomalib_aoissl.pretraining.watching.watcher import Labelled, Watcher


def test_a_run_with_other_labels_is_another_run(
    make_encoder: MakeEncoder, pictures: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The labels decide which weights are kept."""

    def run(labelled: Labelled | None) -> tuple[Path, str]:
        callback = callback_of("mae", tmp_path, max_steps=1)
        return callback.pretrain(make_encoder(), pictures, labelled=labelled, trainer_arguments=CPU), callback.summary

    first = labelled_of()
    other = Labelled(first.bank, [(image, 1 - mask) for image, mask in first.queries], 2)
    runs = [run(labelled) for labelled in (None, first, other, replace(first, num_classes=3))]
    assert len({folder for folder, _ in runs}) == 4
    assert ["Without labelled images" in summary for _, summary in runs] == [True, False, False, False]
    with caplog.at_level(logging.INFO, logger="anomalib_aoissl"):
        assert run(labelled_of()) == runs[1]
    assert "loaded from" in caplog.text


def test_a_fingerprint_is_that_of_images_masks_sides_and_classes() -> None:
    first = labelled_of()
    (image, mask), second = first.bank
    swapped = Labelled(first.bank[:1], [second, *first.queries], 2)
    others = [None, labelled_of(1), swapped, replace(first, bank=[(image, mask.flip(0)), second])]
    found = [labelled_fingerprint(labelled) for labelled in (first, *others, replace(first, num_classes=3))]
    assert len(set(found)) == 6
    assert labelled_fingerprint(labelled_of()) == found[0]


def test_random_augmentations_of_the_labelled_images_are_the_same_each_time(tmp_path: Path) -> None:
    class Augmented(list[None]):
        def __getitem__(self, index: Any) -> Any:
            return SimpleNamespace(image=torch.rand(3, 8, 8), gt_mask=torch.ones(8, 8))

    data = SimpleNamespace(train_data=Augmented([None] * 4))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    found = [callback_of("mae", tmp_path, seed=seed)._probe_images(data, None) for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(2), expected)  # the outer random numbers are left alone
    first, again, other = (labelled_fingerprint(labelled) for labelled in found)
    assert first == again != other


def test_a_run_that_resumes_with_labels_keeps_the_best_of_what_was_probed(
    make_encoder: MakeEncoder, pictures: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, check = iter([0.5, 0.4]), Watcher._check

    def until_the_second_epoch(self: Watcher, *arguments: Any, epoch: int) -> dict[str, Any]:
        if epoch == 2:
            raise OSError("power cut")
        return check(self, *arguments, epoch=epoch)

    monkeypatch.setattr("anomalib_aoissl.pretraining.callback.labelled_fingerprint", lambda _: "")
    monkeypatch.setattr(
        "anomalib_aoissl.pretraining.watching.watcher.probe_mean_iou",
        lambda *_, **__: SimpleNamespace(mean_iou=next(scores), class_iou=()),
    )
    callback = callback_of("mae", tmp_path, max_epochs=3)
    with monkeypatch.context() as patch:
        patch.setattr(Watcher, "_check", until_the_second_epoch)
        with pytest.raises(OSError, match="power cut"):
            callback.pretrain(make_encoder(), pictures, trainer_arguments=CPU)
    folder = callback.pretrain(make_encoder(), pictures, labelled=labelled_of(), trainer_arguments=CPU)
    record = json.loads((folder / "pretraining.json").read_text(encoding="utf-8"))
    assert [entry["mean_iou"] for entry in record["measures"]] == [None, None, 0.5, 0.4]
    assert record["kept"] == 2


def test_labels_that_are_all_ignored_probe_nothing(make_encoder: MakeEncoder, pictures: Files, tmp_path: Path) -> None:
    labelled = labelled_of()
    ignored = replace(labelled, queries=[(image, torch.full_like(mask, 255)) for image, mask in labelled.queries])
    callback = callback_of("mae", tmp_path)
    folder = callback.pretrain(make_encoder(), pictures, labelled=ignored, trainer_arguments=CPU)
    record = json.loads((folder / "pretraining.json").read_text(encoding="utf-8"))
    assert [entry["mean_iou"] for entry in record["measures"]] == [None] * 3
    assert record["kept"] == 2
