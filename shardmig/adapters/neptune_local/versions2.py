"""Which records a folder's log holds, lacks, and holds twice.

Versions rise by one, so what is missing is known exactly. A process that was forked while its parent's log had
unflushed records writes those once more into the parent's file, at any later time and beginning anywhere within a line
(measured with 1.14: every worker of a data loader does so). Such repetitions are recognised by version and time of
writing and passed over. The same version at another time is another record and kept: clients that let a forked
process go on in the same file number so.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from shardmig.adapters.neptune_local.findings import FindingLog
from shardmig.adapters.neptune_local.lines2 import decode_block
from shardmig.adapters.neptune_local.operations2 import BAD_RECORD, CUT_RECORD, Problem, Record, Trouble

_INDEX_EVERY: Final = 256
_LINES_SEARCHED: Final = 100_000
_LINES_SEARCHED_A_RECORD: Final = 4
"""How much may be read again in search of repetitions: logs of processes that share a file look like nothing else."""


class Position(msgspec.Struct, frozen=True, array_like=True):
    """Where in a folder's log reading goes on: data file by number, byte offset."""

    file: int = 0
    offset: int = 0


class Versions:
    """The versions of one folder's log, learnt in the first pass. `skip_to`: records up to there are left out."""

    def __init__(self, files: Sequence[Path], skip_to: int) -> None:
        self._earlier = _Earlier(files)
        self._skip_to = skip_to
        self._first = 0
        self._last = skip_to
        self._missing = 0
        self._unreadable = 0
        self._repeated = 0
        self._cut = ""
        self._fragment: Problem | None = None
        self._bad: list[Problem] = []
        self._repeats: dict[Position, frozenset[int]] = {}

    def learn(self, at: Position, records: Sequence[Record | Trouble]) -> Sequence[Record | Trouble]:
        """Take account of the next records, which begin at `at`; those that are no repetition."""
        self._earlier.lines_left += _LINES_SEARCHED_A_RECORD * len(records)
        versions = [record.version for record in records]
        is_plain = self._first and not self._unreadable and self._fragment is None
        if is_plain and versions == list(range(self._last + 1, self._last + 1 + len(versions))):
            if versions:
                self._earlier.note(at, versions[0])
            self._last += len(versions)
            return records
        repeats = {row for row, record in enumerate(records) if self._is_repeat(at, record, records[:row])}
        if repeats:
            self._repeats[at] = frozenset(repeats)
        return self.new(at, records)

    def new(self, at: Position, records: Sequence[Record | Trouble]) -> Sequence[Record | Trouble]:
        """The records that begin at `at` without the repetitions that were learnt."""
        repeats = self._repeats.get(at)
        return [one for row, one in enumerate(records) if row not in repeats] if repeats else records

    def report(self, last_put: int | None, findings: FindingLog) -> None:
        """What the versions and the client's own counter say about records that are gone, unreadable or repeated."""
        self._settle_fragment(self._last + 1)
        for problem in self._bad:
            findings.add(problem.kind, problem.code, detail=problem.detail)
        before = self._first - self._skip_to - 1
        if before > 0:
            detail = f"the log begins with record {self._first}"
            findings.add("gap", "partial-start", count=before, detail=detail)
        lost = self._missing
        if last_put is not None:
            lost += max(0, last_put - self._last - self._unreadable)
        if lost:
            detail = f"the client wrote {last_put} records, the last one found is {self._last}"
            findings.add("gap", "lost-records", count=lost, detail=detail)
        elif self._cut:
            findings.add("gap", CUT_RECORD, detail=self._cut)
        if self._repeated:
            detail = "written again by a forked process"
            findings.add("note", "repeated-records", count=self._repeated, detail=detail)
        if self._earlier.lines_left <= 0:
            findings.add("note", "repeats-not-searched", detail="too many records share a version: all are kept")

    def _is_repeat(self, at: Position, record: Record | Trouble, before: Sequence[Record | Trouble]) -> bool:
        problem = record.obj
        if isinstance(problem, Problem) and record.version == 0:
            if problem.code == CUT_RECORD:
                self._cut = problem.detail
            elif problem.code == BAD_RECORD:
                self._settle_fragment(0)
                self._fragment = problem
            return False
        if record.version <= 0:
            return False
        self._settle_fragment(record.version)
        if record.version <= self._last:
            is_before = any(one.version == record.version and _is_same(record, one) for one in before)
            if is_before or self._earlier.holds(record, at):
                self._repeated += 1
                return True
        self._count(record.version)
        self._earlier.note(at, record.version)
        return False

    def _settle_fragment(self, next_version: int) -> None:
        """A bad line is the rest of an earlier one if the record before the next one ends like it."""
        fragment, self._fragment = self._fragment, None
        if fragment is None:
            return
        if next_version > 1 and fragment.line and self._earlier.ends_with(next_version - 1, fragment.line):
            return
        self._unreadable += 1
        self._bad.append(Problem(fragment.kind, fragment.code, fragment.detail))

    def _count(self, version: int) -> None:
        if not self._first:
            self._first = version - self._unreadable
        else:
            self._missing += max(0, version - self._last - 1 - self._unreadable)
        self._unreadable = 0
        self._last = max(self._last, version)


class _Earlier:
    """Finds records that were read before, by version: a sparse index, and the place behind the last one found."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._versions: list[int] = []
        self._places: list[Position] = []
        self._behind: tuple[int, Position] | None = None
        self.lines_left = _LINES_SEARCHED

    def note(self, at: Position, version: int) -> None:
        """A record of this version stands in the block that begins at `at`."""
        is_new_file = not self._places or self._places[-1].file != at.file
        if not self._versions or (version > self._versions[-1] + (0 if is_new_file else _INDEX_EVERY)):
            self._versions.append(version)
            self._places.append(at)

    def holds(self, record: Record | Trouble, until: Position) -> bool:
        """Does this very record stand before `until`?"""
        return any(_is_same(record, one) for _, one in self._with_version(record.version, until))

    def ends_with(self, version: int, fragment: bytes) -> bool:
        """Does the line of a record of this version end like `fragment`?"""
        return any(line.endswith(fragment) for line, _ in self._with_version(version, None))

    def _with_version(self, version: int, until: Position | None) -> Iterator[tuple[bytes, Record | Trouble]]:
        starts = [self._behind[1]] if self._behind is not None and self._behind[0] == version else []
        entry = bisect_right(self._versions, version) - 1
        if entry >= 0:
            starts.append(self._places[entry])
        for start in starts:
            yield from self._scan(start, version, until)

    def _scan(self, start: Position, version: int, until: Position | None) -> Iterator[tuple[bytes, Record | Trouble]]:
        with open(self._files[start.file], "rb") as file:
            file.seek(start.offset)
            for line in file:
                if until is not None and until.file == start.file and start.offset >= until.offset:
                    return
                if self.lines_left <= 0:
                    return
                self.lines_left -= 1
                for record in decode_block(line, "", 0, is_tail=False):
                    if record.version == version:
                        self._behind = (version + 1, Position(start.file, start.offset + len(line)))
                        yield line.rstrip(b"\r\n"), record
                    elif record.version > version + _INDEX_EVERY:
                        return
                start = Position(start.file, start.offset + len(line))


def _is_same(one: Record | Trouble, other: Record | Trouble) -> bool:
    if one.at is not None:
        return one.at == other.at and type(one.obj) is type(other.obj)
    return one == other
