# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Our options of ``anomalib export`` and its log: what is wrong is said, and only our lines are on the screen."""

import logging
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser, Namespace

from anomalib_aoissl.plugin.export import command as export_command
from anomalib_aoissl.plugin.export import log as export_log
from anomalib_aoissl.plugin.export.options import PICTURES, ExportOptions, export_options


def parsed(*arguments: str, **others: str) -> Namespace:
    """Return the options of a command line."""
    parser = ArgumentParser(exit_on_error=False)
    export_command.add_options(parser)
    return Namespace(**vars(parser.parse_args(list(arguments))), **{"export_type": "openvino", **others})


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ([], ExportOptions(PICTURES)),
        (["--gate", "20"], ExportOptions(20)),
        (["--gate", "off"], ExportOptions(0)),
        (["--model_api", "true"], ExportOptions(PICTURES, model_api=True)),
    ],
)
def test_options_reach_the_export(arguments: list[str], options: ExportOptions) -> None:
    config = parsed(*arguments)
    export_command.check_options(config, is_ours=True, model="AOISSLRetrieval")
    before = export_options()
    with export_command.options_of(config, None):
        assert export_options() == options
    assert export_options() == before


@pytest.mark.parametrize(
    ("arguments", "is_ours", "others", "message"),
    [
        (["--gate", "many"], True, {}, "gate=many must be a whole number of pictures"),
        (["--gate", "off"], False, {}, r"--gate is an option of AOISSLRetrieval .*; Padim has none"),
        (["--model_api", "true"], True, {"export_type": "onnx"}, "say --export_type openvino"),
    ],
)
def test_wrong_options(arguments: list[str], is_ours: bool, others: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        export_command.check_options(parsed(*arguments, **others), is_ours, "Padim")


def test_other_models_without_our_options() -> None:
    export_command.check_options(parsed(), is_ours=False, model="Padim")


class Screen(logging.Handler):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def test_the_log_of_an_export(tmp_path: Path) -> None:
    root, talkative = logging.getLogger(), logging.getLogger("onnx_ir.passes.common")
    screens, level, others = [Screen(), Screen()], root.level, root.handlers
    root.setLevel(logging.INFO)
    root.handlers = [*screens]  # as anomalib sets them; pytest's own come first otherwise
    try:
        config = parsed(export_root=str(tmp_path), model_file_name="unit")
        with export_command.quiet(config) as path:
            logging.getLogger("anomalib_aoissl.models.export.exporting_mixin").info("ours")
            logging.getLogger("anomalib.engine").info("theirs")
            logging.getLogger("anomalib.engine").warning("careful")
            with export_log.set_aside("onnx_ir"):
                talkative.warning("Replaced initializer")
        logging.getLogger("anomalib.engine").info("after")
    finally:
        root.handlers = others
        root.setLevel(level)
    assert screens[0].lines == ["ours", "careful", "after"]
    assert screens[1].lines == ["after"]  # the second handler would say all once more
    assert path == tmp_path / "weights" / "openvino" / "unit.log"
    text = path.read_text()
    lines = ("ours", "theirs", "careful", "Replaced initializer", "after")
    assert [text.count(line) for line in lines] == [1, 1, 1, 1, 0]


def test_set_aside_without_a_file(capsys: pytest.CaptureFixture) -> None:
    with export_log.set_aside("onnx_ir"):
        logging.getLogger("onnx_ir.passes").error("internals")
    assert logging.getLogger("onnx_ir").propagate
    assert "internals" not in capsys.readouterr().err
