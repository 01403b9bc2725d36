"""The spool: one framed file per run, in which a worker keeps every piece it has read until the run is published.

Knows nothing of sources or parquet. What stands before the first torn frame is whole: the successor of a killed worker
goes on behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from shardmig.archive.layout import disk_errors
from shardmig.archive.rows import pieces_of
from shardmig.codec import FrameWriter, decode, encode, read_frames
from shardmig.errors import BadInput
from shardmig.records import Chunk, End, Piece

_WHOLE: Final = b"."
_BEGUN: Final = b"+"
"""The first byte of a frame: the piece ends here, or goes on in the next frame and is worth nothing without it."""


class RunSpool:
    """Appends the pieces of one run. Opening it cuts a torn tail off; each append survives the death of the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        end, last = 0, b""
        if path.exists():
            for offset, mark, payload in _whole_frames(path):
                if mark == _WHOLE:
                    end, last = offset, payload
        piece: Piece | None = decode(last, Piece) if last else None
        self._cursor = None if piece is None else piece.cursor
        self._is_ended = piece is not None and isinstance(piece.chunk, End)
        with disk_errors(str(path)):
            self._frames = FrameWriter(path, keep_bytes=end)

    def cursor(self) -> bytes | None:
        """The source's mark after the last whole piece: where to go on. None: nothing is spooled yet;
        b"": the source cannot resume, so `restart` and read again."""
        return self._cursor

    @property
    def is_ended(self) -> bool:
        """Has End been spooled? Then nothing is left to read."""
        return self._is_ended

    def append(self, piece: Piece) -> None:
        """Keep one piece. A chunk of many bytes is cut into several frames, the cursor in the last."""
        *before, last = pieces_of(piece.chunk)
        for chunk in before:
            self._append(_BEGUN, Piece(piece.run, chunk))
        self._append(_WHOLE, Piece(piece.run, last, piece.cursor))
        with disk_errors(str(self.path)):
            self._frames.flush()
        self._cursor = piece.cursor
        self._is_ended = isinstance(piece.chunk, End)

    def restart(self) -> None:
        """Forget everything spooled."""
        self._frames.close()
        with disk_errors(str(self.path)):
            self._frames = FrameWriter(self.path)
        self._cursor, self._is_ended = None, False

    def close(self) -> None:
        """Close the file; idempotent."""
        self._frames.close()

    def _append(self, mark: bytes, piece: Piece) -> None:
        try:
            payload = mark + encode(piece)
        except UnicodeEncodeError as error:
            raise BadInput(f"a text is not valid Unicode: {error}", run=piece.run.label) from error
        with disk_errors(str(self.path)):
            self._frames.append(payload)


def spooled_chunks(path: Path) -> Iterator[Chunk]:
    """The chunks of a spool in the order of their arrival, as RunSpool left it; may be called again and again."""
    for _, _, payload in _whole_frames(path):
        piece: Piece = decode(payload, Piece)
        yield piece.chunk


def _whole_frames(path: Path) -> Iterator[tuple[int, bytes, bytes]]:
    for frame in read_frames(path):
        yield frame.end, frame.payload[:1], frame.payload[1:]
