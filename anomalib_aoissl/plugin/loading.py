# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Loads the host modules with their own loaders and has plugins registered afterwards.

The second half of the start-up hook, imported when a host is first looked for.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from .autoload import HostFinder, complain, is_executing

_COMMAND_LINE = "anomalib.cli"


def find_wrapped(
    finder: HostFinder, fullname: str, path: Sequence[str] | None, target: ModuleType | None
) -> ModuleSpec | None:
    """Return what the finders behind this one find, its loader wrapped.

    Finders before this one had their turn. Asking only those behind it also
    keeps two hooks from asking each other for ever.
    """
    finders: list[Any] = list(sys.meta_path)
    behind = finders[finders.index(finder) + 1 :] if finder in finders else finders
    for other in behind:
        find_spec = getattr(other, "find_spec", None)
        spec: ModuleSpec | None = find_spec(fullname, path, target) if find_spec else None
        if spec is not None:
            if hasattr(spec.loader, "exec_module"):
                spec.loader = HostLoader(spec.loader, finder)  # type: ignore[assignment]
            return spec
    return None


class HostLoader:
    """Loader that executes a module with its own loader and has plugins registered then.

    Args:
        loader: The loader that the other finders chose.
        finder: The finder that keeps the account of the modules.
    """

    def __init__(self, loader: Any, finder: HostFinder) -> None:
        self.loader = loader
        self.finder = finder

    def __getattr__(self, name: str) -> Any:
        """Answer as the wrapped loader, so that a probe with ``find_spec`` can read source and code."""
        if name == "loader":  # not set yet, as while being copied
            raise AttributeError(name)
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as the wrapped loader does."""
        module: ModuleType | None = self.loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module with its own loader, then have the plugins registered."""
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        name = module.__name__
        completed = False
        self.finder.executing.add(name)
        try:
            self.loader.exec_module(module)
            completed = True
        finally:
            _finish(self.finder, name, completed)


def catch_up(finder: HostFinder) -> None:
    """Register plugins with the hosts that had been imported before the hook was put in place."""
    for name in sorted(finder.awaited):
        if name in sys.modules and not is_executing(name):
            _finish(finder, name, completed=True)


def _finish(finder: HostFinder, name: str, completed: bool) -> None:
    """Strike a module off the account, and register plugins when no other is still executing."""
    finder.executing.discard(name)
    if completed:
        finder.awaited.discard(name)
        finder.executed.add(name)
    finders: list[Any] = sys.meta_path
    if finder.awaited.isdisjoint({*finder.hosts, _COMMAND_LINE}) and finder in finders:
        finders.remove(finder)
    if not finder.executing and finder.executed:
        _register(finder)


def _register(finder: HostFinder) -> None:
    try:
        from . import registry as _registry

        _registry.register(sorted(finder.hosts & finder.executed))
        if _COMMAND_LINE in finder.executed and finder.hosts <= finder.executed:
            from . import command_line

            command_line.attach(sys.modules[_COMMAND_LINE].AnomalibCLI)
    except Exception as error:  # noqa: BLE001 - no fault may break the import of the host
        complain(error)
