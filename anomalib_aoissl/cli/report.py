# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The command ``report``: a study's CSV as one page."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of ``report``."""
    parser.add_argument("csv", type=Path, help="study.csv of a study, finished or not")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder of report.md, report.html and their pictures"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier report in the folder")


def report(options: argparse.Namespace) -> None:
    """Write one page about a study: each claim and whether it held, curves, classes, pictures and failures."""
    from .outputs import check_outputs
    from .reporting.page import write_report

    names = ("report.md", "report.html")
    check_outputs({f"--output, {n}": options.output / n for n in names}, [options.csv], overwrite=options.overwrite)
    written = write_report(options.csv, options.output)
    print(f"{written[0]}, {written[1].name} and {len(written) - 2} pictures")
