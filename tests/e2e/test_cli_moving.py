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
        ("-r offline-47a3d97c -r absent", 3, "1 of 2 named runs are not there or are filtered out: absent"),
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
    assert status["standing"].startswith("ended with exit code 0, complete")
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
    assert not (folder / "mlflow.db").exists(), "a plan changes nothing"
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


@pytest.mark.parametrize("flags", ["-a no/such/field", "-a no/such/field -a no/other", "-c series -a sys/id"])
def test_a_selection_of_no_field_at_all_is_no_success_however_often_it_is_asked_for(
    folder: Path, commands: Commands, flags: str
) -> None:
    for _ in range(2):
        assert commands.json(f"{EXPORT} {flags}", code=2)["stopped"].startswith("no field is selected")


def test_an_absent_project_is_answered_with_those_that_there_are(folder: Path, commands: Commands) -> None:
    source = SAMPLES / "exporter-3x"
    refused = commands.json(f"export --source archive {source} -p ws/four", code=2)
    assert refused["error"] == "the source has no project ws/four"
    assert refused["hint"] == "it has: ws/three"


@pytest.mark.parametrize("source", ["archive absent", "neptune-local absent -p a/b", "neptune-local . -p a/b"])
def test_a_source_that_is_not_there_is_a_wrong_command_line(folder: Path, commands: Commands, source: str) -> None:
    assert commands.json(f"export --source {source}", code=2)["error"]


def test_a_wrong_option_of_a_source_leaves_nothing_behind(folder: Path, commands: Commands) -> None:
    answer = commands.json("export --source mlflow sqlite:///source.db --stages prod", code=2)
    assert answer["error"] == "stages: there is no 'prod'"
    assert list(folder.iterdir()) == []


def test_a_migration_goes_on_without_its_journal_as_its_error_says(folder: Path, commands: Commands) -> None:
    migration = commands.json(EXPORT)["migration"]
    journal = folder / "exports" / "data" / ".shardmig" / migration / "journal"
    journal.write_bytes(b"something else altogether")
    assert "move it away and start again" in commands.json(EXPORT, code=4)["hint"]
    journal.unlink()
    [phase] = commands.json(EXPORT)["phases"]
    assert (phase["runs_skipped"], phase["runs_failed"]) == (4, 0)


def test_totals_count_fields_of_every_type_alike_in_every_phase(folder: Path, commands: Commands) -> None:
    export, load = commands.json(f"{EXPORT.replace('export', 'migrate', 1)} {INTO}")["phases"]
    assert load["counters"]["fields"] == export["counters"]["fields"] > 0
    header, totals, _ = commands.said.split("\n", 2)
    assert dict(zip(header.split(), totals.split(), strict=False))["fields"] == str(export["counters"]["fields"])


def test_status_of_a_failure_gives_the_command_that_retries_it(
    folder: Path, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(SAMPLES / "exporter-3x", "copy")
    part = next((folder / "copy").rglob("*_part_0.parquet"))
    part.write_bytes(part.read_bytes()[:-9])
    commands.json("export --source archive copy --engine inline", code=3)
    assert execute(["status"]) == 0
    told = capsys.readouterr().out
    [retry] = [line for line in told.splitlines() if line.startswith("retry with: shardmig ")]
    again = commands.json(f"{retry.removeprefix('retry with: shardmig ')} --engine inline", code=3)
    assert len(again["failed"]) == 1


def test_a_project_that_cannot_be_listed_fails_alone(
    folder: Path, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    for project in ("ws/good", "ws/bad"):
        commands.json(EXPORT.replace("ws/off", project))
    part = next((folder / "exports" / "data").glob("ws_bad-*/*_part_0.parquet"))
    shutil.copy(part, part.with_name("copied_part_0.parquet"))
    repack = "export --source archive exports/data exports/files -d new/data -f new/files --engine inline"
    report = commands.json(f"{repack} --error-report-file e.jsonl", code=3)
    assert "project ws/bad could not be listed: " in commands.said
    assert list(report["refused"]) == ["ws/bad"]
    assert execute(["status", "-d", "new/data"]) == 0
    assert "project ws/bad could not be listed: " in capsys.readouterr().out
    assert json.loads((folder / "e.jsonl").read_text())["project_id"] == "ws/bad"
    assert len(list((folder / "new" / "data").glob("ws_good-*/*_part_0.parquet"))) == 4
    retry = "retry --failed -d new/data -f new/files --engine inline"
    assert list(commands.json(retry, code=3)["refused"]) == ["ws/bad"]
    assert "project ws/bad could not be listed: " in commands.said
    part.with_name("copied_part_0.parquet").unlink()
    assert list(commands.json(retry, code=3)["refused"]) == ["ws/bad"]
    assert commands.json(repack)["exit_code"] == 0
    assert commands.json(retry)["refused"] == {}
