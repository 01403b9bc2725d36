"""Damage of every kind on a Comet server: verify finds and names each, and nothing else."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardmig.adapters.base import Want, migration_key
from shardmig.adapters.comet import open_target
from shardmig.adapters.conformance.runs import field_digests, plain_run, rich_run
from shardmig.archive.files import ArchiveFiles
from shardmig.archive.reader import ArchiveReader
from shardmig.records import ArchivePaths, LoadOptions, ProjectId, RunOutcome, Selection, TargetRunId
from shardmig.worker.verify import verify_run
from tests.contract.archives import archive_paths, publish
from tests.servers.comet.experiments import Asset, Experiment
from tests.servers.comet.server import CometServer, comet_server

pytestmark = pytest.mark.xdist_group("comet")

PROJECT = ProjectId("ws/rich")
RICH, FORK = "RICH-1", "RUN-2"
Loaded = tuple[CometServer, Path]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    """A server with a rich run and a fork of it, and the folder of their archive. Not to be damaged."""
    folder = tmp_path_factory.mktemp("comet")
    with comet_server() as server, pytest.MonkeyPatch.context() as environment:
        environment.setenv("COMET_API_KEY", server.api_key)
        files = ArchiveFiles(archive_paths(folder), PROJECT)
        publish(folder, rich_run(files))
        publish(folder, plain_run(PROJECT, FORK, parent=RICH))
        archive = ArchiveReader(archive_paths(folder))
        target = open_target(_options(server), LoadOptions(step_multiplier=100))
        parent: TargetRunId | None = None
        for run in sorted(archive.runs(PROJECT), key=lambda run: run.id):
            chunks = (piece.chunk for piece in archive.read(run, Want()))
            parent = target.write_run(migration_key(run), "d" * 32, chunks, files, parent).id
        target.close()
        yield server, folder


@pytest.fixture
def loaded(filled: Loaded, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loaded]:
    """The same, to be damaged."""
    server, folder = filled
    monkeypatch.setenv("COMET_API_KEY", server.api_key)
    before = copy.deepcopy(server.experiments)
    yield server, folder
    server.experiments = before


def _options(server: CometServer) -> dict[str, str]:
    return {"url": server.url, "requests-per-s": "0", "settle-s": "2"}


def verify(loaded: Loaded, run_id: str = RICH) -> RunOutcome:
    server, folder = loaded
    archive = ArchiveReader(archive_paths(folder))
    [run] = (run for run in archive.runs(PROJECT) if run.id == run_id)
    target = open_target(_options(server), LoadOptions(step_multiplier=100))
    try:
        return verify_run(run, archive=archive, target=target, selection=Selection())
    finally:
        target.close()


def rich(loaded: Loaded) -> Experiment:
    return next(one for one in loaded[0].experiments.values() if one.others["shardmig.run_id"] == RICH)


def asset(experiment: Experiment, name: str) -> Asset:
    return next(asset for asset in experiment.assets.values() if asset.name.startswith(name))


def test_undamaged_runs_are_equal(loaded: Loaded) -> None:
    assert verify(loaded).verdict == "approximated"
    assert verify(loaded).differences == []
    assert verify(loaded, FORK).verdict == "equal"


def _change_value(experiment: Experiment) -> str:
    experiment.metrics["series/long"][7]["metricValue"] += 1e-9
    return "series/long"


def _drop_point(experiment: Experiment) -> str:
    del experiment.metrics["series/decimal"][2]
    return "series/decimal"


def _double_point(experiment: Experiment) -> str:
    experiment.metrics["series/negative_steps"].append(dict(experiment.metrics["series/negative_steps"][0]))
    return "series/negative_steps"


def _change_time(experiment: Experiment) -> str:
    experiment.metrics["series/constant"][3]["timestamp"] += 1
    return "series/constant"


def _drop_metric(experiment: Experiment) -> str:
    del experiment.metrics["series/odd_values"]
    return "series/odd_values"


def _change_param(experiment: Experiment) -> str:
    experiment.params["values/int/2"] = 2**53
    return "values/int/2"


def _change_cut_param(experiment: Experiment) -> str:
    experiment.params["values/long"] = "b" + experiment.params["values/long"][1:]
    return "values/long"


def _drop_param(experiment: Experiment) -> str:
    del experiment.params["values/bool/true"]
    return "values/bool/true"


def _add_param(experiment: Experiment) -> str:
    experiment.params["new"] = "1"
    return "new"


def _change_file(experiment: Experiment) -> str:
    asset(experiment, "files/model.pt").content = b"other"
    return "files/model"


def _drop_file(experiment: Experiment) -> str:
    del experiment.assets[asset(experiment, "images/step_0.5.png").id]
    return "images"


def _drop_series(experiment: Experiment) -> str:
    del experiment.assets[asset(experiment, "histograms/weights/histograms.parquet").id]
    return "histograms/weights"


def _drop_tag(experiment: Experiment) -> str:
    experiment.tags.remove("one")
    return "one"


def _change_name(experiment: Experiment) -> str:
    experiment.others["Name"] = "another"
    return "name"


def _change_end(experiment: Experiment) -> str:
    assert experiment.end_ms is not None
    experiment.end_ms += 1
    return "end_time"


DAMAGES: list[Callable[[Experiment], str]] = [
    _change_value,
    _drop_point,
    _double_point,
    _change_time,
    _drop_metric,
    _change_param,
    _change_cut_param,
    _drop_param,
    _add_param,
    _change_file,
    _drop_file,
    _drop_series,
    _drop_tag,
    _change_name,
    _change_end,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
def test_damage_is_found_and_named(loaded: Loaded, damage: Callable[[Experiment], str]) -> None:
    named = damage(rich(loaded))
    outcome = verify(loaded)
    assert outcome.verdict == "differs"
    assert outcome.differences
    assert all(named in one.field or named in one.detail for one in outcome.differences), outcome.differences


def test_a_run_that_is_gone_is_missing(loaded: Loaded) -> None:
    del loaded[0].experiments[rich(loaded).key]
    assert verify(loaded).verdict == "missing"


def test_the_same_through_the_command_line(loaded: Loaded, tmp_path: Path) -> None:
    server, folder = loaded
    paths = archive_paths(folder)
    there = ["-d", paths.data, "-f", paths.files]

    def shardmig(*words: str) -> int:
        command = [sys.executable, "-m", "shardmig", *words]
        return subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True).returncode

    options = ["--target-option", f"url={server.url}", "--target-option", "requests-per-s=0"]
    verified = ["verify", "--target", "comet", "--step-multiplier", "100", *options, *there]
    assert shardmig(*verified) == 0
    back = ["-d", str(tmp_path / "back" / "data"), "-f", str(tmp_path / "back" / "files")]
    source = ["--source", "comet", "--source-option", f"url={server.url}", "--source-option", "requests-per-s=0"]
    assert shardmig("export", *source, *back) == 0
    assert _contents(ArchiveReader(archive_paths(folder))) == _contents(ArchiveReader(_back(tmp_path)))
    _change_value(rich(loaded))
    assert shardmig(*verified) == 5


def _back(folder: Path) -> ArchivePaths:
    return ArchivePaths(str(folder / "back" / "data"), str(folder / "back" / "files"))


def _contents(archive: ArchiveReader) -> dict[str, str]:
    found: dict[str, str] = {}
    for run in archive.runs(PROJECT):
        digests = field_digests(piece.chunk for piece in archive.read(run, Want()))
        found[run.id] = json.dumps(sorted((path, kind, one.digest) for (path, kind), one in digests.items()))
    return found
