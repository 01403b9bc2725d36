"""verify_run against the memory target: every verdict, and every way in which a copy can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from shardmig.adapters.base import Want, migration_key
from shardmig.adapters.conformance import plain_run, rich_run
from shardmig.archive.files import ArchiveFiles
from shardmig.archive.reader import ArchiveReader
from shardmig.records import (
    NO_TIME,
    Chunk,
    Field,
    Fields,
    FloatPoints,
    LoadOptions,
    ProjectId,
    RunId,
    RunOutcome,
    RunRef,
    Selection,
    Steps,
)
from shardmig.worker.verify import verify_run
from tests.contract.archives import archive_paths, publish
from tests.contract.memory import Limits, MemoryRun, MemorySystem, MemoryTarget

EVERYTHING = Selection()
UNLIMITED = Limits()
LIMITED = Limits(holds_infinity=False, longest_text=1000)
Mutation = Callable[[MemoryRun], None]


class Bench:
    """An archive with one run, and a memory target that holds it."""

    def __init__(self, folder: Path, *, limits: Limits = UNLIMITED, sidecar: bool = True) -> None:
        files = ArchiveFiles(archive_paths(folder), ProjectId("ws/rich"))
        self.digest = publish(folder, rich_run(files)).digest
        self.archive = ArchiveReader(archive_paths(folder))
        self.system = MemorySystem()
        self.target = MemoryTarget(self.system, LoadOptions(step_multiplier=100, sidecar=sidecar), limits)
        (self.run,) = self.archive.runs(ProjectId("ws/rich"))
        chunks = (piece.chunk for piece in self.archive.read(self.run, Want()))
        self.target.write_run(migration_key(self.run), self.digest, chunks, files, None)

    @property
    def held(self) -> MemoryRun:
        return self.system.runs[migration_key(self.run)]

    def verify(self, selection: Selection = EVERYTHING, sample: int = 0) -> RunOutcome:
        return verify_run(self.run, archive=self.archive, target=self.target, selection=selection, sample=sample)

    def change(self, path: str, edit: Callable[[FloatPoints], FloatPoints]) -> None:
        """Replace one float series in the target."""
        (number,) = (
            number
            for number, chunk in enumerate(self.held.chunks)
            if isinstance(chunk, FloatPoints) and path in chunk.paths
        )
        chunk = self.held.chunks[number]
        assert isinstance(chunk, FloatPoints)
        series = dict(chunk.series())
        series[path] = edit(series[path])
        self.held.chunks[number : number + 1] = list(series.values())

    def change_fields(self, edit: Callable[[Field], list[Field]]) -> None:
        """Replace scalar fields in the target."""
        self.held.chunks[:] = [
            Fields([new for old in chunk.fields for new in edit(old)]) if isinstance(chunk, Fields) else chunk
            for chunk in self.held.chunks
        ]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def differences(outcome: RunOutcome) -> list[tuple[str, str, int]]:
    return [(finding.code, finding.field, finding.count) for finding in outcome.differences]


def points(steps: Steps, times_ms: object, values: object) -> FloatPoints:
    return FloatPoints(["series/long"], np.array([len(steps)]), steps, np.asarray(times_ms), np.asarray(values))


def test_an_exact_copy_is_equal(bench: Bench) -> None:
    outcome = bench.verify()
    assert (outcome.state, outcome.verdict, outcome.differences, outcome.findings) == ("done", "equal", [], [])
    assert outcome.digest == bench.digest
    assert outcome.target_id == bench.held.id
    assert outcome.counters.points > 1000


def test_a_run_that_is_not_there_is_missing(bench: Bench) -> None:
    bench.system.runs.clear()
    outcome = bench.verify()
    assert (outcome.state, outcome.verdict) == ("failed", "missing")
    assert differences(outcome) == [("run-missing", "", 1)]


def test_a_partial_run_differs_whatever_it_holds(bench: Bench) -> None:
    bench.held.state = "partial"
    outcome = bench.verify()
    assert (outcome.state, outcome.verdict) == ("failed", "differs")
    assert differences(outcome) == [("run-partial", "", 1)]


def test_approximations_that_the_sidecar_restores_are_named_and_no_difference(tmp_path: Path) -> None:
    outcome = Bench(tmp_path, limits=LIMITED).verify()
    assert (outcome.state, outcome.verdict, outcome.differences) == ("done", "approximated", [])
    codes = {finding.code: finding.kind for finding in outcome.findings}
    assert codes == {
        "infinity-clipped": "approximation",
        "text-cut": "approximation",
        "exact-values-in-sidecar": "note",
    }


def test_approximations_without_a_sidecar_are_no_difference_either(tmp_path: Path) -> None:
    outcome = Bench(tmp_path, limits=LIMITED, sidecar=False).verify()
    assert (outcome.state, outcome.verdict, outcome.differences) == ("done", "approximated", [])
    assert {finding.code for finding in outcome.findings} == {"infinity-clipped", "text-cut"}


def test_damage_within_an_approximated_series_is_found(tmp_path: Path) -> None:
    bench = Bench(tmp_path, limits=LIMITED, sidecar=False)

    def one_ulp(series: FloatPoints) -> FloatPoints:
        values = series.values.copy()
        values[-1] = np.nextafter(values[-1], 2)
        return msgspec.structs.replace(series, values=values)

    bench.change("series/odd_values", one_ulp)
    assert differences(bench.verify()) == [("values-differ", "series/odd_values", 1)]


@pytest.mark.parametrize(
    ("edit", "code", "count"),
    [
        (lambda one: points(one.steps[1:], one.times_ms[1:], one.values[1:]), "points-missing", 1),
        (lambda one: points(one.steps, one.times_ms, np.nextafter(one.values, 2)), "values-differ", 1000),
        (lambda one: points(one.steps, np.full(1000, NO_TIME), one.values), "times-differ", 1000),
        (
            lambda one: points(Steps(one.steps.units + 1, one.steps.scale), one.times_ms, one.values),
            "steps-differ",
            1000,
        ),
        (
            lambda one: points(
                Steps(np.append(one.steps.units, one.steps.units[-1]), one.steps.scale),
                np.append(one.times_ms, one.times_ms[-1] + 1),
                np.append(one.values, one.values[-1]),
            ),
            "points-extra",
            1,
        ),
    ],
)
def test_changed_points_are_found_and_named(
    bench: Bench, edit: Callable[[FloatPoints], FloatPoints], code: str, count: int
) -> None:
    bench.change("series/long", edit)
    outcome = bench.verify()
    assert (outcome.state, outcome.verdict) == ("failed", "differs")
    assert differences(outcome) == [(code, "series/long", count)]
    assert all(finding.kind == "loss" for finding in outcome.differences)


def test_swapped_series_are_found(bench: Bench) -> None:
    swap = {"series/constant": "series/long", "series/long": "series/constant"}
    for number, chunk in enumerate(bench.held.chunks):
        if isinstance(chunk, FloatPoints):
            bench.held.chunks[number] = msgspec.structs.replace(
                chunk, paths=[swap.get(path, path) for path in chunk.paths]
            )
    assert {field for _, field, _ in differences(bench.verify())} == set(swap)


def test_scalars_that_vanish_appear_change_value_or_type_are_found(bench: Bench) -> None:
    def edit(field: Field) -> list[Field]:
        match field.path:
            case "values/bool/true":
                return []
            case "values/int/2":
                return [field, Field("values/int/2/added", "int", 0)]
            case "values/float/00":
                return [Field(field.path, "float", 0.10000000000000002)]
            case "values/int/0":
                return [Field(field.path, "string", "0")]
            case _:
                return [field]

    bench.change_fields(edit)
    assert sorted(differences(bench.verify())) == [
        ("field-extra", "values/int/2/added", 1),
        ("field-missing", "values/bool/true", 1),
        ("type-differs", "values/int/0", 1),
        ("values-differ", "values/float/00", 1),
    ]


def test_damaged_files_are_found(bench: Bench) -> None:
    contents = bench.held.contents
    (key,) = (key for key in contents if key[0] == "files/model")
    contents[key] = [(name, content[:-1]) for name, content in contents[key]]
    (tree,) = (key for key in contents if key[0] == "files/tree")
    contents[tree] = contents[tree][1:]
    assert sorted(differences(bench.verify())) == [
        ("file-differs", "files/model", 1),
        ("file-differs", "files/tree", 1),
    ]


def test_wrong_run_facts_are_found(bench: Bench) -> None:
    bench.held.facts |= {"status": "failed", "start_time": "5", "parent": "elsewhere", "tag:own": "kept"}
    del bench.held.facts["tag:one"]
    outcome = bench.verify()
    assert sorted(differences(outcome)) == [
        ("lineage-differs", "parent", 1),
        ("status-differs", "status", 1),
        ("tag-missing", "tag:one", 1),
        ("times-differ", "start_time", 1),
    ]
    assert [(finding.code, finding.field) for finding in outcome.findings] == [("tag-extra", "tag:own")]


def test_only_selected_fields_are_compared(bench: Bench) -> None:
    bench.change_fields(lambda field: [] if field.path.startswith("values/") else [field])
    for selection in (Selection(classes=("metrics",)), Selection(exclude_attributes="^values/")):
        outcome = bench.verify(selection)
        assert outcome.verdict == "equal"
        assert [finding.code for finding in outcome.findings] == ["facts-not-compared"]
    assert bench.verify().verdict == "differs"


def test_a_sample_is_the_same_each_time_and_says_what_it_skipped(bench: Bench) -> None:
    outcomes = [bench.verify(sample=5) for _ in range(2)]
    assert outcomes[0] == outcomes[1]
    assert outcomes[0].verdict == "equal"
    (note,) = outcomes[0].findings
    assert (note.kind, note.code) == ("note", "sampled")
    assert note.count > 0
    assert 0 < outcomes[0].counters.points < bench.verify().counters.points


def test_a_sample_still_compares_every_scalar(bench: Bench) -> None:
    bench.change_fields(lambda field: [] if field.path == "values/bool/true" else [field])
    assert differences(bench.verify(sample=1000)) == [("field-missing", "values/bool/true", 1)]


def test_a_fork_whose_parent_is_not_linked_differs(tmp_path: Path) -> None:
    system = MemorySystem()
    target = MemoryTarget(system, LoadOptions(step_multiplier=1))
    archive = ArchiveReader(archive_paths(tmp_path))
    files = ArchiveFiles(archive_paths(tmp_path), ProjectId("ws/plain"))
    runs: dict[RunId, RunRef] = {}
    for chunks in (plain_run(), plain_run(run_id="RUN-2", parent="RUN-1")):
        publish(tmp_path, chunks)
    for run in archive.runs(ProjectId("ws/plain")):
        runs[run.id] = run
        stream: list[Chunk] = [piece.chunk for piece in archive.read(run, Want())]
        target.write_run(migration_key(run), "", iter(stream), files, None)
    outcome = verify_run(runs[RunId("RUN-2")], archive=archive, target=target, selection=Selection())
    assert differences(outcome) == [("lineage-differs", "parent", 1)]
