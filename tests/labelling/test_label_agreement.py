# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The page suggests what the model says that it exports: one bank, and head and vote together."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from label_pictures import SIZE, scribbles, truth
from PIL import Image

from anomalib_aoissl.labelling.session import Session
from anomalib_aoissl.labelling.storage.masks import Region
from anomalib_aoissl.labelling.teaching import exporting, judging, teacher
from anomalib_aoissl.labelling.teaching.lesson import HatchingThresholds, Lesson

pytestmark = pytest.mark.usefixtures("short_fits", "all_filters")

PAINTED = ("unit_0", "unit_1", "unit_2")


@pytest.fixture
def taught(session: Session) -> Lesson:
    """Return a lesson on three pictures of two devices."""
    (session.folder.root / "dataset.json").write_text(
        '{"classes": ["dark", "bright", "bar"], "groups": {"unit_0.png": "a", "unit_1.png": "b", "unit_2.png": "a"}}'
    )
    session.classes.read_again()
    for name in PAINTED:
        session.stroke(name, Region(0, 0, scribbles()), "0", "brush", "me")
    return learned(session)


def learned(session: Session) -> Lesson:
    """Return a lesson on what is painted."""
    return session.lessons.teacher.teach(session.lessons._painted(list(PAINTED))[0], session.classes.names)


def trained(session: Session, target: Path) -> Any:
    """Return what `anomalib train` makes of the session's folder."""
    data = exporting.write_dataset(session.folder, session.masks, PAINTED, target / "dataset")
    return exporting.trained(data, session.lessons.settings, session.folder, target, planes=3)


def mask_of(model: Any, picture: Path) -> np.ndarray:
    """Return the mask ``[H, W]`` of anomalib's own way to predict a file."""
    from anomalib.data import PredictDataset
    from anomalib.engine import Engine

    engine = Engine(logger=False, enable_progress_bar=False, accelerator="cpu", default_root_dir=picture.parent / "run")
    batches = engine.predict(model, dataset=PredictDataset(picture, image_size=SIZE), return_predictions=True)
    assert batches
    mask: Any = batches[0].pred_mask
    return np.asarray(mask.squeeze().cpu())


def test_the_page_and_the_exported_model_give_one_mask(session: Session, taught: Lesson, tmp_path: Path) -> None:
    """The trained head and bank in a lesson: the page's own readings, and the decision of both."""
    generator = np.random.default_rng(0)
    path = session.folder.picture("unit_3").files[0]
    noise = generator.normal(110, 70, (*SIZE, 3)).clip(0, 255)  # nothing is sure, so that head and vote disagree
    Image.fromarray(noise.astype(np.uint8)).save(path)
    session.folder.scan()
    model = trained(session, tmp_path)
    lesson = Lesson(1, model.model, PAINTED, session.classes.names, HatchingThresholds())
    seen = session.lessons.teacher.reader.see("unit_3")
    features = lesson.head.features(seen.image, seen.tokens)
    found = lesson.suggest(features, seen.embeddings).classes
    expected = mask_of(model, path)
    assert (found == expected).mean() > 0.995
    alone = lesson.head.of_features(features)[0].argmax(dim=0).numpy()
    assert (alone != expected).mean() > 0.05


def test_the_page_suggests_what_training_finds(session: Session, taught: Lesson, tmp_path: Path) -> None:
    found = session.lessons.teacher.suggest(taught, "unit_3").classes
    expected = mask_of(trained(session, tmp_path), session.folder.picture("unit_3").files[0])
    assert (found == expected).mean() > 0.97  # a short fit of one network beside one of 40 steps
    assert (expected == truth()).mean() > 0.95


def entries_of(bank: Any) -> dict[tuple[str, int], tuple[str, int, torch.Tensor, torch.Tensor]]:
    """Return device, count, labels and embedding of each entry by its picture and patch."""
    images, devices = [Path(name).stem for name in bank.image_names], bank.device_names
    columns = bank.image_ids, bank.positions, bank.device_ids, bank.entry_counts(), bank.labels, bank.embeddings
    return {
        (images[image], int(place)): (devices[device], int(count), labels, embedding)
        for image, place, device, count, labels, embedding in zip(*columns, strict=True)
    }


def test_the_page_has_the_bank_of_training(session: Session, taught: Lesson, tmp_path: Path) -> None:
    ours, theirs = entries_of(taught.model.bank), entries_of(trained(session, tmp_path).model.bank)
    assert len(theirs) == 3 * 40
    assert set(ours) == set(theirs)
    for key, (device, count, labels, embedding) in theirs.items():
        assert ours[key][:2] == (device, count)
        assert torch.equal(ours[key][2], labels)
        assert torch.allclose(ours[key][3], embedding, atol=2e-3)  # the page keeps them in half precision


def test_the_bank_is_condensed_as_in_training(session: Session, taught: Lesson) -> None:
    session.lessons.teacher.reader.model.model.bank.budget = 40
    bank = learned(session).model.bank
    assert (len(bank), int(bank.counts.sum())) == (40, 3 * 40)


def test_the_bank_of_many_pictures_is_made_of_fewer_patches(
    session: Session, taught: Lesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = entries_of(taught.model.bank)
    monkeypatch.setattr(teacher, "PATCHES", 30)
    fewer = entries_of(learned(session).model.bank)
    assert Counter(name for name, _ in fewer) == dict.fromkeys(PAINTED, 10)
    assert len(whole) > 40
    assert all(torch.equal(whole[key][2], labels) for key, (_, _, labels, _) in fewer.items())
    places = [place for name, place in fewer if name == "unit_0"]
    assert max(places) - min(places) > 40  # of the whole picture


def test_left_out_pictures_are_judged_by_head_and_vote(
    session: Session, taught: Lesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head that knows nothing: what is left is the vote of the other pictures, counted by hand."""
    page = session.lessons.teacher
    even = np.full(3, 1 / 3, np.float32)
    monkeypatch.setattr(judging, "probabilities", lambda _, values: np.tile(even, (len(values), 1)))
    monkeypatch.setattr(judging, "class_offsets", lambda *_: np.zeros(3, np.float32))
    found = next(one for one in judging.judge(page, taught) if one is not None)
    hits, unions = np.zeros(3), np.zeros(3)
    for index, name in enumerate(PAINTED):
        drawn = page.drawn[name]
        bank = taught.model.bank
        others = (bank.image_ids != index).numpy()
        keys, labels = bank.embeddings.numpy()[others], bank.labels.numpy()[others]
        queries = page.reader.embeddings(name).numpy()
        for (row, column), label, weight in zip(drawn.points, drawn.labels, drawn.weights, strict=True):
            height, width = taught.model.patch_size
            query = queries[row // height * (SIZE[1] // width) + column // width]
            near = np.argsort(-(keys @ query), kind="stable")[:15]
            votes = np.exp((keys[near] @ query) / 0.05)
            pixel = labels[near, row % height * width + column % width]
            winner = int(np.argmax([votes[pixel == one].sum() for one in range(3)]))
            for one in {winner, int(label)}:
                unions[one] += weight
            hits[label] += weight * (winner == label)
    assert found.mean_iou == pytest.approx((hits / unions).mean(), abs=0.01)
