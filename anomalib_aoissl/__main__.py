# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Lists the anomalib plugins that are installed and what became of each.

``python -m anomalib_aoissl`` exits with 0 when every declared plugin is registered. It exits with 1 when
one was rejected, when one failed, or when the hook is not in use.

With a name after it, it runs a command. ``--help`` behind the name lists the arguments.

- ``bank``: describes and edits memory banks
- ``doctor``: an exported model on this machine
- ``explain``: why a pixel has its class
- ``label``: a page to draw masks on
- ``label-next``: which image to label next
- ``labels``: labels of other tools
- ``measure``: parts in masks as numbers
- ``report``: a study as a page
"""

import contextlib
import site
import sys
import warnings
from importlib import import_module
from importlib.metadata import Distribution
from importlib.util import find_spec
from pathlib import Path

import anomalib_aoissl
from anomalib_aoissl.plugin import autoload as _autoload
from anomalib_aoissl.plugin import registry as _registry

HOOK_FILES = ("anomalib_aoissl.pth", "anomalib_aoissl.start")


def main() -> int:
    """Print the report and return the exit code."""
    twice = _installed_twice()
    if find_spec("anomalib_aoissl.models") is None:
        print(
            f"anomalib-aoissl-line {anomalib_aoissl.__version__}, Python {sys.version.split()[0]}: no torch, no plugins"
        )
        print("commands: python -m anomalib_aoissl --help")
        return 0
    obstacle = _obstacle()
    faults = [] if obstacle else _import_hosts()
    rows = [plugin for group in _autoload.HOSTS for plugin in _registry.plugins(group)]
    print(f"anomalib-aoissl {anomalib_aoissl.__version__}, Python {sys.version.split()[0]}")
    print(f"hook: {obstacle or 'in use'}")
    for fault in [*faults, *twice]:
        print(f"fault: {fault}")
    print(_table(rows, obstacle) if rows else "no plugin is installed")
    well = all(plugin.status == _registry.REGISTERED for plugin in rows)
    return 0 if well and not faults and not obstacle and not twice else 1


def _installed_twice() -> list[str]:
    """Return what is wrong where the package without torch was installed over the whole one, or below it."""
    names = ("anomalib-aoissl", "anomalib-aoissl-line")
    found = [name for name in names if any(Distribution.discover(name=name))]
    if len(found) < len(names):
        return []
    return [f"{' and '.join(names)} share their files; pip uninstall both, then install {names[0]}, which has all"]


def _obstacle() -> str:
    """Return why the hook is not in use, or nothing."""
    if _autoload.switched_off():
        return f"off, since {_autoload.SWITCH}=0; unset it to have plugins registered"
    if _autoload.installed(_autoload.HOSTS):
        return ""
    files = _hook_files()
    if not files:
        return f"not in use: no {HOOK_FILES[0]} in {', '.join(sys.path)}; install the package into a site directory"
    if sys.flags.no_site:
        return f"not in use: Python was started with -S and did not read {files[0]}"
    sites = ", ".join(_site_directories())
    return f"not in use: Python did not read {files[0]}, since it reads such files in {sites} only"


def _hook_files() -> list[str]:
    paths = [Path(folder, name) for folder in [*sys.path, *_site_directories()] for name in HOOK_FILES]
    return [str(path) for path in paths if path.is_file()]


def _site_directories() -> list[str]:
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return [*site.getsitepackages(), *user]


def _import_hosts() -> list[str]:
    """Import the host modules, which has their plugins registered, and return what went wrong."""
    faults = []
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        # The table names every plugin that a warning would name.
        warnings.simplefilter("ignore", _registry.PluginWarning)
        for host in _autoload.HOSTS:
            try:
                import_module(host)
            except Exception as error:  # noqa: BLE001 - to be reported, whatever it is
                faults.append(f"{host} cannot be imported: {type(error).__name__}: {error}")
        _registry.register([host for host in _autoload.HOSTS if host in sys.modules])
    return faults


def _table(rows: list[_registry.Plugin], obstacle: str) -> str:
    """Lay the plugins out in columns."""
    lines = [("GROUP", "CLASS", "FROM", "PACKAGE", "STATUS")]
    for plugin in rows:
        status = "not registered: the hook is not in use" if obstacle else plugin.status
        reason = f": {plugin.reason}" if plugin.reason and not obstacle else ""
        package = f"{plugin.package} {plugin.version}"
        lines.append((plugin.group, plugin.name, plugin.value, package, status + reason))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    cells = [[cell.ljust(width) for cell, width in zip(line, widths, strict=False)] + [line[-1]] for line in lines]
    return "\n".join("  ".join(line) for line in cells)


def _run(arguments: list[str]) -> int:
    """Run the command that the arguments name, or the report where there are none."""
    if arguments:
        from anomalib_aoissl.cli.dispatching import dispatch

        return dispatch(arguments)
    return main()


if __name__ == "__main__":
    sys.exit(_run(sys.argv[1:]))
