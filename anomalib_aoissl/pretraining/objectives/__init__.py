# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the encoder learns from unlabelled images: MAE, DINO, iBOT and their parts."""
