# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Work of a study: each job is done once, whoever does it; what stopped goes on; a partial table is whole."""

import copy
import csv
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from benchmarks.study import table
from benchmarks.study.__main__ import main, without_needless
from benchmarks.study.plan import Job, PlanError, estimate, plan, read_config
from benchmarks.study.sharing import Board
from benchmarks.study.table import COLUMNS, TableError, read_table, write_table
from benchmarks.study.working import work

ROOT = Path(__file__).resolve().parents[2]

CONFIG = {
    "sets": {"boards": {"size": [100, 200], "test_images": 4, "most_labels": 4}, "wires": {"size": [10, 10]}},
    "weights": {
        "none": {},
        "MAE": {"pretraining": {"objective": "mae"}, "pictures": {"set": "wires"}, "seconds": 9, "each_seed": True},
    },
    "models": {"vote": {"kind": "x", "cost": {"fixed": 1, "label": 10, "most": 3, "test": 5}}, "net": {"peer": True}},
    "slices": {
        "curve": {"sets": ["boards", "wires"], "models": ["vote"], "labels": [1, 5], "seeds": [0, 1]},
        "again": {"sets": ["boards"], "models": ["vote"], "labels": [4], "seeds": [0]},
        "trained": {"sets": ["wires"], "models": ["net"], "weights": ["MAE"], "labels": [1], "seeds": [0, 1]},
    },
}


@pytest.fixture
def jobs() -> list[Job]:
    return plan(CONFIG)


def fake(job: Job, board: Board) -> dict[str, object]:
    """A result that says who made it; weights are pretended."""
    assert all(board.has_result(need) for need in job.needs)
    return {"mean_iou": 0.5, "class_iou": {"a": 0.25}, "fit_seconds": 2.0, "pid": os.getpid()}


def test_the_plan_has_each_run_once_and_what_it_needs_first(jobs: list[Job]) -> None:
    runs = [(j.spec["set"], j.spec["labels"], j.spec["seed"]) for j in jobs if j.spec.get("model") == "vote"]
    assert sorted(runs) == [
        (s, n, seed) for s, n in (("boards", 1), ("boards", 4), ("wires", 1), ("wires", 5)) for seed in (0, 1)
    ]
    shared = next(j for j in jobs if j.spec.get("labels") == 4 and j.spec["seed"] == 0)
    assert shared.slices == ("curve", "again")  # five labels of a set that has four are these four
    weights = {(j.id,): place for place, j in enumerate(jobs) if j.kind == "pretraining"}
    nets = {j.needs: place for place, j in enumerate(jobs) if j.spec.get("model") == "net"}
    assert nets.keys() == weights.keys()
    assert len(weights) == 2
    assert all(weights[needs] < place for needs, place in nets.items())
    order = [j.slices[0] for j in jobs]
    assert order == sorted(order, key=[*dict(CONFIG)["slices"]].index)
    assert len({j.id for j in jobs}) == len(jobs) == 12


def test_a_slice_whose_numbers_of_labels_are_one_is_named_once() -> None:
    slices = {"curve": {"sets": ["boards"], "models": ["vote"], "labels": [1, 5, 20], "seeds": [0]}}
    again = {"again": {**slices["curve"], "labels": [4]}}
    found = {job.spec["labels"]: job.slices for job in plan({**CONFIG, "slices": {**slices, **again}})}
    assert found == {1: ("curve",), 4: ("curve", "again")}  # five and twenty are the four that there are


def test_other_settings_are_another_job(jobs: list[Job]) -> None:
    changed: dict[str, Any] = copy.deepcopy(CONFIG)
    changed["models"]["vote"] = {"kind": "y"}
    before, after = ({j.id for j in p if j.spec.get("model") == "vote"} for p in (jobs, plan(changed)))
    assert not before & after


def test_the_estimate_is_the_sum_of_its_parts(jobs: list[Job]) -> None:
    job = next(j for j in jobs if j.spec.get("labels") == 4)  # of 0.02 Mpx; three labels count
    assert estimate(job) == pytest.approx(1 + 10 * 3 * 0.02 + 5 * 4 * 0.02 + 2)


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        ({"a": {"sets": ["nowhere"], "models": ["vote"], "seeds": [0]}}, r"'a': 'nowhere' is not described.*boards"),
        ({"a": {"sets": ["boards"], "seeds": [0]}}, r"\['models'\] are missing"),
        ({"a": {"sets": ["boards"], "models": ["vote"], "seeds": [0], "shots": [1]}}, r"\['shots'\] are unknown"),
    ],
)
def test_a_wrong_slice_is_named(slices: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan({**CONFIG, "slices": slices})


@pytest.mark.parametrize(("name", "minutes"), [("study_small", 30), ("study", 15.5 * 60)])
def test_the_studies_fit_their_time(name: str, minutes: float) -> None:
    jobs = plan(read_config(ROOT / "configs" / "benchmark" / f"{name}.yaml"))
    assert 0.5 * minutes < sum(map(estimate, jobs)) / 60 <= minutes


def test_all_is_done_once_and_not_again(jobs: list[Job], tmp_path: Path) -> None:
    done: list[str] = []
    board = Board(tmp_path)
    run = lambda job, where: done.append(job.id) or fake(job, where)  # noqa: E731
    assert work(jobs, board, run) == 0
    assert done == [job.id for job in jobs]
    assert work(jobs, board, run) == 0
    assert len(done) == len(jobs)
    assert not list((tmp_path / "claims").glob("*.json"))


def test_a_study_goes_on_from_its_table_alone(jobs: list[Job], tmp_path: Path) -> None:
    measured = [job for job in jobs if job.kind == "masks"]
    result = {"mean_iou": 0.5, "class_iou": {"a": 0.25}, "image_iou": [0.5, 1.0], "commit": "1234567", "test_images": 2}
    board = Board(tmp_path / "first")
    for job in measured[:4]:
        board.write_result(job.id, {**result, "pictures": f"pictures/tested pictures/{job.id}"})
    (tmp_path / "first" / "pictures" / "tested").mkdir(parents=True)
    (tmp_path / "first" / "pictures" / measured[0].id).mkdir()
    table = write_table(jobs, board)
    other = Board(tmp_path / "other")
    (tmp_path / "other" / "study.csv").write_bytes(table.read_bytes())
    other.write_result(measured[1].id, {"mean_iou": 0.75})
    assert read_table(jobs, other) == 3
    assert other.result(measured[0].id) == result  # without masks that are not there
    assert other.result(measured[1].id) == {"mean_iou": 0.75}
    assert read_table(jobs, other) == 0
    for job in measured[:4]:
        (tmp_path / "first" / "results" / f"{job.id}.json").unlink()
    assert read_table(jobs, board) == 4
    assert board.result(measured[0].id) == {**result, "pictures": f"pictures/tested pictures/{measured[0].id}"}


def stale(folder: Path, *rows: dict[str, object]) -> Board:
    """A folder with a table alone, of the first row's columns."""
    board = Board(folder)
    with (folder / "study.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return board


def test_what_an_older_table_has_not_is_left_out(jobs: list[Job], tmp_path: Path) -> None:
    first, second = jobs[0].id, jobs[1].id
    board = stale(tmp_path, {"job": first, "mean_iou": 0.5}, {"job": second, "mean_iou": ""})
    assert read_table(jobs, board) == 1
    assert board.result(first) == {"mean_iou": 0.5}
    assert not board.has_result(second)  # a row without a value is no result


def test_a_result_that_is_no_number_survives_its_table(jobs: list[Job], tmp_path: Path) -> None:
    board, job = Board(tmp_path), jobs[0].id
    board.write_result(job, {"mean_iou": math.nan, "image_iou": [0.5, math.nan], "fit_seconds": math.inf})
    before = write_table(jobs, board).read_bytes()
    (tmp_path / "results" / f"{job}.json").unlink()
    assert read_table(jobs, board) == 1
    assert str(board.result(job)) == "{'mean_iou': nan, 'image_iou': [0.5, nan], 'fit_seconds': inf}"
    assert write_table(jobs, board).read_bytes() == before


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"mean_iou": "0,5"}, r"study.csv, line 3, column 'mean_iou': '0,5' is no number"),
        ({"mean_iou": "0.5", "class_iou": "{'a': 1}"}, r"study.csv, line 3, column 'class_iou': \"{'a': 1}\" is no"),
    ],
)
def test_a_cell_that_cannot_be_read_is_named(
    columns: dict[str, object], message: str, jobs: list[Job], tmp_path: Path
) -> None:
    good, bad = {**columns, "mean_iou": 0.5, "class_iou": ""}, {"class_iou": "", **columns}
    board = stale(tmp_path, {"job": jobs[0].id, **good}, {"job": jobs[1].id, **bad})
    with pytest.raises(TableError, match=message):
        read_table(jobs, board)
    assert not board.has_result(jobs[0].id)  # all rows or none


def test_a_table_of_something_else_is_an_error_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    stale(tmp_path, {"set": "boards", "mean_iou": 0.5})
    before = (tmp_path / "study.csv").read_bytes()
    command = ["study", "--config", str(tmp_path / "config.json"), "--output", str(tmp_path), "--merge"]
    monkeypatch.setattr(sys, "argv", command)
    assert main() == 2
    assert "study.csv: has no column 'job'" in capsys.readouterr().err
    assert (tmp_path / "study.csv").read_bytes() == before


def test_weights_that_only_rows_of_a_table_needed_are_not_trained_again(jobs: list[Job], tmp_path: Path) -> None:
    first, second = (job for job in jobs if job.needs)
    board, other = Board(tmp_path / "first"), Board(tmp_path / "other")
    board.write_result(first.needs[0], {"fit_seconds": 9.5})
    board.write_result(first.id, {"mean_iou": 0.5})
    (tmp_path / "other" / "study.csv").write_bytes(write_table(jobs, board).read_bytes())
    read_table(jobs, other)
    kept = without_needless(jobs, other)
    assert {job.id for job in jobs} - {job.id for job in kept} == set(first.needs)
    assert second.needs[0] in {job.id for job in kept}
    assert without_needless(jobs, other, first.needs[0]) == jobs  # named by --only: they are wanted for themselves
    assert write_table(kept, other).read_text(encoding="utf-8") == (tmp_path / "first" / "study.csv").read_text("utf-8")


def test_a_partial_table_says_what_is_missing_and_why(jobs: list[Job], tmp_path: Path) -> None:
    board = Board(tmp_path)
    weights = next(job for job in jobs if job.kind == "pretraining")

    def run(job: Job, where: Board) -> dict[str, object]:
        if job is weights:
            msg = "no\n\tpictures"
            raise OSError(msg)
        return fake(job, where)

    assert work(jobs, board, run) == 2  # the weights that failed, and the run that needs them
    rows = list(csv.DictReader((tmp_path / "study.csv").open(encoding="utf-8")))
    assert len(rows) == 9
    assert tuple(rows[0]) == COLUMNS
    trained = next(row for row in rows if row["weights"] == "MAE")
    assert (trained["pretraining_seconds"], trained["peer"], trained["seed"]) == ("2.0", "True", "1")
    assert json.loads(rows[0]["class_iou"]) == {"a": 0.25}
    missing = (tmp_path / "study.missing.txt").read_text(encoding="utf-8").splitlines()
    assert missing[0] == f"{weights.id}\tfailed: OSError: no pictures"
    assert missing[1].endswith("\tnot run yet")
    assert work(jobs, board, fake) == 0  # the next start tries again
    assert not (tmp_path / "study.missing.txt").read_text(encoding="utf-8")


def test_a_part_of_the_plan_leaves_the_other_rows_in_the_table(jobs: list[Job], tmp_path: Path) -> None:
    board = Board(tmp_path)
    for job in (jobs[2], jobs[3]):
        assert work([job], board, fake, planned=jobs) == 0
    rows = list(csv.DictReader((tmp_path / "study.csv").open(encoding="utf-8")))
    assert [row["job"] for row in rows] == [jobs[2].id, jobs[3].id]


def test_a_claim_excludes_others_while_it_lives(tmp_path: Path) -> None:
    one, other = Board(tmp_path), Board(tmp_path)
    with one.claim("job") as first, other.claim("job") as second:
        assert (first, second) == (True, False)
    with other.claim("job") as free:
        assert free


def test_a_claim_of_a_silent_machine_is_taken_over_and_not_removed_by_it(tmp_path: Path) -> None:
    board, path = Board(tmp_path, stale=60), tmp_path / "claims" / "job.json"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": 0.0}), encoding="utf-8")
    with board.claim("job") as free:
        assert not free  # it has just been touched
    os.utime(path, (time.time() - 61,) * 2)
    with board.claim("job") as free:
        assert free
        path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": 0.0}), encoding="utf-8")
    assert path.exists()  # another's by now


def test_a_claim_of_a_dead_process_here_is_taken_over_at_once(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    board, path = Board(tmp_path), tmp_path / "claims" / "job.json"
    with board.claim("own"):
        owner = json.loads((tmp_path / "claims" / "own.json").read_text(encoding="utf-8"))
    path.write_text(json.dumps({**owner, "pid": dead.pid}), encoding="utf-8")
    with board.claim("job") as free:
        assert free
    path.write_text(
        json.dumps({**owner, "started": owner["started"] - 100}), encoding="utf-8"
    )  # its number, used again
    with board.claim("job") as free:
        assert free


def test_a_clock_of_this_machine_that_is_ahead_takes_no_claim_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, right = tmp_path / "claims" / "job.json", time.time
    board = Board(tmp_path, stale=60)
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": 0.0}), encoding="utf-8")
    monkeypatch.setattr(time, "time", lambda: right() + 61)
    with board.claim("job") as free:
        assert not free


@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="the system has no namespaces of processes")
def test_a_number_of_a_process_counts_in_its_own_container_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    board, path = Board(tmp_path), tmp_path / "claims" / "job.json"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "readlink", lambda _: Path("pid:[1]"))
        with board.claim("own"):
            owner = json.loads((tmp_path / "claims" / "own.json").read_text(encoding="utf-8"))
    path.write_text(json.dumps({**owner, "pid": dead.pid}), encoding="utf-8")
    with board.claim("job") as free:
        assert not free


def test_a_slower_process_does_not_put_back_an_older_table(
    jobs: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board, row, looked, done = Board(tmp_path), table._row, threading.Event(), threading.Event()

    def slow(job: Job, *arguments: Any) -> dict[str, Any]:
        if threading.current_thread() is slower:
            looked.set()
            done.wait(0.5)  # the other one waits for this one, or has ended before it
        return row(job, *arguments)

    monkeypatch.setattr(table, "_row", slow)
    first, second = (job for job in jobs[:2])
    board.write_result(second.id, {"mean_iou": 0.5})
    slower = threading.Thread(target=write_table, args=(jobs, board))
    slower.start()
    looked.wait()
    board.write_result(first.id, {"mean_iou": 0.75})
    write_table(jobs, board)
    done.set()
    slower.join()
    rows = list(csv.DictReader((tmp_path / "study.csv").open(encoding="utf-8")))
    assert [row["job"] for row in rows] == [first.id, second.id]


def test_a_table_is_written_where_a_lock_is_left_over(
    jobs: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "_LONGEST_WRITING", 0.1)
    board = Board(tmp_path)
    board.write_result(jobs[0].id, {"mean_iou": 0.5})
    with FileLock(tmp_path / "claims" / ".table.lock"):
        assert len(write_table(jobs, board).read_text(encoding="utf-8").splitlines()) == 2


def test_a_result_that_cannot_be_read_is_measured_again(jobs: list[Job], tmp_path: Path) -> None:
    board = Board(tmp_path)
    path = tmp_path / "results" / f"{jobs[0].id}.json"
    path.write_text('{"mean_iou": 0.7', encoding="utf-8")
    write_table(jobs[:1], board)
    assert (tmp_path / "study.missing.txt").read_text(encoding="utf-8") == f"{jobs[0].id}\tnot run yet\n"
    assert work(jobs[:1], board, fake) == 0
    assert board.result(jobs[0].id) == {
        "mean_iou": 0.5,
        "class_iou": {"a": 0.25},
        "fit_seconds": 2.0,
        "pid": os.getpid(),
    }


WORKER = """
    import json, os, sys, time
    from pathlib import Path
    from benchmarks.study.plan import plan
    from benchmarks.study.sharing import Board
    from benchmarks.study.working import work

    folder, hang = Path(sys.argv[1]), len(sys.argv) > 2

    def run(job, board):
        print(job.id, flush=True)
        if hang:
            os.read(0, 1)  # until it is killed
        deadline = time.monotonic() + 100
        while sum(1 for _ in folder.glob("claims/*.json")) < 2 and not any(folder.glob("results/*")):
            assert time.monotonic() < deadline  # the other process has begun, or has done some work
        return {"mean_iou": 0.5, "fit_seconds": 1.0, "pid": os.getpid()}

    sys.exit(work(plan(json.loads((folder / "config.json").read_text())), Board(folder), run, pause=0.05))
"""


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(WORKER), str(folder), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    return tmp_path


def test_two_processes_share_the_work(folder: Path, jobs: list[Job]) -> None:
    both = [start(folder), start(folder)]
    said = [process.communicate(timeout=200)[0] for process in both]
    ran = [line.split()[-1] for text in said for line in text.splitlines() if " " not in line]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(ran) == sorted(job.id for job in jobs)  # each once
    results = [json.loads(path.read_text(encoding="utf-8")) for path in (folder / "results").glob("*.json")]
    assert len({result["pid"] for result in results}) == 2


def test_a_killed_process_leaves_its_job_to_the_next(folder: Path, jobs: list[Job]) -> None:
    killed = start(folder, "hang")
    assert killed.stdout is not None
    while killed.stdout.readline().strip() != jobs[0].id:
        assert killed.poll() is None
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    for pipe in (killed.stdin, killed.stdout):
        assert pipe is not None
        pipe.close()
    assert len(list((folder / "claims").glob("*.json"))) == 1
    assert work(jobs, Board(folder), fake, pause=0.01) == 0
    assert len(list((folder / "results").glob("*.json"))) == len(jobs)
