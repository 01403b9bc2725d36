"""Export one shard: read side of the source to published runs in the archive."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from shardmig import logs
from shardmig.adapters.base import ReadSide, Want
from shardmig.adapters.registry import open_source
from shardmig.archive.bucket_files import files_of
from shardmig.archive.layout import sanitize
from shardmig.archive.reader import ArchiveReader
from shardmig.archive.receipts import NewerFormat
from shardmig.archive.spool import RunSpool, spooled_chunks
from shardmig.archive.unnamed import drop_unnamed, named_files
from shardmig.archive.writer import compact, staging_beside
from shardmig.errors import AdapterError, BadInput, Fatal, TargetConflict, Unavailable
from shardmig.logs import Event
from shardmig.records import (
    End,
    Header,
    Receipt,
    RunId,
    RunOutcome,
    RunRef,
    Selection,
    Task,
)
from shardmig.worker.mending import Mending, lost_fields
from shardmig.worker.outcomes import failed, lost_values
from shardmig.worker.tally import ProgressFile, count


def export_shard(task: Task, progress: ProgressFile, done: Callable[[RunOutcome], None]) -> None:
    """Export every run of the shard and tell each outcome. Runs that are published already are skipped.

    A killed attempt is continued: what it spooled is kept, and reading goes on behind its last whole chunk. Of a run
    that is published but for single fields these alone are fetched.
    """
    archive = ArchiveReader(task.archive)
    source = open_source(task.source)
    try:
        exporter = _Exporter(task, source, archive, progress, done)
        pending: dict[RunId, RunRef] = {}
        for run in task.shard.runs:
            held = _held(run, archive)
            receipt = held if held is not None and held.run.fingerprint == run.fingerprint else None
            outcome = None if receipt is None else _settled_before(run, receipt, task.selection)
            if outcome is not None:
                exporter.forget(run)
                done(outcome)
            elif receipt is None or not exporter.mended(run, receipt):
                pending[run.id] = run
                exporter.sources[run.id] = held.source if held is not None else ""
        while pending:
            exporter.export(pending)
    finally:
        source.close()


def _held(run: RunRef, archive: ArchiveReader) -> Receipt | None:
    """The receipt of any version of the run. None also where it is damaged: what comes is better. Raises NewerFormat."""
    try:
        return archive.receipt(run)
    except NewerFormat:
        raise
    except BadInput as error:
        logs.get_logger().warning(Event.RUN_DAMAGED, run=run.id, message=error.message)
        return None


def _settled_before(run: RunRef, receipt: Receipt, selection: Selection) -> RunOutcome | None:
    """The outcome of a run that need not be read: it is published whole, with at least the fields asked for."""
    if lost_values(receipt.findings):
        return None
    held, asked = _field_filters(receipt.asked), _field_filters(selection)
    if held in (asked, _field_filters(Selection())):
        logs.get_logger().info(Event.RUN_SKIPPED, run=run.id)
        return _outcome(run, receipt, "skipped")
    if asked == _field_filters(Selection()):
        return None
    refused = TargetConflict(
        "the archive holds this run with other fields selected",
        run=run.label,
        hint="export into another --data-path, or without field filters",
    )
    return failed(run, refused)


def _field_filters(selection: Selection) -> tuple[object, ...]:
    return selection.attributes, selection.exclude_attributes, frozenset(selection.classes)


class _Exporter:
    """Reads pending runs into spools and publishes each as soon as its End has come."""

    def __init__(
        self,
        task: Task,
        source: ReadSide,
        archive: ArchiveReader,
        progress: ProgressFile,
        done: Callable[[RunOutcome], None],
    ) -> None:
        self._task = task
        self._source = source
        self._archive = archive
        self._progress = progress
        self._done = done
        self._started_ms = time.time_ns() // 1_000_000
        self.sources: dict[RunId, str] = {}
        """Where the archive has each run from that is to be exported; "": it has none, or a damaged one."""

    def export(self, pending: dict[RunId, RunRef]) -> None:
        """Export pending runs and take them out, until all are out or one of them failed.

        Raises an error that names no run, and Fatal.
        """
        spools = {run.id: self._open_spool(run) for run in pending.values()}
        try:
            for run in [run for run in pending.values() if spools[run.id].is_ended]:
                self._publish(run, spools[run.id])
                del pending[run.id]
            self._read(pending, spools)
        except Fatal:
            raise
        except AdapterError as error:
            culprit = next((run for run in pending.values() if error.run in (run.id, run.label)), None)
            if culprit is None:
                raise
            del pending[culprit.id]
            self._done(failed(culprit, error))
        finally:
            for spool in spools.values():
                spool.close()

    def forget(self, run: RunRef) -> None:
        """Remove what an attempt that was killed right after publishing left of a run: its spool, and files of the
        version before."""
        spool = self._spool_path(run)
        left = [path for path in (spool, _mending(spool)) if path.exists()]
        if left:
            with suppress(BadInput):  # a damaged part: reading the run tells of it
                drop_unnamed(self._task.archive, run, named_files(self._archive.published(run)))
        for path in left:
            path.unlink()
        shutil.rmtree(staging_beside(spool), ignore_errors=True)

    def mended(self, run: RunRef, receipt: Receipt) -> bool:
        """Tell the outcome of a run whose lost fields alone were fetched. False: it has to be read whole.

        Raises an error that does not name it, and Fatal.
        """
        if not lost_fields(receipt) or _field_filters(receipt.asked) != _field_filters(self._task.selection):
            return False
        spool = RunSpool(_mending(self._spool_path(run)))
        spool.restart()
        want = Want(selection=self._task.selection, chunk_points=self._task.chunk_points)
        files = files_of(self._task.archive, run.project)
        try:
            if not Mending(self._source, self._archive, want, self._progress).spool(run, receipt, files, spool):
                return False
            logs.get_logger().info(Event.RUN_MENDED, run=run.id, fields=len(lost_fields(receipt)))
            self._publish(run, spool)
        except Fatal:
            raise
        except AdapterError as error:
            if error.run not in (run.id, run.label):
                raise
            self._done(failed(run, error))
        finally:
            spool.close()
            spool.path.unlink(missing_ok=True)
        return True

    def _read(self, pending: dict[RunId, RunRef], spools: dict[RunId, RunSpool]) -> None:
        cursors = {run: cursor for run in pending if (cursor := spools[run].cursor())}
        want = Want(selection=self._task.selection, cursors=cursors, chunk_points=self._task.chunk_points)
        project = self._task.shard.runs[0].project
        files = files_of(self._task.archive, project)
        for piece in self._source.read_runs(list(pending.values()), want, files):
            if piece.run.fingerprint != pending[piece.run.id].fingerprint:
                raise BadInput(
                    "the run changed in its source since this was planned",
                    run=piece.run.label,
                    hint="give the export command again, which lists the source anew",
                )
            if isinstance(piece.chunk, Header):
                self._refuse_other_source(piece.run, piece.chunk.source)
            spool = spools[piece.run.id]
            spool.append(piece)
            self._progress.add(count(piece.chunk))
            if isinstance(piece.chunk, End):
                self._publish(piece.run, spool)
                del pending[piece.run.id]
        for run in list(pending.values()):
            del pending[run.id]
            self._done(failed(run, Unavailable("the source ended this run without its End", run=run.label)))

    def _open_spool(self, run: RunRef) -> RunSpool:
        """The spool of a run: continued where it was begun on the same content and the source can go on, else anew."""
        path = self._spool_path(run)
        header = spooled_header(path)
        spool = RunSpool(path)
        if header is None:
            return spool
        if header.run.fingerprint != run.fingerprint or not (spool.is_ended or spool.cursor()):
            spool.restart()
        else:
            logs.get_logger().info(Event.RUN_RESUMED, run=run.id)
        return spool

    def _spool_path(self, run: RunRef) -> Path:
        return Path(self._task.spool) / f"{sanitize(f'{run.scope}/{run.project}/{run.id}')}.spool"

    def _publish(self, run: RunRef, spool: RunSpool) -> None:
        spool.close()
        header = spooled_header(spool.path)
        receipt = compact(
            spool.path,
            self._task.archive,
            asked=self._task.selection,
            source=header.source if header else self._task.source.name,
            source_version=header.source_version if header else "",
            started_ms=self._started_ms,
            part_bytes=self._task.part_bytes,
            compression=self._task.compression,
        )
        logs.get_logger().info(Event.RUN_ENDED, run=run.id, digest=receipt.digest, rows=receipt.counters.points)
        self._done(_outcome(run, receipt, "done"))
        spool.path.unlink(missing_ok=True)

    def _refuse_other_source(self, run: RunRef, source: str) -> None:
        """Raises TargetConflict where the archive has this run from elsewhere: each may have what the other has not."""
        if (held := self.sources[run.id]) not in ("", source):
            raise TargetConflict(
                f"the archive holds this run as {held} had it, and it comes from {source} now",
                run=run.label,
                hint="export into another --data-path",
            )


def _mending(spool: Path) -> Path:
    """The spool of a run of which single fields are fetched."""
    return spool.with_suffix(".mend")


def spooled_header(path: Path) -> Header | None:
    """The Header that a spool begins with, None where there is no whole one."""
    first = next(spooled_chunks(path), None) if path.exists() else None
    return first if isinstance(first, Header) else None


def _outcome(run: RunRef, receipt: Receipt, state: Literal["done", "skipped"]) -> RunOutcome:
    losses = lost_values(receipt.findings)
    return RunOutcome(
        run=run,
        state="failed" if losses else state,
        digest=receipt.digest,
        counters=receipt.counters,
        steps=receipt.steps,
        findings=receipt.findings,
        failure=losses,
    )
