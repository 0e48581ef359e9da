# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Which files of a folder make a picture: those of one name, one for each lighting channel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Picture:
    """An item to label.

    Attributes:
        name: Path below the folder of pictures without suffix and lighting channel.
        files: One for each lighting channel.
        version: Changes with the files.
    """

    name: str
    files: tuple[Path, ...]
    version: str


class Listing:
    """The pictures that files make; a file more touches the files of its own picture alone.

    Args:
        folder: Folder of the pictures.
        lighting_channels: Suffixes of the lighting channels; none where each file is a picture.
        files: The files, in the order in which the first of two of one name counts.
    """

    def __init__(self, folder: Path, lighting_channels: tuple[str, ...] = (), files: Iterable[Path] = ()) -> None:
        self.folder, self.lighting_channels = folder, lighting_channels
        self._groups: dict[str, dict[str, Path]] = {}
        self._doubled: list[str] = []
        self._others: list[str] = []
        self._missing: dict[str, str] = {}
        found = [self._put(path) for path in files]
        listed = [self._made(name) for name in sorted(set(found) - {""})]
        self.pictures: dict[str, Picture] = {one.name: one for one in listed if one is not None}

    @property
    def is_empty(self) -> bool:
        """Whether no file was listed."""
        return not self._groups

    @property
    def faults(self) -> list[str]:
        """What is wrong with files that are shown as no picture."""
        return [*self._of_no_channel(), *self._doubled, *self._missing.values()]

    def has_channel(self, stem: str) -> bool:
        """Tell whether a file of this name, without suffix, is one of a lighting channel, where there are some."""
        return not self.lighting_channels or stem.endswith(self.lighting_channels)

    def add(self, path: Path) -> str:
        """List one more file; return the name of the picture that is complete with it, or an empty text."""
        name = self._put(path)
        picture = self._made(name) if name else None
        if picture is None:
            return ""
        self.pictures = dict(sorted({**self.pictures, name: picture}.items()))
        return name

    def replace(self, picture: Picture) -> None:
        """Take a picture in place of its older version."""
        self.pictures[picture.name] = picture

    def _put(self, path: Path) -> str:
        """Put a file to the others of its picture; return the picture's name, empty where it is of no channel."""
        stem = path.relative_to(self.folder).with_suffix("").as_posix()
        if not self.has_channel(stem):
            self._others.append(path.name)
            return ""
        channel = next((suffix for suffix in self.lighting_channels if stem.endswith(suffix)), "")
        name = stem.removesuffix(channel) if channel else stem
        files = self._groups.setdefault(name, {})
        first = files.setdefault(channel, path)
        if first != path and first.exists():
            self._doubled.append(f"{path.name}: has the same name as {first.name}; only the first is shown.")
        else:
            files[channel] = path
        return name

    def _of_no_channel(self) -> list[str]:
        """Return one line on the files that are of no lighting channel; nothing where there are none."""
        if not self._others:
            return []
        number, channels = len(self._others), ", ".join(self.lighting_channels)
        files = "name of 1 file ends" if number == 1 else f"names of {number} files end"
        return [f"The {files} in none of the lighting channels {channels}: {', '.join(sorted(self._others)[:3])}."]

    def _made(self, name: str) -> Picture | None:
        """Return the picture of a name; None where a channel is missing, or a file is gone."""
        files = self._groups[name]
        missing = [channel for channel in self.lighting_channels if channel not in files]
        self._missing.pop(name, None)
        if missing:
            self._missing[name] = (
                f"{name}: the lighting channel {missing[0]} is missing. Drop {Path(name).name}{missing[0]} too."
            )
            return None
        paths = tuple(files[channel] for channel in self.lighting_channels or ("",))
        version = version_of(paths)
        return None if version is None else Picture(name, paths, version)


def file_version(path: Path) -> str:
    """Return what changes whenever a file is written; "0" where there is none."""
    try:
        status = path.stat()
    except OSError:
        return "0"
    return f"{status.st_mtime_ns:x}.{status.st_size:x}.{status.st_ino:x}"


def version_of(paths: tuple[Path, ...]) -> str | None:
    """Return what changes with any of the files; None where one is gone."""
    versions = [file_version(path) for path in paths]
    return None if "0" in versions else "-".join(versions)
