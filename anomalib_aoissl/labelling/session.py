# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""A page's session on a folder: what the server is asked, without any server."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.indices import IGNORE_INDEX

from .events import Events
from .lessons import Lessons
from .storage.arriving import Arrivals
from .storage.classes import ClassNames, Removal
from .storage.folder import LabelFolder
from .storage.in_memory import PaintedPixels
from .storage.masks import MaskStore, Region
from .storage.pictures import DecodedPictures
from .storage.problems import Problem
from .teaching.settings import ModelSettings

_WATCHED = 2.0  # s between looks at the folder
_TOLD = 50  # masks that other programs changed at once of which each tab is told one by one


class Session:
    """Pictures, masks and lessons of one folder, for any number of tabs.

    Args:
        root: The folder.
        settings: Of the model that is taught.
        bit_depth: Bits that the camera uses of a 16-bit file, 8 to 16; None for all.

    Raises:
        ValueError: If the folder cannot be used.
    """

    def __init__(self, root: Path | str, settings: ModelSettings | None = None, bit_depth: int | None = None) -> None:
        LabelFolder(root)  # says what is wrong with the folder before its description is read
        self.classes = ClassNames(Path(root).resolve())
        self.folder = LabelFolder(root, FileFormat(self.classes.description.lighting_channels, bit_depth))
        self.masks = MaskStore(self.folder, lambda: self.classes.description)
        self.removal = Removal(self.classes, self.masks)
        with suppress(Problem):  # the first stroke says it
            self.removal.finish()
        self.pictures = DecodedPictures(self.folder)
        self.arrivals = Arrivals(self.folder)
        self.arrivals.clean()
        self.events = Events()
        self.lessons = Lessons(self, settings or ModelSettings())
        self._counts = PaintedPixels()
        self._versions: dict[str, str] = {}
        self._states = itertools.count()
        self._untold = False  # pictures arrived of which the tabs were not told
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin to compute, and to watch the folder."""
        self.lessons.start()
        threading.Thread(target=self._watch, name="watching", daemon=True).start()

    def stop(self) -> None:
        """End both."""
        self._ended.set()
        self.lessons.stop()
        self.arrivals.clean()
        self.events.close()

    # --- what there is -----------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return what a page shows beside the picture."""
        number = next(self._states)  # taken first: a larger one is newer, in whatever order answers arrive
        colours = zip(self.classes.names, self.classes.colours, strict=True)
        return {
            "number": number,
            "folder": self.folder.root.name,
            "classes": [{"name": name, "colour": colour} for name, colour in colours],
            "pictures": [[one.name, one.version] for one in self.folder.pictures],
            "faults": self.folder.faults[:20],
            **self.totals(),
            **self.lessons.state(),
        }

    def totals(self) -> dict[str, Any]:
        """Return the painted pixels of each class, and of each picture its share that is painted."""
        return {**self._counts.sums(len(self.classes.names)), "painted": self._counts.shares()}

    def painted(self) -> list[str]:
        """Return the pictures that have paint on them, in the order of the folder."""
        self.count()
        return [one.name for one in self.folder.pictures if self._counts.is_painted(one.name)]

    def count(self) -> None:
        """Count the painted pixels of masks that changed; those that cannot be read have none."""
        versions = self.masks.versions()
        for name in self._counts.names() - set(versions):
            self._counts.drop(name)
        for name in [one.name for one in self.folder.pictures if one.name in versions]:
            if self._counts.version(name) != versions[name]:
                try:
                    counts = self.masks.counts(name)
                except Problem:
                    counts = np.zeros(256, np.int64)
                self._counts.set(name, versions[name], counts)

    def open(self, name: str) -> dict[str, Any]:
        """Return what the page needs to show a picture; a fault of its mask is told with it."""
        self.finish_removal()
        described = self.pictures.describe(name)
        try:
            version, fault = self.masks.read(name)[1], ""
        except Problem as problem:
            version, fault = self._version(name), str(problem)
        return {**described, "mask": version, "fault": fault, "reason": self.lessons.reason(name)}

    # --- changes -----------------------------------------------------------------------------------------------------

    def stroke(
        self, name: str, region: Region, base: str, kind: str, who: str, drawn: Mapping[int, str] | None = None
    ) -> str:
        """Save what was painted, and return the mask's new version.

        Args:
            name: The picture.
            region: What it is from now on.
            base: Version of the mask that the region was drawn on.
            kind: What was done, for the history.
            who: The tab that asks.
            drawn: Names of the classes that were drawn, by index, as the tab knew them; not compared where missing.

        Raises:
            Problem: If an index is another class by now, or it cannot be saved.
        """
        with self.masks.locked():  # no class is removed between the look at them and the write
            self.finish_removal()
            self.classes.read_again()
            other = next((known for at, known in (drawn or {}).items() if not self.classes.is_named(at, known)), None)
            if other is not None:
                msg = f"{other!r} is not that class any more, so that this stroke was not taken. Paint it again."
                raise Problem(msg, 409)
            if not any((self.folder.root / file).is_file() for file in ("classes.txt", "dataset.json")):
                self.classes.write(self.classes.names)  # training needs them
            version = self.masks.apply(name, region, base, kind)
        self._changed(name, version, who)
        self.lessons.prepare(name)
        return version

    def step(self, name: str, back: bool, who: str) -> tuple[Region, str] | None:
        """Undo or redo; return what is there now, and the mask's new version."""
        with self.masks.locked():
            self.finish_removal()
            done = self.masks.step(name, back)
        if done is None:
            return None
        change, version = done
        self._changed(name, version, who)
        return Region(change.left, change.top, change.after), version

    def set_aside(self, name: str, who: str) -> str:
        """Move a mask that cannot be used away; return where it is."""
        self.finish_removal()
        where = self.masks.set_aside(name).relative_to(self.folder.root).as_posix()
        self._changed(name, self._version(name), who)
        return where

    def change_class(self, act: str, index: int, value: str, name: str | None = None) -> None:
        """Add, rename, recolour or remove a class.

        Args:
            act: What to do.
            index: Of the class.
            value: Its new name or colour, or what its pixels become.
            name: What the page that asks calls it: another tab may have removed one before it.

        Raises:
            Problem: If it cannot be; for one that is painted somewhere it says where.
        """
        with self.masks.locked():  # no stroke, and no other change, in between
            self.finish_removal()
            self._change_class(act, index, value, name)
        self.events.send("classes")

    def finish_removal(self) -> None:
        """Finish a removal of a class that stopped on the way: until then masks and names do not belong together.

        Raises:
            Problem: If it cannot be finished yet.
        """
        if self.removal.pending and self.removal.finish():
            self.lessons.forget()
            self.events.send("classes")
            self.look()

    def upload(self, name: str, received: Path, *, more: bool = False) -> str:
        """Put a received picture that was dropped on the page into the folder; return the name of its item.

        Where more follow, the tabs are told after the last one, and the result is empty.

        Raises:
            Problem: If it is no picture, or one of this name is there.
        """
        item = self.folder.arrived(self.arrivals.take(received, name))
        self._untold = True
        if more:
            return ""
        self._tell_pictures()
        return item

    def try_on(self, name: str, received: Path, who: str, *, more: bool = False) -> bytes | None:
        """Return what the exported model finds on a received picture, as PNG; None where more channels of it follow.

        Raises:
            Problem: If it is no picture, nothing is exported, or it does not fit the model.
        """
        try:
            path = self.arrivals.take_for_trial(received, name, who)
            return None if more else self.lessons.try_on(path)
        except Problem:
            more = False
            raise
        finally:
            if not more:
                self.arrivals.end_trial(who)

    def _change_class(self, act: str, index: int, value: str, name: str | None) -> None:
        """Do what `change_class` says."""
        known = self.classes.names
        if act != "add" and not (0 <= index < len(known) and name in {None, known[index]}):
            msg = "This class is not there any more. Load the page again."
            raise Problem(msg, 409)
        if act == "add":
            self.classes.add(value)
        elif act == "rename":
            self.classes.rename(index, value)
        elif act == "recolour":
            self.classes.recolour(index, value)
        elif act == "remove":
            self._remove_class(index, value)
        else:
            msg = f"{act!r}: classes are added, renamed, recoloured and removed."
            raise Problem(msg)

    def _remove_class(self, index: int, into: str) -> None:
        """Take a class out; where it is painted, ``into`` says what its pixels become: "unpainted" or a class."""
        uses = self.removal.uses(index)
        names = self.classes.names
        if uses and into != "unpainted" and into not in names:
            pixels, where = sum(uses.values()), ", ".join(list(uses)[:3])
            msg = f"{names[index]!r} is painted in {len(uses)} picture(s), {pixels} px ({where}). "
            msg += "Say what they become."
            raise Problem(msg, 409)
        self.removal.run(index, names.index(into) if into in names else IGNORE_INDEX)
        self.lessons.forget()
        self.look()

    def _changed(self, name: str, version: str, who: str) -> None:
        """Tell all tabs that a mask was written."""
        self._versions[name] = version
        self.count_one(name, version)
        self._tell(name, version, who)

    def _tell(self, name: str, version: str, who: str) -> None:
        """Tell all tabs of one mask: its own share and the sums, which stay short however many pictures there are."""
        sums = self._counts.sums(len(self.classes.names))
        self.events.send("mask", name=name, version=version, who=who, share=self._counts.share(name), **sums)

    def _tell_pictures(self) -> None:
        """Tell all tabs that there are other pictures now."""
        self._untold = False
        self.events.send("pictures")

    def count_one(self, name: str, version: str) -> None:
        """Count the painted pixels of one mask."""
        self._counts.set(name, version, self.masks.counts(name))

    def _version(self, name: str) -> str:
        """Return the version of a mask; "0" where a link leads out of the folder."""
        try:
            return self.masks.version(name)
        except Problem:
            return "0"

    # --- other programs ----------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Look at the folder now and then."""
        self.count()
        self._versions = self.masks.versions()
        self.events.send("totals", **self.totals())
        self.lessons.order()
        pause = _WATCHED
        while not self._ended.wait(pause):
            started = time.monotonic()
            with suppress(OSError):  # a share that is away for a moment
                self.look()
            pause = max(_WATCHED, 20 * (time.monotonic() - started))  # a large folder must not keep a core busy

    def look(self) -> None:
        """Tell the tabs what other programs have changed; nothing while masks and names do not belong together."""
        try:
            self.finish_removal()
        except Problem:
            return
        if self.folder.scan() or self._untold:
            self._tell_pictures()
        if self.classes.read_again():
            self.events.send("classes")
            self.lessons.forget()
        now = self.masks.versions()
        names = {*now, *self._versions}
        changed = sorted(name for name in names if self._versions.get(name) != now.get(name))
        self._versions = now
        if changed:
            self.count()
        for name in changed[:_TOLD]:
            self._tell(name, now.get(name, "0"), "")
        if len(changed) > _TOLD:
            self.events.send("totals", **self.totals())
