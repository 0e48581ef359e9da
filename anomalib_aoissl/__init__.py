# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Public names of anomalib-aoissl, each loaded when it is first read.

The start-up hook imports this package in every interpreter, so nothing heavy
may be imported here (PEP 562 makes the names lazy). A new public name is one
line in ``_EXPORTS`` and its twin in the block for type checkers.
"""

# Type checkers take this name to be true. Importing it from `typing` would make
# every start of the interpreter several milliseconds longer.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from anomalib_aoissl.data.folder import SegmentationFolder as SegmentationFolder
    from anomalib_aoissl.deployment.inferencer import SegmentationOpenVINOInferencer as SegmentationOpenVINOInferencer
    from anomalib_aoissl.deployment.tiles.tiling import Tiling as Tiling
    from anomalib_aoissl.encoder.vit import PatchEncoder as PatchEncoder
    from anomalib_aoissl.plugin.export.options import exporting as exporting
    from anomalib_aoissl.retrieval.lightning_model import AOISSLRetrieval as AOISSLRetrieval
    from anomalib_aoissl.segmenter.lightning_model import AOISSLSegmenter as AOISSLSegmenter
    from anomalib_aoissl.wirebond.datamodule import WireBond as WireBond

    __version__: str

_EXPORTS = {
    "AOISSLRetrieval": "anomalib_aoissl.retrieval.lightning_model",
    "AOISSLSegmenter": "anomalib_aoissl.segmenter.lightning_model",
    "PatchEncoder": "anomalib_aoissl.encoder.vit",
    "SegmentationFolder": "anomalib_aoissl.data.folder",
    "SegmentationOpenVINOInferencer": "anomalib_aoissl.deployment.inferencer",
    "Tiling": "anomalib_aoissl.deployment.tiles.tiling",
    "WireBond": "anomalib_aoissl.wirebond.datamodule",
    "exporting": "anomalib_aoissl.plugin.export.options",
}

MISSING_HERE = (
    "this machine has anomalib-aoissl-line, the package without torch, which has no part for this. Install "
    "anomalib-aoissl in an environment of its own."
)

__all__ = [*_EXPORTS, "__version__"]


def __getattr__(name: str) -> object:
    """Import a public name from its module and keep it.

    Raises:
        AttributeError: If the package has no such public name.
    """
    if name == "__version__":
        value: object = _version()
    elif name in _EXPORTS:
        value = _loaded(name)
    else:
        msg = f"module 'anomalib_aoissl' has no attribute {name!r}; its public names are {', '.join(__all__)}"
        raise AttributeError(msg)
    globals()[name] = value
    return value


def _loaded(name: str) -> object:
    """Return a public name from its module.

    Raises:
        ImportError: If only the line's part of the package is installed, and the name is not in it.
    """
    from importlib import import_module

    try:
        return getattr(import_module(_EXPORTS[name]), name)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("anomalib_aoissl."):
            raise
        msg = f"anomalib_aoissl.{name}: {MISSING_HERE}"
        raise ImportError(msg) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    for distribution in ("anomalib-aoissl", "anomalib-aoissl-line"):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return "0+unknown"  # a source tree on sys.path that was never installed
