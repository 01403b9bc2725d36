"""From a spool to a published run: ordered, digested, written as parquet, proven by a receipt.

Memory does not grow with the run's points: measured NN MB for 50 million (see benchmarks). Scalar fields and file
references are held whole.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from shardmig import __version__
from shardmig.archive.canonical import Scalars
from shardmig.archive.digest import RunDigest
from shardmig.archive.facts import with_facts
from shardmig.archive.layout import disk_errors, project_folder, publish_parts, sanitize
from shardmig.archive.ordering import ordered_points
from shardmig.archive.parts import GROUP_ROWS, PartsWriter
from shardmig.archive.places import Place, root_of
from shardmig.archive.published import PublishedRun
from shardmig.archive.spool import spooled_chunks
from shardmig.archive.table import fields_table, files_table, points_table
from shardmig.archive.unnamed import drop_unnamed
from shardmig.archive.uploading import upload_parts
from shardmig.errors import BadInput
from shardmig.records import (
    FORMAT_VERSION,
    ArchivePaths,
    End,
    Field,
    Fields,
    FileRef,
    Files,
    Finding,
    FloatPoints,
    Header,
    HistogramPoints,
    PartInfo,
    Points,
    Receipt,
    RunRef,
    Selection,
    StringPoints,
)

PART_BYTES: Final = 50 << 20
_TABLE_FIELDS: Final = 10_000


def compact(
    spool: Path,
    archive: ArchivePaths,
    *,
    asked: Selection,
    source: str,
    source_version: str,
    started_ms: int,
    part_bytes: int = PART_BYTES,
    compression: str = "zstd",
) -> Receipt:
    """Publish the run that was spooled, replacing an earlier export of it, and return its receipt.

    A scalar, or a file that is not a series, that was spooled twice counts once: the last wins. The same spool gives
    the same rows in the same parts, whatever the order of its chunks. Needs disk beside the spool for the points once
    more, and for the parts if the archive is in an object store. Raises BadInput if the spool has no End, DiskFull.
    """
    content = _gather(spool)
    folder = project_folder(root_of(archive.data), content.run.project, content.run.scope)
    staging = folder if isinstance(folder, Path) else staging_beside(spool)
    prefix = sanitize(content.run.id)
    digest = RunDigest()

    def receipt_for(parts: list[PartInfo]) -> Receipt:
        return Receipt(
            format_version=FORMAT_VERSION,
            tool_version=__version__,
            run=msgspec.structs.replace(content.run, weight=sum(part.rows for part in parts)),
            source=source,
            source_version=source_version,
            asked=asked,
            parts=parts,
            fields=digest.field_digests(),
            digest=digest.digest(),
            counters=digest.counters(),
            steps=digest.steps(),
            findings=content.end.findings,
            started_ms=started_ms,
            ended_ms=time.time_ns() // 1_000_000,
        )

    with PartsWriter(staging, prefix, part_bytes=part_bytes, compression=compression) as parts:
        _write_scalars(content, parts, digest)
        _write_points(content.run, ordered_points(partial(_points, spool), spool.parent, GROUP_ROWS), parts, digest)
        receipt = parts.finish(receipt_for)
        count = parts.count()
    with disk_errors(str(folder)):
        _withdraw_mute(folder, prefix)
        if isinstance(folder, Path):
            publish_parts(folder, prefix, count)
        else:
            upload_parts(staging, folder, content.run, count)
            shutil.rmtree(staging)
    if not any(finding.kind == "loss" for finding in content.end.findings):  # else they may be all that there is
        drop_unnamed(archive, content.run, {ref.stored for ref in content.files})
    return receipt


def _withdraw_mute(folder: Place, prefix: str) -> None:
    """Remove an earlier part_0 without a receipt: while its other parts are replaced, it could not tell."""
    earlier = PublishedRun(folder, prefix)
    with suppress(BadInput):  # of a damaged one, reading tells
        if earlier.exists() and earlier.receipt is None:
            earlier.first.unlink()


def staging_beside(spool: Path) -> Path:
    """Where the parts of a run wait for their upload into an object store."""
    return spool.with_suffix(".parts")


class _Content(msgspec.Struct, frozen=True):
    """Everything of a run but its points, in canonical order."""

    run: RunRef
    fields: list[Field]
    files: list[FileRef]
    end: End


def _gather(spool: Path) -> _Content:
    run: RunRef | None = None
    end: End | None = None
    scalars = Scalars()
    for chunk in spooled_chunks(spool):
        match chunk:
            case Header():
                run = chunk.run
            case Fields():
                scalars.add_fields(chunk.fields)
            case Files():
                scalars.add_files(chunk.files)
            case End():
                end = chunk
    if run is None or end is None:
        raise BadInput(f"{spool} does not hold a whole run", run="" if run is None else run.label)
    end = msgspec.structs.replace(end, findings=[*end.findings, *_replaced(scalars)])
    fields = scalars.fields()
    return _Content(with_facts(run, fields), fields, scalars.files(), end)


def _replaced(scalars: Scalars) -> Iterator[Finding]:
    """A value that comes again as another one was changed in the source between two attempts. A file may as well be
    another one of the same step, time and name, of which the archive holds one."""
    for path, count in scalars.replaced_fields.items():
        yield Finding("gap", "value-replaced", path, count, "the source gave another value later: that one is taken")
    for path, count in scalars.replaced_files.items():
        yield Finding("loss", "two-values", path, count, "files of one step, time and name: the last is taken")


def _points(spool: Path) -> Iterator[Points]:
    for chunk in spooled_chunks(spool):
        if isinstance(chunk, FloatPoints | StringPoints | HistogramPoints):
            yield chunk


def _write_scalars(content: _Content, parts: PartsWriter, digest: RunDigest) -> None:
    """All in part_0: neptune-exporter looks for `sys/` fields there."""
    for start in range(0, len(content.fields), _TABLE_FIELDS):
        fields = content.fields[start : start + _TABLE_FIELDS]
        parts.write(fields_table(content.run, fields), may_roll=False)
        digest.add(Fields(fields))
    for start in range(0, len(content.files), _TABLE_FIELDS):
        files = content.files[start : start + _TABLE_FIELDS]
        parts.write(files_table(content.run, files), may_roll=start > 0)
        digest.add(Files(files))


def _write_points(run: RunRef, chunks: Iterator[Points], parts: PartsWriter, digest: RunDigest) -> None:
    unsplit = ""
    for chunk in chunks:
        is_float = isinstance(chunk, FloatPoints)
        parts.write(points_table(run, chunk), may_roll=is_float or chunk.paths[0] != unsplit)
        unsplit = "" if is_float else chunk.paths[-1]
        digest.add(chunk)
