# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The log of an export: a few lines of ours on the screen, all the rest in a file beside the model."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_PACKAGE = __name__.partition(".")[0]

_ELSEWHERE: ContextVar[logging.Handler | None] = ContextVar("export_log", default=None)

_OWN_HANDLERS = ("lightning", "lightning.fabric", "lightning.pytorch", "nncf")
"""Loggers that have handlers of their own."""


class _OursOrWarnings(logging.Filter):
    """Lets lines of this package pass, and warnings of others."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a line is shown."""
        return record.name.partition(".")[0] == _PACKAGE or record.levelno >= logging.WARNING


class _Nothing(logging.Filter):
    """Lets nothing pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell that a line is not shown."""
        del record
        return False


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Show lines of this package and warnings, once each, while the block runs; all lines go to a file.

    Anomalib gives the root logger two handlers, so that each line comes twice; the first of them is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(path, mode="w", encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    loggers = [logging.getLogger(), *map(logging.getLogger, _OWN_HANDLERS)]
    filters: list[tuple[logging.Handler, logging.Filter]] = []
    for logger in loggers:
        for index, handler in enumerate(logger.handlers):
            filters.append((handler, _Nothing() if index else _OursOrWarnings()))
            handler.addFilter(filters[-1][1])
        if logger.parent is None or not logger.propagate:  # else the root's handler gets the line
            logger.addHandler(file)
    token = _ELSEWHERE.set(file)
    try:
        yield
    finally:
        _ELSEWHERE.reset(token)
        for logger in loggers:
            logger.removeHandler(file)
        for handler, screen in filters:
            handler.removeFilter(screen)
        file.close()


@contextmanager
def set_aside(*names: str) -> Iterator[None]:
    """Have these loggers, and those below them, say nothing on the screen while the block runs.

    What they say goes to the file of `logged_to`, where one is open.
    """
    handler = _ELSEWHERE.get() or logging.NullHandler()
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.propagate, logger.handlers) for logger in loggers]
    for logger in loggers:
        logger.propagate, logger.handlers = False, [handler]
    try:
        yield
    finally:
        for logger, (propagate, handlers) in zip(loggers, before, strict=True):
            logger.propagate, logger.handlers = propagate, handlers
