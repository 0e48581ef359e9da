# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The error that a user's files raise."""


class DatasetError(ValueError):
    """What is wrong with the files of a dataset: the file, what was expected, and what to do."""
