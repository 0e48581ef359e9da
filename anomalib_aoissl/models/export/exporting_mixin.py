# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The exports of the plugin's models, each compared with what was trained and written whole or not at all.

Mixed into `SegmentationModuleMixin`.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

from anomalib_aoissl.data.files import whole_files
from anomalib_aoissl.deployment.files.companions import beside, model_api_path, report_path, report_text
from anomalib_aoissl.deployment.files.model_file import core, read_model, save_model
from anomalib_aoissl.deployment.gate import GateReport
from anomalib_aoissl.deployment.graph.bank import METADATA_PATH, read_metadata
from anomalib_aoissl.deployment.graph.model_api import model_api_model
from anomalib_aoissl.deployment.runners import Runner, inferencer_runner, onnx_runner, openvino_runner
from anomalib_aoissl.plugin.arguments import ArgumentError
from anomalib_aoissl.plugin.export.options import export_options

from ..preprocessing import light_kind
from .gating import Gate, saved_torch_runner
from .onnx_graph import onnx_model, write_onnx
from .quantizing import check_compression, compress, compression_name
from .telemetry import nothing_reported

if TYPE_CHECKING:
    import openvino

    from ..protocols import SegmentationModule as _Base
else:
    _Base = object  # mixed in before AnomalibModule, whose direct child the model must be

logger = logging.getLogger(__name__)


class ExportingMixin(_Base):
    """ONNX, OpenVINO and torch exports that carry class names, the file format and the gate's result."""

    EXPORTED_CONSTANTS: ClassVar[Mapping[str, str]] = {}
    """Prefixes of the state that stays constants of a graph, see `onnx_model`."""

    def export_metadata(self) -> dict[str, Any]:
        """Return the plain data that an exported model carries: class names, file format, light, tiles, quality."""
        tiling = self.hparams.get("tiling")
        tiles = {} if tiling is None else {"tiling": dict(tiling)}
        quality = {} if self.labelled_quality is None else {"quality": self.labelled_quality.to_dict()}
        names, file_format = list(self.class_names), self.file_format.to_dict()
        light = light_kind(self.pre_processor)
        return {"class_names": names, "file_format": file_format, "light": light, **tiles, **quality}

    def to_onnx(  # type: ignore[override] # anomalib's signature, which differs from Lightning's too
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> Path:
        """Write ``export_root/weights/onnx/<name>.onnx`` and the gate's result beside it; return the first's path.

        Anomalib's own export makes a three-channel example and names no classes. The input keeps dynamic batch,
        height and width: the graph itself resizes to the model's size.

        Args:
            export_root: Folder of the export.
            model_file_name: Name of the file without its suffix.
            input_size: Not needed, since any size is taken.
            kwargs: Further arguments of ``torch.onnx.export``.

        Raises:
            UntrainedError: If the model was not trained.
            GateError: If the file does not answer as this model does.
        """
        del input_size
        self.model.check_trained()
        path = Path(export_root) / "weights" / "onnx" / f"{model_file_name}.onnx"
        gate, model = Gate.of(self), self._onnx_model(kwargs)
        with TemporaryDirectory() as folder:
            file = write_onnx(model, Path(folder) / "model.onnx", self.export_metadata())
            report = gate.run({"onnx": lambda: self._runner(file)})
        metadata = {**self.export_metadata(), **_gate_entry(report)}
        with whole_files(path, *_report_paths(path, report)) as (temporary, *results):
            write_onnx(model, temporary, metadata)
            _write_report(report, results)
            report_path(path).unlink(missing_ok=True)  # of the old model: it must not stand beside the new one
        return path

    def to_openvino(self, export_root: Path | str, model_file_name: str = "model", *args: Any, **kwargs: Any) -> Path:
        """Write ``export_root/weights/openvino/<name>.xml`` and ``.bin``, both or neither, and return the first's path.

        The arguments are those of anomalib's own export, which would write over an older one in place. INT8_ACQ keeps
        the mean IoU of the test images, whatever ``metric`` says. The gate's result lies beside the model and in it.

        Raises:
            ValueError: If the compression looks at images and there are none.
            UntrainedError: If the model was not trained.
            GateError: If the model does not answer as this one does.
        """
        names = ("input_size", "compression_type", "datamodule", "metric", "task", "max_drop", "ov_kwargs")
        kwargs.update(zip(names, args, strict=False))
        compression, datamodule = kwargs.get("compression_type"), kwargs.get("datamodule")
        check_compression(compression, datamodule, kwargs.get("max_drop", 0.01))
        self.model.check_trained()
        if export_options().model_api and getattr(self, "tiling", None) is not None:
            msg = "--model_api true: OpenVINO's Model API knows no tiles, which this model needs. Leave it out."
            raise ArgumentError(msg)
        gate = Gate.of(self, datamodule, compression_name(compression), kwargs.get("max_drop", 0.01))
        path = Path(export_root) / "weights" / "openvino" / f"{model_file_name}.xml"
        with TemporaryDirectory() as folder:
            onnx = write_onnx(
                self._onnx_model(kwargs.get("onnx_kwargs") or {}), Path(folder) / "model.onnx", self.export_metadata()
            )
            with nothing_reported():
                converted = self._converted(onnx, kwargs)
            model = self.finished_export(converted, compression)
            xml = save_model(model, Path(folder) / "model.xml")
            report = gate.run({"onnx": lambda: self._runner(onnx), "openvino": lambda: self._runner(xml)})
        model.set_rt_info(json.dumps({**read_metadata(model), **_gate_entry(report)}), METADATA_PATH)
        logger.info("Writing %s%s.", path, "" if report is None else f" and {report_path(path).name}")
        companion = None
        if export_options().model_api:
            companion = model_api_model(model, self.class_names), model_api_path(path)
            logger.info("Writing %s for OpenVINO's Model API.", companion[1])
        return save_model(model, path, beside(path, _gate_entry(report)), companion)

    def _onnx_model(self, options: Mapping[str, Any]) -> Any:
        """Return the model as `onnx.ModelProto`."""
        logger.info("Exporting %s for pictures of any size.", type(self).__name__)
        return onnx_model(self, self.hparams["in_channels"], constants=self.EXPORTED_CONSTANTS, **options)

    def _converted(self, onnx: Path, arguments: Mapping[str, Any]) -> openvino.Model:
        """Return the `openvino.Model` of an ONNX file, compressed as the arguments ask for."""
        import openvino

        model = openvino.convert_model(onnx, **(arguments.get("ov_kwargs") or {}))
        name = compression_name(arguments.get("compression_type"))
        if not name:
            return model
        logger.info("Compressing to %s.", name.upper())
        if name != "fp16":
            images, max_drop = arguments.get("datamodule"), arguments.get("max_drop", 0.01)
            return compress(model, name, images, max_drop, getattr(self, "tiling", None))
        file = onnx.with_name("half.xml")
        openvino.save_model(model, file, compress_to_fp16=True)
        return core().read_model(file.read_bytes(), file.with_suffix(".bin").read_bytes())

    def _runner(self, path: Path) -> Runner:
        """Return a runner of a file that was just exported."""
        if getattr(self, "tiling", None) is not None:
            return inferencer_runner(path)
        return onnx_runner(path) if path.suffix == ".onnx" else openvino_runner(read_model(path))

    def finished_export(self, model: openvino.Model, compression_type: object) -> openvino.Model:
        """Return the `openvino.Model` that is written, given the one that anomalib's export makes."""
        del compression_type
        return model

    def to_torch(self, export_root: Path | str, model_file_name: str = "model") -> Path:
        """Write ``export_root/weights/torch/<name>.pt`` and the gate's result beside it; return the first's path.

        Raises:
            UntrainedError: If the model was not trained.
            GateError: If the file does not answer as this model does.
        """
        self.model.check_trained()
        path = Path(export_root) / "weights" / "torch" / f"{model_file_name}.pt"
        gate = Gate.of(self)
        with TemporaryDirectory() as folder:
            file = super().to_torch(folder, model_file_name)
            report = gate.run({"torch file": lambda: saved_torch_runner(file)})
            with whole_files(path, *_report_paths(path, report)) as (temporary, *results):
                shutil.copyfile(file, temporary)
                _write_report(report, results)
                report_path(path).unlink(missing_ok=True)
        return path


# --- the gate's result ----------------------------------------------------------------------------------------------


def _gate_entry(report: GateReport | None) -> dict[str, Any]:
    """Return what a model says of its gate; nothing where there was none."""
    return {} if report is None else {"gate": report.to_dict()}


def _report_paths(path: Path, report: GateReport | None) -> list[Path]:
    """Return the files that are written beside a model."""
    return [] if report is None else [report_path(path)]


def _write_report(report: GateReport | None, files: list[Path]) -> None:
    """Write a gate's result into its file, where there is one."""
    for file in files:
        assert report is not None  # noqa: S101 - else there is no file
        file.write_text(report_text(report.to_dict()), encoding="utf-8")
