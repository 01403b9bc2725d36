"""Objects of folders `mlruns`: one that is damaged fails alone, and by its name; nobody else is asked about them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from mlflow import MlflowClient
from mlflow.entities import TraceInfo, TraceLocation, TraceState
from mlflow.tracking._tracking_service.utils import _use_tracking_uri

from shardmig.adapters.base import ReadSide, Want
from shardmig.adapters.mlflow.source import open_source
from shardmig.archive.files import DigestSink
from shardmig.cli.app import execute
from shardmig.errors import BadInput
from shardmig.records import Fields, RunRef, Selection
from tests.contract.mlflow_source.copies import Copy

EVERYTHING: Final = Selection(include_archived=True)
WHOLE: Final = "whole"


def _empty(meta: Path) -> None:
    meta.write_text("")


def _cut(meta: Path) -> None:
    text = meta.read_text()
    meta.write_text(text[: text.index("\n") + 4])  # in the name of the second entry


def _missing(meta: Path) -> None:
    meta.unlink()


def _another(meta: Path) -> None:
    own = meta.parent.name
    meta.write_text(meta.read_text().replace(own, own[:-1] + ("1" if own[-1] != "1" else "2")))


DAMAGES: Final[dict[str, Callable[[Path], None]]] = {
    "empty": _empty,
    "cut": _cut,
    "missing": _missing,
    "another id": _another,
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a folder is to be; away from the target's."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return tmp_path / "source" / "mlruns"


def _experiment(root: Path, name: str) -> Path:
    return root / str(MlflowClient(str(root)).create_experiment(name, tags={"team": "ü"})) / "meta.yaml"


def _logged_model(root: Path, name: str, home: Path) -> Path:
    model: Any = MlflowClient(str(root)).create_logged_model(home.name, name, tags={"team": "ü"})
    return home / "models" / str(model.model_id) / "meta.yaml"


def _trace(root: Path, name: str, home: Path) -> Path:
    info = TraceInfo(f"tr-{name}", TraceLocation.from_experiment_id(home.name), 0, TraceState.IN_PROGRESS)
    MlflowClient(str(root))._tracking_client.store.start_trace(info)
    return home / "traces" / info.trace_id / "trace_info.yaml"


def _registered(root: Path, name: str) -> Path:
    client = MlflowClient(str(root))
    client.create_registered_model(name, {"owner": "ü"})
    client.create_model_version(name, "s3://bucket/of/somebody/else")
    return root / "models" / name / "meta.yaml"


def _filled(root: Path) -> dict[str, dict[str, Path]]:
    """{class of objects: {its damage to come: meta.yaml}}: of each class a whole one, and one for each damage."""
    found: dict[str, dict[str, Path]] = {"experiments": {}, "logged_models": {}, "traces": {}, "registered_models": {}}
    found["experiments"] = {name: _experiment(root, name) for name in (WHOLE, *DAMAGES)}
    home = found["experiments"][WHOLE].parent
    for name in (WHOLE, *DAMAGES):
        found["logged_models"][name] = _logged_model(root, name, home)
        found["traces"][name] = _trace(root, name, home)
        with _use_tracking_uri(str(root)):
            found["registered_models"][name] = _registered(root, name)
    return found


def test_damaged_objects_fail_alone(root: Path, sqlite_file: Path, tmp_path: Path) -> None:
    found = _filled(root)
    for of_class in found.values():
        for name, damage in DAMAGES.items():
            damage(of_class[name])
    copy = Copy(tmp_path, str(root), f"sqlite:///{sqlite_file}")
    failed = _failed(copy)
    for scope in ("logged_models", "traces", "registered_models"):
        assert {id_ for kind, id_ in failed if kind == scope} == {found[scope][name].parent.name for name in DAMAGES}
    ids = {name: found["experiments"][name].parent.name for name in DAMAGES}
    assert {id_ for kind, id_ in failed if kind == "experiments"} == {
        *(ids[name] for name in ("empty", "cut", "missing")),
        "another id",  # its runs have that name, too
    }
    for (scope, _), message in failed.items():
        assert str(root) in message, scope
    _assert_only_whole_arrived(MlflowClient(copy.target), found["traces"][WHOLE].parent.name)


def _assert_only_whole_arrived(client: MlflowClient, trace: str) -> None:
    experiments = client.search_experiments(filter_string="name != 'Default'")
    assert [one.name for one in experiments] == [WHOLE]
    assert experiments[0].tags["team"] == "ü"
    ids = [experiments[0].experiment_id]
    assert [one.name for one in client.search_logged_models(ids)] == [WHOLE]
    assert [one.info.trace_id for one in client.search_traces(locations=ids, include_spans=False)] == [trace]
    [model] = client.search_registered_models()
    assert model.name == WHOLE
    assert [one.source for one in client.search_model_versions(f"name = '{WHOLE}'")] == ["s3://bucket/of/somebody/else"]


def _failed(copy: Copy) -> dict[tuple[str, str], str]:
    """{(scope, id): why} of all that could not be copied."""
    line = copy.migration("--engine", "inline", "--max-attempts", "1")
    with contextlib.chdir(copy.folder), contextlib.redirect_stdout(io.StringIO()) as told:
        assert execute(line[line.index("shardmig") + 1 :]) == 3, told.getvalue()[-3000:]
    outcomes = [one for phase in json.loads(told.getvalue())["outcomes"].values() for one in phase]
    return {
        (one["run"].get("scope", "runs"), one["run"]["id"]): json.dumps(one, ensure_ascii=False)
        for one in outcomes
        if one["state"] == "failed"
    }


def test_what_a_damaged_experiment_holds_fails_with_it(root: Path) -> None:
    meta = _experiment(root, "damaged")
    model, trace = (make(root, "one", meta.parent).parent.name for make in (_logged_model, _trace))
    _empty(meta)
    with _opened(root) as source:
        listed = _listed(source)
        home = meta.parent.name
        names = {("experiments", home), ("logged_models", model), ("traces", trace)}
        assert {(run.scope, run.id) for run in listed if run.project == home} == names
        for run in listed:
            if run.project == home:
                with pytest.raises(BadInput, match=str(meta.parent)):
                    _read(source, [run])


def test_two_experiments_of_one_name_are_both_told(root: Path) -> None:
    """Two stores were merged, and a folder of the second one was renamed."""
    first = _experiment(root, "same").parent
    shutil.copytree(first, root / "7")
    with _opened(root) as source:
        listed = {str(run.id): run for run in _listed(source) if run.scope == "experiments"}
        assert listed.keys() == {"Default", "same", "same (7)"}
        _read(source, [listed["same"]])
        with pytest.raises(BadInput, match=f"{root}/7 "):
            _read(source, [listed["same (7)"]])


def test_versions_that_lie_under_another_name_fail(root: Path) -> None:
    with _use_tracking_uri(str(root)):
        _registered(root, "before").parent.rename(root / "models" / "now")
    with _opened(root) as source:
        [model] = [run for run in _listed(source) if run.scope == "registered_models"]
        assert model.id == "now"
        with pytest.raises(BadInput, match="before"):
            _read(source, [model])


def test_a_version_that_was_copied_from_another_model_tells_when_that_was_created(root: Path) -> None:
    with _use_tracking_uri(str(root)):
        client = MlflowClient(str(root))
        made = client.create_registered_model("churn")
        version = client.create_model_version("churn", "s3://bucket/one")
        client.create_registered_model("promoted")
        client.create_model_version("promoted", "models:/churn/1")
        client.create_model_version("promoted", "s3://bucket/models/churn/2")
    for name in root.glob("models/promoted/version-2/meta.yaml"):
        name.write_text(name.read_text().replace("s3://bucket/models/churn/2", "models:/churn/2"))  # deleted since
    with _opened(root) as source:
        [model] = [run for run in _listed(source) if run.id == "promoted"]
        chunks = [piece.chunk for piece in source.read_runs([model], Want(), DigestSink())]
    fields = {one.path: one.value for chunk in chunks if isinstance(chunk, Fields) for one in chunk.fields}
    assert {path: value for path, value in fields.items() if "copied_from" in path} == {
        "versions/1/copied_from/creation_time": version.creation_timestamp,
        "versions/1/copied_from/model/creation_time": made.creation_timestamp,
    }


def test_objects_of_a_deleted_experiment_are_read(root: Path) -> None:
    """MLflow's own store lists its logged models and finds none of them (measured, 3.17.2)."""
    meta = _experiment(root, "deleted")
    model, trace = (make(root, "one", meta.parent).parent.name for make in (_logged_model, _trace))
    MlflowClient(str(root)).delete_experiment(meta.parent.name)
    with _opened(root) as source:
        listed = [run for run in _listed(source) if run.project == "deleted"]
        assert {run.id for run in listed} == {"deleted", model, trace}
        assert all(run.archived for run in listed)
        _read(source, listed)


def test_nobody_else_is_asked_for_the_models_of_versions(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _logged_model(root, "one", _experiment(root, "one").parent).parent.name
    with _use_tracking_uri(str(root)):
        _registered(root, "of a model")
        MlflowClient(str(root)).create_model_version("of a model", "s3://bucket/of/somebody/else", model_id=model)
    working = tmp_path / "working"
    working.mkdir()
    monkeypatch.chdir(working)
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    _read_all(root)
    assert list(working.iterdir()) == []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        _read_all(root)
        with pytest.raises(BlockingIOError):
            server.accept()
        assert os.environ["MLFLOW_TRACKING_URI"] == uri


def _read_all(root: Path) -> None:
    with _opened(root) as source:
        listed = _listed(source)
        assert {"registered_models", "logged_models"} <= {run.scope for run in listed}
        _read(source, listed)


@contextlib.contextmanager
def _opened(root: Path) -> Iterator[ReadSide]:
    source = open_source({"tracking-uri": str(root)})
    try:
        yield source
    finally:
        source.close()


def _listed(source: ReadSide) -> list[RunRef]:
    return [run for project in source.list_projects(EVERYTHING) for run in source.list_runs(project, EVERYTHING)]


def _read(source: ReadSide, runs: list[RunRef]) -> None:
    for _ in source.read_runs(runs, Want(), DigestSink()):
        pass
