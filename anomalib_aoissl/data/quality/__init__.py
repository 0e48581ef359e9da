# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What a picture is like beside the labelled ones: sharpness, light, proportions, tones; without torch."""
