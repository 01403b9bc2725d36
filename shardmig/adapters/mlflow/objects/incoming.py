"""The stream of chunks that an object comes as."""

from __future__ import annotations

from collections.abc import Iterator

from shardmig.errors import BadInput
from shardmig.records import Chunk, End, Field, FileRef, Files, Finding, Header, Points

Taken = tuple[Header, list[Field], Iterator[Chunk]]
"""A stream of chunks whose header and scalar fields were taken."""


class Rest:
    """What comes behind the scalar fields: files, then points, then End."""

    def __init__(self, chunks: Iterator[Chunk]) -> None:
        self._chunks = chunks
        self._first: Chunk | None = None
        self.refs: list[FileRef] = []
        self.end = End([Finding("loss", "run-cut", detail="its chunks end without End: what was read is not whole")])
        for chunk in chunks:
            if not isinstance(chunk, Files):
                self._first = chunk
                break
            self.refs += chunk.files

    def points(self) -> Iterator[Points]:
        """All points; afterwards End is known."""
        chunk = self._first
        while chunk is not None:
            if isinstance(chunk, End):
                self.end = chunk
                self._first = None
                return
            if not isinstance(chunk, Points):
                raise BadInput(f"{type(chunk).__name__} among the points")
            yield chunk
            self._first = chunk = next(self._chunks, None)

    def has_losses(self) -> bool:
        """Was something lost before it came here? Known once all points are taken."""
        return any(finding.kind == "loss" for finding in self.end.findings)

    def findings(self) -> list[Finding]:
        """What was not taken, and an End that did not come."""
        left = sorted({path for points in self.points() for path in points.paths})
        lost = [Finding("loss", "unknown-series", path, detail="MLflow has no place for it") for path in left]
        return [*lost, *(finding for finding in self.end.findings if finding.code == "run-cut")]
