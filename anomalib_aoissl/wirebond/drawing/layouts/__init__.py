# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What lies where on a device: dies, pads, leads and wires, first as a layout, then in pixels of the image."""
