from __future__ import annotations

import hashlib
import io
import os
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from shardmig.archive.files import ArchiveFiles, DigestSink, described
from shardmig.archive.reader import ArchiveReader
from shardmig.errors import BadInput, HostilePath, NotFound, Unavailable
from shardmig.records import Field, Fields, FieldType, FileRef, Files, FloatPoints, RunId, RunRef
from tests.unit.archive.runs import RUN, end_of, floats, paths_in, points_of_kind, publish, read, write_exporter_part


def _store(folder: Path) -> ArchiveFiles:
    return ArchiveFiles(paths_in(folder), RUN.project)


def _put(
    folder: Path,
    path: str,
    content: bytes,
    *,
    name: str = "x.txt",
    kind: FieldType = "file",
    run: RunRef = RUN,
    **at: Any,
) -> FileRef:
    return _store(folder).put(run, path, kind, io.BytesIO(content), name=name, **at)


def test_a_file_is_stored_with_size_and_hash_and_extension(tmp_path: Path) -> None:
    ref = _put(tmp_path, "f/one", b"content", name="One.TAR.gz")
    assert (ref.size_bytes, ref.sha256, ref.name) == (7, hashlib.sha256(b"content").hexdigest(), "One.TAR.gz")
    assert ref.stored.endswith(".gz")
    assert _store(tmp_path).path(ref).read_bytes() == b"content"
    assert list(_store(tmp_path).members(ref)) == [("One.TAR.gz", _store(tmp_path).path(ref))]


def test_a_tree_that_lacks_a_member_is_damaged(tmp_path: Path) -> None:
    store = _store(tmp_path)
    ref = store.put_tree(RUN, "set", "file_set", [(name, io.BytesIO(b"content")) for name in ("a", "b")])
    assert described(store, ref, with_hash=False) == ref
    (store.path(ref) / "b").unlink()
    with pytest.raises(BadInput, match="has 7 bytes, its row says 14"):
        described(store, ref, with_hash=False)


def test_putting_again_overwrites(tmp_path: Path) -> None:
    first, second = _put(tmp_path, "f", b"1"), _put(tmp_path, "f", b"22")
    assert first.stored == second.stored
    assert _store(tmp_path).path(second).read_bytes() == b"22"
    assert [path for path in (tmp_path / "files").rglob("*") if path.is_file()] == [_store(tmp_path).path(second)]


def test_no_two_files_share_a_name(tmp_path: Path) -> None:
    refs = [
        _put(tmp_path, "f/x.y", b"0"),
        _put(tmp_path, "f/x_y", b"1"),
        _put(tmp_path, "f/X_y", b"2"),
        _put(tmp_path, "f/x_y", b"3", kind="artifact"),
        _put(tmp_path, "f/x_y", b"4", name="x.png"),
        _put(tmp_path, "f/x_y/x.txt", b"5"),
        _put(tmp_path, "é", b"6"),
        _put(tmp_path, "e\u0301", b"7"),
        _put(tmp_path, "s", b"8", kind="file_series", step=Decimal("0.1")),
        _put(tmp_path, "s", b"9", kind="file_series", step=Decimal("0.10000001")),
        _put(tmp_path, "s", b"a", kind="file_series", step=Decimal("0.1"), time_ms=5),
        _put(tmp_path, "f/x_y", b"b", run=RunRef(project=RUN.project, id=RunId("run-1"))),
        _put(tmp_path, "f/x_y", b"c", run=RunRef(project=RUN.project, id=RUN.id, scope="models")),
    ]
    assert len({ref.stored.casefold() for ref in refs}) == len(refs)
    assert [_store(tmp_path).path(ref).read_bytes() for ref in refs] == [
        f"{index:x}".encode() for index in range(len(refs))
    ]


@pytest.mark.parametrize(
    "path",
    [
        "../../../../etc/x",
        "/etc/x",
        "a/../../b",
        "..",
        ".",
        "",
        "a\\..\\b",
        "C:\\x",
        "nul\0l",
        "x" * 10_000,
        "/".join("deep" * 2 for _ in range(2000)),
        "ż" * 4000,
        "\u202egnp.x",
        "q'\"\n",
        "~0123456789abcdef",
    ],
)
@pytest.mark.parametrize("name", ["x.txt", "../../x", "", "a/b\\c.png", "n\0l.x", "x." + "y" * 300])
def test_hostile_names_stay_inside(tmp_path: Path, path: str, name: str) -> None:
    ref = _put(tmp_path, path, b"1", name=name)
    assert _store(tmp_path).path(ref).read_bytes() == b"1"
    assert (tmp_path / "files") in _store(tmp_path).path(ref).parents
    assert {entry.name for entry in tmp_path.iterdir()} == {"files"}


def test_a_tree_keeps_its_member_names(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"2")
    members: list[tuple[str, BinaryIO | Path]] = [("b/deep.txt", io.BytesIO(b"1")), ("a b.bin", tmp_path / "source")]
    ref = _store(tmp_path).put_tree(RUN, "set", "file_set", members)
    assert ref.is_tree
    assert ref.size_bytes == 2
    lines = "".join(
        f"{name}\0{hashlib.sha256(content).hexdigest()}\n"
        for name, content in (("a b.bin", b"2"), ("b/deep.txt", b"1"))
    )
    assert ref.sha256 == hashlib.sha256(lines.encode()).hexdigest()
    found = list(_store(tmp_path).members(ref))
    assert [(name, path.read_bytes()) for name, path in found] == [("a b.bin", b"2"), ("b/deep.txt", b"1")]
    again = _store(tmp_path).put_tree(RUN, "set", "file_set", [("c", io.BytesIO(b"3"))])
    assert [name for name, _ in _store(tmp_path).members(again)] == ["c"]


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "C:x", "a\\..\\x", "n\0l", "", "."])
def test_a_member_that_would_leave_its_tree_is_hostile(tmp_path: Path, name: str) -> None:
    with pytest.raises(HostilePath):
        _store(tmp_path).put_tree(RUN, "set", "file_set", [(name, io.BytesIO(b"1"))])
    with pytest.raises(HostilePath):
        DigestSink().put_tree(RUN, "set", "file_set", [(name, io.BytesIO(b"1"))])


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="share"):
        _store(tmp_path).put_tree(RUN, "set", "file_set", [("a", io.BytesIO(b"1")), ("a", io.BytesIO(b"2"))])


def test_a_sink_that_only_digests_says_the_same(tmp_path: Path) -> None:
    stored = _put(tmp_path, "s", b"1", kind="file_series", step=Decimal(1), time_ms=5)
    digested = DigestSink().put(RUN, "s", "file_series", io.BytesIO(b"1"), name="x.txt", step=Decimal(1), time_ms=5)
    assert (digested.sha256, digested.size_bytes, digested.step) == (stored.sha256, 1, stored.step)
    members = [("a", b"1"), ("b", b"2")]
    tree = _store(tmp_path).put_tree(RUN, "t", "file_set", [(name, io.BytesIO(content)) for name, content in members])
    other = DigestSink().put_tree(
        RUN, "t", "file_set", [(name, io.BytesIO(content)) for name, content in reversed(members)]
    )
    assert (other.sha256, other.size_bytes, other.is_tree) == (tree.sha256, 2, True)


class _Broken(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError(5, "Input/output error")


def test_errors_of_the_source_are_not_errors_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        _store(tmp_path).put(RUN, "f", "file", tmp_path / "gone", name="x")
    with pytest.raises(Unavailable):
        _store(tmp_path).put(RUN, "f", "file", _Broken(), name="x")


HOSTILE = [
    "../x",
    "../../etc/hostname",
    "/etc/hostname",
    "a/../../../etc/hostname",
    "C:\\x",
    "..\\..\\x",
    "\\\\host\\x",
    "nul\0l",
    "",
    ".",
]


@pytest.mark.parametrize("stored", HOSTILE)
def test_a_reference_that_leads_out_is_hostile(tmp_path: Path, stored: str) -> None:
    _put(tmp_path, "f", b"1")
    with pytest.raises(HostilePath):
        _store(tmp_path).path(FileRef(path="f", type="file", stored=stored))


def test_links_that_lead_out_are_hostile_and_links_inside_are_not(tmp_path: Path) -> None:
    stored = _store(tmp_path).path(_put(tmp_path, "f", b"1"))
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "x").write_text("s")
    folder = stored.parent
    (folder / "out").symlink_to(tmp_path / "secret" / "x")
    (folder / "outside").symlink_to(tmp_path / "secret")
    (folder / "inside").symlink_to(stored)
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "pipe")
    base = "RUN-1-549fcb30a0f06072"
    for name in ("out", "outside/x", "loop", "pipe"):
        with pytest.raises(HostilePath):
            _store(tmp_path).path(FileRef(path="f", type="file", stored=f"{base}/{name}"))
    assert _store(tmp_path).path(FileRef(path="f", type="file", stored=f"{base}/inside")) == stored
    with pytest.raises(HostilePath):
        list(_store(tmp_path).members(FileRef(path="f", type="file_set", stored=base, is_tree=True)))


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    _put(tmp_path, "f", b"1")
    with pytest.raises(NotFound, match="there is no file"):
        _store(tmp_path).path(FileRef(path="f", type="file", stored="RUN-1/gone"))


def test_names_written_on_windows_are_understood(tmp_path: Path) -> None:
    place = tmp_path / "files" / "ws_proj-00871eb7ac1bdb01" / "RUN-1" / "f"
    place.mkdir(parents=True)
    (place / "one.txt").write_text("1")
    assert _store(tmp_path).path(FileRef(path="f", type="file", stored="RUN-1\\f\\one.txt")) == place / "one.txt"
    with pytest.raises(HostilePath):
        _store(tmp_path).path(FileRef(path="f", type="file", stored="RUN-1\\..\\..\\x"))


def test_files_that_are_hostile_missing_or_cut_are_losses_and_the_rest_goes_on(tmp_path: Path) -> None:
    cut = _put(tmp_path, "f/cut", b"whole")
    _store(tmp_path).path(cut).write_bytes(b"who")
    gone = _put(tmp_path, "f/gone", b"1")
    _store(tmp_path).path(gone).unlink()
    good = _put(tmp_path, "f/good", b"1")
    hostile = FileRef(path="f/hostile", type="file", stored="../../x", sha256="00", size_bytes=1)
    publish(tmp_path, [Files([cut, gone, good, hostile]), floats("m", [1], [1.0])])
    chunks = read(tmp_path)
    assert [ref for chunk in chunks if isinstance(chunk, Files) for ref in chunk.files] == [good]
    assert [(finding.kind, finding.code, finding.field) for finding in end_of(chunks).findings] == [
        ("loss", "damaged-file", "f/cut"),
        ("loss", "hostile-path", "f/hostile"),
        ("loss", "missing-file", "f/gone"),
    ]
    assert len(list(points_of_kind(chunks, FloatPoints))) == 1


def test_hostile_archives_of_neptune_exporter_lose_only_the_hostile(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("secret")
    rows = [
        {"attribute_path": f"f/{index}", "attribute_type": "file", "file_value": {"path": stored}}
        for index, stored in enumerate(HOSTILE)
    ]
    write_exporter_part(tmp_path, 0, rows)
    findings = end_of(read(tmp_path)).findings
    assert [finding.code for finding in findings] == ["hostile-path"] * len(HOSTILE) + ["no-receipt"]


def test_files_of_a_published_run_come_back_as_they_were(tmp_path: Path) -> None:
    refs = [
        _put(tmp_path, "a", b"1"),
        _put(tmp_path, "b", b"2", kind="file_series", step=Decimal("1e-18"), time_ms=5),
        _put(tmp_path, "b", b"3", kind="file_series", step=Decimal(1700000000000), time_ms=6),
        _store(tmp_path).put_tree(RUN, "c", "file_set", [("m", io.BytesIO(b"4"))]),
    ]
    publish(tmp_path, [Files(list(reversed(refs)))])
    (files,) = [chunk for chunk in read(tmp_path) if isinstance(chunk, Files)]
    assert files.files == refs


def test_the_last_of_two_files_in_one_field_wins_and_each_of_a_series_stays(tmp_path: Path) -> None:
    refs = [_put(tmp_path, "a", b"1", name="old.txt"), _put(tmp_path, "a", b"2", name="new.txt")]
    series = [_put(tmp_path, "s", bytes([n]), kind="file_series", step=Decimal(1), time_ms=n) for n in (1, 2)]
    publish(tmp_path, [Files(refs), Files(series), Files(series)])
    (files,) = [chunk for chunk in read(tmp_path) if isinstance(chunk, Files)]
    assert [ref.name for ref in files.files] == ["new.txt", "x.txt", "x.txt"]


def test_hashes_of_files_are_left_out_on_demand(tmp_path: Path) -> None:
    from shardmig.adapters.base import Want

    place = tmp_path / "files" / "ws_proj-00871eb7ac1bdb01"
    place.mkdir(parents=True)
    (place / "x").write_text("12")
    write_exporter_part(tmp_path, 0, [{"attribute_path": "f", "attribute_type": "file", "file_value": {"path": "x"}}])
    reader = ArchiveReader(paths_in(tmp_path))
    pieces = list(reader.read(RUN, Want(), hash_files=False))
    assert Files([FileRef(path="f", type="file", stored="x", name="x", size_bytes=2)]) in [
        piece.chunk for piece in pieces
    ]
    assert [finding.code for finding in end_of([piece.chunk for piece in pieces]).findings] == ["no-receipt"]


def test_two_files_of_one_step_time_and_name_are_told_of(tmp_path: Path) -> None:
    store = ArchiveFiles(paths_in(tmp_path), RUN.project)
    refs = [
        store.put(RUN, path, "file_series", io.BytesIO(content), name="a.png", step=Decimal(1), time_ms=5)
        for path, content in (("other", b"one"), ("same", b"one"), ("other", b"two"), ("same", b"one"))
    ]
    fields = [Fields([Field("lr", "float", value), Field("nan", "float", float("nan"))]) for value in (0.1, 0.2)]
    receipt = publish(tmp_path, [*fields, Files(refs)])
    told = [(one.kind, one.code, one.field, one.count) for one in receipt.findings]
    assert told == [("gap", "value-replaced", "lr", 1), ("loss", "two-values", "other", 1)]
    assert (receipt.counters.fields, receipt.counters.files) == (4, 2)
