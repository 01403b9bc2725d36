"""A metric's file in `mlruns`, line by line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shardmig.adapters.mlflow.source.files import FileStore
from shardmig.errors import BadInput, NotFound
from shardmig.records import TargetRunId

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
        tmp_path, "1 0.5 9007199254740993\n1 0.5 9007199254740993\n2 nan -7\n3 -inf 0\n3 -0.0 1\n4 5e-324 2"
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
