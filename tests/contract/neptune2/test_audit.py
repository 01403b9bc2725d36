"""`audit`: what the server counts, against the archive."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from shardmig.cli.app import execute
from shardmig.records import RunId, RunRef
from tests.contract.neptune2.vendor import PROJECT
from tests.servers.neptune2.entities import Attribute, Entity, Series
from tests.servers.neptune2.server import NeptuneServer
from tests.unit.archive.runs import write_exporter_part

PLACE = ("-d", "data", "-f", "files")
Audit = Callable[..., dict[str, Any]]


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Audit:
    """Execute `audit` and return its document."""
    monkeypatch.chdir(tmp_path)

    def audit(*arguments: str, code: int) -> dict[str, Any]:
        capsys.readouterr()
        assert execute(["audit", "--source", "neptune2", "-p", PROJECT, *PLACE, "--json", *arguments]) == code
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return audit


def export(*arguments: str, code: int = 0) -> None:
    command = ("export", "--source", "neptune2", "-p", PROJECT, "--engine", "inline", "--no-progress")
    assert execute([*command, *PLACE, *arguments]) == code


def entity_of(server: NeptuneServer) -> Entity:
    """A run with a parameter, a series and images."""
    project = next(iter(server.store.projects.values()), None) or server.store.add_project(PROJECT, "VIS")
    entity = server.store.add_entity(project, "run")
    entity.put("lr", "float", 0.1)
    entity.attributes["loss"] = Attribute("floatSeries", Series([0.0, 1.0, 2.0], [1, 2, 3], [1.0, 0.5, 0.25]))
    entity.attributes["image"] = Attribute("imageSeries", Series([0.0, 1.0], [1, 2], [b"png", b"png"]))
    return entity


def test_everything_that_the_vendors_client_wrote_is_counted_and_agrees(
    neptune2: NeptuneServer, audited: Audit
) -> None:
    export()
    neptune2.requests.clear()
    found = audited(code=0)
    assert {run["standing"] for run in found["runs"]} == {"agrees"}
    assert {run["run"] for run in found["runs"]} == {
        "ws/vision/VIS-1",
        "ws/vision/models/VIS-MOD",
        "ws/vision/model_versions/VIS-MOD-1",
        "ws/vision/model_versions/VIS-MOD-2",
    }
    assert not neptune2.requests["getImageSeriesValue"] + neptune2.requests["downloadAttribute"]


def test_what_the_archive_lacks_is_named(empty_neptune2: NeptuneServer, audited: Audit) -> None:
    changed, whole = entity_of(empty_neptune2), entity_of(empty_neptune2)
    export()
    empty_neptune2.store.add_entity(empty_neptune2.store.project(PROJECT), "run")
    changed.put("late", "string", "x")
    changed.attributes["loss"].value.steps.append(3.0)
    for column in (changed.attributes["loss"].value.times_ms, changed.attributes["loss"].value.values):
        column.append(4)
    del whole.attributes["lr"]
    found = audited(code=5)
    runs = {run["run"].rpartition("/")[2]: run for run in found["runs"]}
    assert {run: one["standing"] for run, one in runs.items()} == {
        "VIS-1": "incomplete",
        "VIS-2": "agrees",
        "VIS-3": "not in the archive",
    }
    assert [(one["path"], one["server"], one["archive"]) for one in runs["VIS-1"]["lacking"]] == [
        ("late", 1, 0),
        ("loss", 4, 3),
    ]
    assert runs["VIS-2"]["only_in_archive"] == 1


def test_what_the_export_told_of_is_explained(empty_neptune2: NeptuneServer, audited: Audit) -> None:
    entity_of(empty_neptune2)
    empty_neptune2.faults.failing = {"getFloatSeriesValues loss": 404}
    export(code=3)
    empty_neptune2.faults.failing = {}
    [run] = audited(code=0)["runs"]
    assert run["standing"] == "explained"
    assert [(one["path"], one["explained"]) for one in run["lacking"]] == [("loss", "field-refused")]


def test_what_is_told_of_rows_that_are_there_explains_none_that_are_missing(
    empty_neptune2: NeptuneServer, audited: Audit
) -> None:
    entity = entity_of(empty_neptune2)
    entity.attributes["empty"] = Attribute("floatSeries", Series([], [], []))
    export()
    for path, value in (("image", b"png"), ("empty", 1.0)):
        series = entity.attributes[path].value
        series.steps.append(2.0)
        series.times_ms.append(3)
        series.values.append(value)
    [run] = audited(code=5)["runs"]
    assert run["standing"] == "incomplete"
    assert {one["path"]: (one["server"], one["archive"], one["explained"]) for one in run["lacking"]} == {
        "image": (3, 2, ""),
        "empty": (1, 0, ""),
    }


def test_a_run_that_was_written_to_since_is_told_apart(empty_neptune2: NeptuneServer, audited: Audit) -> None:
    entity = entity_of(empty_neptune2)
    export()
    entity.put("late", "string", "x")
    entity.put("sys/modification_time", "datetime", 2_000_000_000_000)
    [run] = audited(code=5)["runs"]
    assert run["standing"] == "changed since"
    export("--update")
    [run] = audited(code=0)["runs"]
    assert run["standing"] == "agrees"


def test_only_selected_fields_are_compared(empty_neptune2: NeptuneServer, audited: Audit) -> None:
    entity_of(empty_neptune2)
    export("-c", "parameters")
    assert [run["standing"] for run in audited(code=5)["runs"]] == ["incomplete"]
    assert [run["standing"] for run in audited("-c", "parameters", code=0)["runs"]] == ["agrees"]


def test_what_neptune_exporter_left_out_is_found(empty_neptune2: NeptuneServer, audited: Audit, tmp_path: Path) -> None:
    entity_of(empty_neptune2)
    rows = [{"attribute_path": "lr", "attribute_type": "float", "float_value": 0.1}]
    rows += [{"attribute_path": "loss", "attribute_type": "float_series", "float_value": 1.0, "step": Decimal(0)}]
    write_exporter_part(tmp_path, 0, rows, RunRef(project=PROJECT, id=RunId("VIS-1")))
    [run] = audited("-a", "^(lr|loss|image)$", code=5)["runs"]
    assert run["standing"] == "incomplete"
    assert [(one["path"], one["server"], one["archive"]) for one in run["lacking"]] == [
        ("image", 2, 0),
        ("loss", 3, 1),
    ]


def test_it_says_so_to_people(
    empty_neptune2: NeptuneServer, audited: Audit, capsys: pytest.CaptureFixture[str]
) -> None:
    entity = entity_of(empty_neptune2)
    export()
    entity.put("late", "string", "x")
    capsys.readouterr()
    assert execute(["audit", "--source", "neptune2", "-p", PROJECT, *PLACE]) == 5
    said = re.sub(r" +", " ", capsys.readouterr().out)
    assert "ws/vision/VIS-1: incomplete\n late (string): 1 there, 0 here" in said


def test_a_source_without_a_server_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "other").mkdir()
    assert execute(["audit", "--source", "archive", "other", *PLACE]) == 2
