# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The full fit on what is painted: a data set, and what ``anomalib train`` makes of it, ready for the line."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from anomalib_aoissl.bank.storage import write_bank
from anomalib_aoissl.data.describing.description import DESCRIPTION_NAME
from anomalib_aoissl.data.files import whole_file, write_text
from anomalib_aoissl.data.finding.listing import device_of, groups_by_stem
from anomalib_aoissl.data.folder import SegmentationFolder
from anomalib_aoissl.labelling.storage.exports import EXPORTS, LAST_FILE, Exported, exported_in
from anomalib_aoissl.labelling.storage.folder import LabelFolder
from anomalib_aoissl.labelling.storage.masks import MaskStore, write_mask

from .judging import ABSTAIN
from .settings import ModelSettings

if TYPE_CHECKING:
    from anomalib_aoissl.retrieval.lightning_model import AOISSLRetrieval

_README = """What the labelling page exported.

dataset/                      the labelled pictures and their masks; test/ holds the same pictures as train/
weights/lightning/model.ckpt  the checkpoint
weights/openvino/             the model for the line
bank.safetensors              the memory bank

The same model comes from this command, started in this folder:

{command}
"""


def write_dataset(folder: LabelFolder, masks: MaskStore, names: Sequence[str], target: Path) -> Path:
    """Write labelled pictures and their masks as a data set that training reads, and return its folder.

    Pictures are hard links where the system has them. The test is on the training pictures, since all labels are for
    training: what it measures is no quality.
    """
    for name in names:
        for path in folder.picture(name).files:
            for split in ("train", "test"):
                _link(path, target / split / "images" / path.relative_to(folder.image_dir))
    with masks.locked():  # else a class that is removed now would leave some masks with its indices, some without
        described = masks.description
        for name in names:
            file = Path("masks") / f"{name}.png"
            write_mask(target / "train" / file, masks.read(name)[0])
            _link(target / "train" / file, target / "test" / file)
    known = groups_by_stem(described.groups)
    groups = {name: device_of(name, folder.picture(name).files, known) for name in names} if known else {}
    content: dict[str, Any] = {"classes": list(described.classes)}
    if folder.file_format.lighting_channels:
        content["lighting_channels"] = list(folder.file_format.lighting_channels)
    if groups:
        content["groups"] = groups
    write_text(target / DESCRIPTION_NAME, json.dumps(content, indent=1, ensure_ascii=False))
    return target


def export(
    folder: LabelFolder,
    masks: MaskStore,
    names: Sequence[str],
    settings: ModelSettings,
    report: Callable[[str], Any] = lambda _: None,
) -> Exported:
    """Fit the model to the labelled pictures in full, write it in all forms, and return where.

    Args:
        folder: The folder.
        masks: Its masks.
        names: Pictures with paint on them.
        settings: Of the model.
        report: Is told what is done now.

    Raises:
        ValueError: If the data set cannot be learned from.
        OSError: If a file cannot be written.
    """
    target = folder.root / EXPORTS / time.strftime("%Y-%m-%d_%H-%M-%S")
    report("writing the data set")
    data = write_dataset(folder, masks, names, target / "dataset")
    report(f"fitting to {len(names)} pictures, in full")
    planes = len(folder.file_format.read_files(folder.picture(names[0]).files))  # others may be damaged
    model = trained(data, settings, folder, target, planes)
    report("writing the bank")
    write_bank(model.model.bank.content(), target / "bank.safetensors")
    note = ""
    if importlib.util.find_spec("openvino") and importlib.util.find_spec("onnx"):
        report("writing the OpenVINO model")
        model.to_openvino(target)
    else:
        note = "OpenVINO is not installed (pip install 'anomalib-aoissl[openvino]'): no model for the line was written."
    write_text(target / LAST_FILE, _README.format(command=command(settings, model, folder)))
    return exported_in(target, note)


def trained(data: Path, settings: ModelSettings, folder: LabelFolder, target: Path, planes: int) -> Any:
    """Return the model that training makes of pictures of so many planes; its checkpoint is below the target."""
    from anomalib.engine import Engine

    model = settings.build(planes, abstain=ABSTAIN, visualizer=False)
    module = SegmentationFolder(data, bit_depth=folder.file_format.bit_depth, num_workers=0)
    with TemporaryDirectory(dir=folder.own) as run:
        quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        engine = Engine(default_root_dir=run, **quiet)
        engine.fit(model, datamodule=module)
        checkpoint = target / "weights" / "lightning" / "model.ckpt"
        with whole_file(checkpoint) as temporary:
            shutil.copyfile(str(engine.best_model_path), temporary)
    return model.eval().cpu()


def command(settings: ModelSettings, model: AOISSLRetrieval, folder: LabelFolder) -> str:
    """Return the command that trains the same model from the exported data set."""
    height, width = settings.image_size
    words = [
        "anomalib train --model AOISSLRetrieval --data SegmentationFolder --data.root dataset",
        f"--model.abstain {ABSTAIN} --model.image_size '[{height},{width}]'",
        f"--model.in_channels {model.hparams['in_channels']}",
    ]
    if isinstance(settings.encoder, str):
        words.append(f"--model.encoder {settings.encoder}")
    if folder.file_format.bit_depth is not None:
        words.append(f"--data.bit_depth {folder.file_format.bit_depth}")
    return " ".join(words)


def _link(path: Path, target: Path) -> None:
    """Make a hard link to a file, or a copy where there are none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)
