# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Classes of the folder: names in ``dataset.json`` or ``classes.txt``, colours beside them, and taking one out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from anomalib_aoissl.data.describing.class_colours import palette
from anomalib_aoissl.data.describing.class_names import BACKGROUND, parse_class_names
from anomalib_aoissl.data.describing.description import (
    CLASSES_NAME,
    DESCRIPTION_NAME,
    DatasetDescription,
    read_description,
)
from anomalib_aoissl.data.errors import DatasetError
from anomalib_aoissl.data.files import read_json_or, write_text
from anomalib_aoissl.data.indices import IGNORE_INDEX

from .listing import file_version
from .masks import MaskStore, remove_others, write_mask
from .problems import Problem, unwritable

_BACKGROUND_COLOUR = "#b4b4b4"  # the pictures are dark, and black would not be seen on them


class ClassNames:
    """Names and colours of the classes of a folder.

    Args:
        root: The folder.

    Raises:
        ValueError: If the folder names its classes in a way that cannot be read, or its masks are colour-coded.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._read = self._versions()
        self._colours_path = root / ".labelling" / "colours.json"
        self.description = _described(root)
        if self.description.colours is not None:
            msg = (
                f"{root / DESCRIPTION_NAME}: its masks are coded by colours, and the page writes class indices. Turn "
                'the masks into class indices, take "colours" out, and open the page again.'
            )
            raise ValueError(msg)
        chosen = read_json_or(self._colours_path, {})
        self._colours = {str(key): str(value) for key, value in chosen.items()}
        self._former: set[tuple[int, str]] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the order of the indices, background first."""
        return self.description.classes

    @property
    def colours(self) -> list[str]:
        """Colour of each class, "#rrggbb"; those of Okabe and Ito, which colour-blind people tell apart, at first."""
        table = palette(len(self.names))
        usual = [_BACKGROUND_COLOUR, *("#{:02x}{:02x}{:02x}".format(*table[i]) for i in range(1, len(self.names)))]
        return [self._colours.get(name, usual[index]) for index, name in enumerate(self.names)]

    def is_named(self, index: int, name: str) -> bool:
        """Tell whether a class has, or had before it was renamed, a name; indices move when one is removed."""
        return self.names[index : index + 1] == (name,) or (index, name) in self._former

    def read_again(self) -> bool:
        """Read the names again where another program wrote them; tell whether they are others now."""
        versions, before = self._versions(), self.names
        if versions != self._read and any(version != "0" for version in versions):
            self._read = versions
            with suppress(DatasetError):  # half written: the names stay until it is whole
                self.description = _described(self.root)
        if self.names[: len(before)] != before:  # renamed or moved: nobody says which
            self._former.clear()
        return self.names != before

    def add(self, name: str) -> None:
        """Add a class at the end."""
        self.write([*self.names, name])

    def rename(self, index: int, name: str) -> None:
        """Give a class another name; the masks stay as they are."""
        names = list(self.names)
        old, names[index] = names[index], name
        self.write(names)
        self._former.add((index, old))
        if old in self._colours:
            self._colours[name.strip()] = self._colours.pop(old)
            self._write_colours()

    def recolour(self, index: int, colour: str) -> None:
        """Give a class another colour, "#rrggbb"."""
        digits = colour.removeprefix("#").lower()
        if len(digits) != 6 or set(digits) - set("0123456789abcdef"):
            msg = f"{colour!r}: is no colour. Give it as #rrggbb."
            raise Problem(msg)
        self._colours[self.names[index]] = f"#{digits}"
        self._write_colours()

    def write(self, names: Sequence[str]) -> None:
        """Write names to the file that names the classes, ``classes.txt`` where there is none.

        Raises:
            Problem: If they are no names, or the file cannot be written.
        """
        try:
            checked = parse_class_names(list(names), "The classes")
            self._check_ignored(checked)
            self._save(checked)
        except DatasetError as error:
            raise Problem(str(error)) from error
        except OSError as error:
            raise unwritable(error, "The classes") from error
        if len(checked) < len(self.names):
            self._former.clear()
        self.description, self._read = replace(self.description, classes=checked), self._versions()

    def _check_ignored(self, names: Sequence[str]) -> None:
        """Validate that no class gets the index that masks have where pixels are ignored: its paint would be lost.

        Raises:
            Problem: If one does.
        """
        index = self.description.ignore_index
        if 0 <= index < len(names):
            msg = (
                f'{names[index]!r} would get the index {index}, which is the "ignore_index" in {DESCRIPTION_NAME}. '
                f"Write {IGNORE_INDEX} there, and in the masks that have a {index}, and add the class then."
            )
            raise Problem(msg)

    def _versions(self) -> tuple[str, ...]:
        """Return what changes when one of the files is written that may name the classes."""
        return tuple(file_version(self.root / name) for name in (DESCRIPTION_NAME, CLASSES_NAME))

    def _save(self, names: tuple[str, ...]) -> None:
        path = self.root / DESCRIPTION_NAME
        content: dict[str, Any] = json.loads(path.read_bytes()) if path.is_file() else {}
        if content.get("classes") is not None:
            content["classes"] = list(names)
            write_text(path, json.dumps(content, indent=1, ensure_ascii=False))
        else:
            write_text(self.root / CLASSES_NAME, "".join(f"{name}\n" for name in names))

    def _write_colours(self) -> None:
        try:
            write_text(self._colours_path, json.dumps(self._colours, indent=1))
        except OSError as error:
            raise unwritable(error, "The colours") from error


class Removal:
    """Takes a class out of all masks of a folder, or out of none, also if the program is killed on the way.

    New masks are written aside first. Then a journal is written; from there on the removal is finished, be it before
    the next stroke, or when the folder is opened next.

    Args:
        classes: The classes.
        masks: The masks.
    """

    def __init__(self, classes: ClassNames, masks: MaskStore) -> None:
        self.classes, self.masks = classes, masks
        self.journal = masks.folder.own / "removal.json"
        self.aside = masks.folder.own / "removal"

    def uses(self, index: int) -> dict[str, int]:
        """Return the pixels that are painted in a class, of each mask that has some."""
        found = {name: int((self.masks.stored(name) == index).sum()) for name in self._stored()}
        return {name: pixels for name, pixels in found.items() if pixels}

    def run(self, index: int, into: int) -> None:
        """Take a class out; its pixels become those of another class, or unpainted (255).

        Raises:
            Problem: If it is the background or the last class beside it, or a file cannot be written.
        """
        names = self.classes.names
        if not 0 < index < len(names) or len(names) < 3 or into == index or not (0 <= into < len(names) or into == 255):
            msg = "The background, and the last class beside it, cannot be removed. Rename it instead."
            raise Problem(msg)
        table = np.arange(256, dtype=np.uint8)
        table[index + 1 : len(names)] -= 1
        table[index] = into if into == IGNORE_INDEX or into < index else into - 1
        shutil.rmtree(self.aside, ignore_errors=True)  # of one that was given up
        try:
            for name in self._stored():
                mask = self.masks.stored(name)
                if (mask != table[mask]).any():
                    write_mask(self.aside / f"{name}.png", table[mask])
            left = [name for at, name in enumerate(names) if at != index]
            write_text(self.journal, json.dumps({"classes": left}))
        except OSError as error:
            raise unwritable(error, "The masks") from error
        self.finish()

    @property
    def pending(self) -> bool:
        """Whether a removal is to be finished: the masks hold other indices than the names say until then."""
        return self.journal.is_file()

    def finish(self) -> bool:
        """Put what a removal wrote aside in its place, where a journal says that it is complete; tell whether one did.

        Raises:
            Problem: If a file cannot be written; the journal stays, and the rest is done next time.
        """
        with self.masks.locked():  # another program may be writing aside just now
            pending = self.pending
            try:
                if pending:
                    self._put_in_place()
            except OSError as error:
                raise unwritable(error, "The masks") from error
            shutil.rmtree(self.aside, ignore_errors=True)
        return pending

    def _put_in_place(self) -> None:
        """Put masks and names in their place; what an earlier try did is not done again."""
        for path in sorted(self.aside.rglob("*.png")):
            name = path.relative_to(self.aside).with_suffix("").as_posix()
            target = self.masks.folder.mask_path(name).with_suffix(".png")
            target.parent.mkdir(parents=True, exist_ok=True)
            remove_others(target)  # before: what is aside still says that they are to go
            path.replace(target)
        self.classes.write(json.loads(self.journal.read_text(encoding="utf-8"))["classes"])
        shutil.rmtree(self.masks.folder.own / "history", ignore_errors=True)  # of other indices
        self.journal.unlink()

    def _stored(self) -> list[str]:
        """Return the names of all masks; their pictures may be away now, and come again."""
        return sorted(self.masks.versions())


def _described(root: Path) -> DatasetDescription:
    """Return the description of a folder; with two classes where it names none."""
    try:
        return read_description(root)
    except DatasetError as error:
        if (root / CLASSES_NAME).is_file() or "class names are not known" not in str(error):
            raise
    return read_description(root, _first_names(root))


def _first_names(root: Path) -> Sequence[str]:
    """Return names for the classes that the masks of a folder hold, at least background and one more."""
    from anomalib_aoissl.data.reading import read_mask

    largest = 1
    for path in sorted((root / "masks").glob("*.png"))[:100]:
        try:
            mask = read_mask(path)
        except DatasetError:
            continue
        largest = max([largest, *np.unique(mask[mask != IGNORE_INDEX]).tolist()])
    return [BACKGROUND, *(f"class {index}" for index in range(1, largest + 1))]
