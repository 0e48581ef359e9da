# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The surface of a device before bonding: its materials, its substrate, its dies and their textures."""
