# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Start-up hook: has plugins registered as soon as anomalib is imported.

``anomalib_aoissl.pth`` runs :func:`install` at every start of the interpreter.
So this module is short, imports ``os`` and ``sys`` only (both are loaded by then),
and does no more than put a finder on ``sys.meta_path``. What the finder does
once anomalib is imported is in ``anomalib_aoissl.plugin.loading``, and all that reads
entry points and judges classes is in ``anomalib_aoissl.plugin.registry``.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

SWITCH = "ANOMALIB_AOISSL_AUTOLOAD"

#: Modules that get the classes; each is also the name of an entry-point group.
HOSTS = ("anomalib.models", "anomalib.data", "anomalib.callbacks")

#: Modules that import the hosts. While one of them is half executed no plugin
#: is loaded, since a plugin that imports it too would meet it half made.
OUTER = ("anomalib.engine", "anomalib.cli")


class HostFinder:
    """Meta-path finder that wraps the loaders of the modules it waits for.

    Args:
        hosts: Modules to register plugins with once they have been executed.
        outer: Modules that put registration off until they have been executed.
    """

    def __init__(self, hosts: "Collection[str]", outer: "Collection[str]" = ()) -> None:
        self.hosts = frozenset(hosts)
        self.awaited = {*hosts, *outer}
        self.executing: set[str] = set()
        self.executed: set[str] = set()

    def find_spec(
        self, fullname: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """Find an awaited module through the other finders and wrap its loader."""
        if fullname not in self.awaited:
            return None
        try:
            loading = _second_half()
        except Exception as error:  # noqa: BLE001 - the package may have been removed since
            complain(error)
            return None
        spec: ModuleSpec | None = loading.find_wrapped(self, fullname, path, target)
        return spec


_installed: list[HostFinder] = []


def install(hosts: "Collection[str]" = HOSTS, outer: "Collection[str]" = OUTER) -> None:
    """Put the hook in place, unless it is there already or switched off.

    Hosts that are imported already get their plugins at once. Nothing is ever
    raised: a fault is written to standard error and Python goes on.

    Args:
        hosts: Modules to register plugins with; each is the name of its entry-point group.
        outer: Modules that put registration off while they are being executed.
    """
    try:
        if switched_off() or installed(hosts):
            return
        finder = HostFinder(hosts, outer)
        _installed.append(finder)
        sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
        if not finder.awaited.isdisjoint(sys.modules):
            _second_half().catch_up(finder)
    except Exception as error:  # noqa: BLE001 - start-up must survive whatever happens here
        complain(error)


def _second_half() -> "Any":
    """Return the module that loads hosts, named as text: it is imported when it is needed, and imports this one."""
    return __import__(f"{__package__}.loading", fromlist=["loading"])


def is_executing(name: str) -> bool:
    """Tell whether a module is in the middle of being imported."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


def installed(hosts: "Collection[str]" = HOSTS) -> bool:
    """Tell whether the hook was put in place for these hosts."""
    return any(finder.hosts >= set(hosts) for finder in _installed)


def switched_off() -> bool:
    """Tell whether the user has switched the hook off with ``ANOMALIB_AOISSL_AUTOLOAD=0``."""
    return os.environ.get(SWITCH) == "0"


def complain(problem: object) -> None:
    """Write a problem to standard error, where there is one."""
    from contextlib import suppress

    kind = f"{type(problem).__name__}: " if isinstance(problem, BaseException) else ""
    with suppress(Exception):  # closed, or none at all: nobody is there to be told
        sys.stderr.write(f"anomalib_aoissl: {kind}{problem}\n")
