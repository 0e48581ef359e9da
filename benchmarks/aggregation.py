# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Measures what the ways of voting, shifted patch grids, smoothing and the removal of positions give and cost.

Prints tables of mean IoU (pooled over the pixels of the test images, in points) and of IoU of the thin class, means
over seeds, on three sets: wirebond_hgcal (module 0205 to 0212, 384x512), pcb_components (board 0009 to 0018, 512x512)
and the drawn WireBond with its defaults. Seeds draw the labelled images and condense the bank. Each image is embedded
once on each grid, and each search serves all votes over it. Costs are ratios of CPU seconds to the plain model's in
the same run, encoder included.

    python benchmarks/aggregation.py --data ../shared/data --cache results/aggregation.json

Each result is written to the cache as it comes, under a name with the encoder's hash, so that a run that was stopped
goes on where it was, and new weights are measured anew. `--images 4 --seeds 1` is the quick look.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from aggregation_tables import Rows, tables
from torchmetrics.classification import MulticlassConfusionMatrix
from torchmetrics.functional.classification import binary_auroc
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import normalize, resize

from anomalib_aoissl import SegmentationFolder, WireBond
from anomalib_aoissl.data.dataset import SegmentationDataset
from anomalib_aoissl.encoder import DEFAULT_ENCODER, PatchEncoder
from anomalib_aoissl.files import whole_file
from anomalib_aoissl.retrieval.aggregation import NEIGHBOURS as DEFAULT_NEIGHBOURS
from anomalib_aoissl.retrieval.aggregation import class_votes, class_weights, repetitions, vote_weights, winners
from anomalib_aoissl.retrieval.bank_file import encoder_hash
from anomalib_aoissl.retrieval.context import CONTEXT, embedding_size, with_context
from anomalib_aoissl.retrieval.lightning_model import DEFAULT_BANK_SIZE
from anomalib_aoissl.retrieval.memory_bank import MemoryBank
from anomalib_aoissl.retrieval.patches import patches_to_image
from anomalib_aoissl.retrieval.positions import position_basis, without_directions
from anomalib_aoissl.retrieval.searching import search
from anomalib_aoissl.retrieval.shifts import shift_offsets, shifted_images, shifted_masks
from anomalib_aoissl.retrieval.torch_model import RetrievalModel

NEIGHBOURS = (5, DEFAULT_NEIGHBOURS, 30)
TEMPERATURES = (0.005, 0.01, 0.02, 0.05, 0.1)
GRIDS = ((1, 1), (2, 1), (4, 1), (1, 2), (1, 4), (2, 2), (4, 2), (4, 4))  # of the bank, of the query
SMOOTHED = tuple((4, query, passes) for query in (1, 2, 4) for passes in (0, 1, 2))  # 0 is among the grids too
DIRECTIONS = (1, 4, 16)
RULES: dict[str, tuple[dict[str, float], dict[str, float]]] = {  # of the thin class or the background
    "thin class at temperature 0.01": ({"thin": 0.01}, {}),
    "thin class at temperature 0.03": ({"thin": 0.03}, {}),
    "thin class at temperature 0.04": ({"thin": 0.04}, {}),
    "thin class needs 0.4 of the vote": ({}, {"thin": 0.4}),
    "thin class needs 0.6 of the vote": ({}, {"thin": 0.6}),
    "background needs 0.6 of the vote": ({}, {"background": 0.6}),
    "background needs 0.7 of the vote": ({}, {"background": 0.7}),
}


@dataclass(frozen=True)
class Setting:
    """A set, the size it is measured at, (height, width) px, its thin class, and the shots and seeds to measure."""

    name: str
    size: tuple[int, int]
    thin: str
    shots: tuple[int | None, ...]
    make: Callable[[int | None, int], Any]
    seeds: int = 3


class LabelledImage(NamedTuple):
    """An image of a set: its mask ``[H, W]``, and embeddings ``[S, P, D]``, not normalised, on each of four grids."""

    mask: torch.Tensor
    device: str
    name: str
    grids: torch.Tensor
    token: torch.Tensor
    seconds: list[float]  # of each grid


class Results:
    """Numbers by name, kept in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.numbers: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}

    def measure(self, name: str, take: Callable[[], Any]) -> Any:
        """Return the number of that name, taken and written where it is not known yet."""
        if name not in self.numbers:
            self.numbers[name] = take()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(self.path) as temporary:
                temporary.write_text(json.dumps(self.numbers, indent=0))
        return self.numbers[name]


class Case:
    """One set, number of shots and seed, and up to ``images`` test images.

    Images are embedded where ``known`` does not have them by name; ``basis`` are directions of position. Banks have up
    to ``rows`` rows; patches are compared with the ``context`` of that weight.
    """

    def __init__(
        self,
        setting: Setting,
        shots: int | None,
        seed: int,
        encoder: PatchEncoder,
        basis: torch.Tensor,
        images: int,
        known: dict[str, LabelledImage],
        context: float = CONTEXT,
        rows: int = DEFAULT_BANK_SIZE,
    ) -> None:
        self.setting, self.shots, self.seed = setting, shots, seed
        self.encoder, self.basis, self.images, self.known = encoder, basis, images, known
        self.context, self.rows = context, rows

    @cached_property
    def data(self) -> Any:
        """The datamodule, set up."""
        data = self.setting.make(self.shots, self.seed)
        data.prepare_data()
        data.setup()
        return data

    @cached_property
    def train(self) -> list[LabelledImage]:
        """The labelled images."""
        return embed(self.data.train_data, self.encoder, None, self.known)

    @cached_property
    def test(self) -> list[LabelledImage]:
        """The test images."""
        return embed(self.data.test_data, self.encoder, self.images, self.known)

    def bank(
        self, shifts: int = 1, basis: torch.Tensor | None = None, rule: str = "learned"
    ) -> tuple[MemoryBank, float]:
        """Return a bank of the usual size from that many grids of the labelled images, and its CPU seconds."""
        train, start = self.train, time.process_time()
        patch = self.encoder.patch_size
        dims = embedding_size(self.encoder, self.context)
        bank = MemoryBank(dims, patch, budget=self.rows, rule=rule, seed=self.seed)
        bank.class_names = list(self.data.class_names)
        for image in train:
            for grid, offset in enumerate(shift_offsets(shifts, patch)):
                masks = shifted_masks(image.mask[None], offset)
                bank.add(self.unit(image.grids[grid : grid + 1], basis), masks, [image.device], [image.name], grid)
        bank.finish()
        return bank, time.process_time() - start

    def unit(self, embeddings: torch.Tensor, basis: torch.Tensor | None = None) -> torch.Tensor:
        """Return embeddings ``[S, P, D]`` of patches as they are compared, less the directions where there are any."""
        embeddings = unit(embeddings, basis)
        return with_context(embeddings, self.encoder.grid_size, self.context) if self.context else embeddings

    def model(self, bank: MemoryBank, **options: Any) -> RetrievalModel:
        """Return the model of a bank of patches."""
        return RetrievalModel(self.encoder, bank=bank, context=self.context, **options)

    def counter(self) -> MulticlassConfusionMatrix:
        """Return a counter of pixels by true and given class."""
        return MulticlassConfusionMatrix(len(self.data.class_names), ignore_index=255)

    def summary(self, counter: MulticlassConfusionMatrix) -> dict[str, float]:
        """Return the mean IoU over the classes that occur, of the thin class, and of each class, in points."""
        counts = counter.compute()
        hit = counts.diagonal()
        union = counts.sum(0) + counts.sum(1) - hit
        iou = {name: 100 * int(hit[i]) / int(union[i]) for i, name in enumerate(self.data.class_names) if union[i]}
        return {"mean": statistics.mean(iou.values()), "thin": iou.get(self.setting.thin, 0.0), **iou}


def unit(embeddings: torch.Tensor, basis: torch.Tensor | None = None) -> torch.Tensor:
    """Return embeddings of unit length, less the directions where there are any."""
    embeddings = embeddings if basis is None else without_directions(embeddings, basis)
    return torch.nn.functional.normalize(embeddings, dim=-1, eps=1e-6)


def embed(
    dataset: SegmentationDataset, encoder: PatchEncoder, limit: int | None, known: dict[str, LabelledImage]
) -> list[LabelledImage]:
    """Return up to ``limit`` images, evenly taken from the dataset, embedded on four grids; added to those known."""
    number = len(dataset) if limit is None else min(limit, len(dataset))
    names = [dataset.samples.image_path[index * len(dataset) // number] for index in range(number)]
    for index, name in enumerate(dataset.samples.image_path):
        if name in names and name not in known:
            known[name] = embed_image(dataset[index], name, encoder)
    return [known[name] for name in names]


@torch.no_grad()
def embed_image(item: Any, name: str, encoder: PatchEncoder) -> LabelledImage:
    """Return an item's image embedded on four grids."""
    size, grids, seconds = list(encoder.image_size), [], []
    mask = resize(item.gt_mask[None], size, interpolation=InterpolationMode.NEAREST).as_subclass(torch.Tensor)[0]
    image = normalize(resize(item.image[None], size, antialias=True), list(encoder.mean), list(encoder.std))
    for offset in shift_offsets(4, encoder.patch_size):
        start = time.process_time()
        grids.append(encoder(shifted_images(image.as_subclass(torch.Tensor), [offset])))
        seconds.append(time.process_time() - start)
    token = encoder.class_tokens(image.as_subclass(torch.Tensor))[0]
    return LabelledImage(mask, item.device_name, name, torch.cat(grids), token, seconds)


def votes(case: Case) -> dict[str, dict[str, float]]:
    """Return the summary of each aggregation, k and temperature, and of each rule for a class, on the plain grid."""
    bank, _ = case.bank()
    patch, encoder, classes = case.encoder.patch_size, case.encoder, case.data.class_names
    ways = {name: case.counter() for name in (*(f"{w} {k} {t}" for w, k, t in _ways()), *RULES)}
    for image in case.test:
        similarities, rows = search(case.unit(image.grids[:1])[0], bank.embeddings, max(NEIGHBOURS))
        labels, counts = bank.labels[rows], bank.row_counts()[rows]

        def decide(name: str, way: str, weights: torch.Tensor, thresholds: Any = None) -> None:
            k = weights.shape[1]
            times = repetitions(counts[:, :k], k, way)  # noqa: B023 - called at once
            weights = weights * (times if weights.ndim == 2 else times.unsqueeze(-1))
            given = winners(class_votes(weights, labels[:, :k], len(classes)), thresholds)  # noqa: B023
            ways[name].update(patches_to_image(given[None], encoder.grid_size, patch)[0], image.mask)  # noqa: B023

        for way, k, temperature in _ways():
            decide(f"{way} {k} {temperature}", way, vote_weights(similarities[:, :k], way, temperature))
        for name, (temperatures, thresholds) in RULES.items():
            of_class = [temperatures.get("thin", 0.02) if c == case.setting.thin else 0.02 for c in classes]
            named = {case.setting.thin: thresholds.get("thin", 0.0), "background": thresholds.get("background", 0.0)}
            weights = class_weights(similarities[:, :DEFAULT_NEIGHBOURS], of_class)
            decide(name, "attention", weights, [named.get(c, 0.0) for c in classes])
    return {name: case.summary(counter) for name, counter in ways.items()}


def _ways() -> Iterator[tuple[str, int, float]]:
    """Yield each aggregation, k and temperature; the others but attention have none."""
    for k in NEIGHBOURS:
        yield "similarity", k, 0.0
        yield "majority", k, 0.0
        for temperature in TEMPERATURES:
            yield "attention", k, temperature


def grids(case: Case, bank_shifts: int) -> dict[str, dict[str, float]]:
    """Return the summary of a bank of that many grids with each number of query grids, and what both cost."""
    bank, seconds = case.bank(bank_shifts)
    encoder_seconds = sum(image.seconds[0] for image in case.train)
    build = (bank_shifts * encoder_seconds + seconds) / encoder_seconds
    return {
        smoothed_name(shifts, queries, passes): {**_grid(case, bank, queries, passes), "build": build}
        for shifts, queries, passes in {*((*pair, 0) for pair in GRIDS), *SMOOTHED}
        if shifts == bank_shifts
    }


def smoothed_name(bank: int, query: int, passes: int) -> str:
    """Return the name of the summary of so many grids and passes of smoothing."""
    return f"{bank} {query}" + f" smoothed {passes}" * (passes > 0)


def _grid(case: Case, bank: MemoryBank, queries: int, smoothing: int) -> dict[str, float]:
    """Return the summary with that many query grids, its CPU seconds, and how well novelty tells wrong pixels."""
    model = case.model(bank, query_shifts=queries, smoothing=smoothing)
    counter, seconds, wrong, novelty = case.counter(), [], [], []
    for image in case.test:
        start = time.process_time()
        embeddings = case.unit(image.grids[:queries])
        result = model.answer(embeddings)
        seconds.append(time.process_time() - start + sum(image.seconds[:queries]))
        counter.update(result.pred_mask[0, 0], image.mask)
        known = image.mask != 255
        wrong.append((result.pred_mask[0, 0] != image.mask)[known])
        novelty.append(result.anomaly_map[0, 0][known])
    auroc = float(binary_auroc(torch.cat(novelty)[::7], torch.cat(wrong)[::7].int()))
    return {**case.summary(counter), "seconds": statistics.median(seconds), "auroc": auroc}


def without_positions(case: Case, directions: int) -> dict[str, float]:
    """Return the summary with that many directions of position taken out of bank and queries."""
    basis = case.basis[:directions]
    model = case.model(case.bank(basis=basis)[0])
    counter = case.counter()
    for image in case.test:
        counter.update(model.answer(case.unit(image.grids[:1], basis)).pred_mask[0, 0], image.mask)
    return case.summary(counter)


def whole_images(case: Case) -> dict[str, dict[str, float]]:
    """Return the summary of image-level retrieval, by class token and by the mean of the patches."""
    kinds: dict[str, Callable[[LabelledImage], torch.Tensor]] = {
        "class token": lambda image: image.token,
        "mean of patches": lambda image: image.grids[0].mean(dim=0),
    }
    results = {}
    for name, kind in kinds.items():
        bank = MemoryBank(case.encoder.embed_dim, case.encoder.image_size)
        bank.class_names = list(case.data.class_names)
        for image in case.train:
            bank.add(unit(kind(image))[None, None], image.mask[None], [image.device], [image.name])
        bank.finish()
        model = RetrievalModel(case.encoder, bank=bank, retrieval="images")  # embeddings are given
        counter = case.counter()
        for image in case.test:
            counter.update(model.answer(unit(kind(image))[None, None]).pred_mask[0, 0], image.mask)
        results[name] = case.summary(counter)
    return results


def measure_case(case: Case, results: Results, key: str) -> dict[str, dict[str, float]]:
    """Return all summaries of a case by name; what the results hold already is not measured again."""
    summaries = dict(results.measure(f"{key} votes", lambda: votes(case)))
    for shifts in sorted({bank for bank, _ in GRIDS}):
        summaries |= results.measure(f"{key} grids {shifts}", lambda s=shifts: grids(case, s))
    for number in DIRECTIONS:
        name = f"{number} directions"
        summaries[name] = results.measure(f"{key} {name}", lambda n=number: without_positions(case, n))
    return summaries | results.measure(f"{key} images", lambda: whole_images(case))


def settings(data: Path, wirebond: str) -> list[Setting]:
    """Return the sets."""

    def folder(name: str, train: str, test: str) -> Callable[[int | None, int], Any]:
        split = {"train_devices": [train], "test_devices": [test], "val_ratio": 0.0, "num_workers": 0}
        return lambda shots, seed: SegmentationFolder(data / name, shots=shots, seed=seed, **split)

    return [
        Setting(
            "wirebond_hgcal",
            (384, 512),
            "wire",
            (1, 5),
            folder("wirebond_hgcal", "module_320MLF3TCTT0205", "module_320MLF3TCTT0212"),
        ),
        Setting("pcb_components", (512, 512), "fram", (1, 4), folder("pcb_components", "board_0009", "board_0018")),
        Setting("WireBond", (512, 512), "wire", (None,), lambda _shots, _seed: WireBond(wirebond, num_workers=0), 1),
    ]


def main() -> None:
    """Measure what is not measured yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the real sets")
    parser.add_argument("--wirebond", default="datasets/WireBond", help="folder in which WireBond is drawn")
    parser.add_argument("--cache", type=Path, default=Path("results/aggregation.json"), help="file of the results")
    parser.add_argument("--encoder", default=DEFAULT_ENCODER)
    parser.add_argument("--images", type=int, default=6, help="test images of each set, evenly taken")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each set, one of WireBond")
    parser.add_argument("--sets", nargs="+", help="names of the sets to measure; default: all")
    parser.add_argument("--context", type=float, default=CONTEXT, help="weight of the patches around each")
    parser.add_argument("--rows", type=int, default=DEFAULT_BANK_SIZE, help="of a bank")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    results, columns = Results(arguments.cache), {}
    chosen = [s for s in settings(arguments.data, arguments.wirebond) if s.name in (arguments.sets or [s.name])]
    for setting in chosen:
        encoder = PatchEncoder(arguments.encoder, image_size=setting.size).eval()
        digest, basis, known = encoder_hash(encoder)[:12], position_basis(encoder, max(DIRECTIONS)), {}
        for shots in setting.shots:
            name = setting.name + ("" if shots is None else f", {shots} shot" + "s" * (shots > 1))
            columns[name] = []
            for seed in range(min(arguments.seeds, setting.seeds)):
                how = arguments.context, arguments.rows
                case = Case(setting, shots, seed, encoder, basis, arguments.images, known, *how)
                key = f"{digest} {setting.name} {setting.size} {shots} {seed} {arguments.images} {how}"
                columns[name].append(measure_case(case, results, key))
                print(name, f"seed {seed}: {columns[name][-1]['1 1']['mean']:.1f}", flush=True)
    labels = {f"{w} {k} {t}": f"{w}, k={k}" + f", temperature {t}" * (t > 0) for w, k, t in _ways()}
    smoothing = {
        smoothed_name(bank, query, passes): f"bank {bank}, query {query}, smoothing {passes}"
        for bank, query, passes in SMOOTHED
    }
    rows = Rows(labels, list(RULES), list(GRIDS), smoothing, [f"{number} directions" for number in DIRECTIONS])
    print("\n".join(tables(columns, rows, {setting.name: setting.thin for setting in chosen})))


if __name__ == "__main__":
    main()
