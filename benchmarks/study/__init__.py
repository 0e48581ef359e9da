# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The study: AOI-SSL's claims and every peer, measured by one command; see `docs/study.md`."""
