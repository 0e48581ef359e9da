# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The graph of an exported model: its bank, its pixel head, its search, as named tensors."""
