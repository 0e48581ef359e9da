# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Measures by which score retrieval should abstain.

Prints the area under the risk-coverage curve (in points, smaller is better) of scores of uncertainty, over seeds of the
labelled images: the novelty n, the split of the vote 1 - s (s is the share of the winning class), their sum, and
1 - s * (1 - n), which the model uses. Each set is measured twice: with all labels, and with one class unlabelled (255)
in the bank, so that all its pixels are wrong and only a doubt can find them. The last columns are the coverage and the
risk at the threshold that the labelled images, asked of each other, give for 5 % of the pixels.

    python benchmarks/abstention.py --data <folder of wirebond_hgcal and pcb_components> --wirebond datasets/WireBond
"""

from __future__ import annotations

import argparse
import logging
import statistics
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
from condensing import WIREBOND_DEVICES, Embedded, embed, fill

from anomalib_aoissl import SegmentationFolder, WireBond
from anomalib_aoissl.data.indices import IGNORE_INDEX
from anomalib_aoissl.encoder import DEFAULT_ENCODER, PatchEncoder
from anomalib_aoissl.retrieval.abstention import uncertainty_of, winning_share
from anomalib_aoissl.retrieval.aggregation import NEIGHBOURS
from anomalib_aoissl.retrieval.calibration import ask_of_others
from anomalib_aoissl.retrieval.context import CONTEXT
from anomalib_aoissl.retrieval.lightning_model import DEFAULT_BANK_SIZE
from anomalib_aoissl.retrieval.smoothing import SMOOTHING
from anomalib_aoissl.retrieval.torch_model import RetrievalModel
from anomalib_aoissl.risk_coverage import RiskCoverage

SHARE = 0.05


@dataclass(frozen=True)
class Case:
    """A data set: its labelled images for a seed, the encoder's size, and the class to hide."""

    data: SegmentationFolder | WireBond
    size: tuple[int, int]
    hidden: str


def make_case(name: str, seed: int, options: argparse.Namespace) -> Case:
    """Return the case of this name."""
    if name == "WireBond":
        data = WireBond(options.wirebond, devices=WIREBOND_DEVICES, shots=2, val_ratio=0, seed=seed, num_workers=0)
        data.prepare_data()
        case = Case(data, (384, 384), "epoxy")
    else:
        hgcal = name == "wirebond_hgcal"
        train, test = ("module_320MLF3TCTT0205", "module_320MLF3TCTT0212") if hgcal else ("board_0009", "board_0018")
        data = SegmentationFolder(
            Path(options.data) / name,
            train_devices=[train],
            test_devices=[test],
            shots=5 if hgcal else 2,
            val_ratio=0.0,
            seed=seed,
        )
        case = Case(data, (384, 512) if hgcal else (512, 512), "wire" if hgcal else "main_processor")
    case.data.setup()
    return case


def scores_of(model: RetrievalModel, embeddings: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return scores of uncertainty in [0, 1] and the mask, each ``[1, H, W]``, of embeddings ``[1, P, D]``."""
    batch, votes = model.answer_with_scores(embeddings)
    novelty, share = batch.anomaly_map[:, 0], model._pixels(winning_share(votes))[:, 0]
    scores = {
        "n": novelty / 2,
        "1 - s": 1 - share,
        "1 - s + n": (1 - share + novelty) / 3,
        "1 - s (1 - n)": uncertainty_of(share, novelty),
    }
    return scores, batch.pred_mask[:, 0]


def measure(model: RetrievalModel, train: Embedded, test: Embedded) -> dict[str, float]:
    """Return the area of each score, and the error, the coverage and the risk at the threshold, in points."""
    for index, mask in enumerate(train.masks):
        ask_of_others(model, train.embeddings[index : index + 1], mask, str(index))
    areas: dict[str, RiskCoverage] = defaultdict(RiskCoverage)
    counted, kept, wrong_kept, wrong = 0, 0, 0, 0
    for embeddings, mask in zip(test.embeddings, test.masks, strict=True):
        scores, predicted = scores_of(model, embeddings[None])
        for name, score in scores.items():
            areas[name].update(score, predicted, mask[None])
        valid = mask[None] != IGNORE_INDEX
        sure = valid & (scores["1 - s (1 - n)"] <= (model.abstention.threshold or 1))
        errors = predicted != mask[None]
        counted, kept = counted + int(valid.sum()), kept + int(sure.sum())
        wrong, wrong_kept = wrong + int((errors & valid).sum()), wrong_kept + int((errors & sure).sum())
    return {
        **{name: 100 * float(area.compute()) for name, area in areas.items()},
        "error": 100 * wrong / counted,
        "coverage": 100 * kept / counted,
        "risk": 100 * wrong_kept / kept,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder that holds wirebond_hgcal and pcb_components")
    parser.add_argument("--wirebond", default="datasets/WireBond", help="where the drawn set is or will be")
    parser.add_argument("--sets", nargs="+", default=["wirebond_hgcal", "pcb_components", "WireBond"])
    parser.add_argument("--encoder", default=DEFAULT_ENCODER)
    parser.add_argument("--images", type=int, default=8, help="test images")
    parser.add_argument("--k", type=int, default=NEIGHBOURS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--context", type=float, default=CONTEXT, help="weight of the patches around each")
    parser.add_argument("--rows", type=int, default=DEFAULT_BANK_SIZE, help="of a bank")
    options = parser.parse_args()
    context = options.context
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    header = ""
    for name in options.sets:
        results: dict[str, list[dict[str, float]]] = defaultdict(list)
        for seed in range(options.seeds):
            case = make_case(name, seed, options)
            encoder = PatchEncoder(options.encoder, image_size=case.size).eval()
            train, test = (
                embed(case.data.train_data, encoder, None, 4, context),  # grids, as the model for so few images
                embed(case.data.test_data, encoder, options.images, context=context),
            )
            for hidden in ("", case.hidden):
                masks = train.masks.clone()
                if hidden:
                    masks[masks == case.data.class_names.index(hidden)] = IGNORE_INDEX
                known = Embedded(train.grids, masks, train.devices, 0.0)
                bank = fill(encoder, known, case.data.class_names, 4, budget=options.rows, rule="learned")
                how = {"k": options.k, "smoothing": SMOOTHING, "context": context, "abstain": SHARE}
                model = RetrievalModel(encoder, bank=bank, **how).eval()
                results[f"{name}, no label of {hidden}" if hidden else name].append(measure(model, known, test))
        for row, values in results.items():
            if not header:
                header = f"| set | {' | '.join(values[0])} |\n|{' --- |' * (len(values[0]) + 1)}"
                print(header)
            cells = [[value[key] for value in values] for key in values[0]]
            print(
                f"| {row} |", " | ".join(f"{statistics.mean(c):.2f} ± {statistics.pstdev(c):.2f}" for c in cells), "|"
            )


if __name__ == "__main__":
    main()
