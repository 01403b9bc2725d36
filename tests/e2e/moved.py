"""Archives as neptune-exporter writes them, made by hand and moved into an MLflow database by the command line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from shardmig.archive.layout import sanitize
from shardmig.cli.app import execute
from shardmig.records import ProjectId, RunId, RunRef
from tests.unit.archive.runs import write_exporter_part

CREATED = 1_700_000_000_123
Row = dict[str, Any]
_PAYLOADS = {"int": "int", "float": "float", "string": "string", "bool": "bool", "datetime": "datetime"}


def field(path: str, kind: str, value: Any) -> Row:
    """A scalar."""
    column = "string_set_value" if kind == "string_set" else f"{_PAYLOADS[kind]}_value"
    return {"attribute_path": path, "attribute_type": kind, column: value}


def point(path: str, step: object, value: Any, time_ms: int | None = CREATED, kind: str = "float") -> Row:
    """A point of a series; a histogram is (type, edges, values)."""
    if kind == "histogram":
        value = dict(zip(("type", "edges", "values"), value, strict=True))
    place = {"step": Decimal(str(step)), "timestamp": time_ms}
    return {"attribute_path": path, "attribute_type": f"{kind}_series", **place, f"{kind}_value": value}


def file(path: str, stored: str) -> Row:
    """A file of the run, stored below the archive's folder of files."""
    return {"attribute_path": path, "attribute_type": "file", "file_value": {"path": stored}}


class Moved:
    """One archive and one MLflow database below a folder, which is the current one."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.uri = f"sqlite:///{folder}/mlflow.db"
        self.into = f"--target mlflow --mlflow-tracking-uri {self.uri} -d data -f files"
        self.said = ""
        self._capsys = capsys

    def part(self, rows: Iterable[Row], run: str = "RUN-1", project: str = "ws/proj", number: int = 0) -> Path:
        """Write one part of a run."""
        ref = RunRef(project=ProjectId(project), id=RunId(run))
        return write_exporter_part(self.folder, number, rows, ref, prefix=sanitize(run))

    def stored(self, name: str, content: bytes, project: str = "ws/proj") -> Path:
        """Store a file in the archive."""
        path = self.folder / "files" / sanitize(project) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def command(self, line: str, *arguments: str, code: int = 0) -> Any:
        """Type a command; its JSON document."""
        ended = execute([*line.split(), *arguments, "--engine", "inline", "--json", "--no-progress"])
        told = self._capsys.readouterr()
        self.said = told.err
        assert ended == code, told.err
        return json.loads(told.out)

    def load(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Load everything; the outcome of each run by its id."""
        return _outcomes(self.command(f"load {self.into}", *arguments, code=code), "load")

    def verify(self, code: int = 0) -> dict[str, str]:
        """Verify everything; the verdict on each run by its id."""
        outcomes = _outcomes(self.command(f"verify {self.into}", code=code), "verify")
        return {run: outcome["verdict"] for run, outcome in outcomes.items()}

    def moved(self, *arguments: str) -> dict[str, str]:
        """Load and verify everything; the verdict on each run by its id."""
        self.load(*arguments)
        return self.verify()

    @property
    def client(self) -> Any:
        """MLflow's own client."""
        from mlflow.tracking import MlflowClient

        return MlflowClient(self.uri)

    def runs(self) -> dict[str, Any]:
        """MLflow's view of every active run, by its name, which must be unique."""
        experiments = [experiment.experiment_id for experiment in self.client.search_experiments()]
        found = list(self.client.search_runs(experiments))
        runs = {run.info.run_name: run for run in found}
        assert len(runs) == len(found)
        return runs

    def run(self) -> Any:
        """MLflow's view of the only run."""
        [run] = self.runs().values()
        return run

    def history(self, key: str) -> list[tuple[int, int, float]]:
        """(step, time, value) of the only run's metric."""
        points = self.client.get_metric_history(self.run().info.run_id, key)
        return [(point.step, point.timestamp, point.value) for point in points]

    def artifact(self, path: str) -> bytes:
        """Content of an artifact of the only run."""
        return Path(self.client.download_artifacts(self.run().info.run_id, path, str(self.folder))).read_bytes()

    def artifacts(self) -> list[str]:
        """Files on disk below the artifact folders of all runs, relative to those."""
        return sorted(
            str(path.relative_to(root)) for root in self.folder.glob("mlruns/*/*/artifacts") for path in root.rglob("*")
        )


@pytest.fixture
def moved(sqlite_file: Path, capsys: pytest.CaptureFixture[str]) -> Moved:
    """An empty archive and an initialised database."""
    return Moved(sqlite_file.parent, capsys)


def _outcomes(report: Any, phase: str) -> dict[str, Any]:
    return {outcome["run"]["id"]: outcome for outcome in report["outcomes"][phase]}
