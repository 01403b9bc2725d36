"""The Python API on an archive, as a user of Neptune knows it."""

from __future__ import annotations

import io
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from shardmig.archive.files import ArchiveFiles
from shardmig.archive.namespace import FieldHandle, Namespace, WrongFieldType, open_archive
from shardmig.errors import BadInput, NotFound, ShardmigError
from shardmig.records import Chunk, Field, Fields, Files, RunId, RunRef
from tests.unit.archive.runs import RUN, floats, paths_in, publish, texts

SAMPLES = Path(__file__).parents[1] / "samples"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    store = ArchiveFiles(paths_in(tmp_path), RUN.project)
    files = [
        store.put(RUN, "model", "file", io.BytesIO(b"weights"), name="model.bin"),
        store.put(RUN, "images", "file_series", io.BytesIO(b"png"), name="i.png", step=Decimal("0.5"), time_ms=1),
        store.put_tree(RUN, "set", "file_set", [("a/b.txt", io.BytesIO(b"b"))]),
    ]
    fields = [Field("params/lr", "float", 0.1), Field("params/opt/name", "string", "adam"), Field("lr", "float", 0.1)]
    series: list[Chunk] = [
        floats("metrics/loss", [1, 2], [0.5, 0.25], times=[1000, 2000]),
        floats("metrics/fine", [5, 10], [1.0, 2.0], scale=1),
        floats("lr", [1], [0.3]),
        texts("log", [1], ["line"]),
        floats("params", [1], [1.0]),
    ]
    publish(tmp_path, [Fields(fields), Files(files), *series])
    publish(tmp_path, [Fields([Field("params/lr", "string", "0.1")])], RunRef(project=RUN.project, id=RunId("RUN-2")))
    return tmp_path


def test_values_are_fetched_by_name(archive: Path) -> None:
    run = open_archive(archive)["ws/proj"]["RUN-1"]
    rate = run["params/lr"]
    assert isinstance(rate, FieldHandle)
    assert (rate.type, rate.fetch()) == ("float", 0.1)
    loss = run["metrics"]["loss"] if isinstance(run["metrics"], Namespace) else None
    assert isinstance(loss, FieldHandle)
    table = loss.fetch_values()
    assert table.column_names == ["step", "timestamp", "value"]
    assert table.column("step").to_pylist() == [1, 2]
    assert table.column("value").to_pylist() == [0.5, 0.25]
    assert [at.timestamp() for at in table.column("timestamp").to_pylist()] == [1.0, 2.0]
    assert (loss.rows, loss.fetch_last()) == (2, 0.25)
    assert list(table.to_pandas()["value"]) == [0.5, 0.25]


def test_steps_with_fractions_are_exact(archive: Path) -> None:
    fine = open_archive(archive)["ws/proj"]["RUN-1"].field("metrics/fine")
    assert fine.fetch_values().column("step").to_pylist() == [Decimal("0.5"), Decimal(1)]
    assert [len(table) for table in fine.iter_values(chunk_points=1)] == [1, 1]


def test_namespaces_iterate(archive: Path) -> None:
    opened = open_archive(archive / "data")
    assert list(opened) == ["ws/proj"]
    project = opened["ws/proj"]
    assert list(project) == ["RUN-1", "RUN-2"]
    assert [run.id for run in project.runs()] == ["RUN-1", "RUN-2"]
    run = project["RUN-1"]
    assert list(run) == ["images", "log", "lr", "metrics", "model", "params", "set"]
    assert list(run.namespace("params")) == ["lr", "opt"]
    assert list(run.namespace("params/opt")) == ["name"]
    assert "params/opt" in run
    assert "opt" in run.namespace("params")
    assert "op" not in run.namespace("params")
    assert [(field.path, field.type) for field in run.fields()][:4] == [
        ("images", "file_series"),
        ("log", "string_series"),
        ("lr", "float"),
        ("lr", "float_series"),
    ]


def test_a_name_that_is_field_and_namespace_is_the_field(archive: Path) -> None:
    run = open_archive(archive)["ws/proj"]["RUN-1"]
    field = run["params"]
    assert isinstance(field, FieldHandle)
    assert field.fetch_values().column("value").to_pylist() == [1.0]


def test_two_types_on_one_path_are_told_apart(archive: Path) -> None:
    run = open_archive(archive)["ws/proj"]["RUN-1"]
    with pytest.raises(WrongFieldType, match="float and float_series") as caught:
        _ = run["lr"]
    assert caught.value.hint
    assert run.field("lr", "float").fetch() == 0.1
    assert run.field("lr", "float_series").fetch_values().column("value").to_pylist() == [0.3]


def test_files_are_found_and_copied(archive: Path, tmp_path: Path) -> None:
    run = open_archive(archive)["ws/proj"]["RUN-1"]
    assert run.field("model").fetch_path().read_bytes() == b"weights"
    (copy,) = run.field("model").download(tmp_path / "out")
    assert (copy.name, copy.read_bytes()) == ("model.bin", b"weights")
    (image,) = run.field("images").download(tmp_path / "out")
    assert (image.name, image.read_bytes()) == ("step_0.5_i.png", b"png")
    (member,) = run.field("set").download(tmp_path / "out")
    assert member == tmp_path / "out" / "a" / "b.txt"
    (ref,) = run.field("images").fetch_files()
    assert (ref.step, ref.time_ms) == (Decimal("0.5"), 1)


def test_a_missing_file_is_an_error_that_names_it(archive: Path) -> None:
    run = open_archive(archive)["ws/proj"]["RUN-1"]
    run.field("model").fetch_path().unlink()
    with pytest.raises(BadInput, match="model") as caught:
        run.field("model").fetch_path()
    assert caught.value.field == "model"


def test_a_field_whose_type_differs_between_runs_is_two_columns(archive: Path) -> None:
    table = open_archive(archive)["ws/proj"].runs_table()
    assert table.column_names == ["run_id", "lr", "params/lr:float", "params/lr:string", "params/opt/name"]
    assert table.column("params/lr:float").to_pylist() == [0.1, None]
    assert table.column("params/lr:string").to_pylist() == [None, "0.1"]
    assert table.schema.field("lr").type == pa.float64()
    assert open_archive(archive)["ws/proj"].runs_table("^lr$").column_names == ["run_id", "lr"]


def test_no_column_takes_the_place_of_another_of_its_name(tmp_path: Path) -> None:
    fields = [Field("a", "int", 1), Field("a:int", "string", "x"), Field("a:int:string", "bool", True)]
    publish(tmp_path, [Fields([*fields, Field("run_id", "string", "mine")])])
    publish(tmp_path, [Fields([Field("a", "float", 0.5)])], RunRef(project=RUN.project, id=RunId("RUN-2")))
    table = open_archive(tmp_path)["ws/proj"].runs_table()
    assert table.to_pydict() == {
        "run_id": ["RUN-1", "RUN-2"],
        "a:float": [None, 0.5],
        "a:int": [1, None],
        "a:int:string": ["x", None],
        "a:int:string:bool": [True, None],
        "run_id:string": ["mine", None],
    }


@pytest.mark.parametrize("error", [KeyError, NotFound, ShardmigError])
def test_what_is_not_there_is_a_clear_error(archive: Path, error: type[Exception]) -> None:
    opened = open_archive(archive)
    with pytest.raises(error, match=r"'ws/pro' in .*similar: 'ws/proj'"):
        _ = opened["ws/pro"]
    with pytest.raises(error, match="no run 'RUN-3' in ws/proj; similar: 'RUN-"):
        _ = opened["ws/proj"]["RUN-3"]
    with pytest.raises(error, match="no field 'metrics/los' in ws/proj/RUN-1; similar: 'metrics/loss'"):
        _ = opened["ws/proj"]["RUN-1"]["metrics/los"]
    if error is not KeyError:
        with pytest.raises(error, match="no archive"):
            open_archive(archive / "nowhere")


@pytest.mark.parametrize("error", [TypeError, BadInput, WrongFieldType])
def test_what_a_type_does_not_have_is_a_clear_error(archive: Path, error: type[Exception]) -> None:
    run = open_archive(archive)["ws/proj"]["RUN-1"]
    for path, call in (
        ("metrics/loss", "fetch"),
        ("params/lr", "fetch_values"),
        ("log", "fetch_path"),
        ("model", "fetch"),
    ):
        with pytest.raises(error, match=f"'{path}' of ws/proj/RUN-1 is of type .* no {call}"):
            getattr(run.field(path), call)()
    with pytest.raises(error, match="file_series"):
        run.field("images").fetch_path()


def test_archives_of_neptune_exporter_are_opened_too() -> None:
    archive = open_archive(SAMPLES / "exporter-3x")
    run = archive["ws/three"]["run-0"]
    assert run.receipt() is None
    assert len(run.field("m/loss").fetch_values()) == 2500
    assert run.field("f/x.y").fetch_path() == run.field("f/x_y").fetch_path()
    assert {field.type for field in run.fields()} >= {"file_series", "histogram_series", "string_series"}
    assert "sys/forking/parent" not in run
    assert archive["ws/three"].runs_table("^sys/name$").num_rows == 3
    models = open_archive(SAMPLES / "exporter-2x-models")["ws/two"].scope("models")
    assert models["TWO-MOD"].field("info/size").fetch() == 12
