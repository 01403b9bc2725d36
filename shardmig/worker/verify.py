"""Verify one run: the archive against the target's own read side."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from shardmig.adapters.base import Want, WriteSide, migration_key
from shardmig.archive.digest import RunDigest
from shardmig.archive.reader import ArchiveReader
from shardmig.records import SCALAR_TYPES, Finding, RunOutcome, RunRef, Selection
from shardmig.selection import Matcher
from shardmig.worker.comparison import Comparison
from shardmig.worker.differences import FieldKey

SAMPLED: Final = "sampled"


def verify_run(
    run: RunRef, *, archive: ArchiveReader, target: WriteSide, selection: Selection, sample: int = 0
) -> RunOutcome:
    """How the target's copy of `run` compares with the archive's.

    The verdict is missing (no run carries its key), differs (`differences` says what, as losses that name the field),
    approximated (`findings` holds the reasons) or equal. `sample` N > 1 compares only about one series and file field
    in N, chosen by a digest of its path; scalars and run facts are always compared.
    Raises what the archive raises, and Transient and Fatal of the target.
    """
    held = target.find_run(migration_key(run))
    if held is None:
        nothing = Finding("loss", "run-missing", detail=f"no run in the target carries the key of {run.label}")
        return RunOutcome(run=run, state="failed", verdict="missing", differences=[nothing])
    if held.state == "partial":
        partial = Finding("loss", "run-partial", detail="the target holds this run, but it was not loaded to its end")
        return RunOutcome(run=run, state="failed", target_id=held.id, verdict="differs", differences=[partial])
    if sample <= 1:
        return Comparison(run, held, archive, target, selection, None).outcome([])
    paths, note = _sample_of(run, archive, selection, sample)
    return Comparison(run, held, archive, target, selection, paths).outcome([note])


def _sample_of(run: RunRef, archive: ArchiveReader, selection: Selection, sample: int) -> tuple[set[str], Finding]:
    """The paths to compare, and the note of what that leaves out."""
    matcher = Matcher(selection)
    fields = {key for key in _field_keys(run, archive, selection) if matcher.wants_field(*key)}
    paths = {path for path, kind in fields if kind in SCALAR_TYPES or _is_in_sample(path, sample)}
    skipped = sum(path not in paths for path, _ in fields)
    detail = f"--sample {sample}: {skipped} of {len(fields)} fields were not compared, nor any that only the target has"
    return paths, Finding("note", SAMPLED, count=skipped, detail=detail)


def _field_keys(run: RunRef, archive: ArchiveReader, selection: Selection) -> set[FieldKey]:
    receipt = archive.receipt(run)
    if receipt is not None:
        return {(field.path, field.type) for field in receipt.fields}
    digest = RunDigest()
    for piece in archive.read(run, Want(selection=selection)):
        digest.add(piece.chunk)
    return {(field.path, field.type) for field in digest.field_digests()}


def _is_in_sample(path: str, sample: int) -> bool:
    digest = blake2b(path.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % sample == 0
