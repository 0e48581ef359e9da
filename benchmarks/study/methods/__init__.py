# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the study compares: this package's models, the peers, and the weights that encoders have."""
