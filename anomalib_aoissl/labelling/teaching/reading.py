# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures as the model sees them, and what the encoder says of them, which stays on disk."""

from __future__ import annotations

import hashlib
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from torchvision import tv_tensors

from anomalib_aoissl.data.files import whole_file
from anomalib_aoissl.encoder.base import EncoderMaps, of_unit_length
from anomalib_aoissl.labelling.storage.folder import LabelFolder
from anomalib_aoissl.labelling.storage.in_memory import Held
from anomalib_aoissl.labelling.storage.listing import Picture
from anomalib_aoissl.labelling.storage.problems import Problem
from anomalib_aoissl.models.preprocessing import resize_of
from anomalib_aoissl.retrieval.lightning_model import AOISSLRetrieval

from .settings import ModelSettings

LARGEST_CACHE = 5_000_000_000
"""Bytes of tokens on disk; those used least go first."""

_IMAGES = 24  # pictures of the model's size that stay in memory


class Seen(NamedTuple):
    """A picture as the model sees it."""

    image: torch.Tensor  # [1, C, h, w], normalised
    tokens: torch.Tensor  # [1, D, rows, columns]
    embeddings: torch.Tensor  # [P, E] of unit length


class PictureReader:
    """Reads pictures of a folder as training does.

    Args:
        folder: The folder.
        settings: Of the model.
    """

    def __init__(self, folder: LabelFolder, settings: ModelSettings) -> None:
        self.folder, self.settings = folder, settings
        self.cache = folder.own / "tokens"
        self._model: AOISSLRetrieval | None = None
        self._hash = ""
        self._images: Held[torch.Tensor] = Held(_IMAGES)
        self._keys: dict[tuple[str, str], str] = {}
        self._lock = threading.RLock()

    @property
    def model(self) -> AOISSLRetrieval:
        """The model whose encoder reads; made for the planes of the folder's first picture that can be read."""
        with self._lock:
            if self._model is None:
                self._model = self.settings.build(self._planes()).eval()
                self._hash = self._model.seen_by()
        return self._model

    @torch.no_grad()
    def see(self, name: str) -> Seen:
        """Return a picture as the model sees it, from the cache where its tokens were read before.

        Raises:
            Problem: If it is gone, or cannot be read.
        """
        picture = self.folder.picture(name)
        image = self._image(picture)
        embeddings, tokens = (maps.float() for maps in self._stored(picture) or self._read(picture, image))
        return Seen(image, tokens, of_unit_length(embeddings[0], dim=-1))

    @torch.no_grad()
    def embeddings(self, name: str) -> torch.Tensor:
        """Return the embeddings ``[P, E]`` of a picture, of unit length; one in the cache is not decoded.

        Raises:
            Problem: If it is gone, or cannot be read.
        """
        picture = self.folder.picture(name)
        maps = self._stored(picture) or self._read(picture, self._image(picture))
        return of_unit_length(maps.embeddings[0].float(), dim=-1)

    def check(self, name: str) -> None:
        """Validate that a picture can be read; one in memory is not read again.

        Raises:
            Problem: If it is gone, or cannot be read.
        """
        self._resized(self.folder.picture(name))

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """Return a mask at the model's size, as training resizes it."""
        resized = self._resize(tv_tensors.Mask(torch.from_numpy(mask)[None]))
        result: np.ndarray = resized[0].as_subclass(torch.Tensor).numpy()
        return result

    def trim(self, largest: int = LARGEST_CACHE) -> None:
        """Remove the files of the cache that were used least, until it is small enough."""
        paths = self.cache.glob("*.np[yz]")  # 0.2.0 wrote .npy
        files = [(path.stat().st_mtime, path.stat().st_size, path) for path in paths]
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= largest:
                break
            path.unlink(missing_ok=True)
            total -= size

    def _planes(self) -> int:
        """Return the planes of a picture, those of the first one that can be read."""
        fault = "There is no picture yet."
        for picture in self.folder.pictures[:20]:
            try:
                return len(self.folder.file_format.read_files(picture.files))
            except (ValueError, OSError) as error:
                fault = str(error)
        raise Problem(fault)

    def _resized(self, picture: Picture) -> torch.Tensor:
        """Return a picture ``[C, h, w]`` in [0, 1] at the model's size."""
        with self._lock:
            held = self._images.get(picture.name, picture.version)
        if held is not None:
            return held
        try:
            planes = self.folder.file_format.read_files(picture.files)
        except (ValueError, OSError) as error:
            raise Problem(str(error)) from error
        wanted = self.model.hparams["in_channels"]
        if len(planes) != wanted:
            msg = f"{picture.name}: has {len(planes)} planes, the other pictures {wanted}. It is left out."
            raise Problem(msg)
        image: torch.Tensor = self._resize(torch.from_numpy(planes)).clamp(0, 1)
        with self._lock:
            self._images.put(picture.name, picture.version, image, 1)
        return image

    @property
    def _resize(self) -> Any:
        """The resize of training."""
        return resize_of(self.model.pre_processor)

    def _image(self, picture: Picture) -> torch.Tensor:
        """Return a picture ``[1, C, h, w]`` as the model sees it."""
        image: torch.Tensor = self.model.pre_processor.see(self._resized(picture)[None])
        return image

    def _stored(self, picture: Picture) -> EncoderMaps | None:
        """Return what the cache has of a picture, float16; None where it is not there, or damaged."""
        path, encoder = self._file(picture), self.model.model.encoder
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                maps = EncoderMaps(*(torch.from_numpy(stored[name]) for name in EncoderMaps._fields))
            path.touch()
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return None
        return maps if maps.tokens.shape[-2:] == encoder.token_grid else None

    def _read(self, picture: Picture, image: torch.Tensor) -> EncoderMaps:
        """Return what the encoder says of a picture, float16, and put it into the cache."""
        path = self._file(picture)
        maps = EncoderMaps(*(values.half() for values in self.model.model.read(image)))
        # A full disk must not keep one from painting.
        with suppress(OSError), whole_file(path) as temporary, temporary.open("wb") as new:
            np.savez(new, **{name: values.numpy() for name, values in maps._asdict().items()})
        return maps

    def _file(self, picture: Picture) -> Path:
        """Return the file of a picture's tokens, named by content, encoder and size."""
        key = picture.name, picture.version
        if key not in self._keys:
            _ = self.model
            digest = hashlib.sha256(f"{self._hash} {self.settings.image_size} {self.folder.file_format}".encode())
            for path in picture.files:
                digest.update(path.read_bytes())
            self._keys[key] = digest.hexdigest()[:32]
        return self.cache / f"{self._keys[key]}.npz"
