"""What an archive says of itself: whole, unknown, incomplete or damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shardmig.cli.app import execute
from shardmig.errors import UsageError
from shardmig.records import Chunk, End, Field, Fields, Finding, RunId, RunRef, Selection
from shardmig.report.audit import Lacking, audit_of_archive, errors_in
from tests.unit.archive.runs import RUN, floats, paths_in, publish, write_exporter_part

ERROR = {
    "project_id": "ws/proj",
    "run_id": "RUN-1",
    "attribute_path": "loss",
    "attribute_type": "float_series",
    "exception": "NeptuneConnectionLostException",
}


def other(name: str) -> RunRef:
    return RunRef(project=RUN.project, id=RunId(name))


def exporter_run(folder: Path, run: RunRef = RUN) -> None:
    """A run as neptune-exporter wrote it, without its series."""
    row: dict[str, Any] = {"attribute_path": "lr", "attribute_type": "float", "float_value": 0.1}
    write_exporter_part(folder, 0, [row], run)


def test_runs_with_a_receipt_are_whole_or_say_what_they_lack(tmp_path: Path) -> None:
    chunks: list[Chunk] = [Fields([Field("lr", "float", 0.1)]), floats("loss", [1, 2], [1.0, 2.0])]
    publish(tmp_path, chunks)
    loss = Finding("loss", "series-cut", "loss", 3)
    publish(tmp_path, chunks, run=other("cut"), end=End([Finding("note", "empty-series", "x"), loss]))
    runs = {run.run: run for run in audit_of_archive(paths_in(tmp_path), Selection()).runs}
    assert (runs["ws/proj/RUN-1"].standing, runs["ws/proj/RUN-1"].rows) == ("whole", 3)
    assert runs["ws/proj/cut"].standing == "incomplete"
    assert runs["ws/proj/cut"].lacking == [Lacking("loss", "", None, 2, "series-cut")]


def test_what_neptune_exporter_reported_and_took_for_whole_is_incomplete(tmp_path: Path) -> None:
    exporter_run(tmp_path)
    exporter_run(tmp_path, other("quiet"))
    errors = errors_in(b"\n".join(json.dumps(one).encode() for one in (ERROR, ERROR | {"attribute_path": None})))
    runs = {run.run: run for run in audit_of_archive(paths_in(tmp_path), Selection(), errors).runs}
    assert runs["ws/proj/quiet"].standing == "unknown"
    assert runs["ws/proj/RUN-1"].standing == "incomplete"
    assert [(one.path, one.explained) for one in runs["ws/proj/RUN-1"].lacking] == [
        ("loss", "NeptuneConnectionLostException"),
        ("", "NeptuneConnectionLostException"),
    ]


def test_a_run_that_only_the_report_names_is_not_in_the_archive(tmp_path: Path) -> None:
    exporter_run(tmp_path)
    lines = [ERROR | {"run_id": "gone"}, ERROR | {"run_id": "gone", "attribute_path": None}, ERROR | {"run_id": ""}]
    errors = errors_in(b"\n".join(json.dumps(one).encode() for one in lines))
    runs = audit_of_archive(paths_in(tmp_path), Selection(), errors).runs
    assert [(run.run, run.standing) for run in runs] == [
        ("ws/proj/RUN-1", "unknown"),
        ("ws/proj/gone", "not in the archive"),
    ]
    assert [one.path for one in runs[1].lacking] == ["loss", ""]
    assert len(audit_of_archive(paths_in(tmp_path), Selection(runs="RUN"), errors).runs) == 1


def test_a_line_of_the_report_without_a_run_names_its_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exporter_run(tmp_path)
    lines = [ERROR | {"run_id": None, "attribute_path": None}, {"exception": "Lost"}]
    (tmp_path / "errors.jsonl").write_text("\n".join(map(json.dumps, lines)))
    command = ["audit", "-d", "data", "-f", "files", "--exporter-errors", "errors.jsonl"]
    assert execute(command) == 3
    told = " ".join(capsys.readouterr().out.split())
    assert "project ws/proj could not be listed: NeptuneConnectionLostException" in told
    assert "project (any) could not be listed: Lost" in told
    assert execute([*command, "-p", "ws/other"]) == 3, "a line without a project may be of this one"


def test_a_run_that_is_there_and_not_selected_is_not_missed(tmp_path: Path) -> None:
    exporter_run(tmp_path)
    errors = errors_in(json.dumps(ERROR).encode())
    assert audit_of_archive(paths_in(tmp_path), Selection(run_ids=("other",)), errors).runs == []


def test_a_file_that_is_no_report_is_refused() -> None:
    with pytest.raises(UsageError, match="no report"):
        errors_in(b"\x00\xff")


def test_the_command_reads_the_report_and_its_exit_code_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exporter_run(tmp_path)
    (tmp_path / "errors.jsonl").write_text(json.dumps(ERROR) + "\n")
    place = ["-d", "data", "-f", "files"]
    assert execute(["audit", *place]) == 0
    assert "unknown" in capsys.readouterr().out
    assert execute(["audit", *place, "--exporter-errors", "errors.jsonl"]) == 5
    assert "loss (float_series): some there, 0 here" in capsys.readouterr().out
    (tmp_path / "errors.jsonl").write_text(json.dumps(ERROR | {"run_id": "gone"}) + "\n")
    assert execute(["audit", *place, "--exporter-errors", "errors.jsonl"]) == 5
    assert "ws/proj/gone: not in the archive" in capsys.readouterr().out
    assert execute(["audit", *place, "--exporter-errors", "missing.jsonl"]) == 2
    assert execute(["audit", *place, "--source", "neptune2", "--exporter-errors", "errors.jsonl"]) == 2
    next((tmp_path / "data").rglob("*.parquet")).write_bytes(b"PAR1")
    assert execute(["audit", *place]) == 3
