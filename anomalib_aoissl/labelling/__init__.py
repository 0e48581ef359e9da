# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A page to draw masks on, which learns while one draws; the extra ``label``."""

import os


def share_processors() -> None:
    """Have torch's threads sleep while they wait for each other; to be called before torch is loaded.

    They spin by default. Beside a program that keeps the cores busy, a lesson then takes two to four times as long.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
