# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""``python -m anomalib_aoissl bank ...``: memory banks in bank files, checkpoints and exported models, edited as files.

An exported model and a bank file need no torch; a checkpoint does.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from anomalib_aoissl.bank.condensing import condensed
from anomalib_aoissl.bank.content import BankArrays, described, merged, removed, selected
from anomalib_aoissl.bank.storage import BankFileError, read_bank, write_bank
from anomalib_aoissl.deployment.files.companions import beside, files_of
from anomalib_aoissl.deployment.files.model_file import MODEL_SUFFIXES, read_model, save_model

from .dispatching import said
from .outputs import check_outputs, columns

logger = logging.getLogger(__name__)

_BY_HAND: dict[str, dict[str, Any]] = {  # jsonargparse would take lists as JSON and flags with a value
    "banks": {
        "type": Path,
        "nargs": "+",
        "metavar": "bank",
        "help": "Files of any of these kinds, of the same encoder.",
    },
    "class_names": {"nargs": "+", "metavar": "NAME", "help": "Names of the mask's indices, background first."},
    "new_classes": {"action": "store_true", "help": "Add classes that only the others have; not to a checkpoint."},
    "no_refit": {"action": "store_true", "help": "Leave the pixel head as it is: only vote and novelty change."},
    "overwrite": {"action": "store_true", "help": "Replace the output where it exists; never a file that is read."},
    "in_place": {"action": "store_true", "help": "Write over the file itself."},
}
_BANK, _CHECKPOINT = ".safetensors", ".ckpt"


def main(arguments: Sequence[str]) -> int:
    """Run the command and return the exit code; what is wrong with a file or an argument goes to standard error."""
    commands: dict[str, Callable[..., str]] = {
        c.__name__: c for c in (describe, remove, merge, condense, adapt, export)
    }
    given = _parser(commands).parse_args(list(arguments))
    try:
        _check_once(arguments)
        text = commands[given.subcommand](**given[given.subcommand].as_dict())
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"error: {said(error)}\n")
        return 2
    sys.stdout.write(f"{text}\n")
    return 0


def _check_once(arguments: Sequence[str]) -> None:
    """Raise ValueError where an option is given twice: jsonargparse takes the last one without a word."""
    options = Counter(argument.partition("=")[0] for argument in arguments if argument.startswith("--"))
    option, number = max(options.items(), key=lambda pair: pair[1], default=("", 0))
    if number > 1:
        msg = f"{option} is given {number} times, and the command takes one. Run the command once for each."
        raise ValueError(msg)


def _parser(commands: Mapping[str, Callable[..., str]]) -> Any:
    """Return the parser of the commands' own arguments; those without a default are positional."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="python -m anomalib_aoissl bank", description=__doc__)
    subcommands = parser.add_subcommands(title="commands")
    for name, command in commands.items():
        summary = str(command.__doc__).partition("\n\n")[0]
        part = ArgumentParser(description=summary)
        part.add_function_arguments(command, as_group=False, as_positional=True, skip=set(_BY_HAND))
        for argument, options in _BY_HAND.items():
            if argument in command.__annotations__:
                part.add_argument(argument if argument == "banks" else f"--{argument}", **options)
        subcommands.add_subcommand(name, part, help=summary)
    return parser


def describe(path: Path, images: int = 20) -> str:
    """Print what a bank holds: entries of each class, device and image, megabytes, encoder.

    Args:
        path: Bank file (.safetensors), checkpoint (.ckpt) or exported model (.xml, .onnx).
        images: Images to list at most; 0 for all.
    """
    bank = bank_in(path)
    facts = described(bank)
    classes = [(name, entries, facts["pixels_of_class"][name]) for name, entries in facts["entries_of_class"].items()]
    listed = list(facts["entries_of_image"].items())
    shown = listed[: images or len(listed)]
    known = facts["encoder_hash"][:12] or "not known"
    pixels = ""
    if facts["pixels"]:
        pixels = f", {facts['pixels']:,} labelled pixels, {facts['megabytes_of_pixels']:.2f} MB"
    parts = [
        f"{path}: {_entries_of(bank)}, {facts['megabytes']:.2f} MB{pixels}, encoder {known}",
        columns([("CLASS", "ENTRIES", "PIXELS"), *classes]),
        columns([("DEVICE", "ENTRIES"), *facts["entries_of_device"].items()]),
        columns([("IMAGE", "ENTRIES"), *shown]),
    ]
    if len(shown) < len(listed):
        parts.append(f"... and {len(listed) - len(shown)} more images; --images 0 lists all")
    return "\n\n".join(parts)


def remove(
    path: Path,
    device: str | None = None,
    image: str | None = None,
    no_refit: bool = False,
    output: Path | None = None,
    in_place: bool = False,
    overwrite: bool = False,
) -> str:
    """Take the entries of a device or of an image out of a bank, and fit a pixel head again without their pixels.

    Args:
        path: Bank file (.safetensors), checkpoint (.ckpt) or exported model (.xml, .onnx).
        device: Name of the device.
        image: Name of the image; of this device's image where both are given.
        no_refit: Leave the pixel head as it is: only vote and novelty change.
        output: File to write, of the same kind.
        in_place: Write over the file itself.
        overwrite: Replace the output where it exists; never a file that is read.
    """
    target = _target(path, output, in_place, overwrite)
    before = bank_in(path)
    after = removed(before, device=device, image=image)
    return _written(path, after, target, f"{len(before) - len(after):,} entries removed", refit=not no_refit)


def condense(
    path: Path, bank_size: int, output: Path | None = None, in_place: bool = False, overwrite: bool = False
) -> str:
    """Keep a number of entries of a bank, each of which stands for entries that look and are labelled alike.

    Args:
        path: Bank file (.safetensors), checkpoint (.ckpt) or exported model (.xml, .onnx).
        bank_size: Entries that the bank then has at most.
        output: File to write, of the same kind.
        in_place: Write over the file itself.
        overwrite: Replace the output where it exists; never a file that is read.
    """
    target = _target(path, output, in_place, overwrite)
    before = bank_in(path)
    after = _condensed(before, bank_size)
    return _written(path, after, target, f"{len(before):,} entries condensed", refit=False)


def merge(
    path: Path,
    banks: list[Path],
    new_classes: bool = False,
    bank_size: int | None = None,
    output: Path | None = None,
    in_place: bool = False,
    overwrite: bool = False,
) -> str:
    """Add the entries of other banks to a bank; classes are mapped by name.

    A checkpoint's bank is condensed to its own bank_size, as in training. Bank files and exported models keep every
    entry, unless bank_size says how many.

    Args:
        path: Bank file (.safetensors), checkpoint (.ckpt) or exported model (.xml, .onnx).
        banks: Files of any of these kinds, filled with the same encoder.
        new_classes: Add classes that only the others have; else they are an error. Not for a checkpoint.
        bank_size: Entries that the bank then has at most.
        output: File to write, of the kind of the first.
        in_place: Write over the first file.
        overwrite: Replace the output where it exists; never a file that is read.
    """
    target = _target(path, output, in_place, overwrite, banks)
    before = after = bank_in(path)
    others = [bank_in(other) for other in banks]
    if path.suffix == _CHECKPOINT:
        after = _merged_by_checkpoint(path, others)
    else:
        for other in others:
            after = merged(after, other, new_classes=new_classes)
    if bank_size is not None:
        after = _condensed(after, bank_size)
    return _written(path, after, target, f"{sum(len(other) for other in others):,} entries merged with {len(before):,}")


def adapt(
    path: Path,
    image: Path,
    mask: Path,
    device: str,
    name: str | None = None,
    class_names: list[str] | None = None,
    bank_size: int | None = None,
    output: Path | None = None,
    in_place: bool = False,
    overwrite: bool = False,
) -> str:
    """Teach an exported model one labelled image.

    Args:
        path: Exported model (.xml, .onnx).
        image: The image.
        mask: Its class-index mask; 255 is ignored.
        device: Name of the device on the image.
        name: Name of the image in the bank; its path where none is given.
        class_names: Names of the mask's indices where they are others than the model's; names that the model has not
            become new classes.
        bank_size: Entries that the bank then has at most; all are kept where none is given.
        output: Exported model to write (.xml).
        in_place: Write over the model itself.
        overwrite: Replace the output where it exists; never a file that is read.
    """
    from anomalib_aoissl.deployment.inferencer import SegmentationOpenVINOInferencer

    if path.suffix not in MODEL_SUFFIXES:
        msg = f"{path}: only an exported model (.xml, .onnx) can be adapted. Others: train with --model.bank.extends."
        raise ValueError(msg)
    target = _target(path, output, in_place, overwrite, [image, mask])
    inferencer = SegmentationOpenVINOInferencer(path)
    added = inferencer.adapt(image, mask, device=device, name=name, class_names=class_names, bank_size=bank_size)
    return f"{inferencer.save(target)}: {added:,} entries added, {inferencer.bank['entries']:,} in all"


def export(
    path: Path, output: Path, device: str | None = None, image: str | None = None, overwrite: bool = False
) -> str:
    """Write a bank, or the entries of one device or image, as a bank file.

    Args:
        path: Bank file (.safetensors), checkpoint (.ckpt) or exported model (.xml, .onnx).
        output: Bank file to write (.safetensors).
        device: Only the entries of this device.
        image: Only the entries of this image.
        overwrite: Replace the output where it exists; never a file that is read.
    """
    if output.suffix != _BANK:
        msg = f"{output}: a bank file's name ends with {_BANK}."
        raise ValueError(msg)
    check_outputs({"--output": output}, files_of(path), overwrite=overwrite)
    bank = selected(bank_in(path), device=device, image=image)
    return f"{write_bank(bank, output)}: {_entries_of(bank)}"


def bank_in(path: Path) -> BankArrays:
    """Return the bank in a file of any kind that may hold one.

    Raises:
        ValueError: If the file cannot be used or its kind is not known.
        FileNotFoundError: If there is no such model.
        ImportError: If what reads its kind is not installed.
    """
    if path.suffix == _BANK:
        return read_bank(path)
    if path.suffix == _CHECKPOINT:
        from anomalib_aoissl.retrieval.memory.checkpoint_bank import content_of, load_checkpoint

        return content_of(load_checkpoint(path))
    if path.suffix in MODEL_SUFFIXES:
        from anomalib_aoissl.deployment.graph.bank import NotEditableError, bank_of

        try:
            return bank_of(read_model(path))
        except NotEditableError as error:
            msg = f"{path}: {error}"
            raise NotEditableError(msg) from error
    msg = (
        f"{path}: a bank is in a bank file ({_BANK}), a checkpoint ({_CHECKPOINT}) or an exported model (.xml, .onnx)."
    )
    raise BankFileError(msg)


def _target(path: Path, output: Path | None, in_place: bool, overwrite: bool, others: Sequence[Path] = ()) -> Path:
    """Return the file to write; asked before the work.

    Args:
        path: The file that is edited.
        output: The file to write, or None for the file itself.
        in_place: Whether the file itself is written.
        overwrite: Whether another file may be replaced.
        others: Further files that are read.

    Raises:
        ValueError: If not one of output and in_place is given, or the output must not be written.
    """
    if (output is None) == (not in_place):
        msg = "Say where the result goes: --output <file>, or --in_place to write over the file; one of them."
        raise ValueError(msg)
    target = path if output is None else output
    wanted = ".xml" if path.suffix in MODEL_SUFFIXES else path.suffix
    if target.suffix != wanted:
        msg = f"{target}: the result of {path.name} is written as {wanted}."
        raise ValueError(msg)
    read = [file for other in others for file in files_of(other)]
    given = {"--output" if file == target else "--output's weights": file for file in files_of(target)}
    check_outputs(given, read if in_place else [*files_of(path), *read], overwrite=overwrite or in_place)
    return target


def _written(path: Path, bank: BankArrays, target: Path, done: str, refit: bool = True) -> str:
    """Write the file with another bank, and a pixel head that is fitted to its pixels; return what was done."""
    if path.suffix == _BANK:
        write_bank(bank, target)
    elif path.suffix == _CHECKPOINT:
        from anomalib_aoissl.retrieval.memory.checkpoint_bank import (
            load_checkpoint,
            put_content,
            refitted_checkpoint,
            save_checkpoint,
        )

        checkpoint = put_content(load_checkpoint(path), bank)
        save_checkpoint(refitted_checkpoint(checkpoint, bank) if refit else checkpoint, target)
    else:
        from anomalib_aoissl.deployment.editing.refitting import refitted_head
        from anomalib_aoissl.deployment.graph.bank import head_of, read_metadata, settings_of, with_bank

        model = read_model(path)
        head = head_of(model)
        if head is not None:
            head = refitted_head(head, bank, settings_of(model).seed, refit)
        new = with_bank(model, bank, head)
        save_model(new, target, beside(target, read_metadata(new)))
    return f"{target}: {done}, {len(bank):,} in all"


def _merged_by_checkpoint(path: Path, others: list[BankArrays]) -> BankArrays:
    """Return the bank after merging with the checkpoint's own model, which condenses."""
    from anomalib_aoissl.retrieval.lightning_model import AOISSLRetrieval

    model = AOISSLRetrieval.load_from_checkpoint(path, map_location="cpu")
    for other in others:
        model.merge(other)
    return model.model.bank.content()


def _condensed(bank: BankArrays, size: int) -> BankArrays:
    """Return the bank within a number of entries."""
    if bank.patch_size is None and len(bank) > size:
        logger.warning(
            "The file is of an older version and does not say how high and wide its patches are. So where in a patch a "
            "class lies is not looked at; write it anew from its model to keep entries better: bank export."
        )
    return condensed(bank, size, bank.patch_size)


def _entries_of(bank: BankArrays) -> str:
    """Return how much a bank holds, as text."""
    patches = int(bank.entries["counts"].sum())
    return f"{len(bank):,} entries for {patches:,} patches of {len(bank.image_names):,} images"
