# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The error of a model that is asked before it was trained."""


class UntrainedError(RuntimeError):
    """What is asked of the model needs training, or a checkpoint; the command line says so in one line."""
