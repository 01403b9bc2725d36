"""What every write side must keep."""

# ruff: noqa: D102 (the names of tests are sentences)

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from shardmig.adapters.base import Want, WriteSide, Written, migration_key
from shardmig.adapters.conformance.runs import (
    MULTIPLIER,
    FieldKey,
    fact_fields,
    field_digests,
    field_paths,
    last_point_ms,
    plain_run,
    rich_run,
    wide_run,
)
from shardmig.archive.files import ArchiveFiles, DigestSink
from shardmig.errors import StepConflict
from shardmig.records import (
    ArchivePaths,
    Chunk,
    End,
    FieldDigest,
    Finding,
    Header,
    LoadOptions,
    MigrationKey,
    OnExisting,
    Points,
    ProjectId,
    RunRef,
    Selection,
    TargetRun,
    TargetRunId,
)

_ALL: Final = Selection()
DIGEST: Final = "d" * 32
ODD_IDS: Final = (
    "it's",
    'say "so"',
    "a%b_c",
    "a*b?",
    "back\\slash",
    "two\nlines",
    "żółw🚀",
    "../up",
    "x" * 400,
    "1 OR 1=1",
)


class TargetSuite:
    """Subclass it in a test module as `Test…` and give it `open_target`."""

    def open_target(self, folder: Path, load: LoadOptions) -> WriteSide:
        """A write side into a store that lies in `folder` (made there at the first call). Later calls with the same
        folder open the same store again."""
        raise NotImplementedError

    def test_a_rich_run_comes_back_exactly(self, tmp_path: Path) -> None:
        chunks, files = _rich(tmp_path)
        with self._opened(tmp_path) as target:
            written = _write(target, chunks, files)
            assert not [finding for finding in written.findings if finding.kind == "loss"]
            _assert_same_content(field_digests(chunks), field_digests(_read(target, chunks)))

    def test_without_a_sidecar_a_rich_run_comes_back_as_fit_predicts(self, tmp_path: Path) -> None:
        chunks, files = _rich(tmp_path)
        with self._opened(tmp_path, sidecar=False) as target:
            _write(target, chunks, files)
            _assert_same_content(field_digests(_fitted(target, chunks)), field_digests(_read(target, chunks)))

    def test_fit_is_pure_and_names_every_field_that_it_changes(self, tmp_path: Path) -> None:
        chunks, _ = _rich(tmp_path)
        with self._opened(tmp_path, sidecar=False) as target:
            for chunk in _contents(chunks):
                fitted, again = target.fit(chunk), target.fit(chunk)
                assert fitted.findings == again.findings
                native = field_digests([] if fitted.native is None else [fitted.native])
                assert native == field_digests([] if again.native is None else [again.native])
                changed = {key[0] for key, digest in field_digests([chunk]).items() if native.get(key) != digest}
                named = {finding.field for finding in fitted.findings if finding.kind in ("approximation", "loss")}
                assert changed == named
                assert all(finding.code for finding in fitted.findings)

    def test_what_fit_predicts_is_what_write_run_reports(self, tmp_path: Path) -> None:
        chunks, files = _rich(tmp_path)
        with self._opened(tmp_path) as target:
            written = _write(target, chunks, files)
            predicted = {_reason(finding) for chunk in _contents(chunks) for finding in target.fit(chunk).findings}
            assert {_reason(finding) for finding in written.findings if finding.kind == "approximation"} == {
                reason for reason in predicted if reason[0] == "approximation"
            }

    def test_the_run_facts_are_those_that_are_expected(self, tmp_path: Path) -> None:
        chunks, files = _rich(tmp_path)
        with self._opened(tmp_path) as target:
            _write(target, chunks, files)
            assert target.read_facts(_held(target, chunks)) == _expected_facts(target, chunks, None)

    def test_a_fork_is_linked_to_its_parent(self, tmp_path: Path) -> None:
        parent, child = plain_run(run_id="RUN-1"), plain_run(run_id="RUN-2", parent="RUN-1")
        with self._opened(tmp_path) as target:
            parent_id = _write(target, parent).id
            _write(target, child, parent=parent_id)
            facts = target.read_facts(_held(target, child))
            assert facts == _expected_facts(target, child, parent_id)
            assert parent_id in facts.values()
            _assert_same_content(field_digests(child), field_digests(_read(target, child)))

    def test_thousands_of_fields_come_back(self, tmp_path: Path) -> None:
        chunks = wide_run()
        with self._opened(tmp_path) as target:
            _write(target, chunks)
            _assert_same_content(field_digests(chunks), field_digests(_read(target, chunks)))

    def test_a_whole_run_is_complete_under_its_key_and_digest(self, tmp_path: Path) -> None:
        chunks = plain_run()
        with self._opened(tmp_path) as target:
            assert target.find_run(_key(chunks)) is None
            written = _write(target, chunks)
        with self._opened(tmp_path) as target:
            held = _held(target, chunks)
            assert (held.id, held.key, held.state, held.digest) == (written.id, _key(chunks), "complete", DIGEST)

    def test_reading_back_gives_the_original_run_header_first_and_end_last(self, tmp_path: Path) -> None:
        chunks = plain_run()
        with self._opened(tmp_path) as target:
            _write(target, chunks)
            want = Want(chunk_points=4)
            pieces = list(target.read_run(_held(target, chunks), want, DigestSink()))
        first, *_, last = [piece.chunk for piece in pieces]
        assert isinstance(first, Header)
        assert isinstance(last, End)
        assert not [finding for finding in last.findings if finding.kind == "loss"]
        for run in (first.run, *(piece.run for piece in pieces)):
            assert (run.project, run.id, run.scope) == (_run(chunks).project, _run(chunks).id, _run(chunks).scope)
        assert all(len(piece.chunk.values) <= 4 for piece in pieces if isinstance(piece.chunk, Points))

    def test_reading_back_honours_the_selection(self, tmp_path: Path) -> None:
        chunks = plain_run()
        with self._opened(tmp_path) as target:
            _write(target, chunks)
            for paths in ({"metrics/loss"}, {"params/lr", "sys/tags"}):
                selection = Selection(attributes=(*sorted(paths), "there/is/no/such/field"))
                assert field_paths(_read(target, chunks, selection)) == paths
            assert field_paths(_read(target, chunks, Selection(classes=("metrics",)))) == {"metrics/loss"}

    def test_two_projects_with_one_run_id_stay_two(self, tmp_path: Path) -> None:
        one, two = plain_run("ws/one", "RUN-1"), plain_run("ws/two", "RUN-1")
        with self._opened(tmp_path) as target:
            assert _write(target, one).id != _write(target, two).id
            for chunks in (one, two):
                assert _run(_read(target, chunks)).project == _run(chunks).project
                _assert_same_content(field_digests(chunks), field_digests(_read(target, chunks)))

    def test_runs_with_odd_ids_are_found_and_only_under_their_own_key(self, tmp_path: Path) -> None:
        with self._opened(tmp_path) as target:
            ids = {run_id: _write(target, plain_run(run_id=run_id)).id for run_id in ODD_IDS}
            assert len(set(ids.values())) == len(ODD_IDS)
            for run_id, target_id in ids.items():
                chunks = plain_run(run_id=run_id)
                assert _held(target, chunks).id == target_id
                assert _run(_read(target, chunks)).id == run_id
            for odd in ODD_IDS:
                assert target.find_run(MigrationKey(odd)) is None

    def test_writing_twice_is_writing_once(self, tmp_path: Path) -> None:
        chunks, files = _rich(tmp_path)
        with self._opened(tmp_path) as target:
            first = _write(target, chunks, files)
            facts = target.read_facts(_held(target, chunks))
            second = _write(target, chunks, files)
            assert second.id == first.id
            assert target.read_facts(_held(target, chunks)) == facts
            _assert_same_content(field_digests(chunks), field_digests(_read(target, chunks)))

    def test_a_stream_without_end_leaves_the_run_partial_until_it_is_finished(self, tmp_path: Path) -> None:
        chunks, files = _rich(tmp_path)
        with self._opened(tmp_path) as target:
            _write(target, chunks[:-1], files)
            assert _held(target, chunks).state == "partial"
            _write(target, chunks, files)
            assert _held(target, chunks).state == "complete"
            _assert_same_content(field_digests(chunks), field_digests(_read(target, chunks)))

    @pytest.mark.parametrize("taken", [0, 1, 2, 3, 5])
    def test_a_write_that_breaks_is_never_complete_and_ends_well_when_repeated(
        self, tmp_path: Path, taken: int
    ) -> None:
        chunks, files = _rich(tmp_path)
        with self._opened(tmp_path) as target:
            with pytest.raises(_Broken):
                target.write_run(_key(chunks), DIGEST, _breaking(chunks, taken), files, None)
            held = target.find_run(_key(chunks))
            assert held is None or held.state == "partial"
        with self._opened(tmp_path) as target:
            _write(target, chunks, files)
            assert _held(target, chunks).state == "complete"
            assert target.read_facts(_held(target, chunks)) == _expected_facts(target, chunks, None)
            _assert_same_content(field_digests(chunks), field_digests(_read(target, chunks)))

    def test_losses_in_the_end_keep_the_run_partial(self, tmp_path: Path) -> None:
        chunks = [*plain_run()[:-1], End([Finding("loss", "file-missing", "files/model")])]
        with self._opened(tmp_path) as target:
            _write(target, chunks)
            assert _held(target, chunks).state == "partial"

    def test_gaps_and_approximations_in_the_end_do_not(self, tmp_path: Path) -> None:
        findings = [
            Finding("gap", "tail-not-flushed", "metrics/loss"),
            Finding("approximation", "rounded", "params/lr"),
        ]
        chunks = [*plain_run()[:-1], End(findings)]
        with self._opened(tmp_path) as target:
            _write(target, chunks)
            assert _held(target, chunks).state == "complete"

    def test_a_discarded_run_is_found_no_more_and_can_be_written_again(self, tmp_path: Path) -> None:
        chunks, other = plain_run(), plain_run(run_id="RUN-2")
        with self._opened(tmp_path) as target:
            _write(target, chunks)
            _write(target, other)
            held = _held(target, chunks)
            target.discard_run(held)
            target.discard_run(held)
            assert target.find_run(_key(chunks)) is None
            assert _held(target, other).state == "complete"
            _write(target, chunks)
            _assert_same_content(field_digests(chunks), field_digests(_read(target, chunks)))

    def test_a_complete_run_of_other_content_is_replaced_when_asked(self, tmp_path: Path) -> None:
        chunks, other = plain_run(), plain_run(run_id="RUN-2")
        with self._opened(tmp_path) as target:
            _write(target, chunks)
            _write(target, other)
        changed = [*chunks[:2], *chunks[3:]]
        with self._opened(tmp_path, on_existing="replace") as target:
            _write(target, changed, digest="e" * 32)
            held = _held(target, chunks)
            assert (held.state, held.digest) == ("complete", "e" * 32)
            _assert_same_content(field_digests(changed), field_digests(_read(target, chunks)))
            assert _held(target, other).digest == DIGEST

    def test_steps_that_the_multiplier_does_not_keep_are_refused_unless_merging_is_allowed(
        self, tmp_path: Path
    ) -> None:
        chunks, files = _rich(tmp_path)
        with self._opened(tmp_path, step_multiplier=1) as target:
            if target.caps.step_type != "int64":
                pytest.skip("this target keeps decimal steps")
            with pytest.raises(StepConflict):
                _write(target, chunks, files)
        with self._opened(tmp_path, step_multiplier=1, allow_step_merge=True) as target:
            _write(target, chunks, files)
            _assert_same_content(field_digests(chunks), field_digests(_read(target, chunks)))

    def test_closing_twice_is_fine(self, tmp_path: Path) -> None:
        target = self.open_target(tmp_path, LoadOptions(step_multiplier=1))
        target.close()
        target.close()

    @contextmanager
    def _opened(
        self,
        folder: Path,
        *,
        step_multiplier: int = MULTIPLIER,
        allow_step_merge: bool = False,
        sidecar: bool = True,
        on_existing: OnExisting = "fail",
    ) -> Iterator[WriteSide]:
        load = LoadOptions(
            step_multiplier=step_multiplier,
            allow_step_merge=allow_step_merge,
            sidecar=sidecar,
            on_existing=on_existing,
        )
        target = self.open_target(folder, load)
        try:
            yield target
        finally:
            target.close()


class _Broken(Exception):
    """What a broken stream raises here: no error of ours, as a bug would."""


def _breaking(chunks: list[Chunk], taken: int) -> Iterator[Chunk]:
    yield from chunks[:taken]
    raise _Broken


def _rich(folder: Path) -> tuple[list[Chunk], ArchiveFiles]:
    files = ArchiveFiles(_paths(folder), ProjectId("ws/rich"))
    return rich_run(files), files


def _paths(folder: Path) -> ArchivePaths:
    return ArchivePaths(str(folder / "archive" / "data"), str(folder / "archive" / "files"))


def _write(
    target: WriteSide,
    chunks: list[Chunk],
    files: ArchiveFiles | None = None,
    parent: TargetRunId | None = None,
    digest: str = DIGEST,
) -> Written:
    nowhere = ArchiveFiles(ArchivePaths("/nonexistent", "/nonexistent"), _run(chunks).project)
    return target.write_run(_key(chunks), digest, iter(chunks), files or nowhere, parent)


def _read(target: WriteSide, chunks: list[Chunk], selection: Selection = _ALL) -> list[Chunk]:
    pieces = target.read_run(_held(target, chunks), Want(selection=selection, chunk_points=100), DigestSink())
    return [piece.chunk for piece in pieces]


def _held(target: WriteSide, chunks: list[Chunk]) -> TargetRun:
    held = target.find_run(_key(chunks))
    assert held is not None, f"{_run(chunks).label} is not in the target"
    return held


def _fitted(target: WriteSide, chunks: list[Chunk]) -> Iterator[Chunk]:
    for chunk in _contents(chunks):
        if (native := target.fit(chunk).native) is not None:
            yield native


def _contents(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    return (chunk for chunk in chunks if not isinstance(chunk, Header | End))


def _expected_facts(target: WriteSide, chunks: list[Chunk], parent: TargetRunId | None) -> dict[str, str]:
    return target.expected_facts(_run(chunks), fact_fields(chunks), parent, last_point_ms(chunks))


def _run(chunks: Iterable[Chunk]) -> RunRef:
    return next(chunk.run for chunk in chunks if isinstance(chunk, Header))


def _key(chunks: list[Chunk]) -> MigrationKey:
    return migration_key(_run(chunks))


def _reason(finding: Finding) -> tuple[str, str, str]:
    return finding.kind, finding.code, finding.field


def _assert_same_content(expected: dict[FieldKey, FieldDigest], found: dict[FieldKey, FieldDigest]) -> None:
    assert expected.keys() - found.keys() == set(), "did not come back"
    assert found.keys() - expected.keys() == set(), "came from nowhere"
    assert [key for key in expected if expected[key] != found[key]] == [], "came back as something else"
