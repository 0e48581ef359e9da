# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What the plugin's models have in common where they are saved to checkpoints and built from them.

What the user wrote wins; what nobody wrote comes from the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lightning.fabric.plugins import CheckpointIO

from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.files import names_full_disk
from anomalib_aoissl.data.quality.picture_quality import LabelledQuality
from anomalib_aoissl.encoder.checkpoints import CheckpointError, check_content, check_file, read_checkpoint, unreadable
from anomalib_aoissl.encoder.options import EncoderOptions
from anomalib_aoissl.plugin.arguments import ArgumentError, Rule, validate
from anomalib_aoissl.plugin.options import flat, nested, plain_data
from anomalib_aoissl.plugin.written_arguments import written_on_the_command_line

from .preprocessing import SegmentationPreProcessor

if TYPE_CHECKING:
    from anomalib.data import AnomalibDataModule
    from typing_extensions import Self

    from .protocols import SegmentationModule as _Base
else:
    _Base = object  # mixed in before AnomalibModule

CHECKPOINT_KEY = "anomalib_aoissl"
"""Key of the class names and the file format in a checkpoint."""

_GONE: Mapping[str, Any] = {"blocks": 1, "encoder.normalize": True, "training.early_stopping": ...}
"""Arguments that 0.2.0 saved and that are gone, with the value that they have now; `...` for those that only train."""


class CheckpointMixin(_Base):
    """Saves a model with its arguments, class names and file format, and builds it again."""

    ENCODER_ARGUMENTS: ClassVar[tuple[str, ...]] = ("encoder", "image_size", "in_channels", "views.light")
    """Arguments that the weights depend on, options or single fields such as "vote.level"."""
    ONCE: ClassVar[dict[str, Any]] = {"encoder.pretrained": False, "pretraining": None}
    """Arguments that a checkpoint holds the result of, with the value that it saves so that they do not act again."""
    RULES: ClassVar[Mapping[str, Rule]] = {}
    """What the model's arguments may be."""
    HAS_BANK: ClassVar[bool] = False
    """Whether the model's checkpoints hold a memory bank, by which those of the two models are told apart."""

    written_arguments: frozenset[str] = frozenset()
    """Names of the arguments that the user wrote, fields of options as "vote.k": these win over a checkpoint's."""
    knows_defaults: bool = True
    """Whether arguments that the user wrote can be told from defaults."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what the model needs to be built again: the encoder's description, class names, file format."""
        super().on_save_checkpoint(checkpoint)
        parameters = checkpoint.setdefault("hyper_parameters", {})
        values = flat({**parameters, "encoder": self._encoder_arguments()}, self.RULES)
        parameters.update(nested({**values, **self.ONCE}))
        checkpoint[CHECKPOINT_KEY] = {
            "class_names": list(self.class_names),
            "file_format": self.file_format.to_dict(),
            "quality": None if self.labelled_quality is None else self.labelled_quality.to_dict(),
        }

    def _encoder_arguments(self) -> dict[str, Any]:
        """Return all fields of `EncoderOptions` from which the encoder is built again without its weights' source."""
        encoder = self.model.encoder
        return asdict(EncoderOptions(pretrained=False, **encoder.describe()))

    @classmethod
    def _saved_arguments(cls, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments in a checkpoint, without those that are gone."""
        saved = flat(checkpoint.get("hyper_parameters", {}), cls.RULES)
        return nested({name: value for name, value in saved.items() if name not in _GONE})

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """Return the model of a checkpoint; further arguments win over those that it was saved with.

        Raises:
            CheckpointError: If the file is missing, damaged, or of another model, or its content is impossible.
        """
        saved: dict[str, Any] = {}
        if isinstance(checkpoint_path, str | Path):
            checkpoint = read_checkpoint(checkpoint_path)
            cls.check_checkpoint(checkpoint, str(checkpoint_path))
            saved = flat(cls._saved_arguments(checkpoint), cls.RULES)
        written = {**written_on_the_command_line(), **flat(kwargs, cls.RULES)}
        given = {**saved, **written}
        pretraining = given.pop("pretraining", None)  # a new model would choose its encoder by it
        try:
            model: Any = super().load_from_checkpoint(checkpoint_path, *args, **nested(given))
            validate({"pretraining": cls.RULES["pretraining"]}, {"pretraining": pretraining})
            model.hparams["pretraining"] = plain_data(pretraining)
            model.build_pretraining()
        except ValueError as error:
            if str(checkpoint_path) in str(error):
                raise
            msg = f"{checkpoint_path}: {error}"
            raise CheckpointError(msg) from error
        model.keep_encoder()
        model.written_arguments = frozenset(written)  # the others came from the checkpoint
        return model

    def setup(self, stage: str) -> None:
        """Wrap the run's reading and writing of checkpoints, so that errors name the file."""
        super().setup(stage)
        strategy = self.trainer.strategy
        if not isinstance(strategy.checkpoint_io, NamingCheckpointIO):
            strategy.checkpoint_io = NamingCheckpointIO(strategy.checkpoint_io)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the model that the checkpoint was saved from, but for the arguments that the user wrote.

        Raises:
            CheckpointError: If it is of another model, or its content is impossible.
            ValueError: If an argument that the weights depend on was written otherwise than in the checkpoint.
        """
        source = str(getattr(self._trainer, "ckpt_path", None) or "The checkpoint")
        self.check_checkpoint(checkpoint, source)
        self._adopt_arguments(self._saved_arguments(checkpoint))
        saved = checkpoint.get(CHECKPOINT_KEY, {})
        if saved.get("class_names"):
            self.set_dataset(saved["class_names"], FileFormat.from_dict(saved.get("file_format", {})))
        quality = saved.get("quality")  # 0.2.0 has none
        self.labelled_quality = None if quality is None else LabelledQuality.from_dict(quality)
        flags = checkpoint.get("anomalib_components_enabled") or {}
        flags = {name: enabled for name, enabled in flags.items() if name not in self.written_arguments}
        super().on_load_checkpoint({**checkpoint, "anomalib_components_enabled": flags})
        if isinstance(self.pre_processor, SegmentationPreProcessor):
            self.pre_processor.set_tiled(self.hparams.get("tiling") is not None)  # it may be written otherwise
        self.prepare_batches()

    @classmethod
    def check_checkpoint(cls, checkpoint: Mapping[str, Any], source: str) -> None:
        """Validate that a checkpoint is of this model, and what it holds.

        Raises:
            CheckpointError: If it is of another model or of version 0.1.0, has arguments that are gone, or its content
                is impossible.
        """
        if CHECKPOINT_KEY not in checkpoint or _holds_bank(checkpoint["state_dict"]) != cls.HAS_BANK:
            msg = f"{source}: is no checkpoint of {cls.__name__}. Give one that this model was saved to."
            raise CheckpointError(msg)
        check_content(checkpoint, source)
        arguments = checkpoint.get("hyper_parameters", {})
        if "pretrained" in arguments:  # a field of the encoder's options since
            msg = (
                f"{source}: was saved by version 0.1.0, whose models did not standardise the light of pictures. "
                "Train again, or use it with anomalib-aoissl 0.1.0."
            )
            raise CheckpointError(msg)
        saved = flat(arguments, cls.RULES)
        for name, value in _GONE.items():
            if value is not ... and saved.get(name, value) != value:
                msg = f"{source}: was saved with {name}={saved[name]}, which is gone. Train again, or use 0.2.0."
                raise CheckpointError(msg)
        try:
            arguments = cls._saved_arguments(checkpoint)
            validate({name: rule for name, rule in cls.RULES.items() if name in arguments}, arguments)
        except ArgumentError as error:
            msg = f"{source}: was saved with impossible arguments: {error}"
            raise CheckpointError(msg) from error

    def _adopt_arguments(self, saved: Mapping[str, Any]) -> None:
        """Take the checkpoint's arguments where the user wrote none; rebuild where one differs.

        Raises:
            ValueError: If an argument that the weights depend on was written otherwise.
        """
        own = flat({**self.hparams, "encoder": self._encoder_arguments()}, self.RULES)
        known = {k: value for k, value in flat(saved, self.RULES).items() if k in own and k not in self.ONCE}
        changed = {key: value for key, value in known.items() if plain_data(own[key]) != plain_data(value)}
        for key in sorted(self.written_arguments & changed.keys()):
            if not {key, key.partition(".")[0]}.isdisjoint(self.ENCODER_ARGUMENTS):
                msg = (
                    f"The checkpoint was saved with {key}={changed[key]}, but --model.{key} says {own[key]}. "
                    f"Leave out --model.{key}: the checkpoint brings it along."
                )
                raise ArgumentError(msg)
            del changed[key]  # the weights do not depend on it
        if changed:
            self.hparams.update(nested({**own, **changed}))
            self.build_model()
            if isinstance(self.pre_processor, SegmentationPreProcessor):
                self.pre_processor.load_checkpoint_config(self.build_pre_processor().config)
            datamodule: AnomalibDataModule | None = getattr(self._trainer, "datamodule", None)
            if datamodule is not None:
                datamodule.setup()  # anomalib resizes in the dataset too, to the size known until now
        self.keep_encoder()


class NamingCheckpointIO(CheckpointIO):
    """Reads and writes checkpoints as another does, and names the file where that does not work.

    Args:
        inner: Reads and writes.
    """

    def __init__(self, inner: CheckpointIO) -> None:
        super().__init__()
        self.inner = inner

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        """Write a checkpoint.

        Raises:
            OSError: If the disk is full.
        """
        with names_full_disk(path):
            self.inner.save_checkpoint(checkpoint, path, storage_options)

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the content of a checkpoint.

        Raises:
            CheckpointError: If the file is missing or damaged.
        """
        check_file(path)
        try:
            return self.inner.load_checkpoint(path, *args, **kwargs)
        except Exception as error:
            raise unreadable(path, error) from error

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint."""
        self.inner.remove_checkpoint(path)

    def teardown(self) -> None:
        """End what the other has begun."""
        self.inner.teardown()


def _holds_bank(state: Mapping[str, Any]) -> bool:
    """Return whether a state dict is of a model with a memory bank."""
    return any(key.startswith("model.bank.") for key in state)
