"""What somebody sees in ZenML of a run that was loaded, through ZenML's own client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest

from shardmig.adapters.base import Want, migration_key
from shardmig.adapters.conformance.runs import fact_fields, field_digests, plain_run, rich_run
from shardmig.adapters.zenml import open_target
from shardmig.archive.files import ArchiveFiles, DigestSink
from shardmig.errors import BadInput, TargetConflict
from shardmig.records import (
    ArchivePaths,
    Chunk,
    End,
    Field,
    Fields,
    Header,
    LoadOptions,
    ProjectId,
    RunId,
    RunRef,
    TargetRun,
)
from tests.contract.zenml.world import DIGEST, run_of, write

pytestmark = pytest.mark.xdist_group("zenml")


@pytest.fixture(autouse=True)
def _store(zenml: Path) -> None:
    """A new store as ZenML's own."""


def test_a_run_is_a_model_version_with_description_tags_and_metadata() -> None:
    write(plain_run())
    version = _version("ws/plain", "RUN-1")
    assert version.description == "two\nlines of description"
    assert [tag.name for tag in version.tags] == ["group", "one", "two words"]
    assert version.run_metadata["fields"]["params/lr"] == 0.001
    assert version.run_metadata["series"] == {
        "metrics/loss": {"count": 10, "min": 0.1, "max": 1.0, "final": 0.1, "mean": pytest.approx(0.55)}
    }
    run = version.run_metadata["run"]
    assert (run["status"], run["owner"], run["start_time"]) == ("FINISHED", "somebody", "2023-11-14T22:13:20.123Z")
    assert version.run_metadata["shardmig"]["run_id"] == "RUN-1"


def test_scalars_keep_their_types_in_metadata_that_a_browser_can_read(tmp_path: Path) -> None:
    files = ArchiveFiles(_paths(tmp_path), ProjectId("ws/rich"))
    write(rich_run(files), files)
    fields = _version("ws/rich", "RICH-1").run_metadata["fields"]
    json.dumps(fields, allow_nan=False)
    assert fields["values/int/2"] == 2**53 + 1
    assert [fields[f"values/float/0{number}"] for number in (0, 1, 2, 3)] == [0.1, "NaN", "Infinity", "-Infinity"]
    assert fields["values/bool/true"] is True
    assert fields["values/set/2"] == ["a,b", 'c"d', "ü"]
    assert fields["values/datetime/late"] == "2100-01-01T00:00:00.001Z"
    assert fields["a:b"] == "scalar 0"


def test_files_and_series_are_artifacts_that_load(tmp_path: Path) -> None:
    files = ArchiveFiles(_paths(tmp_path), ProjectId("ws/rich"))
    write(rich_run(files), files)
    artifacts = _artifacts("ws/rich", "RICH-1")
    model = artifacts["ws/rich/files/model"].load()
    assert model.read_bytes() == bytes(range(256)) * 300
    assert model.suffix == ".pt"
    images = artifacts["ws/rich/images"].load()
    assert sorted(path.name for path in images.iterdir()) == ["step_0.5.png", "step_0.png", "step_1.png"]
    assert (artifacts["ws/rich/files/tree"].load() / "top.bin").read_bytes() == bytes(range(256))
    assert "żółw🚀" in (artifacts["ws/rich/logs/stdout"].load() / "series.txt").read_text()
    series = pq.read_table(artifacts["ws/rich/shardmig/series.parquet"].load()).to_pandas()
    decimal = series[series.attribute_path == "series/decimal"]
    assert [str(step.normalize()) for step in decimal.step] == ["0.01", "0.28", "0.29", "0.57", "1.1", "2"]
    assert (artifacts["shardmig-run"].load() / "files" / "model.pt").exists()


def test_only_the_run_is_an_artifact_where_that_is_asked_for(tmp_path: Path) -> None:
    files = ArchiveFiles(_paths(tmp_path), ProjectId("ws/rich"))
    write(rich_run(files), files, {"artifacts": "run"})
    assert list(_artifacts("ws/rich", "RICH-1")) == ["shardmig-run"]


@pytest.mark.parametrize("run_id", ["12", "latest", "Production", "equals:x", "oneof:[1]", " spaces ", "x" * 254])
def test_names_that_mean_something_to_zenml_are_changed_and_found(run_id: str) -> None:
    chunks = plain_run(run_id=run_id)
    target_id = write(chunks)
    assert write(chunks) == target_id
    assert _field_digests_of(chunks) == field_digests(chunks)


def test_a_model_version_of_somebody_else_is_left_alone() -> None:
    from zenml.client import Client

    client = Client()
    owner = client.create_model(name="ws/plain")
    theirs = client.create_model_version(owner.id, name="RUN-1", description="mine")
    chunks = plain_run()
    write(chunks)
    assert client.get_model_version("ws/plain", "RUN-1").id == theirs.id
    assert [one.name for one in client.list_model_versions("ws/plain").items] == [
        "RUN-1",
        f"RUN-1~{migration_key(run_of(chunks))[:16]}",
    ]
    assert _facts_of(chunks)["name"] == "RUN-1"
    assert _field_digests_of(chunks) == field_digests(chunks)


def test_prefix_and_template_name_the_model() -> None:
    write(plain_run(), options={"name-prefix": "old", "model-name-template": "{project}/{sys_name}"})
    assert _version("old/plain/name of RUN-1", "RUN-1").name == "RUN-1"


def test_a_text_that_no_row_holds_is_cut_in_the_metadata_and_whole_in_the_sidecar() -> None:
    long = Field("notes", "string", "ż" * 30_000)
    chunks: list[Chunk] = [Header(_ref("LONG-1")), Fields([long]), End()]
    write(chunks)
    assert _version("ws/own", "LONG-1").run_metadata["fields"]["notes"] == "ż" * 4000
    assert _field_digests_of(chunks) == field_digests(chunks)


def test_more_metadata_than_a_row_holds_is_one_dictionary_to_its_reader() -> None:
    fields = [Field(f"params/{number:05}", "string", "x" * 90) for number in range(2000)]
    write([Header(_ref("WIDE-1")), Fields(fields), End()])
    held = _version("ws/own", "WIDE-1").run_metadata["fields"]
    assert held == {field.path: field.value for field in fields}


def test_a_run_of_nothing_is_complete() -> None:
    chunks: list[Chunk] = [Header(_ref("EMPTY-1")), End()]
    write(chunks)
    assert _held(chunks).state == "complete"
    assert _field_digests_of(chunks) == {}


def test_other_content_is_refused_or_replaces_what_is_there() -> None:
    chunks = plain_run()
    write(chunks)
    for on_existing, expected in (("fail", DIGEST), ("replace", "e" * 32)):
        load = msgspec.convert({"step_multiplier": 1, "on_existing": on_existing}, LoadOptions)
        target = open_target({}, load)
        if on_existing == "fail":
            with pytest.raises(TargetConflict):
                target.write_run(migration_key(run_of(chunks)), "e" * 32, iter(chunks), _NOWHERE, None)
        else:
            target.write_run(migration_key(run_of(chunks)), "e" * 32, iter(chunks), _NOWHERE, None)
        target.close()
        assert _held(chunks).digest == expected
    assert _counts() == (1, 2)


def test_a_run_that_is_to_be_replaced_stays_until_the_new_one_is_whole() -> None:
    chunks = plain_run()
    write(chunks)
    target = open_target({}, LoadOptions(step_multiplier=1, on_existing="replace"))
    key = migration_key(run_of(chunks))
    with pytest.raises(BadInput, match="torn"):
        target.write_run(key, "e" * 32, _torn(chunks), _NOWHERE, None)
    without_end = target.write_run(key, "e" * 32, iter(chunks[:-1]), _NOWHERE, None)
    assert [finding.kind for finding in without_end.findings] == ["loss"]
    held = _held(chunks)
    assert (held.state, held.digest) == ("complete", DIGEST)
    assert _field_digests_of(chunks) == field_digests(chunks)
    assert _counts() == (1, 2)


@pytest.mark.parametrize("times", [1, 2])
def test_of_a_run_that_was_replaced_nothing_is_left(zenml: Path, times: int) -> None:
    chunks = plain_run()
    write(chunks)
    target = open_target({}, LoadOptions(step_multiplier=1, on_existing="replace"))
    for number in range(times):
        target.write_run(migration_key(run_of(chunks)), str(number) * 32, iter(chunks), _NOWHERE, None)
    held = _held(chunks)
    assert held.digest == str(times - 1) * 32
    assert target.read_facts(held)["name"] == "RUN-1"
    assert _field_digests_of(chunks) == field_digests(chunks)
    assert _counts() == (1, 2)
    assert len(list(zenml.rglob("manifest.json"))) == 1
    target.discard_run(held)
    target.close()
    assert not list(zenml.rglob("manifest.json"))


def _torn(chunks: list[Chunk]) -> Iterator[Chunk]:
    yield from chunks[:-1]
    raise BadInput("torn")


def test_a_parent_that_comes_late_is_linked() -> None:
    parent, child = plain_run(run_id="RUN-1"), plain_run(run_id="RUN-2", parent="RUN-1")
    child_id = write(child)
    parent_id = write(parent)
    target = open_target({}, LoadOptions(step_multiplier=1))
    written = target.write_run(migration_key(run_of(child)), DIGEST, iter(child), _NOWHERE, parent_id)
    expected = target.expected_facts(run_of(child), fact_fields(child), parent_id, None)
    target.close()
    assert written.id == child_id
    assert _facts_of(child)["parent"] == expected["parent"] == parent_id


def test_what_somebody_changes_in_zenml_is_seen() -> None:
    from zenml import log_metadata

    chunks = plain_run()
    target_id = write(chunks)
    version_id: Any = _version("ws/plain", "RUN-1").id
    assert str(version_id) == target_id
    log_metadata({"fields": {"params/lr": 0.5}}, model_version_id=version_id)  # type: ignore[call-overload]
    log_metadata({"extra": {"reviewed": True}}, model_version_id=version_id)  # type: ignore[call-overload]
    read = list(_read(chunks))
    fields = {field.path: field for chunk in read if isinstance(chunk, Fields) for field in chunk.fields}
    assert fields["params/lr"].value == 0.5
    assert fields["extra/reviewed"].value is True


def test_series_that_are_gone_are_a_loss(zenml: Path) -> None:
    chunks = plain_run()
    write(chunks)
    (series,) = zenml.rglob("shardmig/series.parquet")
    series.write_bytes(b"PAR1 no more")
    assert [finding.code for finding in _losses(chunks)] == ["series-unreadable"]
    series.unlink()
    assert [finding.code for finding in _losses(chunks)] == ["series-missing"]


_NOWHERE = ArchiveFiles(ArchivePaths("/nonexistent", "/nonexistent"), ProjectId("ws/plain"))


def _ref(run_id: str) -> RunRef:
    return RunRef(project=ProjectId("ws/own"), id=RunId(run_id))


def _paths(folder: Path) -> ArchivePaths:
    return ArchivePaths(str(folder / "archive" / "data"), str(folder / "archive" / "files"))


def _version(model: str, name: str) -> Any:
    from zenml.client import Client

    return Client().get_model_version(model, name, hydrate=True)


def _artifacts(model: str, name: str) -> dict[str, Any]:
    from zenml.client import Client

    found = Client().list_artifact_versions(model_version_id=_version(model, name).id, size=100, hydrate=True)
    return {one.artifact.name: one for one in found.items}


def _counts() -> tuple[int, int]:
    """How many model versions and artifact versions there are."""
    from zenml.client import Client

    return Client().list_model_versions().total, Client().list_artifact_versions().total


def _held(chunks: list[Chunk]) -> TargetRun:
    target = open_target({}, LoadOptions(step_multiplier=1))
    held = target.find_run(migration_key(run_of(chunks)))
    target.close()
    assert held is not None
    return held


def _facts_of(chunks: list[Chunk]) -> dict[str, str]:
    target = open_target({}, LoadOptions(step_multiplier=1))
    facts = target.read_facts(_held(chunks))
    target.close()
    return facts


def _read(chunks: list[Chunk]) -> Iterator[Chunk]:
    target = open_target({}, LoadOptions(step_multiplier=1))
    yield from (piece.chunk for piece in target.read_run(_held(chunks), Want(), DigestSink()))
    target.close()


def _field_digests_of(chunks: list[Chunk]) -> Any:
    return field_digests(_read(chunks))


def _losses(chunks: list[Chunk]) -> Any:
    return [
        finding
        for chunk in _read(chunks)
        if isinstance(chunk, End)
        for finding in chunk.findings
        if finding.kind == "loss"
    ]
