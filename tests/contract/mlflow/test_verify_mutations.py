"""Damage of every kind in a real MLflow store, done behind MLflow's back: verify finds and names each, and nothing else."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardmig.adapters.base import Want, WriteSide, migration_key
from shardmig.adapters.conformance import plain_run, rich_run
from shardmig.adapters.mlflow import open_target
from shardmig.archive.files import ArchiveFiles
from shardmig.archive.reader import ArchiveReader
from shardmig.records import LoadOptions, ProjectId, RunOutcome, RunRef, Selection, TargetRunId
from shardmig.worker.verify import verify_run
from tests.contract.archives import archive_paths, publish

PROJECT = ProjectId("ws/rich")
RICH, FORK = "RICH-1", "RUN-2"


class Store:
    """A tracking database and its artifacts, loaded from an archive, open to be damaged."""

    def __init__(self, folder: Path, *, sidecar: bool) -> None:
        self.folder = folder
        self.database = folder / "mlflow.db"
        self.archive = ArchiveReader(archive_paths(folder))
        self.load = LoadOptions(step_multiplier=100, sidecar=sidecar)

    @property
    def runs(self) -> dict[str, RunRef]:
        return {run.id: run for run in self.archive.runs(PROJECT)}

    def open(self) -> WriteSide:
        return open_target({"tracking-uri": f"sqlite:///{self.database}"}, self.load)

    def fill(self) -> None:
        files = ArchiveFiles(archive_paths(self.folder), PROJECT)
        publish(self.folder, rich_run(files))
        publish(self.folder, plain_run(PROJECT, FORK, parent=RICH))
        target = self.open()
        parent: TargetRunId | None = None
        for run_id in (RICH, FORK):
            run = self.runs[run_id]
            chunks = (piece.chunk for piece in self.archive.read(run, Want()))
            parent = target.write_run(migration_key(run), "d" * 32, chunks, files, parent).id
        target.close()

    def copied_to(self, folder: Path) -> Store:
        """A copy that can be damaged alone."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        copy = Store(folder, sidecar=self.load.sidecar)
        copy.sql("UPDATE runs SET artifact_uri = replace(artifact_uri, ?, ?)", str(self.folder), str(folder))
        return copy

    def sql(self, statement: str, *parameters: Any) -> None:
        """Execute one statement; it must change something."""
        with closing(sqlite3.connect(self.database)) as connection, connection:
            assert connection.execute(statement, parameters).rowcount > 0, statement

    def id_of(self, run_id: str) -> str:
        with closing(sqlite3.connect(self.database)) as connection:
            key = migration_key(self.runs[run_id])
            (found,) = connection.execute("SELECT run_uuid FROM tags WHERE key = 'shardmig.key' AND value = ?", (key,))
            return str(found[0])

    def artifact(self, name: str) -> Path:
        """The one artifact of the rich run whose path ends like this."""
        (found,) = (
            path for path in self.folder.rglob("*") if str(path).endswith(f"{self.id_of(RICH)}/artifacts/{name}")
        )
        return found

    def verify(self, run_id: str = RICH) -> RunOutcome:
        target = self.open()
        try:
            return verify_run(self.runs[run_id], archive=self.archive, target=target, selection=Selection())
        finally:
            target.close()


Damage = Callable[[Store], None]


@pytest.fixture(scope="module")
def loaded(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[bool], Store]]:
    """Loaded stores, with and without sidecar, each made once. Not to be damaged."""
    stores: dict[bool, Store] = {}
    with pytest.MonkeyPatch.context() as patch:

        def store(sidecar: bool) -> Store:
            if sidecar not in stores:
                folder = tmp_path_factory.mktemp("loaded")
                patch.chdir(folder)
                shutil.copy(sqlite_template, folder / "mlflow.db")
                stores[sidecar] = Store(folder, sidecar=sidecar)
                stores[sidecar].fill()
            return stores[sidecar]

        yield store


@pytest.fixture
def store(loaded: Callable[[bool], Store], tmp_path: Path) -> Store:
    return loaded(True).copied_to(tmp_path)


@pytest.fixture
def bare_store(loaded: Callable[[bool], Store], tmp_path: Path) -> Store:
    """Loaded without a sidecar."""
    return loaded(False).copied_to(tmp_path)


def found(outcome: RunOutcome) -> set[tuple[str, str]]:
    return {(difference.code, difference.field) for difference in outcome.differences}


def metric(statement: str, *parameters: Any) -> Damage:
    """`statement` for the metric `series/long` of the rich run."""

    def damage(store: Store) -> None:
        store.sql(f"{statement} AND key = 'series/long' AND run_uuid = ?", *parameters, store.id_of(RICH))

    return damage


def rich(statement: str, *parameters: Any) -> Damage:
    """`statement` for the rich run."""
    return lambda store: store.sql(f"{statement} AND run_uuid = ?", *parameters, store.id_of(RICH))


def swapped_metrics(store: Store) -> None:
    for old, new in (("series/long", "x"), ("series/some_times", "series/long"), ("x", "series/some_times")):
        rich("UPDATE metrics SET key = ? WHERE key = ?", new, old)(store)


def one_ulp(store: Store) -> None:
    run_id = store.id_of(RICH)
    where = "WHERE key = 'series/long' AND step = 50000 AND run_uuid = ?"
    with closing(sqlite3.connect(store.database)) as connection:
        ((value,),) = connection.execute(f"SELECT value FROM metrics {where}", (run_id,))
    store.sql(f"UPDATE metrics SET value = ? {where}", float(np.nextafter(value, 1)), run_id)


def edited(name: str, edit: Callable[[bytes], bytes]) -> Damage:
    """The artifact `name` of the rich run with other bytes."""

    def damage(store: Store) -> None:
        path = store.artifact(name)
        path.write_bytes(edit(path.read_bytes()))

    return damage


def removed(name: str) -> Damage:
    return lambda store: store.artifact(name).unlink()


def another_metric(store: Store) -> None:
    columns = "(key, value, timestamp, step, is_nan, run_uuid)"
    for table in ("metrics", "latest_metrics"):
        store.sql(f"INSERT INTO {table} {columns} VALUES ('own/metric', 1.0, 1, 1, 0, ?)", store.id_of(RICH))


METRICS = {
    "a dropped point": (metric("DELETE FROM metrics WHERE step = 50000"), "points-missing"),
    "a point twice, at another time": (
        metric(
            "INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid)"
            " SELECT key, value, timestamp + 1, step, is_nan, run_uuid FROM metrics WHERE step = 50000"
        ),
        "points-extra",
    ),
    "a point altered by one ulp": (one_ulp, "values-differ"),
    "a value that became NaN": (metric("UPDATE metrics SET is_nan = 1, value = 0 WHERE step = 50000"), "values-differ"),
    "a shifted step": (metric("UPDATE metrics SET step = step + 1 WHERE step = 50000"), "steps-differ"),
    "a shifted time": (metric("UPDATE metrics SET timestamp = timestamp + 1 WHERE step = 50000"), "times-differ"),
}

OTHERS: dict[str, tuple[Damage, set[tuple[str, str]]]] = {
    "a param changed by one character": (
        rich("UPDATE params SET value = 'texT' WHERE key = 'values/string/02'"),
        {("values-differ", "values/string/02")},
    ),
    "a float param changed by one ulp": (
        rich("UPDATE params SET value = '0.10000000000000002' WHERE key = 'values/float/00'"),
        {("values-differ", "values/float/00")},
    ),
    "an int param that became a float": (
        rich("UPDATE params SET value = '9007199254740992.0' WHERE key = 'values/int/2'"),
        {("type-differs", "values/int/2")},
    ),
    "a param cut by MLflow and changed behind the sidecar's back": (
        rich("UPDATE params SET value = 'b' || substr(value, 2) WHERE key = 'values/string/03'"),
        {("values-differ", "values/string/03")},
    ),
    "a deleted param": (
        rich("DELETE FROM params WHERE key = 'values/bool/true'"),
        {("field-missing", "values/bool/true")},
    ),
    "a param of somebody else": (
        lambda store: store.sql("INSERT INTO params (key, value, run_uuid) VALUES ('own', '1', ?)", store.id_of(RICH)),
        {("field-extra", "own")},
    ),
    "a metric of somebody else": (another_metric, {("field-extra", "own/metric")}),
    "an infinity changed behind the sidecar's back": (
        rich("UPDATE metrics SET value = 1.5 WHERE key = 'series/odd_values' AND step = 100"),
        {("values-differ", "series/odd_values")},
    ),
    "a deleted tag": (rich("DELETE FROM tags WHERE key = 'tags/one'"), {("tag-missing", "tag:tags/one")}),
    "a changed description": (
        rich("UPDATE tags SET value = 'other' WHERE key = 'mlflow.note.content'"),
        {("tag-differs", "tag:mlflow.note.content")},
    ),
    "another status": (rich("UPDATE runs SET status = 'KILLED' WHERE 1"), {("status-differs", "status")}),
    "another start time": (
        rich("UPDATE runs SET start_time = start_time + 1 WHERE 1"),
        {("times-differ", "start_time")},
    ),
    "another end time": (rich("UPDATE runs SET end_time = end_time - 1 WHERE 1"), {("times-differ", "end_time")}),
    "no end time": (rich("UPDATE runs SET end_time = NULL WHERE 1"), {("times-differ", "end_time")}),
    "another user": (rich("UPDATE runs SET user_id = 'me' WHERE 1"), {("fact-differs", "user")}),
    "a file cut by a byte": (edited("files/model.pt", lambda old: old[:-1]), {("file-differs", "files/model")}),
    "a file with a flipped byte": (
        edited("files/model.pt", lambda old: old[:100] + bytes([old[100] ^ 1]) + old[101:]),
        {("file-differs", "files/model")},
    ),
    "an empty file that grew": (edited("files/empty.txt", lambda _: b"x"), {("file-differs", "files/empty")}),
    "a removed file": (removed("files/model.pt"), {("file-missing", "files/model")}),
    "a changed step of a file series": (
        edited("images/step_0.5.png", lambda _: b"other"),
        {("file-differs", "images")},
    ),
    "a changed file of a tree": (edited("files/tree/top.bin", lambda old: old[1:]), {("file-differs", "files/tree")}),
}


@pytest.mark.parametrize("run_id", [RICH, FORK])
def test_an_untouched_copy_raises_no_alarm(store: Store, run_id: str) -> None:
    outcome = store.verify(run_id)
    assert found(outcome) == set()
    assert outcome.state == "done"
    assert outcome.verdict == ("approximated" if run_id == RICH else "equal")


def test_approximations_are_named_and_are_no_differences_without_a_sidecar_either(bare_store: Store) -> None:
    outcome = bare_store.verify()
    assert (found(outcome), outcome.verdict) == (set(), "approximated")
    codes = {finding.code for finding in outcome.findings if finding.kind == "approximation"}
    assert codes >= {
        "infinity-clamped",
        "negative-zero",
        "param-truncated",
        "duplicate-points-collapse",
        "time-missing",
    }


@pytest.mark.parametrize("kind", METRICS)
def test_changed_metrics_are_found(store: Store, kind: str) -> None:
    damage, code = METRICS[kind]
    damage(store)
    outcome = store.verify()
    assert [(one.code, one.field, one.count) for one in outcome.differences] == [(code, "series/long", 1)]
    assert "500" in outcome.differences[0].detail
    assert outcome.verdict == "differs"


def test_swapped_metric_names_are_found(store: Store) -> None:
    swapped_metrics(store)
    assert {field for _, field in found(store.verify())} == {"series/long", "series/some_times"}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_damage_is_found(store: Store, kind: str) -> None:
    damage, expected = OTHERS[kind]
    damage(store)
    outcome = store.verify()
    assert found(outcome) == expected
    assert outcome.state == "failed"


@pytest.mark.parametrize("kind", ["a param cut by MLflow", "an infinity"])
def test_damage_to_approximations_is_found_without_a_sidecar(bare_store: Store, kind: str) -> None:
    damage, expected = next(value for name, value in OTHERS.items() if name.startswith(kind))
    damage(bare_store)
    assert found(bare_store.verify()) == expected


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("UPDATE tags SET value = 'nobody' WHERE key = 'mlflow.parentRunId'", "lineage-differs"),
        ("DELETE FROM tags WHERE key = 'mlflow.parentRunId'", "lineage-differs"),
        ("DELETE FROM tags WHERE key = 'shardmig.fork.parent'", "lineage-differs"),
    ],
)
def test_a_changed_parent_is_found(store: Store, statement: str, code: str) -> None:
    store.sql(f"{statement} AND run_uuid = ?", store.id_of(FORK))
    assert {one for one, _ in found(store.verify(FORK))} == {code}


def test_series_artifacts_that_vanish_or_break_are_found(store: Store) -> None:
    artifacts = [path for path in store.folder.rglob("*.parquet") if store.id_of(RICH) in str(path)]
    series = [path for path in artifacts if path.name != "exact.parquet"]
    assert series
    for path in series:
        path.unlink()
    fields = {field for _, field in found(store.verify())}
    assert fields == {"logs/stdout", "logs/a:b", "histograms/weights"}


def test_broken_series_artifacts_are_found(store: Store) -> None:
    for path in store.folder.rglob("*.parquet"):
        if store.id_of(RICH) in str(path) and path.name != "exact.parquet":
            path.write_bytes(path.read_bytes()[:-1])
    assert store.verify().verdict == "differs"


def test_a_sidecar_that_vanished_or_broke_is_found(store: Store) -> None:
    sidecar = store.artifact("shardmig/exact.parquet")
    sidecar.write_bytes(sidecar.read_bytes()[:-1])
    assert store.verify().verdict == "differs"
    sidecar.unlink()
    assert store.verify().verdict == "differs"


def test_a_run_whose_manifest_vanished_differs(store: Store) -> None:
    store.artifact("shardmig/manifest.json").unlink()
    assert {code for code, _ in found(store.verify())} == {"target-unreadable"}


def test_a_deleted_run_is_missing_and_an_unfinished_one_differs(store: Store) -> None:
    rich("UPDATE tags SET value = 'loading' WHERE key = 'shardmig.state'")(store)
    assert found(store.verify()) == {("run-partial", "")}
    rich("UPDATE runs SET lifecycle_stage = 'deleted' WHERE 1")(store)
    assert store.verify().verdict == "missing"
