"""Archives in a bucket: what is published there is what would lie on disk, and is read as from disk."""

from __future__ import annotations

import io
import itertools
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from shardmig import open_archive
from shardmig.adapters.archive import open_source
from shardmig.adapters.base import ReadSide, Want
from shardmig.adapters.conformance import SourceSuite, plain_run, rich_run, wide_run
from shardmig.archive.bucket_files import files_of
from shardmig.archive.reader import ArchiveReader
from shardmig.archive.remembered import ListingMemory
from shardmig.archive.spool import RunSpool
from shardmig.archive.writer import compact
from shardmig.cli.app import execute
from shardmig.errors import BadInput, HostilePath, NotFound, TargetConflict, Unavailable
from shardmig.records import (
    ArchivePaths,
    Chunk,
    End,
    FileRef,
    Files,
    Header,
    Piece,
    ProjectId,
    Receipt,
    RunId,
    RunRef,
    Selection,
)
from tests.servers.s3.server import Bucket
from tests.unit.archive.runs import RUN, floats

SAMPLES = Path(__file__).parents[2] / "samples"
RICH = ProjectId("ws/rich")
Publish = Callable[..., Receipt]


def on_disk(folder: Path) -> ArchivePaths:
    """The same archive in a folder."""
    return ArchivePaths(str(folder / "exports" / "data"), str(folder / "exports" / "files"))


@pytest.fixture
def publish(tmp_path: Path) -> Publish:
    """Publish a run into an archive."""

    def publish_run(archive: ArchivePaths, chunks: list[Chunk], **options: int) -> Receipt:
        head = chunks[0]
        assert isinstance(head, Header)
        spool = RunSpool(tmp_path / "run.spool")
        spool.restart()
        for chunk in chunks:
            spool.append(Piece(head.run, chunk))
        spool.close()
        asked = {"asked": Selection(), "source": "test", "source_version": "1", "started_ms": 0}
        receipt = compact(spool.path, archive, **asked, **options)  # type: ignore[arg-type]
        return msgspec.structs.replace(receipt, ended_ms=0)

    return publish_run


def points(count: int) -> list[Chunk]:
    """A run that fills several small parts."""
    series = [floats(f"m/{name}", range(count), [n * 0.1 for n in range(count)]) for name in "abcdef"]
    return [Header(RUN), *series, End()]


def in_parts(publish: Publish, archive: ArchivePaths, count: int = 45_000) -> Receipt:
    """Publish it in several parts."""
    return publish(archive, points(count), part_bytes=1 << 10)


def chunks_of(archive: ArchivePaths) -> list[Chunk]:
    """Everything that an archive gives, but for when its files were written."""
    reader = ArchiveReader(archive)
    found = [
        piece.chunk
        for project in reader.projects()
        for run in reader.runs(project)
        for piece in reader.read(run, Want())
    ]
    return [
        Header(msgspec.structs.replace(chunk.run, fingerprint="")) if isinstance(chunk, Header) else chunk
        for chunk in found
    ]


class TestArchiveInABucket(SourceSuite):
    filled: ClassVar[list[Bucket]] = []

    @pytest.fixture(autouse=True)
    def _in_a_bucket(self, bucket: Bucket, publish: Publish) -> None:
        if not self.filled:  # the suite only reads
            self.filled.append(bucket)
            publish(bucket.archive, rich_run(files_of(bucket.archive, RICH)))
            for chunks in (plain_run(), plain_run(run_id="RUN-2"), plain_run("ws/other", "RUN-1"), wide_run(60)):
                publish(bucket.archive, chunks)

    def open_source(self, folder: Path) -> ReadSide:
        archive = self.filled[0].archive
        return open_source({"data": archive.data, "files": archive.files})


def test_a_bucket_holds_what_a_folder_would(bucket: Bucket, publish: Publish, tmp_path: Path) -> None:
    """Under the same names: neptune-exporter reads what is downloaded."""
    receipts = []
    for archive in (on_disk(tmp_path), bucket.archive):
        rich = publish(archive, rich_run(files_of(archive, RICH)))
        receipts.append([rich, in_parts(publish, archive)])
    assert receipts[0] == receipts[1]
    assert len(receipts[0][1].parts) > 2
    files = {path.relative_to(tmp_path).as_posix(): path for path in (tmp_path / "exports").rglob("*")}
    held = bucket.content()
    assert sorted(held) == sorted(name for name, path in files.items() if path.is_file())
    different = [name for name in held if held[name] != files[name].read_bytes()]
    assert all(name.endswith("part_0.parquet") for name in different)  # whose receipts tell when they were written
    assert list(tmp_path.glob("run.parts")) == []


@pytest.mark.parametrize("sample", ["exporter-2x", "exporter-3x"])
def test_an_archive_of_neptune_exporter_is_read_alike(bucket: Bucket, sample: str) -> None:
    bucket.upload_tree(SAMPLES / sample, "exports")
    local = ArchivePaths(str(SAMPLES / sample / "data"), str(SAMPLES / sample / "files"))
    assert repr(chunks_of(bucket.archive)) == repr(chunks_of(local))


def test_the_python_api_takes_urls(bucket: Bucket, publish: Publish, tmp_path: Path) -> None:
    publish(bucket.archive, rich_run(files_of(bucket.archive, RICH)))
    archive = open_archive(f"{bucket.url}/exports")
    assert list(archive) == [RICH]
    (run,) = archive[RICH].runs()
    for field in run.fields():
        if field.type in ("file", "artifact", "file_set"):
            assert field.fetch_path().exists()
        elif field.type == "file_series":
            assert [copy.is_file() for copy in field.download(tmp_path / "copies")] == [True] * field.rows
        elif field.type == "float_series":
            assert field.fetch_values().num_rows == field.rows
    with pytest.raises(NotFound, match=f"{bucket.url}/nothing"):
        open_archive(f"{bucket.url}/nothing")


def test_a_list_of_runs_takes_one_request_a_run_and_none_for_those_that_are_remembered(
    bucket: Bucket, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        publish(bucket.archive, [Header(RunRef(project=RUN.project, id=RunId(f"RUN-{number}"))), End()])
    monkeypatch.setattr("time.time_ns", lambda: 4_000_000_000_000_000_000)  # the parts are old enough to be remembered
    for runs in (5, 0):
        bucket.proxy.forget()
        memory = ListingMemory(tmp_path / "memory")
        reader = ArchiveReader(bucket.archive, memory=memory)
        assert len([run for project in reader.projects() for run in reader.runs(project)]) == 5
        memory.save()
        assert bucket.proxy.count("GET", "part_0") == runs
        assert bucket.proxy.count("HEAD") == 0


@pytest.mark.parametrize("count", [10, 30_000])
def test_a_shorter_run_leaves_nothing_of_a_longer_one(bucket: Bucket, publish: Publish, count: int) -> None:
    longer = in_parts(publish, bucket.archive)
    shorter = in_parts(publish, bucket.archive, count)
    assert len(shorter.parts) < len(longer.parts)
    assert sorted(Path(name).name for name in bucket.content("exports/data/")) == [p.name for p in shorter.parts]
    assert ArchiveReader(bucket.archive).receipt(RUN) is not None


def cut_at_upload(bucket: Bucket, failing: int) -> None:
    """From this upload on the store is away."""
    bucket.proxy.forget()
    seen = 0

    def fail_on(asked: object) -> None:
        nonlocal seen
        seen += "PUT" in str(asked)
        if seen >= failing:
            raise ConnectionResetError

    bucket.proxy.before = fail_on


@pytest.mark.parametrize("failing", [1, 2])
def test_a_publishing_that_is_cut_off_is_never_taken_for_a_run(bucket: Bucket, publish: Publish, failing: int) -> None:
    """Cut at each of its uploads, over an earlier export, which is named then; then executed again."""
    wanted = in_parts(publish, bucket.archive)
    cut_at_upload(bucket, failing)
    with pytest.raises(Exception, match="cannot be reached"):
        in_parts(publish, bucket.archive)
    bucket.proxy.forget()
    reader = ArchiveReader(bucket.archive)
    assert [run.id for run in reader.runs(RUN.project)] == [RUN.id]
    with pytest.raises(BadInput, match="is missing"):
        reader.receipt(RUN)
    assert in_parts(publish, bucket.archive) == wanted
    assert ArchiveReader(bucket.archive).receipt(RUN) is not None


def test_a_first_publishing_that_is_cut_off_is_no_run(bucket: Bucket, publish: Publish) -> None:
    cut_at_upload(bucket, 3)
    with pytest.raises(Exception, match="cannot be reached"):
        in_parts(publish, bucket.archive)
    bucket.proxy.forget()
    assert bucket.content() != {}
    assert list(ArchiveReader(bucket.archive).projects()) == []
    assert ArchiveReader(bucket.archive).receipt(RUN) is None


def test_a_run_of_one_part_is_whole_until_it_is_replaced_and_then_nothing_of_it_is_left(
    bucket: Bucket, publish: Publish
) -> None:
    """Its files, too: those of the new version have names of their own."""
    store = files_of(bucket.archive, RUN.project)

    def brought(fingerprint: str) -> Receipt:
        run = msgspec.structs.replace(RUN, fingerprint=fingerprint)
        content = io.BytesIO(fingerprint.encode())
        refs = [store.put(run, "f/one", "file", content, name="one.txt")]
        refs.append(store.put_tree(run, "f/set", "file_set", [("b/c.txt", io.BytesIO(fingerprint.encode()))]))
        return publish(bucket.archive, [Header(run), Files(refs), End()])

    first = brought("v1")
    cut_at_upload(bucket, 3)
    with pytest.raises(Exception, match="cannot be reached"):
        brought("v2")
    bucket.proxy.forget()
    assert ArchiveReader(bucket.archive).receipt(RUN) is not None
    pieces = list(ArchiveReader(bucket.archive).read(RUN, Want()))
    refs = [ref for piece in pieces if isinstance(piece.chunk, Files) for ref in piece.chunk.files]
    read = [path.read_bytes() for ref in refs for _, path in store.members(ref)]
    assert (first.run.fingerprint, read) == ("v1", [b"v1", b"v1"])
    brought("v2")
    assert list(bucket.content("exports/files").values()) == [b"v2", b"v2"]


def test_a_lost_answer_to_the_last_upload_is_no_conflict(bucket: Bucket, publish: Publish) -> None:
    bucket.proxy.fail("committed-then-cut", lambda asked: asked.is_a("PUT", "part_0"))
    first = bucket.proxy
    with pytest.raises(Exception, match="cannot be reached"):
        publish(bucket.archive, points(10))
    assert first.count("PUT", "part_0") == 1
    assert ArchiveReader(bucket.archive).receipt(RUN) is not None  # whole: the next attempt finds it


def test_another_process_that_publishes_at_the_same_time_is_noticed(bucket: Bucket, publish: Publish) -> None:
    publish(bucket.archive, points(10))
    ((name, other),) = bucket.content().items()
    publish(bucket.archive, points(11))

    def another(asked: object) -> None:
        if "PUT" in str(asked):
            bucket.put(name, other)

    bucket.proxy.before = another
    with pytest.raises(TargetConflict, match="another process published"):
        publish(bucket.archive, points(11))
    assert bucket.content() == {name: other}


def test_what_does_not_agree_with_the_receipt_is_damage(bucket: Bucket, publish: Publish) -> None:
    in_parts(publish, bucket.archive)
    name = next(name for name in bucket.content() if "part_1" in name)
    content = bucket.content()[name]
    for spoilt, why in ((content[:-1] + b"X", "cannot be read"), (content[:100], "cannot be read"), (None, "missing")):
        bucket.client.delete_object(Bucket=bucket.name, Key=name)
        if spoilt is not None:
            bucket.put(name, spoilt)
        with pytest.raises(BadInput, match=why):
            list(ArchiveReader(bucket.archive).read(RUN, Want()))
    bucket.put(name, content[: len(content) // 2] + b"shardmig" + content[len(content) // 2 + 8 :])
    with pytest.raises(BadInput, match="other content than its receipt says"):
        list(ArchiveReader(bucket.archive).read(RUN, Want()))


def test_a_store_that_goes_away_while_a_run_is_read_is_no_damage(
    bucket: Bucket, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    in_parts(publish, bucket.archive)
    for answered in (0, 1, 2, 3, 5, 8):
        bucket.proxy.forget()
        left = itertools.count(-answered)
        bucket.proxy.fail("503", lambda asked, left=left: asked.is_a("GET") and next(left) >= 0, times=1000)  # type: ignore[misc]
        with pytest.raises(Unavailable, match="cannot be reached"):
            list(ArchiveReader(bucket.archive).read(RUN, Want()))
        with pytest.raises(Unavailable, match="cannot be reached"):
            list(ArchiveReader(bucket.archive).projects())


def test_files_missing_changed_or_hostile_are_losses_of_their_fields(bucket: Bucket, publish: Publish) -> None:
    store = files_of(bucket.archive, RUN.project)
    kept = store.put(RUN, "f/kept", "file", io.BytesIO(b"kept"), name="k.txt")
    cut = store.put(RUN, "f/cut", "file", io.BytesIO(b"whole"), name="c.txt")
    gone = store.put(RUN, "f/gone", "file", io.BytesIO(b"gone"), name="g.txt")
    empty = store.put_tree(RUN, "f/empty", "file_set", [])
    hostile = [
        FileRef(path=f"f/hostile{number}", type="file", stored=stored)
        for number, stored in enumerate(("../../up", "/etc/passwd", "a/../../b", "C:\\x", "x\0y"))
    ]
    publish(bucket.archive, [Header(RUN), Files([kept, cut, gone, empty, *hostile]), End()])
    for name in list(bucket.content()):
        if "gone" in name:
            bucket.client.delete_object(Bucket=bucket.name, Key=name)
        if "cut" in name:
            bucket.put(name, b"who")
    *chunks, end = [piece.chunk for piece in ArchiveReader(bucket.archive).read(RUN, Want())]
    assert isinstance(end, End)
    assert {(finding.field, finding.code) for finding in end.findings} == {
        ("f/gone", "missing-file"),
        ("f/cut", "damaged-file"),
        *((ref.path, "hostile-path") for ref in hostile),
    }
    assert [ref for chunk in chunks if isinstance(chunk, Files) for ref in chunk.files] == [empty, kept]
    assert list(store.members(empty)) == []


def test_what_rotted_is_a_loss_where_it_is_to_be_loaded_and_the_rest_is_fetched_once(
    bucket: Bucket, publish: Publish
) -> None:
    store = files_of(bucket.archive, RUN.project)
    kept = store.put(RUN, "f/kept", "file", io.BytesIO(b"kept"), name="k.txt")
    rotten = store.put(RUN, "f/rotten", "file", io.BytesIO(b"whole"), name="c.txt")
    tree = store.put_tree(RUN, "f/tree", "file_set", [("a/b", io.BytesIO(b"1"))])
    publish(bucket.archive, [Header(RUN), Files([kept, rotten, tree]), End()])
    [name] = (name for name in bucket.content() if "rotten" in name)
    bucket.put(name, b"wh?le")
    loading = files_of(bucket.archive, RUN.project)
    *chunks, end = [piece.chunk for piece in ArchiveReader(bucket.archive).read(RUN, Want(), proven=loading)]
    assert isinstance(end, End)
    assert [(finding.field, finding.code) for finding in end.findings] == [("f/rotten", "damaged-file")]
    assert [ref for chunk in chunks if isinstance(chunk, Files) for ref in chunk.files] == [kept, tree]
    [name] = (name for name in bucket.content() if "kept" in name)
    bucket.client.delete_object(Bucket=bucket.name, Key=name)
    assert loading.path(kept).read_bytes() == b"kept"


def test_a_tree_keeps_its_members_and_no_others(bucket: Bucket) -> None:
    store = files_of(bucket.archive, RUN.project)
    store.put_tree(RUN, "t", "file_set", [("old", io.BytesIO(b"0")), ("a/b", io.BytesIO(b"1"))])
    names = [
        "./a/b",
        "a b/ż%20~.txt",
        "a*b?c#d",
        " lead",
        "a\\b",
        "😀",
        "%2F",
        "x" * 200,
        ".hidden",
        "a..b",
        "<&amp;'\">",
    ]
    tree = store.put_tree(RUN, "t", "file_set", [(name, io.BytesIO(name.encode())) for name in names])
    again = msgspec.structs.replace(tree, stored=tree.stored.replace("/", "//./"))  # as a folder on disk takes it
    assert sum(1 for _ in files_of(bucket.archive, RUN.project).members(again)) == len(names)
    found = {name: path.read_bytes() for name, path in files_of(bucket.archive, RUN.project).members(tree)}
    assert found == {name.removeprefix("./"): name.encode() for name in names}
    assert store.path(tree).is_dir()
    for name in ("../x", "/x", "a/../../x", "line\nbreak"):
        with pytest.raises(HostilePath) as raised:
            store.put_tree(RUN, "t", "file_set", [(name, io.BytesIO(b""))])
        assert (raised.value.run, raised.value.field) == (RUN.label, "t")
    with pytest.raises(BadInput, match="share the name"):
        store.put_tree(RUN, "t", "file_set", [("x", io.BytesIO(b"")), ("./x", io.BytesIO(b""))])


def test_what_was_fetched_in_part_is_not_taken_for_whole(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store = files_of(bucket.archive, RUN.project)
    large = bytes(9 << 20)
    refs = [
        store.put(RUN, "f", "file", io.BytesIO(large), name="x.bin"),
        store.put_tree(RUN, "t", "file_set", [("1", io.BytesIO(b"1")), ("2", io.BytesIO(b"2"))]),
    ]
    for ref in refs:
        left = itertools.count(-1)
        bucket.proxy.fail("503", lambda asked, left=left: asked.is_a("GET", "~") and next(left) >= 0)  # type: ignore[misc]
        with pytest.raises(Unavailable):
            store.path(ref)
    assert store.path(refs[0]).read_bytes() == large
    assert [name for name, _ in store.members(refs[1])] == ["1", "2"]


def test_what_is_fetched_goes_with_the_store(bucket: Bucket, tmp_path: Path) -> None:
    store = files_of(bucket.archive, RUN.project, tmp_path / "scratch")
    path = store.path(store.put(RUN, "f", "file", io.BytesIO(b"1"), name="x.txt"))
    assert path.is_relative_to(tmp_path / "scratch")
    del store
    assert list((tmp_path / "scratch").iterdir()) == []


def typed(line: str) -> int:
    """The exit code of a command."""
    return execute(shlex.split(line))


def test_a_migration_by_way_of_a_bucket_is_the_one_by_way_of_a_folder(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHARDMIG_HOME", str(tmp_path / "home"))
    sample = f"{SAMPLES}/exporter-3x/data {SAMPLES}/exporter-3x/files"
    quiet = "--engine inline --no-progress"
    assert typed(f"export --source archive {sample} {quiet}") == 0
    url = f"{bucket.url}/exports/data"
    assert typed(f"export --source archive {sample} -d {url} {quiet}") == 0
    local = ArchivePaths(str(tmp_path / "exports/data"), str(tmp_path / "exports/files"))
    for reader in (ArchiveReader(local), ArchiveReader(bucket.archive)):
        assert all(reader.receipt(run) is not None for run in reader.runs(ProjectId("ws/three")))
    assert repr(chunks_of(bucket.archive)) == repr(chunks_of(local))
    assert typed(f"export --source archive {url} -d back/data -f back/files {quiet}") == 0
    back = ArchivePaths(str(tmp_path / "back/data"), str(tmp_path / "back/files"))
    assert repr(chunks_of(back)) == repr(chunks_of(local))
    into = f"--target wandb --target-option offline-dir=runs {quiet}"
    assert (typed(f"load -d {url} {into}"), typed(f"verify -d {url} {into}")) == (0, 0)
    assert "verdicts: 3 equal" in capsys.readouterr().err
    for command in ("ls", "ls ws/three", "summary", "status", "show run-0", "audit"):
        assert typed(f"{command} -d {url}") == 0, command
        assert capsys.readouterr().out
    assert typed(f"status -d {url}") == 0
    assert f"{tmp_path}/home/s3/{bucket.name}/exports/data/.shardmig/verify-" in capsys.readouterr().out
    assert not any(".shardmig" in name for name in bucket.content())
    assert typed(f"ls -d {bucket.url}/nothing") == 2
    assert typed("ls -d s3://no-such-bucket/x") == 2


def test_a_migration_that_access_was_denied_to_is_retried(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHARDMIG_HOME", str(tmp_path / "home"))
    sample = f"{SAMPLES}/exporter-3x/data {SAMPLES}/exporter-3x/files"
    bucket.proxy.fail("403", lambda asked: asked.is_a("PUT", "run-1") and "part_0" in asked.path)
    url = bucket.archive.data
    assert typed(f"export --source archive {sample} -d {url} --engine inline --no-progress") == 7
    said = " ".join(capsys.readouterr().err.split())
    assert f"no access to {url}" in said
    assert "AWS_ACCESS_KEY_ID" in said
    assert typed(f"retry -d {url} --engine inline --no-progress") == 0
    assert len(list(ArchiveReader(bucket.archive).runs(ProjectId("ws/three")))) == 3
