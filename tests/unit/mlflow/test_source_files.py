"""A metric's file in `mlruns`, line by line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shardmig.adapters.mlflow.source.files import FileStore
from shardmig.adapters.mlflow.store import LatestPoint
from shardmig.errors import BadInput, NotFound
from shardmig.records import Finding, TargetRunId

RUN = TargetRunId("0" * 32)


def store_of(folder: Path, lines: str) -> FileStore:
    run = folder / "1" / RUN
    (run / "metrics").mkdir(parents=True)
    (run / "metrics" / "loss").write_text(lines)
    (folder / "1" / "meta.yaml").write_text("experiment_id: '1'\nname: one\nlifecycle_stage: active\n")
    (run / "meta.yaml").write_text("run_id: x\nstatus: 4\nstart_time: 5\nend_time: null\nlifecycle_stage: active\n")
    return FileStore(folder)


def points_of(store: FileStore) -> list[tuple[int, int, str]]:
    parts = list(store.history(store.get_run(RUN), ["loss"], 100))
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in ("steps", "times_ms", "values")]
    return [(step, time, repr(value)) for step, time, value in zip(*(one.tolist() for one in columns), strict=True)]


def test_every_line_is_a_point(tmp_path: Path) -> None:
    store = store_of(
        tmp_path, "1 0.5 9007199254740993\n1 0.5 9007199254740993\n2 nan -7\n3 -inf 0\n3 -0.0 1\n4 5e-324 2\n"
    )
    assert points_of(store) == [
        (-7, 2, "nan"),
        (0, 3, "-inf"),
        (1, 3, "-0.0"),
        (2, 4, "5e-324"),
        (9007199254740993, 1, "0.5"),
        (9007199254740993, 1, "0.5"),
    ]
    assert store.lost == []


@pytest.mark.parametrize("bad", ["", "x 0.5 1\n", "1 0.5 1e3\n"], ids=["columns", "no time", "no step"])
def test_lines_of_other_clients_are_read_too_and_bad_ones_are_losses(tmp_path: Path, bad: str) -> None:
    store = store_of(tmp_path, f"1 0.25\n2 0.5 3\n3 0.75 4 data digest\n\n4 1 2 3\n{bad}5 1.5 6\n")
    assert points_of(store) == [(0, 1, "0.25"), (3, 2, "0.5"), (4, 3, "0.75"), (6, 5, "1.5")]
    assert {(one.kind, one.code, one.count) for one in store.lost} == {
        ("loss", "bad-line", 1 + bool(bad)),
        ("approximation", "point-dataset", 1),
    }


CUT = Finding("loss", "bad-line", "metrics/loss", 1, "its last line is cut")


@pytest.mark.parametrize("odd", ["", "3 0.75 4e0\n"], ids=["columns", "lines"])
@pytest.mark.parametrize("half", ["2", "2 0.2", "2 0.25 1", "2 0.25 1 data dig", "x" * 10_000], ids=len)
def test_half_a_line_is_no_point_and_is_told(tmp_path: Path, odd: str, half: str) -> None:
    """Somebody is writing it, or was killed."""
    store = store_of(tmp_path, f"{odd}0 0.25\n1 0.5 1\n{half}")
    assert points_of(store) == [(0, 0, "0.25"), (1, 1, "0.5")]
    assert store.lost == [CUT, *[Finding("loss", "bad-line", "metrics/loss", 1, "not `time value step`")] * bool(odd)]


def test_a_file_of_half_a_line_has_no_points(tmp_path: Path) -> None:
    store = store_of(tmp_path, "1 0.")
    assert list(store.history(store.get_run(RUN), ["loss"], 100)) == []
    assert store.lost == [CUT]


@pytest.mark.parametrize("odd", ["", "x 0.5 1\n"], ids=["columns", "lines"])
def test_half_a_line_behind_many_blocks_is_no_point(tmp_path: Path, odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardmig.adapters.mlflow.source.files.BLOCK_BYTES", 1000)
    store = store_of(tmp_path, odd + "".join(f"{step} 0.5 {step}\n" for step in range(1000)) + "1000 0.5 10")
    assert points_of(store) == [(step, step, "0.5") for step in range(1000)]
    assert CUT in store.lost


def test_the_last_point_has_its_value_and_half_a_line_is_none(tmp_path: Path) -> None:
    """Else --update would not see a new line with the step and time of the one before."""
    store = store_of(tmp_path, "1 0.5 7\n")
    path = tmp_path / "1" / RUN / "metrics" / "loss"
    latest = []
    for lines in ("1 0.5 7\n", "1 0.5 7\n1 0.75 7\n", "1 0.5 7\n1 0.75 7\n1 0.2", "1 0.", ""):
        path.write_text(lines)
        latest += store.get_run(RUN).latest
    seen = [LatestPoint("loss", 7, 1, value) for value in (0.5, 0.75, 0.75)]
    assert latest == [*seen, LatestPoint("loss"), LatestPoint("loss")]


def test_a_metric_may_be_called_as_packed_files_are(tmp_path: Path) -> None:
    store = store_of(tmp_path, "")
    (tmp_path / "1" / RUN / "metrics" / "loss.gz").write_text("1 0.5 7\n")
    [part] = store.history(store.get_run(RUN), ["loss.gz"], 100)
    assert part.values.tolist() == [0.5]


def test_a_file_without_lines_has_no_points(tmp_path: Path) -> None:
    store = store_of(tmp_path, "")
    assert list(store.history(store.get_run(RUN), ["loss"], 100)) == []


def test_a_run_is_what_its_folder_says(tmp_path: Path) -> None:
    run = store_of(tmp_path, "1 0.5 0\n").get_run(RUN)
    assert (run.status, run.start_ms, run.end_ms, run.metric_keys) == ("FAILED", 5, None, ["loss"])


@pytest.mark.parametrize("name", ["../1", "a/b", "", "1" * 32])
def test_a_run_that_is_not_there_is_not_found(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFound):
        store_of(tmp_path, "").get_run(TargetRunId(name))


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    store = store_of(tmp_path, "")
    (tmp_path / "1" / RUN / "meta.yaml").write_text("{broken")
    with pytest.raises(BadInput, match=RUN):
        store.get_run(RUN)
