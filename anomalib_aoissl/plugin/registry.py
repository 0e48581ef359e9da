# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Loads the plugins that installed packages declare and registers their classes.

A plugin is an entry point ``Name = package.module:Name`` in a group that is
named as the host module it extends, for instance ``anomalib.models``. This
module is imported once a host has been executed, never at start-up.
"""

import inspect
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, distributions, entry_points
from types import ModuleType
from typing import Any

from .autoload import complain, is_executing

REGISTERED = "registered"
REJECTED = "rejected"
FAILED = "failed"
WAITING = "waiting"


class PluginWarning(UserWarning):
    """An installed plugin could not be registered."""


@dataclass(frozen=True)
class HostRule:
    """What a host module asks of the classes that extend it.

    Args:
        base: Name, in the host module, of the class to derive from.
        direct: Whether only direct subclasses are seen by the host's own look-up.
        fold_case: Whether the host's own look-up by name ignores case.
    """

    base: str
    direct: bool = False
    fold_case: bool = False

    def key(self, name: str) -> str:
        """Return the form of a name in which two names of this host collide."""
        return name.lower() if self.fold_case else name


#: `get_model` and `list_models` walk `AnomalibModule.__subclasses__()`, one level
#: deep, and `get_model` compares in lower case; the other two go through
#: jsonargparse alone, which walks all levels and compares exactly.
RULES = {
    "anomalib.models": HostRule("AnomalibModule", direct=True, fold_case=True),
    "anomalib.data": HostRule("AnomalibDataModule"),
    "anomalib.callbacks": HostRule("Callback"),
}


@dataclass
class Plugin:
    """An entry point and what became of it."""

    group: str
    name: str
    value: str
    package: str
    version: str
    status: str = WAITING
    reason: str = ""

    @property
    def module(self) -> str:
        """Module part of the entry point's value."""
        return self.value.partition(":")[0].strip()

    @property
    def attribute(self) -> str:
        """Class part of the entry point's value, without extras."""
        return self.value.partition(":")[2].partition("[")[0].strip()

    def __str__(self) -> str:
        return f"{self.name} = {self.value} ({self.group}, package {self.package} {self.version})"


#: The plugins of each group that was asked for so far.
_plugins: dict[str, list[Plugin]] = {}


class _RejectedError(Exception):
    """A plugin cannot be registered, for the reason given."""


def plugins(group: str) -> list[Plugin]:
    """Return the plugins that installed packages declare for a host, reading them once."""
    if group not in _plugins:
        found = [_plugin(entry_point) for entry_point in _entry_points(group)]
        _plugins[group] = sorted(found, key=lambda plugin: (plugin.name, plugin.package))
    return _plugins[group]


def _plugin(entry_point: EntryPoint) -> Plugin:
    dist = entry_point.dist
    package, version = (dist.metadata["Name"], dist.version) if dist else ("?", "?")
    return Plugin(entry_point.group, entry_point.name, entry_point.value, str(package), str(version))


def _entry_points(group: str) -> Iterable[EntryPoint]:
    try:
        return entry_points(group=group)
    except Exception:  # noqa: BLE001 - one package with unreadable metadata must not hide all others
        return list(_readable_entry_points(group))


def _readable_entry_points(group: str) -> Iterator[EntryPoint]:
    for dist in distributions():
        try:
            yield from [entry_point for entry_point in dist.entry_points if entry_point.group == group]
        except Exception as error:  # noqa: BLE001 - as above
            complain(f"the entry points of {dist.metadata['Name']} cannot be read: {error!r}")


def register(groups: Iterable[str]) -> None:
    """Register the plugins of hosts that have been executed, and try again those that had to wait.

    Args:
        groups: Host modules, each also the name of its entry-point group.
    """
    for group in groups:
        plugins(group)
    for group in list(_plugins):
        if group in sys.modules:
            retry(group)


def retry(group: str) -> None:
    """Try to register the plugins of a host that could not be loaded before."""
    host = sys.modules[group]
    for plugin in plugins(group):
        if plugin.status == WAITING:
            _settle(plugin, host)
    if any(plugin.status == WAITING for plugin in plugins(group)):
        _serve_on_access(host)


def _settle(plugin: Plugin, host: ModuleType) -> None:
    """Register one plugin or note why not; no fault of the plugin leaves this function."""
    try:
        _check_declaration(plugin, host)
        cls = _load(plugin)
        if cls is None:
            _allow(host, [plugin.module])
            return
        _check_class(cls, plugin, host)
    except _RejectedError as rejection:
        _give_up(plugin, REJECTED, str(rejection))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a plugin may do anything, even call sys.exit
        _give_up(plugin, FAILED, f"its import failed with {type(error).__name__}: {error}")
    else:
        plugin.status, plugin.reason = REGISTERED, ""
        setattr(host, plugin.name, cls)
        _allow(host, [plugin.module, *_modules_offering(cls)])


def _give_up(plugin: Plugin, status: str, reason: str) -> None:
    plugin.status, plugin.reason = status, reason
    message = (
        f"anomalib plugin {plugin} was not registered: {reason}. "
        "`python -m anomalib_aoissl` lists all plugins; correct or uninstall the package to end this warning."
    )
    try:
        warnings.warn(message, PluginWarning, stacklevel=2)
    except Exception:  # noqa: BLE001 - `-W error` makes it an exception, which may not leave the hook
        complain(message)


def _load(plugin: Plugin) -> Any:
    """Load what the entry point names, or return None when it has to wait for an import in progress."""
    try:
        return getattr(import_module(plugin.module), plugin.attribute)
    except (AttributeError, ImportError) as error:
        if not _is_half_imported(plugin, error):
            raise
        plugin.reason = f"waits for an import in progress: {error}"
        return None


def _is_half_imported(plugin: Plugin, error: Exception) -> bool:
    """Tell a plugin that is being imported right now from one that is broken."""
    if "partially initialized" in str(error):
        return True
    package = _top(plugin.module)
    return any(is_executing(name) for name in list(sys.modules) if _top(name) == package)


def _top(module: str) -> str:
    return module.partition(".")[0]


def _check_declaration(plugin: Plugin, host: ModuleType) -> None:
    """Validate what can be validated before the plugin is imported.

    A class with the name of a built-in does its harm by existing: the built-in's
    short name becomes ambiguous. So it must not even be imported.
    """
    if not re.fullmatch(r"\w+(\.\w+)*:\w+", f"{plugin.module}:{plugin.attribute}"):
        msg = f"its value {plugin.value!r} is not of the form 'package.module:Class'"
        raise _RejectedError(msg)
    if plugin.name != plugin.attribute:
        msg = f"its name {plugin.name!r} differs from the class name {plugin.attribute!r}; they must be the same"
        raise _RejectedError(msg)
    owner = _owner(plugin, host)
    if owner:
        msg = f"the name {plugin.name!r} is taken by {owner}; rename the class"
        raise _RejectedError(msg)


def _owner(plugin: Plugin, host: ModuleType) -> str | None:
    """Return who has the plugin's name already, if anyone."""
    key = RULES[plugin.group].key
    for other in plugins(plugin.group):
        if other.status == REGISTERED and key(other.name) == key(plugin.name):
            return f"{other.value} of package {other.package}"
    present = vars(host).get(plugin.name)
    if present is not None or plugin.name in getattr(host, "__all__", ()):
        module = str(getattr(present, "__module__", plugin.group))
        if _top(module) != _top(plugin.module):
            return f"{module}.{plugin.name}"
    for cls in _subclasses(_base(plugin, host)):
        if key(cls.__name__) == key(plugin.name) and _top(cls.__module__) != _top(plugin.module):
            return f"{cls.__module__}.{cls.__qualname__}"
    return None


def _base(plugin: Plugin, host: ModuleType) -> type:
    name = RULES[plugin.group].base
    base = getattr(host, name, None)
    if not isinstance(base, type):
        msg = f"this version of anomalib has no class {plugin.group}.{name} to check it against"
        raise _RejectedError(msg)
    return base


def _subclasses(cls: type) -> Iterator[type]:
    subclass: type
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _check_class(cls: object, plugin: Plugin, host: ModuleType) -> None:
    """Validate that the host finds the class under its name."""
    base, rule = _base(plugin, host), RULES[plugin.group]
    if not isinstance(cls, type):
        msg = f"it is no class but a {type(cls).__name__}"
    elif not issubclass(cls, base):
        msg = f"it is no subclass of {base.__module__}.{base.__qualname__}"
    elif rule.direct and base not in cls.__bases__:
        parents = ", ".join(parent.__name__ for parent in cls.__bases__)
        msg = (
            f"it is no direct subclass of {base.__name__} (its bases: {parents}), and get_model and "
            f"list_models see direct ones only; add {base.__name__} to its bases"
        )
    elif cls.__name__ != plugin.name or cls.__qualname__ != plugin.name:
        msg = f"the class is called {cls.__qualname__!r}, not {plugin.name!r}, and is looked up by what it is called"
    elif inspect.isabstract(cls):
        msg = f"it is abstract: {', '.join(sorted(getattr(cls, '__abstractmethods__', ())))} must be implemented"
    else:
        msg = _path_objection(cls)
    if msg:
        raise _RejectedError(msg)


def _path_objection(cls: type) -> str:
    """Return why jsonargparse would not offer the class under its name, if so."""
    modules = _modules_offering(cls)
    if not modules:
        return f"{cls.__module__}.{cls.__name__} is not this class: its __module__ must be importable and hold it"
    path = f"{modules[0]}.{cls.__name__}"
    if "._" in path:
        return f"its path {path} is private, and private classes are not offered; drop the underscore or re-export it"
    return ""


def _modules_offering(cls: type) -> list[str]:
    """Return the modules, from the outermost inwards, that hold a class under its name.

    The first is what jsonargparse writes into a configuration; all of them are
    what a user may write in one.
    """
    parts = cls.__module__.split(".")
    prefixes = [".".join(parts[: end + 1]) for end in range(len(parts))]
    return [name for name in prefixes if getattr(sys.modules.get(name), cls.__name__, None) is cls]


def _allow(host: ModuleType, modules: list[str]) -> None:
    """Let class paths into these modules pass, where the host keeps a list of them."""
    allowed = getattr(host, "ALLOWED_MODULES", None)
    if isinstance(allowed, set):
        allowed.update(modules)


def _serve_on_access(host: ModuleType) -> None:
    """Give the host a module `__getattr__` that tries the waiting plugins again.

    A plugin that is imported before anomalib imports the host itself, and is
    then half executed when the host asks for its class. Nothing tells when it
    is done, so the class is fetched when it is first asked for.
    """
    inner = vars(host).get("__getattr__")
    if getattr(inner, "serves_plugins", False):
        return

    def __getattr__(name: str) -> object:  # noqa: N807 - the name that PEP 562 asks for
        if any(plugin.name == name and plugin.status == WAITING for plugin in plugins(host.__name__)):
            retry(host.__name__)
        if name in vars(host):
            return vars(host)[name]
        if inner is not None:
            return inner(name)
        msg = f"module {host.__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)

    __getattr__.serves_plugins = True  # type: ignore[attr-defined]
    host.__getattr__ = __getattr__  # type: ignore[method-assign]
