"""Mend a published run that lacks single fields: fetch these alone, and take everything else from the archive.

Nothing is patched: the run is spooled anew, from both, and published as any other. What makes a mended run as good as
one that is read whole: every field is wholly from one of the two; the archive's part proves itself by its receipt; each
lost field is either there now or told of again. Where one of these fails the run is read whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from shardmig.adapters.base import FileSink, ReadSide, Want
from shardmig.archive.reader import ArchiveReader
from shardmig.archive.spool import RunSpool
from shardmig.errors import BadInput
from shardmig.records import End, Finding, Header, Piece, Receipt, RunRef, Selection
from shardmig.worker.tally import ProgressFile, count, fields_of

_MOST_FIELDS = 1_000


def lost_fields(receipt: Receipt) -> list[str]:
    """The paths of the fields that are all that a run lacks. Empty: it lacks nothing, too many, or something that has
    no name."""
    losses = {finding.field for finding in receipt.findings if finding.kind == "loss"}
    return sorted(losses) if "" not in losses and len(losses) <= _MOST_FIELDS else []


class Mending:
    """Mends runs that `archive` holds from `source`, which is asked for chunks as `want` says."""

    def __init__(self, source: ReadSide, archive: ArchiveReader, want: Want, progress: ProgressFile) -> None:
        self._source = source
        self._archive = archive
        self._want = want
        self._progress = progress

    def spool(self, run: RunRef, receipt: Receipt, files: FileSink, spool: RunSpool) -> bool:
        """Spool the whole run. False: it has to be read whole; what was spooled is worth nothing.

        Raises what the source raises.
        """
        lost = lost_fields(receipt)
        reread = self._reread(run, lost, receipt, files, spool)
        if reread is None:
            return False
        paths, found = reread
        answered = paths | {finding.field for finding in found}
        if not all(any(path == one or path.startswith(f"{one}/") for path in answered) for one in lost):
            return False
        if not self._copy(run, receipt, paths, spool):
            return False
        spool.append(Piece(run, End(_findings(receipt, paths, found))))
        return True

    def _reread(
        self, run: RunRef, lost: Iterable[str], receipt: Receipt, files: FileSink, spool: RunSpool
    ) -> tuple[set[str], list[Finding]] | None:
        """The paths that the source gave, and its findings. A reference of several facts is read as fields below its
        own path. None: this is not the source that the archive has the run from."""
        only = rf"\A(?:{'|'.join(map(re.escape, lost))})(?:/|\Z)"
        selection = msgspec.structs.replace(self._want.selection, attributes=(only,))
        want = Want(selection=selection, chunk_points=self._want.chunk_points)
        paths: set[str] = set()
        for piece in self._source.read_runs([run], want, files):
            if isinstance(piece.chunk, Header) and piece.chunk.source != receipt.source:
                return None
            if isinstance(piece.chunk, End):
                return paths, piece.chunk.findings
            paths |= {path for path, _ in fields_of(piece.chunk)}
            spool.append(Piece(run, piece.chunk))  # without its cursor: a mending that is cut off begins anew
            self._progress.add(count(piece.chunk))
        return None

    def _copy(self, run: RunRef, receipt: Receipt, without: set[str], spool: RunSpool) -> bool:
        """Everything that the archive holds but these paths. False: it is damaged."""
        others = rf"\A(?:{'|'.join(map(re.escape, sorted(without)))})\Z" if without else ""
        want = Want(selection=Selection(exclude_attributes=others), chunk_points=self._want.chunk_points)
        try:
            for piece in self._archive.read(run, want):
                if isinstance(piece.chunk, End):
                    return piece.chunk.findings == receipt.findings
                if not isinstance(piece.chunk, Header):
                    spool.append(Piece(run, piece.chunk))
        except BadInput:
            return False
        return False


def _findings(receipt: Receipt, read_again: set[str], found: list[Finding]) -> list[Finding]:
    """What is to be told of the mended run. Of the run as a whole the first reading knew more than the second."""
    kept = [one for one in receipt.findings if one.kind != "loss" and (not one.field or one.field not in read_again)]
    told = {(one.kind, one.code) for one in kept if not one.field}
    return kept + [one for one in found if one.field or (one.kind, one.code) not in told]
