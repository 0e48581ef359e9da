# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Outputs of our commands and of pretraining: none replaces an input, or what the user has, unasked."""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rows import Row, table

from anomalib_aoissl.bank.content import BankArrays
from anomalib_aoissl.bank.storage import write_bank
from anomalib_aoissl.cli.bank import main
from anomalib_aoissl.cli.outputs import OutputError, check_outputs
from anomalib_aoissl.data import files
from anomalib_aoissl.data.files import names_full_disk, put_in_place, temporary_file, whole_file
from anomalib_aoissl.encoder.vit import PatchEncoder
from anomalib_aoissl.pretraining import MAEPretraining
from anomalib_aoissl.pretraining.training.artefact import check_replaceable, copy_folder, save_encoder

Make = Callable[[Path], None]


def file(*names: str) -> Make:
    """Return what writes files."""

    def make(folder: Path) -> None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("content")

    return make


def link(source: str, target: str, how: Callable = os.symlink) -> Make:
    """Return what writes a file and another name of it."""

    def make(folder: Path) -> None:
        file(source)(folder)
        how(folder / source, folder / target)

    return make


def asked(make: Make, outputs: tuple[str, ...], inputs: tuple[str, ...] = (), overwrite: bool = False) -> Callable:
    """Return an act that makes files, and asks for outputs."""

    def act(folder: Path) -> None:
        make(folder)
        named = {f"--{index}": folder / name for index, name in enumerate(outputs)}
        check_outputs(named, [folder / name for name in inputs], overwrite=overwrite)

    return act


def nothing(_: Path) -> None:
    """Make nothing."""


READ = "is a file that the command reads"


@pytest.mark.parametrize(
    "row",
    table(
        Row("a new file", asked(nothing, ("a.png",))),
        Row("a new file in a new folder", asked(nothing, ("a/b/c.png",))),
        Row("an existing file that may go", asked(file("a.png"), ("a.png",), overwrite=True)),
        Row("an existing file", asked(file("a.png"), ("a.png",)), "a.png: exists already. .*--overwrite", OutputError),
        Row("an input", asked(file("a.png"), ("a.png",), ("a.png",)), READ, OutputError),
        Row("an input, with --overwrite", asked(file("a.png"), ("a.png",), ("a.png",), True), READ, OutputError),
        Row(
            "an input by another way", asked(file("b/a.png"), ("b/../b/a.png",), ("b/a.png",), True), READ, OutputError
        ),
        Row("a link to an input", asked(link("a.png", "l.png"), ("l.png",), ("a.png",), True), READ, OutputError),
        Row(
            "an input's hard link",
            asked(link("a.png", "l.png", os.link), ("l.png",), ("a.png",), True),
            READ,
            OutputError,
        ),
        Row("an input that is missing", asked(nothing, ("a.png",), ("a.png",)), READ, OutputError),
        Row("one file twice", asked(nothing, ("a.png", "./a.png")), "--1 .* is the file of --0 too", OutputError),
        Row("a folder", asked(file("a/b.png"), ("a",)), "is a folder", OutputError),
        Row("a file as folder", asked(file("a"), ("a/b.png",)), "is a file, not a folder", OutputError),
        Row("a name of 256 bytes", asked(nothing, ("ü" * 126 + ".png",)), "more than 255 bytes", OutputError),
        Row("a name of 255 bytes", asked(nothing, ("a" * 251 + ".png",))),
    ),
)
def test_an_output_is_validated_before_the_work(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)


# --- pretraining -----------------------------------------------------------------------------------------------------

ARTEFACT = ("config.json", "model.safetensors", "pretraining.json")


def saved_to(make: Make, name: str = "target") -> Callable[[Path], object]:
    """Return an act that makes files, and lets pretraining write to a folder."""

    def act(folder: Path) -> object:
        make(folder)
        file(*(f"new/{part}" for part in ARTEFACT))(folder)
        before = sorted(path for path in folder.rglob("*") if path.is_file())
        try:
            copy_folder(folder / "new", folder / name)
        except ValueError:
            assert sorted(path for path in folder.rglob("*") if path.is_file()) == before
            raise
        return sorted(path.name for path in (folder / name).iterdir())

    return act


@pytest.mark.parametrize(
    "row",
    table(
        Row("a new folder", saved_to(nothing), value=sorted(ARTEFACT)),
        Row("an empty folder", saved_to(lambda folder: (folder / "target").mkdir()), value=sorted(ARTEFACT)),
        Row(
            "an older artefact",
            saved_to(file(*(f"target/{name}" for name in (*ARTEFACT, "pictures/step_0000010.png")))),
            value=sorted(ARTEFACT),
        ),
        Row(
            "the user's pictures", saved_to(file("target/u1.png")), "save_to=.*it holds u1.png, which would be deleted"
        ),
        Row("a folder of folders", saved_to(file("target/a/b.txt")), "it holds a, which would be deleted"),
        Row("a hidden file", saved_to(file("target/.git")), "it holds .git"),
        Row("weights of another program", saved_to(file("target/model.safetensors")), "it holds model.safetensors"),
        Row("an artefact and a note", saved_to(file(*(f"target/{n}" for n in (*ARTEFACT, "n.txt")))), "it holds n.txt"),
        Row(
            "an artefact and a picture",
            saved_to(file(*(f"target/{name}" for name in (*ARTEFACT, "pictures/u1.png")))),
            "it holds u1.png",
        ),
        Row("a file", saved_to(file("target")), r"it holds \(a file\)"),
        Row("a long name", saved_to(nothing, "t" * 256), "more than 255 bytes"),
        Row("the longest name", saved_to(nothing, "t" * 255), value=sorted(ARTEFACT)),
    ),
)
def test_pretraining_replaces_an_artefact_and_nothing_else(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)


def test_save_to_is_validated_before_pretraining(tmp_path: Path, tiny_encoder: dict) -> None:
    file("mine/u1.png")(tmp_path)
    callback = MAEPretraining(save_to=tmp_path / "mine", cache_dir=tmp_path / "cache")
    encoder = PatchEncoder(tiny_encoder, image_size=(64, 96), pretrained=False)
    with pytest.raises(ValueError, match=r"it holds u1\.png"):
        callback.pretrain(encoder, [])
    with pytest.raises(ValueError, match=r"it holds u1\.png"):
        save_encoder(encoder, tmp_path / "mine", {})
    check_replaceable(tmp_path / "cache")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["u1.png"]


# --- commands --------------------------------------------------------------------------------------------------------


A, B, C = "a.safetensors", "b.safetensors", "c.safetensors"
REMOVE = ("remove", A, "--device=a")


def bank() -> BankArrays:
    """Return two entries of two images."""
    ids = np.arange(2, dtype=np.int32)
    entries = {
        "embeddings": np.eye(2, 4, dtype=np.float32),
        "labels": np.array([[0] * 4, [1] * 4], dtype=np.uint8),
        "device_ids": ids,
        "image_ids": ids,
        "positions": ids,
        "counts": np.ones(2, dtype=np.int32),
    }
    return BankArrays(entries, ("background", "wire"), ("a", "b"), ("a.png", "b.png"), "hash")


def command(*arguments: str, exists: tuple[str, ...] = ()) -> Callable[[Path], object]:
    """Return an act that runs ``bank`` on two bank files, and gives exit code and whether the files are unchanged."""

    def act(folder: Path) -> object:
        write_bank(bank(), folder / A)
        write_bank(bank(), folder / B)
        file(*exists)(folder)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        named = [str(folder / part) if part.endswith((".safetensors", ".ckpt")) else part for part in arguments]
        code = main(named)
        return code, all((folder / name).read_bytes() == content for name, content in before.items())

    return act


@pytest.mark.parametrize(
    "row",
    table(
        Row("remove to a new file", command(*REMOVE, "--output", C), value=(0, True)),
        Row("remove to its input", command(*REMOVE, "--output", A, "--overwrite"), value=(2, True)),
        Row("remove in place", command(*REMOVE, "--in_place"), value=(0, False)),
        Row("remove to an existing file", command(*REMOVE, "--output", C, exists=(C,)), value=(2, True)),
        Row("remove over a file", command(*REMOVE, "--output", C, "--overwrite", exists=(C,)), value=(0, False)),
        Row("merge to the other input", command("merge", A, B, "--output", B, "--overwrite"), value=(2, True)),
        Row("condense to its input", command("condense", A, "2", "--output", A), value=(2, True)),
        Row("export to its input", command("export", A, A), value=(2, True)),
        Row("export to an existing file", command("export", A, B), value=(2, True)),
    ),
)
def test_the_bank_command_keeps_files(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)


# --- a full disk -----------------------------------------------------------------------------------------------------


def full(error: Exception) -> Callable[[Path], object]:
    """Return an act that writes over a file on a disk that becomes full."""

    def act(folder: Path) -> None:
        (folder / "a.bin").write_text("old")
        try:
            with whole_file(folder / "a.bin") as temporary:
                temporary.write_text("half")
                raise error
        finally:
            assert {path.name: path.read_text() for path in folder.iterdir()} == {"a.bin": "old"}

    return act


FULL = r"The disk is full\. Free some space.*a\.bin"


@pytest.mark.parametrize(
    "row",
    table(
        Row("the system's error", full(OSError(errno.ENOSPC, "No space left on device")), FULL, OSError),
        Row("the quota's error", full(OSError(errno.EDQUOT, "Disk quota exceeded")), FULL, OSError),
        Row("torch's error", full(RuntimeError("PytorchStreamWriter failed writing file data/0: 1")), FULL, OSError),
        Row("an error of another kind", full(RuntimeError("no")), "^no$", RuntimeError),
    ),
)
def test_a_full_disk_names_the_file_and_keeps_the_old_one(row: Row, tmp_path: Path) -> None:
    row.check(tmp_path)


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), names_full_disk(tmp_path):
        (tmp_path / "no").read_bytes()


# --- what a killed process leaves ------------------------------------------------------------------------------------

KILLED = """
import os, sys
from anomalib_aoissl.data.files import temporary_file, whole_file
with whole_file(sys.argv[1]) as first, temporary_file(first.with_name("a.bin")) as second:
    first.write_bytes(b"half"), second.write_bytes(b"of it")
    os._exit(0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such lock")
def test_the_next_write_of_a_file_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    path, other = tmp_path / "a.bin", tmp_path / ".part-of-another-program"
    other.touch()
    subprocess.run([sys.executable, "-c", KILLED, path], check=True)
    assert len(list(tmp_path.glob(".part-*"))) == 3
    with whole_file(tmp_path / "b.bin") as temporary:  # another file
        temporary.write_bytes(b"b")
    assert len(list(tmp_path.glob(".part-*"))) == 3
    with whole_file(path) as temporary, whole_file(path) as meanwhile:
        assert temporary.read_bytes() == meanwhile.read_bytes() == b""
        temporary.write_bytes(b"one")
        meanwhile.write_bytes(b"two")
        assert temporary != meanwhile
    assert path.read_bytes() == b"one"
    assert sorted(file.name for file in tmp_path.iterdir()) == [".part-of-another-program", "a.bin", "b.bin"]


def test_a_folder_without_locks_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "flock", flock)
    with whole_file(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"one")
        assert len(list(tmp_path.iterdir())) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.bin"]


def test_what_is_left_where_there_are_no_locks_goes_by_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    monkeypatch.setattr(files, "fcntl", None)
    path = tmp_path / "table.csv"
    with temporary_file(path) as left, temporary_file(path) as working, temporary_file(tmp_path / "other") as other:
        for file, days in ((left, 2), (working, 0.5), (other, 2)):
            at = time.time() - 86_400 * days
            os.utime(file, (at, at))
        with whole_file(path) as temporary:
            temporary.write_text("new")
        assert not left.exists()
        assert working.exists()
        assert other.exists()  # of another name: cleared when that is written
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_a_writer_that_has_ended_leaves_the_next_ones_file(tmp_path: Path) -> None:
    """Between its rename and its end, another process may have taken the name of its temporary file."""
    path = tmp_path / "table.csv"
    first, second = temporary_file(path), temporary_file(path)
    one = first.__enter__()
    one.write_text("first")
    put_in_place(one, path)
    other = second.__enter__()
    other.write_text("second")
    first.__exit__(None, None, None)
    put_in_place(other, path)
    second.__exit__(None, None, None)
    assert path.read_text() == "second"
    assert [found.name for found in tmp_path.iterdir()] == ["table.csv"]


def test_threads_that_read_the_umask_leave_it_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one waits until the first one, which sets the mask to read it, has set it back."""
    masks, second_is_there, lock = [0o027], threading.Event(), threading.Lock()
    second = threading.Thread(target=files._umask)

    class Watched:
        def __enter__(self) -> None:
            if threading.current_thread() is second:
                second_is_there.set()
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    def umask(mask: int) -> int:
        masks.append(mask)
        if threading.current_thread() is second:
            second_is_there.set()
        elif len(masks) == 2:
            second.start()
            assert second_is_there.wait(60)
        return masks[-2]

    monkeypatch.setattr(files, "_READING_UMASK", Watched())
    monkeypatch.setattr(os, "umask", umask)
    assert files._umask() == 0o027
    second.join()
    assert masks[2] == masks[-1] == 0o027
