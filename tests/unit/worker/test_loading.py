"""What a load says of a file that has rotted in the archive, and of a run that it replaces."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from shardmig.archive.files import ArchiveFiles
from shardmig.cli.app import execute
from shardmig.records import Field, Fields, FileRef, Files
from tests.unit.archive.runs import RUN, floats, paths_in, publish

TARGET = ["-d", "data", "-f", "files", "--target", "comet", "--target-option", "offline-dir=comet"]
QUIETLY = ["--engine", "inline", "--no-progress"]


def stored(folder: Path) -> list[FileRef]:
    """A file and a tree, as the archive holds them."""
    store = ArchiveFiles(paths_in(folder), RUN.project)
    members = [("./a//b.txt", io.BytesIO(b"one")), ("c.txt", io.BytesIO(b"two"))]
    return [
        store.put(RUN, "f/one", "file", io.BytesIO(b"content"), name="one.txt"),
        store.put_tree(RUN, "f/set", "file_set", [(name, content) for name, content in members]),
    ]


@pytest.mark.parametrize(("field", "member"), [("f/one", ""), ("f/set", "c.txt")])
def test_a_file_that_rotted_in_the_archive_is_not_loaded_and_comes_when_it_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], field: str, member: str
) -> None:
    monkeypatch.chdir(tmp_path)
    refs = stored(tmp_path)
    publish(tmp_path, [Fields([Field("lr", "float", 0.1)]), Files(refs)])
    [place] = (ArchiveFiles(paths_in(tmp_path), RUN.project).path(ref) for ref in refs if ref.path == field)
    place = place / member
    content = place.read_bytes()
    place.write_bytes(content[:-1] + b"?")
    for _ in range(2):
        assert execute(["load", *TARGET, *QUIETLY]) == 3
        told = " ".join(capsys.readouterr().err.split())
        assert f"has other bytes than its row says (field {field})" in told
    place.write_bytes(content)
    assert execute(["load", *TARGET, *QUIETLY]) == 0
    assert execute(["verify", *TARGET, *QUIETLY]) == 0


def test_a_run_that_is_replaced_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    replace = ["load", *TARGET, *QUIETLY, "--update", "--on-existing", "replace"]
    publish(tmp_path, [floats("m", [1], [1.0])])
    assert execute(replace) == 0
    assert "replaced" not in capsys.readouterr().err
    publish(tmp_path, [floats("m", [1], [2.0])])
    assert execute(["load", *TARGET, *QUIETLY, "--on-existing", "fail"]) == 3
    capsys.readouterr()
    assert execute(replace) == 0
    assert "had other content (--on-existing replace)" in " ".join(capsys.readouterr().err.split())
    assert execute(["verify", *TARGET, *QUIETLY]) == 0


def test_a_name_that_is_no_text_is_told_of_with_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    refs = stored(tmp_path)
    publish(tmp_path, [Files(refs)])
    tree = ArchiveFiles(paths_in(tmp_path), RUN.project).path(refs[1])
    os.symlink(b"nowhere", os.fsencode(tree) + b"/\xff")
    assert execute(["load", *TARGET, *QUIETLY]) == 3
    told = " ".join(capsys.readouterr().err.split())
    assert "missing-file: there is no file" in told
    assert r"/\udcff (field f/set)" in told
