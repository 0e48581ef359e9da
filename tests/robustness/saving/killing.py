# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Runs a command again and again, and ends it (SIGKILL) before one change of the file system after the other.

``python killing.py <command> <folder> ...``: the folder stays; ``<folder>-<n>`` is what the end before change n left.
How often each command was ended is printed, a line each.
It is a program of its own, so that each run starts from a process without threads.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

EXPORTS = not {"openvino", "openvino_and_model_api", "onnx"}.isdisjoint(sys.argv[1::2])
if EXPORTS:  # once, for all runs: it takes seconds, and starts no thread
    import onnx
    import openvino  # noqa: F401

    from anomalib_aoissl.models.export.exporting_mixin import ExportingMixin

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate", "os.link", "os.symlink"}


Counts = Callable[[str, tuple[object, ...]], bool]


def changes(event: str, arguments: tuple[object, ...]) -> bool:
    """Tell whether an event of Python's audit is a change of the file system, opening for writing among them."""
    if event != "open":
        return event in CHANGES
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def renames(event: str, arguments: tuple[object, ...]) -> bool:
    """Tell whether an event is a change that others see: files are made under names that nobody reads."""
    del arguments
    return event == "os.rename"


def end_before(number: int, counts: Counts) -> None:
    """End this process before its change of a number, of those that count."""
    done = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal done
        if counts(event, arguments):
            done += 1
            if done == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def run(command: Callable[[Path], object], folder: Path, counts: Counts) -> int:
    """Run a command on copies of a folder until it ends by itself, and return how often it was ended."""
    number = 0
    while True:
        number += 1
        copy = folder.with_name(f"{folder.name}-{number}")
        shutil.copytree(folder, copy)
        process = os.fork()
        if not process:
            end_before(number, counts)
            command(copy)
            os._exit(0)
        status = os.waitpid(process, 0)[1]
        if not os.WIFSIGNALED(status):
            assert status == 0, "the command failed"
            return number - 1


def pair(folder: Path) -> None:
    """Save new.xml and new.bin, which OpenVINO has serialised, over model.xml and model.bin."""
    from anomalib_aoissl.deployment.files.file_pair import Pair, replace_pair

    replace_pair(Pair(folder / "new.xml", folder / "new.bin", folder / "model.xml"))


def bank(folder: Path) -> None:
    """Take an image out of a bank file, in place."""
    from anomalib_aoissl.cli.bank import main

    assert main(["remove", str(folder / "bank.safetensors"), "--image", "1-0", "--in_place"]) == 0


def model(folder: Path) -> None:
    """Take an image out of an exported model, in place."""
    from anomalib_aoissl.cli.bank import main

    assert main(["remove", str(folder / "model.xml"), "--image", "1-0", "--in_place"]) == 0


class Trained(ExportingMixin if EXPORTS else object):  # type: ignore[misc]
    """A model whose conversion, which takes long, was done before: new.xml or new.onnx of a folder."""

    class_names, file_format, tiling = ("background", "wire"), None, None
    HAS_BANK = False

    def __init__(self, folder: Path) -> None:
        self.folder, self.model = folder, SimpleNamespace(check_trained=lambda: None)

    def export_metadata(self) -> dict[str, object]:
        return {"class_names": list(self.class_names)}

    def _onnx_model(self, *_: object) -> object:
        return onnx.load(self.folder / "new.onnx")

    def _converted(self, *_: object) -> object:
        from anomalib_aoissl.deployment.files.model_file import read_model

        return read_model(self.folder / "new.xml")


def export(folder: Path, kind: str, *, model_api: bool = False) -> None:
    """Export a model over an older one, with a result of the gate beside it."""
    from anomalib_aoissl.plugin.export.options import exporting

    with exporting("off", model_api=model_api):
        getattr(Trained(folder), f"to_{kind}")(folder)


def exports(event: str, arguments: tuple[object, ...]) -> bool:
    """Tell whether an event is a change below the folder of the exports."""
    return changes(event, arguments) and any("/weights/" in str(argument) for argument in arguments)


if __name__ == "__main__":
    commands = {
        "pair": (pair, changes),
        "bank": (bank, changes),
        "model": (model, renames),
        "openvino": (partial(export, kind="openvino"), exports),
        "openvino_and_model_api": (partial(export, kind="openvino", model_api=True), exports),
        "onnx": (partial(export, kind="onnx"), exports),
    }
    for name, where in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        chosen, what_counts = commands[name]
        sys.stdout.write(f"{run(chosen, Path(where), what_counts)}\n")
        sys.stdout.flush()  # before the next fork, which would write it too
