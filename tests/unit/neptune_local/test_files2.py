"""Files of 1.x runs: named by path, saved by the client, in sets, tracked by artifacts."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from shardmig.records import Files, Finding
from tests.unit.neptune_local.local_data import (
    UUID,
    RunRead,
    beyond_reach,
    list_all,
    open_local,
    points,
    read_one,
    read_run,
    record,
    resumed,
    write_folder,
    write_operations,
)


def replayed(tmp_path: Path, *operations: tuple[str, str, dict[str, Any]], path_map: str = "") -> RunRead:
    write_operations(tmp_path / "logs", *operations)
    return read_one(tmp_path / "logs", tmp_path / "archive", path_map=path_map)


def write(path: Path, content: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def codes(findings: list[Finding]) -> list[tuple[str, str, str]]:
    return [(one.kind, one.code, one.field) for one in findings]


def test_a_file_named_by_path_keeps_its_name_and_its_logged_extension(tmp_path: Path) -> None:
    model = write(tmp_path / "work" / "model.bin", "weights")
    run = replayed(
        tmp_path,
        ("UploadFile", "f/model", {"ext": "bin", "file_path": str(model)}),
        ("UploadFile", "f/renamed", {"ext": "txt", "file_path": str(model)}),
        ("UploadFile", "f/plain", {"ext": "", "file_path": str(write(tmp_path / "LICENSE"))}),
    )
    assert {path: refs[0].name for path, refs in run.files.items()} == {
        "f/model": "model.bin",
        "f/renamed": "model.bin.txt",
        "f/plain": "LICENSE",
    }
    assert run.stored["f/model: model.bin"] == b"weights"
    assert run.findings == []


def test_the_last_upload_of_a_field_wins(tmp_path: Path) -> None:
    run = replayed(
        tmp_path,
        ("UploadFile", "f", {"ext": "txt", "file_path": "/gone/first.txt"}),
        ("UploadFile", "f", {"ext": "txt", "file_path": str(write(tmp_path / "second.txt"))}),
    )
    assert run.files["f"][0].name == "second.txt"
    assert run.findings == []


def test_a_missing_file_is_a_loss_that_names_it_and_the_option(tmp_path: Path) -> None:
    run = replayed(tmp_path, ("UploadFile", "f/x", {"ext": "txt", "file_path": "/gone/x.txt"}))
    assert codes(run.findings) == [("loss", "missing-file", "f/x")]
    assert "/gone/x.txt" in run.findings[0].detail
    assert "--path-map" in run.findings[0].detail


def test_a_file_that_cannot_be_looked_at_is_lost_alone(tmp_path: Path) -> None:
    run = replayed(
        tmp_path,
        ("AssignInt", "p", {"value": 1}),
        ("UploadFile", "f/x", {"ext": "txt", "file_path": f"/{'x' * 300}"}),
        ("UploadFile", "f/saved", {"ext": "txt", "tmp_file_name": "x" * 300}),
        ("TrackFilesToArtifact", "art", {"entries": [[f"/{'x' * 300}", None]], "project_id": "p"}),
    )
    assert run.logged() == {"p": 1}
    assert sorted(codes(run.findings)) == [
        ("gap", "missing-artifact-file", "art"),
        ("loss", "missing-file", "f/saved"),
        ("loss", "missing-file", "f/x"),
    ]
    assert any("too long" in one.detail for one in run.findings)


def test_what_of_a_folder_cannot_be_listed_is_a_loss(tmp_path: Path) -> None:
    write(tmp_path / "data" / "a.txt", "a")
    beyond_reach(tmp_path / "data")
    run = replayed(
        tmp_path,
        ("UploadFileSet", "set", {"file_globs": [str(tmp_path / "data")], "reset": "True"}),
        ("TrackFilesToArtifact", "art", {"entries": [[str(tmp_path / "data"), None]], "project_id": "p"}),
    )
    assert run.stored["set: a.txt"] == b"a"
    assert sorted(codes(run.findings)) == [("loss", "missing-file", "art"), ("loss", "missing-file", "set")]


def test_a_tracked_file_that_cannot_be_read_is_a_gap(tmp_path: Path) -> None:
    unreadable = "/proc/self/mem"  # of one's own memory, the beginning cannot be read, by root neither
    run = replayed(tmp_path, ("TrackFilesToArtifact", "art", {"entries": [[unreadable, None]], "project_id": "p"}))
    assert codes(run.findings) == [("gap", "missing-artifact-file", "art")]
    assert json.loads(run.stored["art: files_list.json"])[0]["fileHash"] is None


def test_what_an_artifact_lacks_is_told_by_a_reading_that_goes_on_behind_it(tmp_path: Path) -> None:
    write_operations(
        tmp_path,
        ("TrackFilesToArtifact", "art", {"entries": [["/gone/c", None]], "project_id": "p"}),
        ("LogFloats", "m", {"values": points((1.0, 0, 1.0))}),
    )
    source = open_local(tmp_path)
    (run,) = list_all(source)
    whole = read_run(source, run, tmp_path / "archive")
    (stored,) = [piece for piece in whole.pieces if isinstance(piece.chunk, Files)]
    assert stored.cursor is not None
    rest = resumed(source, run, tmp_path / "archive", stored.cursor, 1000)
    source.close()
    assert codes(whole.findings) == [("gap", "missing-artifact-file", "art")]
    assert rest.findings == whole.findings


def test_what_the_server_has_had_is_known_for_each_process(tmp_path: Path) -> None:
    for process, acked in (("sent", 1), ("unsent", 0)):
        old = "/old/.neptune/upload_path/removed.txt"
        lines = [
            record(1, "UploadFile", f"f/{process}", ext="txt", tmp_file_name="removed.txt"),
            record(2, "UploadFile", f"f/old/{process}", ext="txt", file_path=old),
        ]
        write_folder(tmp_path, lines, name=f"async/run__{UUID}__{acked}__abcdefgh", last_ack=2 * acked)
    run = read_one(tmp_path, tmp_path / "archive")
    assert sorted(codes(run.findings)) == [
        ("gap", "uploaded-file-gone", "f/old/sent"),
        ("gap", "uploaded-file-gone", "f/sent"),
        ("loss", "missing-file", "f/old/unsent"),
        ("loss", "missing-file", "f/unsent"),
    ]


def test_a_path_map_finds_files_that_moved(tmp_path: Path) -> None:
    write(tmp_path / "new" / "a" / "x.txt", "right")
    write(tmp_path / "other" / "x.txt", "more exact")
    pairs = (f"/gone={tmp_path / 'new'}", f"/gone/b={tmp_path / 'other'}", f"C:\\data={tmp_path / 'new'}")
    run = replayed(
        tmp_path,
        ("UploadFile", "f/a", {"ext": "txt", "file_path": "/gone/a/x.txt"}),
        ("UploadFile", "f/b", {"ext": "txt", "file_path": "/gone/b/x.txt"}),
        ("UploadFile", "f/windows", {"ext": "txt", "file_path": "C:\\data\\a\\x.txt"}),
        ("UploadFile", "f/alike", {"ext": "txt", "file_path": "/gone-not/a/x.txt"}),
        ("UploadFileSet", "s", {"file_globs": ["/gone/**/*.txt"], "reset": "True"}),
        path_map=os.pathsep.join(pairs),
    )
    assert run.stored["f/b: x.txt"] == b"more exact"
    assert run.stored["f/a: x.txt"] == b"right"
    assert run.stored["f/windows: x.txt"] == b"right"
    assert codes(run.findings) == [("loss", "missing-file", "f/alike")]
    assert run.stored["s: x.txt"] == b"right"


def test_a_saved_upload_is_found_in_its_folder_and_named_after_its_field(tmp_path: Path) -> None:
    line = record(1, "UploadFile", "f/mem", ext="dat", file_path=None, tmp_file_name="f_mem-1.dat")
    folder = write_folder(tmp_path, [line])
    write(folder / "upload_path" / "f_mem-1.dat", "kept")
    run = read_one(tmp_path, tmp_path / "archive")
    assert run.stored == {"f/mem: mem.dat": b"kept"}


def test_a_saved_upload_that_old_clients_named_by_absolute_path_is_found_where_the_folder_is_now(
    tmp_path: Path,
) -> None:
    gone = "/old/machine/.neptune/offline/x/upload_path/f_mem-1.dat"
    line = record(1, "UploadFile", "f/mem", ext="dat", file_path=gone, clean_after_upload=True)
    folder = write_folder(tmp_path, [line])
    write(folder / "upload_path" / "f_mem-1.dat", "kept")
    assert read_one(tmp_path, tmp_path / "archive").stored == {"f/mem: f_mem-1.dat": b"kept"}


@pytest.mark.parametrize(
    "name", ["../secret.txt", "../../../../../../../../etc/passwd", "/etc/passwd", "link", ".", ""]
)
def test_a_saved_upload_that_leads_out_of_its_folder_is_refused(name: str, tmp_path: Path) -> None:
    line = record(1, "UploadFile", "f/x", ext="txt", tmp_file_name=name)
    folder = write_folder(tmp_path, [line])
    write(folder / "secret.txt")
    (folder / "upload_path" / "link").symlink_to(folder / "secret.txt")
    run = read_one(tmp_path, tmp_path / "archive")
    assert run.stored == {}
    assert codes(run.findings) == [("loss", "hostile-path", "f/x")]


@pytest.mark.parametrize("path", ["../../up", "/absolute/path", "a/../../b", "..", "nul\0inside", "a" * 5000])
def test_a_hostile_field_name_stays_a_name(path: str, tmp_path: Path) -> None:
    run = replayed(tmp_path, ("UploadFileContent", path, {"ext": "txt", "file_content": "eA=="}))
    (ref,) = run.files[path]
    assert next(iter(run.stored.values())) == b"x"
    assert (tmp_path / "archive" / "files") in Path(tmp_path / "archive" / "files" / ref.stored).resolve().parents
    assert sorted(one.name for one in tmp_path.iterdir()) == ["archive", "logs"]


def test_a_file_set_has_names_below_the_common_root(tmp_path: Path) -> None:
    for name in ("a/one.txt", "a/deep/two.txt", "b/three.txt", "b/skip.csv"):
        write(tmp_path / "data" / name, name)
    globs = [str(tmp_path / "data" / "a"), str(tmp_path / "data" / "**" / "*.txt")]
    run = replayed(tmp_path, ("UploadFileSet", "s", {"file_globs": globs, "reset": "True"}))
    assert run.stored == {
        "s: a/one.txt": b"a/one.txt",
        "s: a/deep/two.txt": b"a/deep/two.txt",
        "s: b/three.txt": b"b/three.txt",
    }
    assert run.files["s"][0].is_tree


def test_a_file_set_grows_loses_files_and_is_reset(tmp_path: Path) -> None:
    for name in ("one.txt", "two.txt", "sub/three.txt", "sub/four.txt", "old.txt"):
        write(tmp_path / "data" / name, name)
    data = str(tmp_path / "data")
    run = replayed(
        tmp_path,
        ("UploadFileSet", "s", {"file_globs": [f"{data}/old.txt"], "reset": "False"}),
        ("UploadFileSet", "s", {"file_globs": [f"{data}/*.txt"], "reset": "True"}),
        ("UploadFileSet", "s", {"file_globs": [data], "reset": "False"}),
        ("DeleteFiles", "s", {"file_paths": ["two.txt", "sub"]}),
        ("UploadFileSet", "empty", {"file_globs": [], "reset": "False"}),
    )
    assert sorted(run.stored) == ["s: old.txt", "s: one.txt"]
    assert list(run.files) == ["s"]
    assert run.findings == []


def test_a_pattern_whose_folder_is_gone_is_a_loss_one_that_matches_nothing_a_gap(tmp_path: Path) -> None:
    write(tmp_path / "data" / "x.txt")
    run = replayed(
        tmp_path,
        ("UploadFileSet", "gone", {"file_globs": ["/gone/for/ever/*.txt"], "reset": "True"}),
        ("UploadFileSet", "none", {"file_globs": [str(tmp_path / "data" / "*.csv")], "reset": "True"}),
        ("UploadFileSet", "some", {"file_globs": ["/gone/x.py", str(tmp_path / "data" / "*")], "reset": "True"}),
    )
    assert codes(run.findings) == [
        ("loss", "missing-file", "gone"),
        ("gap", "no-file-matched", "none"),
        ("loss", "missing-file", "some"),
    ]
    assert run.stored == {"some: x.txt": b"x"}


def test_an_artifact_lists_its_files_as_neptune_does(tmp_path: Path) -> None:
    write(tmp_path / "data" / "sub" / "b.bin", "content")
    os.utime(tmp_path / "data" / "sub" / "b.bin", (1_700_000_000, 1_700_000_000))
    data = str(tmp_path / "data")
    run = replayed(
        tmp_path,
        ("TrackFilesToArtifact", "art", {"entries": [["/never", None]], "project_id": "p"}),
        ("ClearArtifact", "art", {}),
        ("TrackFilesToArtifact", "art", {"entries": [[f"file://{data}", None]], "project_id": "p"}),
        (
            "TrackFilesToArtifact",
            "art",
            {"entries": [[f"{data}/sub/b.bin", "to"], ["/gone/c", None]], "project_id": "p"},
        ),
        ("TrackFilesToArtifact", "art", {"entries": [["s3://bucket/key", None]], "project_id": "p"}),
    )
    digest = hashlib.sha1(b"content", usedforsecurity=False).hexdigest()
    metadata = [
        {"key": "file_path", "value": f"file://{data}/sub/b.bin"},
        {"key": "last_modified", "value": "2023-11-14 22:13:20"},
    ]
    found = {"fileHash": digest, "type": "Local", "size": 7, "metadata": metadata}
    unknown = {"fileHash": None, "size": None}
    assert json.loads(run.stored["art: files_list.json"]) == [
        {"filePath": "c", "type": "Local", **unknown, "metadata": [{"key": "file_path", "value": "file:///gone/c"}]},
        {
            "filePath": "s3://bucket/key",
            "type": "S3",
            **unknown,
            "metadata": [{"key": "location", "value": "s3://bucket/key"}],
        },
        {"filePath": "sub/b.bin", **found},
        {"filePath": "to/b.bin", **found},
    ]
    assert run.types["art"] == ["artifact"]
    assert codes(run.findings) == [("gap", "missing-artifact-file", "art"), ("gap", "artifact-not-local", "art")]


def test_an_artifact_of_which_only_the_hash_was_logged_is_kept_as_text(tmp_path: Path) -> None:
    run = replayed(tmp_path, ("AssignArtifact", "art", {"hash": "c0ffee"}))
    assert run.scalars["art"] == "c0ffee"
    assert codes(run.findings) == [("gap", "artifact-list-unknown", "art")]


def test_content_that_is_no_base64_is_a_loss(tmp_path: Path) -> None:
    run = replayed(
        tmp_path,
        ("UploadFileContent", "f", {"ext": "txt", "file_content": "***"}),
        ("LogImages", "i", {"values": [{"value": "***", "step": 0, "ts": 1.0}]}),
    )
    assert codes(run.findings) == [("loss", "bad-record", "f"), ("loss", "bad-record", "i")]


def test_a_relative_path_is_never_taken_from_the_folder_that_shardmig_is_executed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "here" / "data" / "x.txt")
    monkeypatch.chdir(tmp_path / "here")
    operations = (
        ("UploadFile", "f", {"ext": "txt", "file_path": "data/x.txt"}),
        ("UploadFileSet", "s", {"file_globs": ["data/*"], "reset": "True"}),
        ("TrackFilesToArtifact", "a", {"entries": [["data", None]], "project_id": "p"}),
    )
    run = replayed(tmp_path / "one", *operations)
    assert sorted(codes(run.findings)) == [
        ("gap", "missing-artifact-file", "a"),
        ("loss", "missing-file", "f"),
        ("loss", "missing-file", "s"),
    ]
    found = replayed(tmp_path / "two", *operations, path_map=f"data={tmp_path / 'here' / 'data'}")
    assert codes(found.findings) == []
    assert found.stored["f: x.txt"] == b"x"
    assert json.loads(found.stored["a: files_list.json"])[0]["filePath"] == "x.txt"
