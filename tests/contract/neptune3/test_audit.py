"""`audit`: what the server counts, against the archive."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shardmig.cli.app import execute
from tests.contract.neptune3.filling import CREATED_MS, append, assign, create, rich_project
from tests.servers.neptune3.server import Neptune3

PLACE = ("-d", "data", "-f", "files")
Audit = Callable[..., dict[str, Any]]


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Audit:
    """Execute `audit` and return its runs by id."""
    monkeypatch.chdir(tmp_path)

    def audit(*arguments: str, code: int) -> dict[str, Any]:
        capsys.readouterr()
        assert execute(["audit", "--source", "neptune3", *PLACE, "--json", *arguments]) == code
        found = json.loads(capsys.readouterr().out)["runs"]
        return {run["run"].rpartition("/")[2]: run for run in found}

    return audit


def export(*arguments: str, code: int = 0) -> None:
    command = ("export", "--source", "neptune3", "--engine", "inline", "--no-progress")
    assert execute([*command, *PLACE, *arguments]) == code


@pytest.mark.parametrize("lineage", [(), ("--lineage",)])
def test_runs_and_forks_agree_and_no_point_is_fetched(
    server: Neptune3, audited: Audit, lineage: tuple[str, ...]
) -> None:
    rich_project(server)
    export(*lineage)
    server.requests.clear()
    runs = audited(*lineage, code=0)
    assert {run: one["standing"] for run, one in runs.items()} == {"run-1": "agrees", "fork": "agrees"}
    assert runs["run-1"]["rows"] > 7 * 40
    assert not [path for path in server.requests if path.endswith(("attributes/series", "signedUrl"))]


def test_what_the_archive_lacks_is_named(server: Neptune3, audited: Audit) -> None:
    create(server, "ws/p", "old")
    append(server, "ws/p", "old", "loss", [(step, CREATED_MS, 1.0) for step in range(5)])
    export()
    run = server.store.projects["ws/p"].by_custom_id["old"]
    modified = run.values["sys/modification_time"]
    append(server, "ws/p", "old", "loss", [(5, CREATED_MS, 1.0)])
    append(server, "ws/p", "old", "log", [(5, CREATED_MS, "line")])
    assign(server, "ws/p", "old", {"late": 1})
    run.values["sys/modification_time"] = modified
    create(server, "ws/p", "new")
    runs = audited(code=5)
    assert runs["new"]["standing"] == "not in the archive"
    assert runs["old"]["standing"] == "incomplete"
    assert {one["path"]: (one["server"], one["archive"]) for one in runs["old"]["lacking"]} == {
        "late": (1, 0),
        "loss": (6, 5),
        "log": (None, 0),
    }


def test_the_servers_own_sums_are_shown_and_decide_nothing(server: Neptune3, audited: Audit) -> None:
    create(server, "ws/p", "run")
    append(server, "ws/p", "run", "loss", [(step, CREATED_MS, 1.0) for step in range(5)])
    sums = {"float_series_count": 1, "file_ref_count": 0, "total_series_datapoints": 999, "total_count": 20}
    values = server.store.projects["ws/p"].by_custom_id["run"].values
    values |= {f"sys/diagnostics/attributes/{name}": ("int", number) for name, number in sums.items()}
    export()
    run = audited(code=0)["run"]
    assert run["standing"] == "agrees"
    assert run["totals"] == {
        "float_series": {"server": 1, "archive": 1},
        "file": {"server": 0, "archive": 0},
        "points": {"server": 999, "archive": 5},
        "fields": {"server": 20, "archive": run["fields"]},
    }


def test_a_file_that_the_store_lost_is_explained(server: Neptune3, audited: Audit) -> None:
    rich_project(server)
    del server.store.objects["ws/rich", "run-1/z"]
    export()
    run = audited(code=0)["run-1"]
    assert run["standing"] == "explained"
    assert [(one["path"], one["explained"]) for one in run["lacking"]] == [("files/z", "file-not-stored")]
