# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Which images pretraining takes, and how a run knows them again."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from small_runs import Files

from anomalib_aoissl.pretraining.training.images import fingerprint, pretraining_images


def test_where_the_images_come_from(pictures: Files, tmp_path: Path) -> None:
    folder = pictures[0][0].parent
    assert pretraining_images(SimpleNamespace(unlabelled_dir=folder)) == pictures
    table = pd.DataFrame({"image_path": [str(pictures[0][0])], "channel_paths": [("a.png", "b.png")]})
    data = SimpleNamespace(samples=table)
    assert pretraining_images(SimpleNamespace(unlabelled_dir=None, train_data=data)) == [(Path("a.png"), Path("b.png"))]
    foreign = SimpleNamespace(samples=table.drop(columns="channel_paths"))
    assert pretraining_images(SimpleNamespace(train_data=foreign)) == [pictures[0]]
    with pytest.raises(ValueError, match="found no images: SimpleNamespace"):
        pretraining_images(SimpleNamespace())


def test_two_lights_of_a_folder_make_one_item(pictures: Files) -> None:
    folder = pictures[0][0].parent
    for index, (path,) in enumerate(pictures):
        path.rename(folder / f"unit_{index // 2}_ch{index % 2}.png")
    found = pretraining_images(SimpleNamespace(unlabelled_dir=folder, lighting_channels=["_ch0", "_ch1"]))
    assert [path.name for path in found[0]] == ["unit_0_ch0.png", "unit_0_ch1.png"]
    assert len(found) == 3


def test_the_fingerprint_knows_content_and_not_place(pictures: Files, tmp_path: Path) -> None:
    before = fingerprint(pictures)
    moved = tmp_path / "elsewhere"
    pictures[0][0].parent.rename(moved)
    files = [(moved / path.name,) for (path,) in pictures]
    assert fingerprint(files) == before
    assert fingerprint(files[:-1]) != before
    content = bytearray(files[2][0].read_bytes())
    content[-20] ^= 1
    files[2][0].write_bytes(content)
    assert fingerprint(files) != before


def test_the_fingerprint_knows_the_middle_of_large_files_and_what_is_an_item(tmp_path: Path) -> None:
    lots = [[(tmp_path / lot / name,) for name in ("a.bmp", "b.bmp")] for lot in ("first", "second")]
    for fill, files in enumerate(lots):
        for (path,) in files:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"\xff" * 100_000 + bytes([fill]) * 100_000 + b"\xff" * 100_000)
    first, second = lots
    assert fingerprint(first) != fingerprint(second)
    assert fingerprint([(first[0][0], first[1][0])]) != fingerprint(first)
