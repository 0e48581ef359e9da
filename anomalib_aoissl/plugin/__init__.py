# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""How a stock anomalib finds the plugin: start-up hook, loader of entry points, registry of names."""
