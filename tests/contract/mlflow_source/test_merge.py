"""--on-existing merge: a second copy brings what is new, and overwrites nothing that somebody changed."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from tests.contract.mlflow_source.comparer import differences
from tests.contract.mlflow_source.copies import Copy
from tests.servers.mlflow import MlflowServer

START_MS = 1_700_000_000_000
MERGE = ("--engine", "inline", "--update", "--on-existing", "merge")


@pytest.fixture
def source(sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty MLflow to read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source.db").write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{tmp_path}/source.db"


@pytest.fixture
def running(source: str, sqlite_file: Path, tmp_path: Path) -> tuple[Copy, str]:
    """A run that is copied while it is running, and its id."""
    copy = Copy(tmp_path, source, f"sqlite:///{sqlite_file}")
    run = _running(source)
    copy.migrate("--engine", "inline")
    return copy, run


def test_a_run_that_went_on_gets_what_is_new_and_keeps_its_id(running: tuple[Copy, str]) -> None:
    copy, run = running
    [before] = _runs(copy.target)
    client = MlflowClient(copy.source)
    client.log_param(run, "late", "1")
    client.log_batch(run, [Metric("loss", 0.1, START_MS + 9, 9), Metric("loss", 0.3, START_MS + 1, 1)])
    client.log_metric(run, "new", 2.0, START_MS, 0)
    client.set_tag(run, "phase", "two")
    _log_text(client, run, "more.txt", "more")
    _log_text(client, run, "notes.txt", "other")
    client.set_terminated(run, "FINISHED", START_MS + 10)
    [merged] = [one["detail"] for one in copy.findings(*MERGE) if one["code"] == "merged"]
    assert merged == f"{before} was there: new in it: 2 files, 1 params, 3 points, 1 tags"
    assert _runs(copy.target) == [before]
    assert differences(copy.source, copy.target) == []
    assert set(copy.verify("--engine", "inline")) == {"equal"}
    assert "merged" not in copy.migrate(*MERGE)


def test_what_somebody_changed_in_the_copy_stays_and_is_told(running: tuple[Copy, str]) -> None:
    copy, run = running
    source, target = MlflowClient(copy.source), MlflowClient(copy.target)
    [here] = _runs(copy.target)
    target.set_tag(here, "phase", "of the copy")
    target.log_param(here, "late", "of the copy")
    target.log_metric(here, "of the copy", 1.0)
    _log_text(target, here, "notes.txt", "of the copy")
    source.set_tag(run, "phase", "two")
    source.set_tag(run, "new", "tag")
    source.log_param(run, "late", "of the source")
    _log_text(source, run, "notes.txt", "of the source")
    reported = copy.migrate(*MERGE, code=3)
    assert reported["merge-conflict"] == {"tags/phase", "params/late", "notes.txt"}
    held = target.get_run(here).data
    assert (held.tags["phase"], held.tags["new"], held.params["late"]) == ("of the copy", "tag", "of the copy")
    assert Path(target.download_artifacts(here, "notes.txt")).read_text() == "of the copy"
    assert copy.verify("--engine", "inline", code=5).count("differs") == 1


def test_tags_whose_names_a_caseless_target_changes_are_merged_and_compared_as_any_other(
    source: str, sqlite_file: Path, tmp_path: Path
) -> None:
    copy, run = Copy(tmp_path, source, f"sqlite:///{sqlite_file}"), _running(source)
    caseless = ("--engine", "inline", "--target-option", "names=caseless")
    client = MlflowClient(source)
    client.set_tag(run, "größe", "a")
    client.set_tag(run, "maße", "a")
    copy.migrate(*caseless)
    assert set(copy.verify(*caseless)) == {"equal"}
    target = MlflowClient(copy.target)
    [here] = _runs(copy.target)
    [changed] = [key for key in target.get_run(here).data.tags if key.startswith(("maße", "ma_e"))]
    target.set_tag(here, changed, "of the copy")
    client.set_tag(run, "größe", "b")
    client.set_tag(run, "maße", "b")
    reported = copy.migrate(*MERGE, *caseless[2:], code=3)
    assert reported["merge-conflict"] == {f"tags/{changed}"}
    assert {"of the copy", "b"} <= set(target.get_run(here).data.tags.values())


@pytest.mark.server
@pytest.mark.xdist_group("mlflow-server")
def test_a_second_copy_asks_a_server_for_little(source: str, mlflow_http: MlflowServer, tmp_path: Path) -> None:
    copy, run = Copy(tmp_path, source, mlflow_http.uri), _running(source)
    client = MlflowClient(source)
    client.create_run(client.get_run(run).info.experiment_id, run_name="done")
    grows = ("-p", "grows")  # other tests have copied their default experiment into this server
    copy.migrate("--engine", "inline", *grows)
    client.log_metric(run, "loss", 0.25, START_MS, 7)
    log = mlflow_http.database.parent / "server.log"
    before = len(_requests(log))
    [merged] = [one["detail"] for one in copy.findings(*MERGE, *grows) if one["code"] == "merged"]
    assert merged.endswith("new in it: 1 points")
    asked = _requests(log)[before:]
    writing = [line for line in asked if '"GET' not in line and "/search" not in line]
    assert len(writing) <= 4, writing  # the point, the manifest, its end, its digest
    assert len(asked) <= 22, asked
    before = len(_requests(log))
    copy.migrate(*MERGE, *grows)
    looking = ("/search", "/experiments/get-by-name")
    assert all(any(one in line for one in looking) for line in _requests(log)[before:])


def _running(uri: str) -> str:
    client = MlflowClient(uri)
    experiment = client.create_experiment("grows")
    run: str = client.create_run(experiment, START_MS, {"phase": "one", "fixed": "a"}, "grows").info.run_id
    client.log_param(run, "lr", "0.1")
    for step in range(3):
        client.log_metric(run, "loss", 1 / (step + 1), START_MS + step, step)
    client.log_metric(run, "done", float("nan"), START_MS, 0)
    _log_text(client, run, "notes.txt", "first")
    _log_text(client, run, "same.txt", "same")
    return run


def _requests(log: Path) -> list[str]:
    return [
        line for line in log.read_text(errors="replace").splitlines() if "HTTP/1.1" in line and "/health" not in line
    ]


def _log_text(client: MlflowClient, run: str, name: str, text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, name).write_text(text)
        client.log_artifact(run, str(Path(folder, name)))


def _runs(uri: str) -> list[str]:
    client = MlflowClient(uri)
    experiments = [one.experiment_id for one in client.search_experiments()]
    return [run.info.run_id for run in client.search_runs(experiments)]
