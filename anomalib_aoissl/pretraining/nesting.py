# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A trainer inside another trainer's setup: the same devices, processes, precision and loggers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, ParallelStrategy, SingleDeviceStrategy
from PIL import Image

_PREFIX = "pretraining"


class JoinedEnvironment(ClusterEnvironment):
    """The processes of a cluster environment that has launched them already: none is started or ended here.

    Args:
        outer: Environment of the outer trainer.
    """

    def __init__(self, outer: ClusterEnvironment) -> None:
        super().__init__()
        self.outer = outer

    @property
    def creates_processes_externally(self) -> bool:
        """True: all processes run already."""
        return True

    @property
    def main_address(self) -> str:
        """Address of the first process."""
        return self.outer.main_address

    @property
    def main_port(self) -> int:
        """Port of the first process."""
        return self.outer.main_port

    @staticmethod
    def detect() -> bool:
        """Return False: Lightning never chooses this environment itself."""
        return False

    def world_size(self) -> int:
        """Return the number of processes."""
        return self.outer.world_size()

    def set_world_size(self, size: int) -> None:
        """Leave the number of processes as it is."""

    def global_rank(self) -> int:
        """Return the rank among all processes."""
        return self.outer.global_rank()

    def set_global_rank(self, rank: int) -> None:
        """Leave the rank as it is."""

    def local_rank(self) -> int:
        """Return the rank on this machine."""
        return self.outer.local_rank()

    def node_rank(self) -> int:
        """Return the number of this machine."""
        return self.outer.node_rank()


class ForwardingLogger(Logger):
    """Hands metrics and pictures to another logger under the prefix "pretraining/", and never closes it.

    Args:
        outer: Logger of the outer trainer.
    """

    def __init__(self, outer: Logger) -> None:
        super().__init__()
        self.outer = outer

    @property
    def name(self) -> str:
        """Name of the logger."""
        return _PREFIX

    @property
    def version(self) -> str:
        """Version of the logger."""
        return ""

    def log_hyperparams(self, *args: object, **kwargs: object) -> None:
        """Leave the outer run's hyperparameters alone."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Log the metrics with the prefix."""
        self.outer.log_metrics({f"{_PREFIX}/{name}": value for name, value in metrics.items()}, step)

    def add_image(self, path: Path, step: int) -> None:
        """Log a picture, where the outer logger takes pictures as anomalib's do."""
        if hasattr(self.outer, "add_image"):
            with Image.open(path) as picture:
                self.outer.add_image(np.asarray(picture), f"{_PREFIX}/{path.stem}", global_step=step)


def nested_arguments(outer: Trainer) -> dict[str, Any]:
    """Return arguments for a trainer that runs on the outer one's devices while that one waits in ``setup``."""
    strategy = outer.strategy
    shared: dict[str, Any] = {
        "precision": outer.precision,
        "num_nodes": outer.num_nodes,
        "logger": [ForwardingLogger(logger) for logger in outer.loggers] or False,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "barebones": False,
        "enable_progress_bar": outer.progress_bar_callback is not None,
    }
    if isinstance(strategy, ParallelStrategy) and strategy.cluster_environment is not None:
        return {
            **shared,
            "accelerator": outer.accelerator,
            "devices": outer.num_devices,
            "strategy": DDPStrategy(
                cluster_environment=JoinedEnvironment(strategy.cluster_environment),
                process_group_backend=getattr(strategy, "process_group_backend", None),
                find_unused_parameters=True,  # a transformer may have parts that an objective does not run
            ),
        }
    return {
        **shared,
        "accelerator": outer.accelerator,
        "devices": 1,
        "strategy": SingleDeviceStrategy(device=strategy.root_device),
    }
