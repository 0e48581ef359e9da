# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The exports of the plugin's models, each written whole or not at all; mixed into `SegmentationModuleMixin`."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from anomalib_aoissl.data.file_format import FileFormat
from anomalib_aoissl.data.files import whole_file

from .export import export_onnx
from .quantizing import check_compression, quantize_with_accuracy

if TYPE_CHECKING:
    from anomalib.models.components import AnomalibModule as _Base
else:
    _Base = object  # mixed in before AnomalibModule, whose direct child the model must be


class ExportingMixin(_Base):
    """ONNX, OpenVINO and torch exports that carry class names and the file format."""

    class_names: tuple[str, ...]
    file_format: FileFormat

    def export_metadata(self) -> dict[str, Any]:
        """Return the plain data that an exported model carries: class names and file format."""
        tiling = self.hparams.get("tiling")
        tiles = {} if tiling is None else {"tiling": dict(tiling)}
        return {"class_names": list(self.class_names), "file_format": self.file_format.to_dict(), **tiles}

    def to_onnx(  # type: ignore[override] # anomalib's signature, which differs from Lightning's too
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> Path:
        """Write ``export_root/weights/onnx/<name>.onnx`` and return its path.

        Anomalib's own export makes a three-channel example and names no classes. The input keeps dynamic batch,
        height and width: the graph itself resizes to the model's size.

        Args:
            export_root: Folder of the export.
            model_file_name: Name of the file without its suffix.
            input_size: Not needed, since any size is taken.
            kwargs: Further arguments of ``torch.onnx.export``.
        """
        del input_size
        path = Path(export_root) / "weights" / "onnx" / f"{model_file_name}.onnx"
        return export_onnx(self, path, self.hparams["in_channels"], self.export_metadata(), **kwargs)

    def to_openvino(self, export_root: Path | str, model_file_name: str = "model", *args: Any, **kwargs: Any) -> Path:
        """Write ``export_root/weights/openvino/<name>.xml`` and ``.bin``, both or neither, and return the first's path.

        The arguments are those of anomalib's own export, which would write over an older one in place. INT8_ACQ keeps
        the mean IoU of the test images, whatever ``metric`` says.

        Raises:
            ValueError: If the compression looks at images and there are none.
        """
        from anomalib_aoissl.deployment.model_file import read_model, save_model

        names = ("input_size", "compression_type", "datamodule", "metric", "task", "max_drop", "ov_kwargs")
        kwargs.update(zip(names, args, strict=False))
        check_compression(kwargs.get("compression_type"), kwargs.get("datamodule"), kwargs.get("max_drop", 0.01))
        with TemporaryDirectory() as folder:
            model = read_model(super().to_openvino(folder, model_file_name, **kwargs))
        path = Path(export_root) / "weights" / "openvino" / f"{model_file_name}.xml"
        return save_model(self.finished_export(model, kwargs.get("compression_type")), path)

    def finished_export(self, model: Any, compression_type: Any) -> Any:
        """Return the `openvino.Model` that is written, given the one that anomalib's export makes."""
        del compression_type
        return model

    @staticmethod
    def _accuracy_control_quantization_ov(  # type: ignore[override] # the arguments that anomalib gives
        model: Any, datamodule: Any, *args: Any
    ) -> Any:
        """Return the model in 8 bits; anomalib calls it for INT8_ACQ, with metric, task and the largest drop."""
        return quantize_with_accuracy(model, datamodule, args[-1])

    def to_torch(self, export_root: Path | str, model_file_name: str = "model") -> Path:
        """Write ``export_root/weights/torch/<name>.pt``, whole or not at all, and return its path."""
        path = Path(export_root) / "weights" / "torch" / f"{model_file_name}.pt"
        with TemporaryDirectory() as folder, whole_file(path) as temporary:
            shutil.copyfile(super().to_torch(folder, model_file_name), temporary)
        return path
