"""export, plan, load, verify, retry and status as a user types them, from Neptune's folders into an MLflow database."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from shardmig.cli.app import execute

SAMPLES = Path(__file__).parents[1] / "samples"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Commands:
    """Types commands and takes their one JSON document."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.said = ""

    def json(self, line: str, *, code: int = 0) -> Any:
        ended = execute([*line.split(), "--json", "--no-progress"])
        told = self._capsys.readouterr()
        self.said = told.err
        assert ended == code, told.err
        return json.loads(told.out)


@pytest.fixture
def commands(capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(capsys)


EXPORT = f"export --source neptune-local {SAMPLES / 'offline'} -p ws/off --engine inline"
INTO = "--target mlflow --mlflow-tracking-uri sqlite:///mlflow.db --engine inline"


def test_export_publishes_says_what_is_gone_and_is_skipped_when_repeated(folder: Path, commands: Commands) -> None:
    report = commands.json(f"{EXPORT} --report page.html --log-file said.log")
    [export] = report["phases"]
    assert (report["exit_code"], export["runs"], export["runs_failed"]) == (0, 4, 0)
    assert "uploaded-file-gone" in commands.said
    assert "export: complete" in (folder / "said.log").read_text()
    assert "uploaded-file-gone" in (folder / "page.html").read_text()
    again = commands.json(EXPORT)
    assert again["migration"] == report["migration"]
    assert again["exit_code"] == 0


def test_plan_writes_nothing(folder: Path, commands: Commands) -> None:
    estimate = commands.json(EXPORT.replace("export", "plan", 1))
    assert (estimate["phases"], estimate["counters"]["runs"], estimate["step_multiplier"]) == (["export"], 4, 1)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ("-r nothing-like-it", 2, "no run is selected"),
        ("-r offline-47a3d97c -r absent", 3, "1 of the named runs do not exist or are filtered out: absent"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "export"])
def test_a_selection_that_misses_is_no_success(
    folder: Path, commands: Commands, command: str, flags: str, code: int, message: str
) -> None:
    answer = commands.json(f"{EXPORT.replace('export', command, 1)} {flags}", code=code)
    assert answer["exit_code"] == code
    assert message in commands.said + answer["stopped"]


def test_a_report_that_cannot_be_written_is_known_before_the_work(folder: Path, commands: Commands) -> None:
    refused = commands.json(f"{EXPORT} --report absent/page.html", code=2)
    assert "--report" in refused["error"]
    assert list(folder.iterdir()) == []


def test_status_lists_every_shard_and_says_how_the_migration_ended(folder: Path, commands: Commands) -> None:
    commands.json(EXPORT)
    assert execute(["status", "--json"]) == 0
    [status] = json.loads(commands._capsys.readouterr().out)
    assert status["standing"] == "ended with exit code 0"
    assert {shard["state"] for shard in status["shards"]} == {"done"}


def test_a_failed_run_is_told_with_its_reason_and_the_command_that_retries_it(folder: Path, commands: Commands) -> None:
    commands.json(EXPORT)
    shutil.copytree("exports", "copy")
    parts = sorted((folder / "copy").rglob("*_part_0.parquet"))
    parts[0].write_bytes(parts[0].read_bytes()[:-9])
    shutil.rmtree(folder / "copy" / "data" / ".shardmig")
    repack = "export --source archive copy/data copy/files -d new/data -f new/files --engine inline --error-report-file e.jsonl"
    report = commands.json(repack, code=3)
    [failed] = report["failed"]
    assert parts[0].name in failed["outcome"]["failure"]["message"]
    assert f"retry: {failed['retry_command']}" in commands.said
    assert (
        f"retry with: shardmig retry --failed --migration {report['migration']} -d {folder}/new/data" in commands.said
    )
    assert json.loads((folder / "e.jsonl").read_text())["run_id"] == failed["outcome"]["run"]["id"]
    again = commands.json(" ".join(failed["retry_command"].split()[1:]) + " --engine inline", code=3)
    assert again["migration"] == report["migration"]


def test_a_migration_is_planned_loaded_verified_and_a_change_in_the_target_found(
    folder: Path, commands: Commands
) -> None:
    commands.json(EXPORT)
    plan = commands.json(f"plan {INTO}")
    assert (plan["phases"], plan["counters"]["runs"]) == (["load"], 4)
    load = commands.json(f"load {INTO}")
    assert [phase["phase"] for phase in load["phases"]] == ["survey", "load"]
    assert commands.json(f"verify {INTO}")["exit_code"] == 0
    assert "verdicts: 4" in commands.said
    with sqlite3.connect("mlflow.db") as database:
        database.execute("UPDATE metrics SET value = value + 1 WHERE rowid = (SELECT min(rowid) FROM metrics)")
    database.close()
    report = commands.json(f"verify {INTO} --report page.html", code=5)
    assert "differs" in commands.said
    assert [one["outcome"]["verdict"] for one in report["failed"]] == ["differs"]
    assert "differs" in (folder / "page.html").read_text()


def test_the_same_command_brings_again_what_was_removed_since(folder: Path, commands: Commands) -> None:
    migrate = f"{EXPORT.replace('export', 'migrate', 1)} {INTO}"
    commands.json(migrate)
    (folder / "mlflow.db").unlink()
    next((folder / "exports" / "data").rglob("*_part_0.parquet")).unlink()
    export, load = commands.json(migrate)["phases"]
    assert (export["runs_done"], export["runs_skipped"]) == (1, 3)
    assert (load["runs_done"], load["runs_skipped"]) == (4, 0)
    assert commands.json(f"verify {INTO}")["exit_code"] == 0
