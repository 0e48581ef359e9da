# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Measures the share of the k nearest entries that FAISS finds, and its CPU seconds against the exact search.

The entries lie around a thousand centres, as patches of like looks do; queries are drawn in the same way. The search of
an exported model is there too, in entries of floats and of int8; the latter is held against an exact search in
those entries.

    python benchmarks/faiss_recall.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from anomalib_aoissl.deployment.files.model_file import core
from anomalib_aoissl.deployment.graph.search import search as openvino_search
from anomalib_aoissl.matching.faiss_search import SEARCHES, FaissSearch
from anomalib_aoissl.matching.precision import stored
from anomalib_aoissl.matching.searching import search

K = 30


def exported(keys: torch.Tensor) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """Return the search of an exported model in these entries, on one thread."""
    import openvino
    from openvino import opset13 as ops

    queries = ops.parameter([-1, keys.shape[1]], np.float32)
    graph = openvino.Model(list(openvino_search(queries.output(0), ops.constant(keys.numpy()), K)), [queries])
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    run = core().compile_model(graph, "CPU", config)
    return lambda queries, *_: tuple(torch.from_numpy(value) for value in run(queries.numpy()).values())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=102_400)
    parser.add_argument("--dims", type=int, default=384)
    parser.add_argument("--spread", type=float, default=0.8, help="distance of entries to their centre")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    centres = functional.normalize(torch.randn(1000, arguments.dims, generator=generator), dim=1)

    def drawn(number: int) -> torch.Tensor:
        noise = torch.randn(number, arguments.dims, generator=generator) / arguments.dims**0.5
        centre = centres[torch.randint(0, len(centres), (number,), generator=generator)]
        return functional.normalize(centre + arguments.spread * noise, dim=1)

    keys, queries = drawn(arguments.entries), drawn(1024)
    integers = stored(keys, torch.int8)
    searches = {name: search if name == "exact" else FaissSearch(name) for name in SEARCHES}
    searches |= {"exported": exported(keys), "exported, int8": exported(integers)}
    truth = dict.fromkeys(searches, search(queries, keys, K)[1])
    truth["exported, int8"] = search(queries, integers, K)[1]
    nearest, seconds, building = {}, {name: [] for name in searches}, {}
    for name, find in searches.items():
        start = time.process_time()
        nearest[name] = find(queries, keys, K)[1]
        building[name] = time.process_time() - start
    for _ in range(arguments.runs):
        for name, find in searches.items():
            start = time.process_time()
            find(queries, keys, K)
            seconds[name].append(time.process_time() - start)
    print(
        "| search | recall of 30 | CPU s, median | / exact | with building the index |\n| --- | --- | --- | --- | --- |"
    )
    base = statistics.median(seconds["exact"])
    for name, values in seconds.items():
        pairs = zip(nearest[name].tolist(), truth[name].tolist(), strict=True)
        recall = sum(len(set(a) & set(b)) for a, b in pairs) / truth[name].numel()
        middle = statistics.median(values)
        print(f"| {name} | {recall:.4f} | {middle:.3f} | {middle / base:.2f} | {building[name]:.2f} |")


if __name__ == "__main__":
    main()
