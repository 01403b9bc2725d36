"""What a run looks like in MLflow, seen through MLflow's own client."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from shardmig import steps as exact_steps
from shardmig.adapters.base import Want, WriteSide, migration_key
from shardmig.adapters.mlflow import open_target
from shardmig.archive.files import ArchiveFiles, DigestSink
from shardmig.errors import StepConflict, TargetConflict
from shardmig.records import (
    NO_TIME,
    ArchivePaths,
    Chunk,
    End,
    Field,
    Fields,
    FileRef,
    Files,
    FloatPoints,
    Header,
    HistogramPoints,
    Histograms,
    LoadOptions,
    ProjectId,
    RunId,
    RunRef,
    Steps,
    StringPoints,
    TargetRunId,
    Texts,
)
from tests.servers.mlflow import MlflowServer

CREATED = 1_700_000_000_123
SERVER = pytest.param("server", marks=[pytest.mark.server, pytest.mark.xdist_group("mlflow-server")])


@pytest.fixture(params=["bulk", "ordinary", SERVER])
def options(request: pytest.FixtureRequest, sqlite_file: Path) -> dict[str, str]:
    """Options for each way into MLflow."""
    if request.param == "server":
        server: MlflowServer = request.getfixturevalue("mlflow_http")
        server.forget_runs()
        return {"tracking-uri": server.uri}
    return {"tracking-uri": f"sqlite:///{sqlite_file}", "bulk": "yes" if request.param == "bulk" else "no"}


class Loaded:
    """One way into MLflow, with its own client beside ours."""

    def __init__(self, options: dict[str, str], folder: Path) -> None:
        from mlflow.tracking import MlflowClient

        self.options = options
        self.client = MlflowClient(options["tracking-uri"])
        self.files = ArchiveFiles(ArchivePaths(str(folder / "data"), str(folder / "files")), ProjectId("ws/proj"))

    def open(self, **load: Any) -> WriteSide:
        return open_target(self.options, LoadOptions(**({"step_multiplier": 1} | load)))

    def write(self, chunks: list[Chunk], parent: TargetRunId | None = None, digest: str = "d" * 32, **load: Any) -> Any:
        """Load a run; MLflow's own view of it."""
        target = self.open(**load)
        try:
            written = target.write_run(migration_key(run_of(chunks)), digest, iter(chunks), self.files, parent)
        finally:
            target.close()
        return self.client.get_run(written.id)

    def read(self, chunks: list[Chunk]) -> list[Chunk]:
        """The run as our read side gives it."""
        target = self.open()
        try:
            held = target.find_run(migration_key(run_of(chunks)))
            assert held is not None
            return [piece.chunk for piece in target.read_run(held, Want(), DigestSink())]
        finally:
            target.close()

    def artifact(self, run: Any, path: str, folder: Path) -> Path:
        return Path(self.client.download_artifacts(run.info.run_id, path, str(folder)))

    def artifacts(self, run: Any, folder: str | None = None) -> Iterator[str]:
        """All artifact paths of a run."""
        for entry in self.client.list_artifacts(run.info.run_id, folder):
            yield from self.artifacts(run, entry.path) if entry.is_dir else [entry.path]


@pytest.fixture
def mlflow(options: dict[str, str], tmp_path: Path) -> Loaded:
    return Loaded(options, tmp_path)


def run_of(chunks: list[Chunk]) -> RunRef:
    assert isinstance(chunks[0], Header)
    return chunks[0].run


def make_run(*content: Chunk, project: str = "ws/proj", run_id: str = "RUN-1") -> list[Chunk]:
    run = RunRef(project=ProjectId(project), id=RunId(run_id), created_ms=CREATED)
    return [Header(run, "neptune-local", "1"), *content, End()]


def points(path: str, count: int, first: int = 0) -> FloatPoints:
    steps = np.arange(first, first + count, dtype=np.int64)
    return FloatPoints([path], np.array([count]), Steps(steps), CREATED + steps, steps / 7)


def test_scalars_are_params_with_exact_text(mlflow: Loaded) -> None:
    fields = [
        Field("big", "int", 9007199254740993),
        Field("lr", "float", 1e-05),
        Field("flag", "bool", True),
        Field("when", "datetime", CREATED),
        Field("words", "string_set", ["a", "b"]),
        Field("empty", "string", ""),
        Field("nan", "float", float("nan")),
    ]
    chunks = make_run(Fields(fields))
    assert mlflow.write(chunks).data.params == {
        "big": "9007199254740993",
        "lr": "1e-05",
        "flag": "True",
        "when": "2023-11-14T22:13:20.123Z",
        "words": '["a","b"]',
        "empty": "",
        "nan": "nan",
    }
    assert sorted(map(repr, _fields(mlflow.read(chunks)))) == sorted(map(repr, fields))


def test_two_types_on_one_path_stay_two(mlflow: Loaded) -> None:
    fields = [Field("x", "int", 1), Field("x", "string", "one")]
    chunks = make_run(Fields(fields), points("x", 3))
    run = mlflow.write(chunks)
    assert run.data.params["x"] == "1"
    assert len(run.data.params) == 2
    assert _fields(mlflow.read(chunks)) == fields
    assert [metric.step for metric in mlflow.client.get_metric_history(run.info.run_id, "x")] == [0, 1, 2]


def test_facts_stand_where_mlflow_has_a_place_for_them(mlflow: Loaded) -> None:
    fields = [
        Field("sys/creation_time", "datetime", CREATED),
        Field("sys/custom_run_id", "string", "my run"),
        Field("sys/description", "string", "what it was for"),
        Field("sys/failed", "bool", True),
        Field("sys/name", "string", "baseline"),
        Field("sys/owner", "string", "eve"),
        Field("sys/running_time", "float", 1.5),
        Field("sys/tags", "string_set", ["best"]),
    ]
    parent = mlflow.write(make_run(run_id="RUN-0"))
    run = mlflow.write(make_run(Fields(fields)), TargetRunId(parent.info.run_id))
    info, tags = run.info, run.data.tags
    assert (info.run_name, info.status, info.user_id) == ("my run", "FAILED", "eve")
    assert (info.start_time, info.end_time) == (CREATED, CREATED + 1500)
    assert mlflow.client.get_experiment(info.experiment_id).name == "ws/proj/baseline"
    assert (tags["mlflow.user"], tags["mlflow.note.content"], tags["tags/best"]) == ("eve", "what it was for", "best")
    assert tags["mlflow.parentRunId"] == parent.info.run_id
    assert (tags["shardmig.project"], tags["shardmig.run_id"]) == ("ws/proj", "RUN-1")
    assert (tags["shardmig.state"], tags["shardmig.digest"]) == ("complete", "d" * 32)


def test_points_keep_step_and_time_and_fill_several_chunks(mlflow: Loaded) -> None:
    chunks = make_run(points("loss", 1500), points("loss", 1500, first=1500))
    run = mlflow.write(chunks)
    history = mlflow.client.get_metric_history(run.info.run_id, "loss")
    assert sorted((one.step, one.timestamp, one.value) for one in history) == [
        (step, CREATED + step, step / 7) for step in range(3000)
    ]
    assert run.data.metrics == {"loss": 2999 / 7}


def test_decimal_steps_are_multiplied_exactly_and_led_back(mlflow: Loaded) -> None:
    steps = exact_steps.from_decimals([Decimal(number) / 100 for number in range(100)])
    loss = FloatPoints(["loss"], np.array([100]), steps, np.full(100, CREATED), np.arange(100) / 3)
    chunks = make_run(loss)
    run = mlflow.write(chunks, step_multiplier=100)
    history = mlflow.client.get_metric_history(run.info.run_id, "loss")
    assert sorted(one.step for one in history) == list(range(100))
    found = next(chunk for chunk in mlflow.read(chunks) if isinstance(chunk, FloatPoints))
    assert found.steps.to_decimals()[29] == Decimal("0.29")


def test_what_mlflow_cannot_hold_is_approximated_natively_and_exact_when_read_back(mlflow: Loaded) -> None:
    values = np.array([float("inf"), -0.0, 1.0, 1.0, 5.0])
    times = np.array([CREATED, CREATED, 7, 7, NO_TIME])
    odd = FloatPoints(["odd"], np.array([5]), Steps(np.array([0, 1, 2, 2, 3])), times, values)
    chunks = make_run(Fields([Field("long", "string", "x" * 7000)]), odd)
    run = mlflow.write(chunks)
    assert len(run.data.params["long"]) == 6000
    history = mlflow.client.get_metric_history(run.info.run_id, "odd")
    assert sorted((one.step, one.timestamp, one.value) for one in history) == [
        (0, CREATED, 1.7976931348623157e308),
        (1, CREATED, 0.0),
        (2, 7, 1.0),
        (3, 0, 5.0),
    ]
    back = mlflow.read(chunks)
    assert _fields(back) == [Field("long", "string", "x" * 7000)]
    found = next(chunk for chunk in back if isinstance(chunk, FloatPoints))
    assert found.times_ms.tolist() == times.tolist()
    assert found.values.tobytes() == values.tobytes()


def test_files_lie_under_their_field_with_their_extension(mlflow: Loaded, tmp_path: Path) -> None:
    run = run_of(make_run())
    put = mlflow.files.put
    refs: list[FileRef] = [
        mlflow.files.put_tree(run, "code", "file_set", [("src/a.py", io.BytesIO(b"a")), ("b.txt", io.BytesIO(b"b"))]),
        put(run, "model.pt", "file", io.BytesIO(b"weights"), name="model.pt"),
        put(run, "plot", "file", io.BytesIO(b"png"), name="plot.png"),
        put(run, "samples", "file_series", io.BytesIO(b"0"), name="i.png", step=Decimal("0.5"), time_ms=CREATED),
    ]
    loaded = mlflow.write(make_run(Files(refs)))
    found = {path for path in mlflow.artifacts(loaded) if not path.startswith("shardmig/")}
    assert found == {"code/src/a.py", "code/b.txt", "model.pt", "plot.png", "samples/step_0.5.png"}
    assert mlflow.artifact(loaded, "plot.png", tmp_path).read_bytes() == b"png"


def test_a_file_outside_the_archive_is_refused_and_the_rest_goes_on(mlflow: Loaded, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    bad = FileRef(path="bad", type="file", stored="../../secret", name="secret")
    good = mlflow.files.put(run_of(make_run()), "good", "file", io.BytesIO(b"g"), name="g.txt")
    chunks = make_run(Files([bad, good]))
    target = mlflow.open()
    written = target.write_run(migration_key(run_of(chunks)), "d", iter(chunks), mlflow.files, None)
    held = target.find_run(migration_key(run_of(chunks)))
    target.close()
    assert [(one.kind, one.code, one.field) for one in written.findings] == [("loss", "file-refused", "bad")]
    assert held is not None
    assert held.state == "partial"
    paths = list(mlflow.artifacts(mlflow.client.get_run(written.id)))
    assert "good.txt" in paths
    assert not any("secret" in path or "bad" in path for path in paths)


def test_string_series_are_lossless_parquet_and_a_readable_text(mlflow: Loaded, tmp_path: Path) -> None:
    def part(first: int) -> StringPoints:
        steps, times = Steps(np.array([first, first + 5]), 1), np.array([CREATED, NO_TIME])
        return StringPoints(["log"], np.array([2]), steps, times, Texts.from_list(["line", "two\nlines"]))

    run = mlflow.write(make_run(part(0), part(10)))
    text = mlflow.artifact(run, "log/series.txt", tmp_path).read_text()
    assert text.startswith("0.0; 2023-11-14T22:13:20.123Z; line\n0.5; ; two\nlines\n1.0; ")
    table = pq.read_table(mlflow.artifact(run, "log/series.parquet", tmp_path))
    assert table["string_value"].to_pylist() == ["line", "two\nlines"] * 2
    assert table["step"].to_pylist() == [Decimal(0), Decimal("0.5"), Decimal(1), Decimal("1.5")]


def test_histograms_keep_every_bit(mlflow: Loaded, tmp_path: Path) -> None:
    edges, values = np.linspace(-1, 1, 2001) / 3, np.arange(2000) / 7
    histograms = Histograms(["DENSITY"], np.array([2001]), edges, np.array([2000]), values)
    chunks = make_run(HistogramPoints(["w"], np.array([1]), Steps(np.array([3])), np.array([CREATED]), histograms))
    run = mlflow.write(chunks)
    shown = msgspec.json.decode(mlflow.artifact(run, "w/histograms.json", tmp_path).read_bytes())
    assert shown[0]["edges"] == edges.tolist()
    found = next(chunk for chunk in mlflow.read(chunks) if isinstance(chunk, HistogramPoints))
    assert found.values.edges.tobytes() == edges.tobytes()
    assert found.values.values.tobytes() == values.tobytes()


def test_a_step_conflict_names_run_field_and_remedy(mlflow: Loaded) -> None:
    half = FloatPoints(["loss"], np.array([1]), Steps(np.array([5]), 1), np.array([CREATED]), np.ones(1))
    with pytest.raises(StepConflict) as conflict:
        mlflow.write(make_run(half))
    assert (conflict.value.run, conflict.value.field) == ("ws/proj/RUN-1", "loss")
    assert "--step-multiplier 2" in conflict.value.hint


def test_a_half_loaded_run_is_finished_and_not_doubled(mlflow: Loaded) -> None:
    fields = Fields([Field("lr", "float", 0.1)])
    first = mlflow.write(make_run(fields, points("loss", 2000))[:-1])
    second = mlflow.write(make_run(fields, points("loss", 3000)))
    assert second.info.run_id == first.info.run_id
    assert len(mlflow.client.get_metric_history(second.info.run_id, "loss")) == 3000
    assert second.data.tags["shardmig.state"] == "complete"


def test_a_half_loaded_run_of_other_content_is_begun_anew(mlflow: Loaded) -> None:
    first = mlflow.write(make_run(Fields([Field("lr", "float", 0.1)]))[:-1], digest="a" * 32)
    second = mlflow.write(make_run(Fields([Field("lr", "float", 0.2)])), digest="b" * 32)
    assert second.info.run_id != first.info.run_id
    assert second.data.params == {"lr": "0.2"}
    assert mlflow.client.get_run(first.info.run_id).info.lifecycle_stage == "deleted"


def test_a_whole_run_of_other_content_is_replaced_only_when_told_to(mlflow: Loaded) -> None:
    first = mlflow.write(make_run(points("loss", 3)), digest="a" * 32)
    with pytest.raises(TargetConflict, match="other content"):
        mlflow.write(make_run(points("loss", 4)), digest="b" * 32)
    assert mlflow.client.get_run(first.info.run_id).info.lifecycle_stage == "active"
    second = mlflow.write(make_run(points("loss", 4)), digest="b" * 32, on_existing="replace")
    assert mlflow.client.get_run(first.info.run_id).info.lifecycle_stage == "deleted"
    assert len(mlflow.client.get_metric_history(second.info.run_id, "loss")) == 4


def test_a_deleted_experiment_of_that_name_is_named_with_its_remedy(mlflow: Loaded) -> None:
    experiment = mlflow.client.create_experiment("ws/gone")
    mlflow.client.delete_experiment(experiment)
    with pytest.raises(TargetConflict, match="'ws/gone'") as conflict:
        mlflow.write(make_run(project="ws/gone"))
    assert f"restore --experiment-id {experiment}" in conflict.value.hint


def test_workers_that_meet_in_a_new_experiment_share_it(mlflow: Loaded) -> None:
    runs = [make_run(project="ws/new", run_id=f"RUN-{number}") for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(mlflow.write, runs))
    assert len({run.info.experiment_id for run in found}) == 1


def test_a_name_that_mlflow_refuses_is_led_back(mlflow: Loaded) -> None:
    chunks = make_run(Fields([Field("a//b", "int", 1), Field("../x", "int", 2)]), points("m#1", 2))
    run = mlflow.write(chunks)
    assert all(key.startswith(("a/b--", "x--")) for key in run.data.params)
    back = mlflow.read(chunks)
    assert [field.path for field in _fields(back)] == ["../x", "a//b"]
    assert [chunk.paths for chunk in back if isinstance(chunk, FloatPoints)] == [["m#1"]]


def test_what_others_log_to_the_run_is_read_too(mlflow: Loaded) -> None:
    chunks = make_run(points("loss", 2))
    run = mlflow.write(chunks)
    mlflow.client.log_param(run.info.run_id, "added", "x")
    mlflow.client.log_metric(run.info.run_id, "more", 1.0)
    back = mlflow.read(chunks)
    assert _fields(back) == [Field("added", "string", "x")]
    assert [path for chunk in back if isinstance(chunk, FloatPoints) for path in chunk.paths] == ["loss", "more"]


def _fields(chunks: list[Chunk]) -> list[Field]:
    return [field for chunk in chunks if isinstance(chunk, Fields) for field in chunk.fields]
