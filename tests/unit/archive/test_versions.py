"""A run that is exported anew: until the new version is published, the old one is whole; afterwards nothing is left of it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from shardmig.archive.files import ArchiveFiles
from shardmig.archive.layout import project_folder, publish_parts, sanitize, staged
from shardmig.archive.reader import ArchiveReader
from shardmig.archive.unnamed import drop_unnamed, named_files
from shardmig.errors import BadInput
from shardmig.records import End, FileRef, Files, Finding, FloatPoints, RunRef
from tests.unit.archive.runs import RUN, end_of, floats, paths_in, points_of_kind, publish, read, write_exporter_part


def version(number: int, scope: str = "runs") -> RunRef:
    """The run as it is in its source at one time."""
    return msgspec.structs.replace(RUN, fingerprint=f"v{number}", scope=scope)


def put(folder: Path, run: RunRef) -> list[FileRef]:
    """A file and a tree, of a content that tells the version."""
    store, content = ArchiveFiles(paths_in(folder), run.project), run.fingerprint.encode()
    return [
        store.put(run, "f/one", "file", io.BytesIO(content), name="one.tar.gz"),
        store.put_tree(run, "f/set", "file_set", [("b/member.txt", io.BytesIO(content))]),
    ]


def contents(folder: Path, run: RunRef) -> list[bytes]:
    """Of every file that the published run names."""
    store = ArchiveFiles(paths_in(folder), run.project)
    refs = [ref for chunk in read(folder, run) if isinstance(chunk, Files) for ref in chunk.files]
    return [path.read_bytes() for ref in refs for _, path in store.members(ref)]


def stored(folder: Path) -> Sequence[str]:
    """All that lies below the files of the archive."""
    return sorted(path.name for path in (folder / "files").rglob("*") if path.is_file())


@pytest.mark.parametrize("scope", ["runs", "models"])
def test_the_published_version_stays_as_it_is_until_the_new_one_is_published(tmp_path: Path, scope: str) -> None:
    first, second = version(1, scope), version(2, scope)
    publish(tmp_path, [Files(put(tmp_path, first))], first)
    refs = put(tmp_path, second)
    assert contents(tmp_path, first) == [b"v1", b"v1"]
    publish(tmp_path, [Files(refs)], second)
    assert contents(tmp_path, second) == [b"v2", b"v2"]
    assert len(stored(tmp_path)) == 2
    published = ArchiveReader(paths_in(tmp_path)).published(second)
    assert named_files(published) == {ref.stored for ref in refs}


def test_files_of_an_earlier_version_stay_while_the_new_one_lacks_something(tmp_path: Path) -> None:
    publish(tmp_path, [Files(put(tmp_path, version(1)))], version(1))
    lost = End([Finding("loss", "file-not-there", "f/one")])
    publish(tmp_path, [Files(put(tmp_path, version(2))[1:])], version(2), end=lost)
    assert len(stored(tmp_path)) == 4
    publish(tmp_path, [Files(put(tmp_path, version(2)))], version(2))
    assert contents(tmp_path, version(2)) == [b"v2", b"v2"]
    assert len(stored(tmp_path)) == 2


def test_what_others_put_beside_the_files_of_a_run_stays(tmp_path: Path) -> None:
    """Files as neptune-exporter names them, of another run, and what a killed attempt staged."""
    ours = put(tmp_path, version(1))
    other = msgspec.structs.replace(RUN, id="RUN-2")
    put(tmp_path, other)
    folder = project_folder(paths_in(tmp_path).files, RUN.project) / sanitize(RUN.id)
    (folder / "f" / "one").write_bytes(b"theirs")
    staged(folder / "f" / "two~0123456789abcdef.bin").write_bytes(b"torn")
    drop_unnamed(paths_in(tmp_path), RUN, {ours[0].stored})
    assert [name.partition("~")[0] for name in stored(tmp_path)] == ["member.txt", "one", "one", "one"]


def test_a_run_whose_parts_are_being_replaced_is_told_from_a_whole_one(tmp_path: Path) -> None:
    """Cut off before each of the renames; then executed again."""
    old = [floats(f"m{index}", range(200_000), [float(step) / 7 for step in range(200_000)]) for index in range(3)]
    new = [floats(f"m{index}", range(200_000), [float(step) / 9 for step in range(200_000)]) for index in range(3)]
    publish(tmp_path, new, part_bytes=1)
    folder, prefix = project_folder(tmp_path / "data", RUN.project), sanitize(RUN.id)
    parts = sorted(folder.iterdir())
    contents_of = {part: part.read_bytes() for part in parts}
    for arrives in range(1, len(parts)):
        publish(tmp_path, old, part_bytes=1)
        for part in parts[1:] if arrives > 1 else []:
            staged(part).write_bytes(contents_of[part])
        staged(parts[arrives]).unlink(missing_ok=True)
        with pytest.raises(FileNotFoundError):
            publish_parts(folder, prefix, len(parts))
        reader = ArchiveReader(paths_in(tmp_path))
        assert [run.id for run in reader.runs(RUN.project)] == [RUN.id]
        with pytest.raises(BadInput, match="is missing"):
            reader.receipt(RUN)
        publish(tmp_path, new, part_bytes=1)
        assert len(list(points_of_kind(read(tmp_path), FloatPoints))) > 2


def test_a_run_without_receipt_is_never_half_replaced_in_silence(tmp_path: Path) -> None:
    """neptune-exporter's part_0 could not tell that the other parts are no more those it was written with."""
    rows = [{"attribute_path": "a", "attribute_type": "int", "int_value": 1}]
    first = write_exporter_part(tmp_path, 0, rows)
    write_exporter_part(tmp_path, 1, rows)
    blocked = first.with_name(first.name.replace("part_0", "part_1"))
    blocked.unlink()
    blocked.mkdir()
    many = [floats(f"m{index}", range(200_000), [float(step) for step in range(200_000)]) for index in range(3)]
    with pytest.raises(Exception, match="cannot write"):
        publish(tmp_path, many, part_bytes=1)
    assert not first.exists()
    blocked.rmdir()
    publish(tmp_path, many, part_bytes=1)
    assert end_of(read(tmp_path)).findings == []
    assert pq.read_metadata(first).metadata
