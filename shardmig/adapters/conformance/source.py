"""What every read side must keep."""

# ruff: noqa: D102 (the names of tests are sentences)

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np

from shardmig import codec
from shardmig.adapters.base import ReadSide, Want
from shardmig.archive.files import DigestSink
from shardmig.records import (
    FIELD_CLASSES,
    MAX_STEP_SCALE,
    SCALAR_TYPES,
    Chunk,
    End,
    Field,
    Fields,
    FieldType,
    Files,
    FloatPoints,
    Header,
    HistogramPoints,
    Piece,
    Points,
    ProjectId,
    RunId,
    RunRef,
    Selection,
    StringPoints,
)
from shardmig.selection import Matcher

FieldKey = tuple[str, FieldType]

_CHUNK_POINTS: Final = 50
_CURSORS_TRIED: Final = 25
_PYTHON_TYPES: Final = {"int": int, "float": float, "string": str, "bool": bool, "datetime": int, "string_set": list}


class SourceSuite:
    """Subclass it in a test module as `Test…` and give it `open_source`.

    The source should hold several projects, runs and fields of every type that it can hold.
    """

    def open_source(self, folder: Path) -> ReadSide:
        """A read side over a source that lies in `folder` (made there at the first call). Later calls with the same
        folder open the same source again."""
        raise NotImplementedError

    def snapshot(self, folder: Path) -> object:
        """The state of the source, to show that reading does not change it: all names and contents in `folder`."""
        return {
            str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    def test_projects_and_runs_are_listed_once_in_a_stable_order(self, tmp_path: Path) -> None:
        listings = []
        for _ in range(2):
            with self._opened(tmp_path) as source:
                listings.append(_all_runs(source))
        assert listings[0] == listings[1]
        assert listings[0], "the source of this suite holds no runs"
        most_common = Counter(run.entity for run in listings[0]).most_common(1)
        assert most_common[0][1] == 1, f"{most_common[0][0]} is listed more than once"

    def test_a_run_belongs_to_the_project_that_lists_it(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as source:
            for project in source.list_projects(_EVERYTHING):
                assert {run.project for run in source.list_runs(project, _EVERYTHING)} <= {project}

    def test_the_same_runs_read_twice_give_the_same_chunks(self, tmp_path: Path) -> None:
        readings = []
        for _ in range(2):
            with self._opened(tmp_path) as source:
                readings.append([codec.encode(piece) for piece in _read(source, _all_runs(source))])
        assert readings[0] == readings[1]

    def test_each_run_starts_with_its_header_and_ends_with_its_end(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as source:
            runs = _all_runs(source)
            by_run = _by_run(_read(source, runs))
        assert set(by_run) == {(run.project, run.id) for run in runs}
        for key, pieces in by_run.items():
            kinds = [type(piece.chunk) for piece in pieces]
            assert kinds[0] is Header, f"{key} starts with {kinds[0].__name__}"
            assert kinds[-1] is End, f"{key} ends with {kinds[-1].__name__}"
            assert kinds.count(Header) == kinds.count(End) == 1
            assert all(piece.run == pieces[0].run for piece in pieces)

    def test_columns_agree_and_no_chunk_exceeds_its_bound(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as source:
            for piece in _read(source, _all_runs(source)):
                if isinstance(piece.chunk, Points):
                    _check_columns(piece.chunk)

    def test_scalars_are_typed_and_each_field_comes_once(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as source:
            for pieces in _by_run(_read(source, _all_runs(source))).values():
                scalars = [field for piece in pieces if isinstance(piece.chunk, Fields) for field in piece.chunk.fields]
                for field in scalars:
                    _check_scalar(field)
                keys = Counter((field.path, field.type) for field in scalars)
                assert all(count == 1 for count in keys.values()), keys.most_common(1)

    def test_reading_goes_on_behind_every_cursor(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as source:
            for run in _all_runs(source):
                pieces = list(_read(source, [run]))
                resumable = [number for number, piece in enumerate(pieces[:-1]) if piece.cursor]
                for number in resumable[:: 1 + len(resumable) // _CURSORS_TRIED]:
                    expected = [codec.encode(piece.chunk) for piece in (pieces[0], *pieces[number + 1 :])]
                    rest = list(_read(source, [run], cursors={run.id: pieces[number].cursor}))
                    assert [codec.encode(piece.chunk) for piece in rest] == expected, f"resumed behind chunk {number}"
                    again = list(_read(source, [run], cursors={run.id: rest[0].cursor}))
                    assert [codec.encode(piece.chunk) for piece in again] == expected, "resumed behind a resumed Header"

    def test_selected_fields_and_only_those_are_read(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as source:
            runs = _all_runs(source)
            whole = _fields_by_run(_read(source, runs))
            for selection in _field_selections(key for keys in whole.values() for key in keys):
                matcher = Matcher(selection)
                selected = _fields_by_run(_read(source, runs, selection=selection))
                for run, keys in whole.items():
                    wanted = {key for key in keys if matcher.wants_field(*key)}
                    assert selected[run] == wanted, f"{run} with {selection}"

    def test_selected_runs_and_only_those_are_listed(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as source:
            everything = _all_runs(source)
            for selection in _run_selections(everything):
                wanted = [run for run in everything if Matcher(selection).wants_run(run)]
                assert _all_runs(source, selection) == wanted, selection

    def test_losses_name_what_was_lost(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as source:
            for piece in _read(source, _all_runs(source)):
                for finding in piece.chunk.findings if isinstance(piece.chunk, End) else []:
                    assert finding.code == finding.code.lower().replace("_", "-").strip()
                    assert finding.count >= 1
                    assert finding.kind == "note" or finding.field or finding.detail, finding

    def test_reading_changes_nothing_at_the_source(self, tmp_path: Path) -> None:
        with self._opened(tmp_path):
            before = self.snapshot(tmp_path)
        with self._opened(tmp_path) as source:
            list(_read(source, _all_runs(source)))
        assert self.snapshot(tmp_path) == before

    def test_closing_twice_is_fine(self, tmp_path: Path) -> None:
        source = self.open_source(tmp_path)
        source.close()
        source.close()

    @contextmanager
    def _opened(self, folder: Path) -> Iterator[ReadSide]:
        source = self.open_source(folder)
        try:
            yield source
        finally:
            source.close()


_EVERYTHING: Final = Selection(include_archived=True)


def _all_runs(source: ReadSide, selection: Selection = _EVERYTHING) -> list[RunRef]:
    return [run for project in source.list_projects(selection) for run in source.list_runs(project, selection)]


def _read(
    source: ReadSide,
    runs: list[RunRef],
    *,
    selection: Selection = _EVERYTHING,
    cursors: dict[RunId, bytes] | None = None,
) -> Iterator[Piece]:
    """Run ids are unique only within a project, and so are cursors: project after project."""
    want = Want(selection=selection, cursors=cursors or {}, chunk_points=_CHUNK_POINTS)
    for _, group in itertools.groupby(runs, key=lambda run: run.project):
        yield from source.read_runs(list(group), want, DigestSink())


def _by_run(pieces: Iterable[Piece]) -> dict[tuple[ProjectId, RunId], list[Piece]]:
    runs: dict[tuple[ProjectId, RunId], list[Piece]] = {}
    for piece in pieces:
        runs.setdefault((piece.run.project, piece.run.id), []).append(piece)
    return runs


def _fields_by_run(pieces: Iterable[Piece]) -> dict[tuple[ProjectId, RunId], set[FieldKey]]:
    return {run: {key for piece in some for key in _keys(piece.chunk)} for run, some in _by_run(pieces).items()}


def _keys(chunk: Chunk) -> Iterator[FieldKey]:
    match chunk:
        case Fields(fields):
            yield from ((field.path, field.type) for field in fields)
        case Files(files):
            yield from ((ref.path, ref.type) for ref in files)
        case FloatPoints():
            yield from ((path, "float_series") for path in chunk.paths)
        case StringPoints():
            yield from ((path, "string_series") for path in chunk.paths)
        case HistogramPoints():
            yield from ((path, "histogram_series") for path in chunk.paths)
        case Header() | End():
            pass


def _field_selections(keys: Iterable[FieldKey]) -> list[Selection]:
    paths = sorted({path for path, _ in keys})
    some = paths[:: 1 + len(paths) // 3]
    return [
        *(Selection(include_archived=True, classes=(name,)) for name in FIELD_CLASSES),
        Selection(include_archived=True, attributes=("^sys/",)),
        Selection(include_archived=True, attributes=("e.*s",)),
        Selection(include_archived=True, attributes=(*some, "there/is/no/such/field")),
        Selection(include_archived=True, exclude_attributes="s"),
        Selection(include_archived=True, exclude_attributes=".", classes=("metrics",)),
    ]


def _run_selections(runs: list[RunRef]) -> list[Selection]:
    first, last = runs[0], runs[-1]
    times_ms = sorted(run.created_ms for run in runs if run.created_ms is not None)
    middle_ms = times_ms[len(times_ms) // 2] if times_ms else 0
    return [
        Selection(),
        Selection(include_archived=True, run_ids=(first.id, last.id)),
        Selection(include_archived=True, projects=(last.project,)),
        Selection(include_archived=True, runs="1"),
        Selection(include_archived=True, runs="^no such run$"),
        Selection(include_archived=True, created_after_ms=middle_ms),
        Selection(include_archived=True, created_before_ms=middle_ms),
    ]


def _check_columns(chunk: Points) -> None:
    rows = int(chunk.lengths.sum())
    assert rows <= _CHUNK_POINTS
    assert len(chunk.paths) == len(chunk.lengths)
    assert rows == len(chunk.steps) == len(chunk.times_ms) == len(chunk.values)
    assert 0 <= chunk.steps.scale <= MAX_STEP_SCALE
    assert chunk.steps.units.dtype == chunk.times_ms.dtype == np.int64


def _check_scalar(field: Field) -> None:
    assert field.type in SCALAR_TYPES, field
    assert type(field.value) is _PYTHON_TYPES[field.type], field
    if isinstance(field.value, list):
        assert field.value == sorted(set(field.value)), field
    if type(field.value) is int:
        assert -(2**63) <= field.value < 2**63, field
