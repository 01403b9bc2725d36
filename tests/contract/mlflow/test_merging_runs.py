"""A run that is in MLflow already and comes again: what is changed there, what is refused, and what nobody may lose."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from mlflow import MlflowClient

from shardmig.adapters.base import migration_key
from shardmig.adapters.conformance.runs import plain_run
from shardmig.adapters.mlflow import open_target
from shardmig.adapters.mlflow.artifacts import artifacts_at
from shardmig.archive.files import ArchiveFiles
from shardmig.errors import Permanent, TargetConflict
from shardmig.records import ArchivePaths, Header, LoadOptions
from tests.contract.mlflow_source.copies import Copy

START_MS = 1_700_000_000_000
INLINE = ("--engine", "inline")
MERGE = (*INLINE, "--update", "--on-existing", "merge")


@pytest.fixture
def copied(sqlite_template: Path, sqlite_file: Path, tmp_path: Path) -> Copy:
    """A copy of an MLflow that has one run."""
    (tmp_path / "source.db").write_bytes(sqlite_template.read_bytes())
    copy = Copy(tmp_path, f"sqlite:///{tmp_path}/source.db", f"sqlite:///{sqlite_file}")
    client = MlflowClient(copy.source)
    experiment = client.create_experiment("grows", tags={"team": "ours", "phase": "one"})
    run = client.create_run(experiment, START_MS, run_name="first name").info.run_id
    client.log_metric(run, "loss", 0.5, START_MS + 7, 3)
    log_text(client, run, "notes.txt", "one")
    client.set_terminated(run, "FINISHED", START_MS + 100)
    copy.migrate(*INLINE)
    return copy


def test_merging_under_another_step_multiplier_is_refused_before_anything_is_written(
    sqlite_file: Path, tmp_path: Path
) -> None:
    uri, chunks = f"sqlite:///{sqlite_file}", plain_run()
    assert isinstance(chunks[0], Header)
    key = migration_key(chunks[0].run)
    files = ArchiveFiles(ArchivePaths(str(tmp_path / "data"), str(tmp_path / "files")), chunks[0].run.project)
    before = open_target({"tracking-uri": uri}, LoadOptions(step_multiplier=100))
    run = before.write_run(key, "a" * 32, iter(chunks), files, None).id
    before.close()
    held = MlflowClient(uri).get_run(run).to_dictionary()
    other = open_target({"tracking-uri": uri}, LoadOptions(step_multiplier=1000, on_existing="merge"))
    with pytest.raises(TargetConflict) as conflict:
        other.write_run(key, "b" * 32, iter(chunks), files, None)
    other.close()
    assert "--step-multiplier 100 " in conflict.value.hint
    assert MlflowClient(uri).get_run(run).to_dictionary() == held
    same = open_target({"tracking-uri": uri}, LoadOptions(step_multiplier=100, on_existing="merge"))
    [merged] = [
        one for one in same.write_run(key, "b" * 32, iter(chunks), files, None).findings if one.code == "merged"
    ]
    same.close()
    assert merged.detail.endswith("new in it: nothing")


def test_a_file_that_became_another_one_of_the_same_size_is_kept_and_told_each_time(copied: Copy) -> None:
    source, target = MlflowClient(copied.source), MlflowClient(copied.target)
    log_text(target, run_in(copied.target), "notes.txt", "two")
    for text, param in (("abc", "1"), ("xyz", "2"), ("xyz", "3")):
        log_text(source, run_in(copied.source), "notes.txt", text)
        source.log_param(run_in(copied.source), param, param)  # a file alone is not listed as a change
        assert copied.migrate(*MERGE, code=3)["merge-conflict"] == {"notes.txt"}
        assert text_in(target, run_in(copied.target), "notes.txt") == "two"


def test_a_file_that_was_made_on_both_sides_is_kept_and_told_each_time(copied: Copy) -> None:
    source, target = MlflowClient(copied.source), MlflowClient(copied.target)
    log_text(target, run_in(copied.target), "new.txt", "here")
    log_text(source, run_in(copied.source), "new.txt", "there")
    for param in ("1", "2"):
        source.log_param(run_in(copied.source), param, param)
        assert copied.migrate(*MERGE, code=3)["merge-conflict"] == {"new.txt"}
        assert text_in(target, run_in(copied.target), "new.txt") == "here"


def test_a_file_that_changed_in_the_source_only_is_brought(copied: Copy) -> None:
    source, target = MlflowClient(copied.source), MlflowClient(copied.target)
    log_text(source, run_in(copied.source), "notes.txt", "two")
    source.log_param(run_in(copied.source), "late", "1")
    [merged] = [one["detail"] for one in copied.findings(*MERGE) if one["code"] == "merged"]
    assert merged.endswith("new in it: 1 files, 1 params")
    assert text_in(target, run_in(copied.target), "notes.txt") == "two"
    assert set(copied.verify(*INLINE)) == {"equal"}


def test_tags_of_an_experiment_that_are_there_stay(copied: Copy) -> None:
    source, target = MlflowClient(copied.source), MlflowClient(copied.target)
    there = source.get_run(run_in(copied.source)).info.experiment_id
    here = target.get_run(run_in(copied.target)).info.experiment_id
    target.set_experiment_tag(here, "team", "somebody's")
    source.set_terminated(source.create_run(there, START_MS).info.run_id)
    source.set_experiment_tag(there, "new", "tag")
    copied.migrate(*MERGE, "--objects", "runs")
    held = target.get_experiment(here).tags
    assert (held["team"], held["phase"], held["new"]) == ("somebody's", "one", "tag")


def test_a_new_name_is_brought(copied: Copy) -> None:
    MlflowClient(copied.source).update_run(run_in(copied.source), name="second name")
    [merged] = [one["detail"] for one in copied.findings(*MERGE) if one["code"] == "merged"]
    assert merged.endswith("new in it: 1 names")
    assert name_in(copied.target) == "second name"
    assert set(copied.verify(*INLINE)) == {"equal"}


def test_a_name_that_somebody_gave_the_copy_stays_and_is_told(copied: Copy) -> None:
    MlflowClient(copied.target).update_run(run_in(copied.target), name="name of the copy")
    MlflowClient(copied.source).update_run(run_in(copied.source), name="second name")
    for _ in range(2):
        assert copied.migrate(*MERGE, code=3)["merge-conflict"] == {"sys/name"}
        assert name_in(copied.target) == "name of the copy"


def test_a_copy_of_metrics_alone_compares_equal(sqlite_template: Path, copied: Copy) -> None:
    Path("metrics.db").write_bytes(sqlite_template.read_bytes())
    metrics = copied._replace(folder=copied.folder / "metrics", target=f"sqlite:///{copied.folder}/metrics.db")
    metrics.folder.mkdir()
    only = (*INLINE, "-c", "metrics")
    metrics.migrate(*only, "--objects", "runs")
    assert metrics.verify(*only) == ["equal"]


@pytest.mark.parametrize("existing", ["fail", "skip", "merge"])
def test_a_run_that_was_begun_beside_a_whole_one_is_told_and_discarded(copied: Copy, existing: str) -> None:
    whole, twin = run_in(copied.target), with_twin(copied.target)
    assert copied.verify(*INLINE, code=5).count("differs") == 1
    copied.migrate(*INLINE, "--on-existing", existing)
    assert run_in(copied.target) == whole
    assert MlflowClient(copied.target).get_run(twin).info.lifecycle_stage == "deleted"
    assert set(copied.verify(*INLINE)) == {"equal"}


def test_a_run_that_was_begun_beside_a_deleted_copy_is_discarded_and_the_copy_stays_deleted(copied: Copy) -> None:
    source, target = MlflowClient(copied.source), MlflowClient(copied.target)
    source.delete_run(run_in(copied.source))
    again = (*INLINE, "--update", "--on-existing", "replace")
    copied.migrate(*again)
    [deleted] = [one for one in runs_of(copied.target, 2) if target.get_run(one).data.tags.get("shardmig.lifecycle")]
    key = target.get_run(deleted).data.tags["shardmig.key"]
    twin = target.create_run(target.get_run(deleted).info.experiment_id, tags={"shardmig.key": key}).info.run_id
    copied.migrate(*again)
    assert runs_of(copied.target, 1) == []
    assert target.get_run(twin).info.lifecycle_stage == "deleted"
    assert set(copied.verify(*INLINE)) == {"equal"}


def test_skipping_a_run_of_other_content_leaves_it_though_another_was_begun(copied: Copy) -> None:
    whole, twin = run_in(copied.target), with_twin(copied.target)
    MlflowClient(copied.source).log_param(run_in(copied.source), "late", "1")
    reported = copied.migrate(*INLINE, "--update", "--on-existing", "skip")
    assert "other-content-kept" in reported
    assert run_in(copied.target) == whole
    assert MlflowClient(copied.target).get_run(whole).data.params == {}
    assert MlflowClient(copied.target).get_run(twin).info.lifecycle_stage == "deleted"


def test_an_artifact_is_whole_or_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("as it was")
    with pytest.raises(Permanent):
        artifacts_at(str(tmp_path), None).put(Path("/proc/self/mem"), "notes.txt")  # opens, but cannot be read
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("notes.txt", "as it was")]


def with_twin(uri: str) -> str:
    """A run that a late answer made, of the key of the one that is there."""
    client, run = MlflowClient(uri), MlflowClient(uri).get_run(run_in(uri))
    tags = {"shardmig.key": run.data.tags["shardmig.key"]}
    twin: str = client.create_run(run.info.experiment_id, tags=tags).info.run_id
    return twin


def run_in(uri: str) -> str:
    [run] = runs_of(uri, 1)
    return run


def runs_of(uri: str, view: int) -> list[str]:
    client = MlflowClient(uri)
    experiments = [one.experiment_id for one in client.search_experiments()]
    return [run.info.run_id for run in client.search_runs(experiments, run_view_type=view)]


def name_in(uri: str) -> str:
    name: str = MlflowClient(uri).get_run(run_in(uri)).info.run_name
    return name


def log_text(client: MlflowClient, run: str, name: str, text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, name).write_text(text)
        client.log_artifact(run, str(Path(folder, name)))


def text_in(client: MlflowClient, run: str, name: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return Path(client.download_artifacts(run, name, folder)).read_text()
