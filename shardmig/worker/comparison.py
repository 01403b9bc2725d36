"""The comparison of one run: the archive's side, the target's side, and what `fit` says of the way between them.

Both sides are streamed once into digests. A field whose digests agree is equal; one that agrees with what `fit`
predicts is approximated; any other is read again and compared row by row. Memory does not grow with the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from shardmig.adapters.base import FACT_NAMESPACES, Want, WriteSide, migration_key
from shardmig.archive.digest import RunDigest
from shardmig.archive.files import DigestSink
from shardmig.archive.reader import ArchiveReader
from shardmig.errors import BadInput, Permanent
from shardmig.records import (
    NO_TIME,
    SERIES_TYPES,
    Chunk,
    End,
    Field,
    FieldDigest,
    Fields,
    Files,
    Finding,
    FloatPoints,
    Header,
    HistogramPoints,
    RunOutcome,
    RunRef,
    Selection,
    StringPoints,
    TargetRun,
    Verdict,
)
from shardmig.selection import Matcher
from shardmig.worker.differences import FieldKey, Small, fact_differences, only_one_has_it, retyped, small_differences
from shardmig.worker.outcomes import merged
from shardmig.worker.rowdiff import SeriesKey, row_differences

CHUNK_POINTS: Final = 100_000
"""Of both sides, which are read one after the other: larger chunks cost memory and gain no speed (measured)."""

RESTORED: Final = "exact-values-in-sidecar"
FACTS_UNKNOWN: Final = "facts-not-compared"
UNEXPLAINED: Final = "content-differs"
"""Digests that differ where reading again shows no difference: never taken for equal."""


class Comparison:
    """Both sides of one run, read as often as needed. `sample`: only these of the selected paths."""

    def __init__(
        self,
        run: RunRef,
        held: TargetRun,
        archive: ArchiveReader,
        target: WriteSide,
        selection: Selection,
        sample: set[str] | None,
    ) -> None:
        self._run = run
        self._held = held
        self._archive = archive
        self._target = target
        self._selection = _only(selection, sample)
        self._is_sample = sample is not None
        self._covers_all = Matcher(selection).takes_every_field
        self._expected = RunDigest()
        self._found = RunDigest()
        self._header = Header(run)
        self._run_fields: list[Field] = []
        self._last_point_ms = NO_TIME
        self._changes: list[Finding] = []
        self._changed: set[str] = set()
        self._findings: list[Finding] = []
        self._differences: list[Finding] = []

    def outcome(self, notes: list[Finding]) -> RunOutcome:
        """Read, compare, judge. `notes` are put before what is found."""
        self._findings += notes
        self._digest_archive()
        try:
            self._digest_target()
            self._compare_facts()
            self._compare_fields()
        except Permanent as error:
            self._differences.append(Finding("loss", "target-unreadable", error.field, detail=error.message))
        self._differences += [change for change in self._changes if change.kind == "loss"]
        findings = [*self._findings, *(change for change in self._changes if change.kind != "loss")]
        approximated = any(change.kind == "approximation" for change in self._changes)
        verdict: Verdict = "differs" if self._differences else "approximated" if approximated else "equal"
        return RunOutcome(
            run=self._run,
            state="failed" if self._differences or any(finding.kind == "loss" for finding in findings) else "done",
            target_id=self._held.id,
            digest=self._expected.digest(),
            counters=self._expected.counters(),
            steps=self._expected.steps(),
            findings=findings,
            verdict=verdict,
            differences=self._differences,
        )

    def _digest_archive(self) -> None:
        for chunk in self._exact():
            match chunk:
                case End():
                    self._findings += chunk.findings
                    return
                case Header():
                    self._header = chunk
                    self._target.fit(chunk)
                    continue
                case Fields():
                    self._run_fields += [field for field in chunk.fields if field.path.startswith(FACT_NAMESPACES)]
                case FloatPoints() | StringPoints() | HistogramPoints():
                    self._last_point_ms = max(self._last_point_ms, int(chunk.times_ms.max(initial=NO_TIME)))
            self._expected.add(chunk)
            if changes := self._target.fit(chunk).findings:
                self._changes = merged([*self._changes, *changes])
                self._changed |= {change.field for change in changes if change.kind != "note"}
        raise BadInput("the archive's stream of this run ends before the run does", run=self._run.label)

    def _digest_target(self) -> None:
        for chunk in self._read_target():
            if isinstance(chunk, End):
                for finding in chunk.findings:
                    (self._differences if finding.kind in ("loss", "gap") else self._findings).append(finding)
                return
            self._found.add(chunk)
        cut = Finding("loss", "target-unreadable", detail="the target's answer ends before the run does")
        self._differences.append(cut)

    def _compare_facts(self) -> None:
        """Facts come from fields, so they can be told only from the fields that the load had."""
        if not self._covers_all and self._expected.digest() != self._held.digest:
            detail = "run facts were not compared: the selection is not the one that was loaded"
            self._findings.append(Finding("note", FACTS_UNKNOWN, detail=detail))
            return
        parent = None
        if (wanted := self._run.parent_ref) is not None:
            parent = self._target.find_run(migration_key(wanted))
        expected = self._target.expected_facts(
            self._header.run,
            self._run_fields,
            parent.id if parent is not None else None,
            self._last_point_ms if self._last_point_ms != NO_TIME else None,
        )
        found = self._target.read_facts(self._held)
        if self._is_sample:  # not all points were read, and an end time may be that of the last one
            expected.pop("end_time", None)
            found.pop("end_time", None)
        for finding in fact_differences(expected, found):
            (self._differences if finding.kind == "loss" else self._findings).append(finding)

    def _compare_fields(self) -> None:
        expected = {(field.path, field.type): field for field in self._expected.field_digests()}
        found = {(field.path, field.type): field for field in self._found.field_digests()}
        suspects = {key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)}
        if restored := self._changed & ({path for path, _ in expected} - {path for path, _ in suspects}):
            detail = "the target's own form is an approximation; reading it back restores the exact values"
            self._findings.append(Finding("note", RESTORED, count=len(restored), detail=detail))
        if changed := {key for key in suspects if key[0] in self._changed}:
            fitted = self._digest_fitted(changed)
            suspects -= {key for key in changed if fitted.get(key) == found.get(key)}
        other_type = retyped(expected, found, suspects)
        named = {finding.field for finding in self._differences} | other_type.keys()
        self._differences += other_type.values()
        self._explain({key for key in suspects if key[0] not in named}, expected, found)

    def _explain(
        self, suspects: set[FieldKey], expected: dict[FieldKey, FieldDigest], found: dict[FieldKey, FieldDigest]
    ) -> None:
        one_sided = (only_one_has_it(key, expected.get(key), found.get(key)) for key in sorted(suspects))
        self._differences += [finding for finding in one_sided if finding is not None]
        both = {key for key in suspects if key in expected and key in found}
        self._differences += self._explain_scalars_and_files({key for key in both if key[1] not in SERIES_TYPES})
        rows: dict[SeriesKey, int] = {
            key: expected[key].rows + found[key].rows for key in both if key[1] in SERIES_TYPES
        }
        self._differences += self._explain_series(rows)
        named = {finding.field for finding in self._differences}
        self._differences += [
            Finding("loss", UNEXPLAINED, path, detail=f"{kind}: what is read back is not what the archive has")
            for path, kind in sorted(suspects)
            if path not in named
        ]

    def _explain_scalars_and_files(self, keys: set[FieldKey]) -> list[Finding]:
        if not keys:
            return []
        paths = {path for path, _ in keys}
        expected, found = (_small(chunks, keys) for chunks in (self._exact(paths), self._read_target(paths)))
        return list(small_differences(expected, found))

    def _explain_series(self, rows: dict[SeriesKey, int]) -> list[Finding]:
        if not rows:
            return []
        paths = {path for path, _ in rows}
        explained = row_differences(lambda: self._exact(paths), lambda: self._read_target(paths), rows)
        changed = {key: count for key, count in rows.items() if key[0] in self._changed}
        if changed:
            paths = {path for path, _ in changed}
            against_fitted = row_differences(lambda: self._fitted(paths), lambda: self._read_target(paths), changed)
            for key, findings in against_fitted.items():
                explained[key] = min(explained[key], findings, key=lambda some: sum(one.count for one in some))
        return [finding for key in sorted(explained) for finding in explained[key]]

    def _digest_fitted(self, keys: set[FieldKey]) -> dict[FieldKey, FieldDigest]:
        digest = RunDigest()
        for chunk in self._fitted({path for path, _ in keys}):
            digest.add(chunk)
        return {(field.path, field.type): field for field in digest.field_digests()}

    def _exact(self, paths: set[str] | None = None) -> Iterator[Chunk]:
        want = Want(selection=_only(self._selection, paths), chunk_points=CHUNK_POINTS)
        return (piece.chunk for piece in self._archive.read(self._run, want))

    def _fitted(self, paths: set[str]) -> Iterator[Chunk]:
        for chunk in self._exact(paths):
            if not isinstance(chunk, Header | End) and (native := self._target.fit(chunk).native) is not None:
                yield native

    def _read_target(self, paths: set[str] | None = None) -> Iterator[Chunk]:
        want = Want(selection=_only(self._selection, paths), chunk_points=CHUNK_POINTS)
        return (piece.chunk for piece in self._target.read_run(self._held, want, DigestSink()))


def _only(selection: Selection, paths: set[str] | None) -> Selection:
    """The same selection for just these paths. Two empty ones, which no field has, keep the list an exact one."""
    return selection if paths is None else msgspec.structs.replace(selection, attributes=(*sorted(paths), "", ""))


def _small(chunks: Iterable[Chunk], keys: set[FieldKey]) -> Iterator[Small]:
    for chunk in chunks:
        match chunk:
            case Fields(fields):
                yield from (field for field in fields if (field.path, field.type) in keys)
            case Files(files):
                yield from (ref for ref in files if (ref.path, ref.type) in keys)
            case _:
                pass
