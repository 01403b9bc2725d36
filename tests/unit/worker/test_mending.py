"""A run that lacks single fields is mended: only these are fetched, and the result is as if all had been read."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from shardmig.adapters.base import FileSink, Want
from shardmig.archive.files import ArchiveFiles
from shardmig.archive.layout import project_folder
from shardmig.archive.reader import ArchiveReader
from shardmig.archive.spool import RunSpool
from shardmig.archive.writer import compact
from shardmig.records import (
    Chunk,
    End,
    Field,
    Fields,
    FieldType,
    Files,
    Finding,
    FloatPoints,
    Header,
    Piece,
    ProjectId,
    Receipt,
    RunRef,
    Selection,
    StringPoints,
)
from shardmig.selection import Matcher
from shardmig.worker.mending import Mending, lost_fields
from shardmig.worker.tally import ProgressFile
from tests.unit.archive.runs import RUN, floats, paths_in, texts

NOTE = Finding("note", "changed-since-listed")
CHUNKS: list[Chunk] = [
    Fields([Field("lr", "float", 0.1), Field("both", "int", 1), Field("git/commit", "string", "abc")]),
    floats("both", [1, 2], [1.0, 2.0]),
    floats("loss", range(1000), range(1000)),
    floats("loss/val", range(10), range(10)),
    texts("log", [1, 2], ["a", "b"]),
]


class Source:
    """Gives CHUNKS and a file, but for the fields that it loses; notes what it was asked for."""

    name = "scripted"

    def __init__(self, *losses: Finding, gone: Iterable[str] = ()) -> None:
        self.losses = losses
        self.gone = {*gone, *(one.field for one in losses)}
        self.given: list[str] = []

    def list_projects(self, selection: Selection) -> Iterator[ProjectId]:
        raise NotImplementedError

    def list_runs(self, project: ProjectId, selection: Selection) -> Iterator[RunRef]:
        raise NotImplementedError

    def read_runs(self, runs: Iterable[RunRef], want: Want, files: FileSink) -> Iterator[Piece]:
        matcher = Matcher(want.selection)

        def wants(path: str, kind: FieldType) -> bool:
            wanted = path not in self.gone and matcher.wants_field(path, kind)
            self.given += [path] * wanted
            return wanted

        for run in runs:
            yield Piece(run, Header(run, self.name, "1"))
            for chunk in CHUNKS:
                if isinstance(chunk, Fields):
                    yield Piece(run, Fields([one for one in chunk.fields if wants(one.path, one.type)]))
                elif isinstance(chunk, FloatPoints | StringPoints):
                    kind: FieldType = "float_series" if isinstance(chunk, FloatPoints) else "string_series"
                    if wants(chunk.paths[0], kind):
                        yield Piece(run, chunk)
            if wants("f", "file"):
                yield Piece(run, Files([files.put(run, "f", "file", io.BytesIO(b"content"), name="f.txt")]))
            told = [one for one in self.losses if matcher.wants_field(one.field, "string") or not one.field]
            yield Piece(run, End([NOTE, *told]))

    def close(self) -> None:
        """Nothing is open."""


def exported(folder: Path, source: Source) -> Receipt:
    """The run as this source gives it."""
    folder.mkdir(exist_ok=True)
    spool = RunSpool(folder / "run.spool")
    spool.restart()
    for piece in source.read_runs([RUN], Want(), ArchiveFiles(paths_in(folder), RUN.project)):
        spool.append(piece)
    return published(folder, spool)


def published(folder: Path, spool: RunSpool) -> Receipt:
    spool.close()
    return compact(spool.path, paths_in(folder), asked=Selection(), source="scripted", source_version="1", started_ms=0)


def mended(folder: Path, source: Source, receipt: Receipt) -> Receipt | None:
    """The receipt of the mended run; None if it has to be read whole."""
    spool = RunSpool(folder / "run.mend")
    mending = Mending(source, ArchiveReader(paths_in(folder)), Want(), ProgressFile(folder / "progress"))
    files = ArchiveFiles(paths_in(folder), RUN.project)
    try:
        return published(folder, spool) if mending.spool(RUN, receipt, files, spool) else None
    finally:
        spool.close()


def lost(*paths: str) -> list[Finding]:
    return [Finding("loss", "field-refused", path) for path in paths]


@pytest.mark.parametrize(
    ("paths", "fetched"),
    [
        (["loss"], ["loss", "loss/val"]),
        (["log", "f"], ["f", "log"]),
        (["both"], ["both", "both"]),
        (["lr"], ["lr"]),
    ],
)
def test_only_the_lost_fields_are_fetched_and_the_run_is_as_if_read_whole(
    tmp_path: Path, paths: list[str], fetched: list[str]
) -> None:
    whole = exported(tmp_path / "whole", Source())
    receipt = exported(tmp_path, Source(*lost(*paths)))
    assert lost_fields(receipt) == sorted(paths)
    source = Source()
    again = mended(tmp_path, source, receipt)
    assert sorted(source.given) == fetched
    assert again is not None
    assert (again.digest, again.fields, again.findings) == (whole.digest, whole.fields, [NOTE])


def test_a_field_that_is_refused_again_stays_lost_and_the_others_are_mended(tmp_path: Path) -> None:
    receipt = exported(tmp_path, Source(*lost("loss", "log")))
    again = mended(tmp_path, Source(*lost("log")), receipt)
    assert again is not None
    assert lost_fields(again) == ["log"]
    assert again.digest == exported(tmp_path / "other", Source(*lost("log"))).digest


def test_a_reference_of_several_facts_is_mended_by_the_fields_below_its_path(tmp_path: Path) -> None:
    refused = Finding("loss", "bad-value", "git")
    receipt = exported(tmp_path, Source(refused, gone=["git/commit"]))
    again = mended(tmp_path, Source(), receipt)
    assert again is not None
    assert again.digest == exported(tmp_path / "whole", Source()).digest


def test_a_field_of_which_the_source_says_nothing_any_more_means_reading_all(tmp_path: Path) -> None:
    receipt = exported(tmp_path, Source(*lost("log")))
    assert mended(tmp_path, Source(gone=["log"]), receipt) is None


def test_another_source_means_reading_all(tmp_path: Path) -> None:
    receipt = exported(tmp_path, Source(*lost("log")))
    other = Source()
    other.name = "another"
    assert mended(tmp_path, other, receipt) is None


@pytest.mark.parametrize("what", ["part", "file"])
def test_a_damaged_archive_means_reading_all(tmp_path: Path, what: str) -> None:
    receipt = exported(tmp_path, Source(*lost("log")))
    if what == "file":
        next(path for path in (tmp_path / "files").rglob("*") if path.is_file()).unlink()
    else:
        part = next(project_folder(tmp_path / "data", RUN.project).glob("*.parquet"))
        table = pq.read_table(part)
        with pq.ParquetFile(part) as file:
            metadata = file.metadata.metadata
        with pq.ParquetWriter(part, table.schema) as writer:
            writer.write_table(table.slice(1))
            writer.add_key_value_metadata({key: value for key, value in metadata.items() if key != b"ARROW:schema"})
    assert mended(tmp_path, Source(), receipt) is None


def test_a_loss_without_a_name_is_never_mended(tmp_path: Path) -> None:
    receipt = exported(tmp_path, Source(*lost("log"), Finding("loss", "bad-record")))
    assert lost_fields(receipt) == []
