"""Columns too large for memory, in nameless files: nothing is left behind by a process that dies."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from shardmig.archive.layout import disk_errors
from shardmig.archive.rows import Column


class ScratchColumn:
    """A column of fixed length and zeros, written and read at any place.

    `folder` None keeps it in memory. Raises DiskFull.
    """

    def __init__(self, count: int, dtype: Any, folder: Path | None) -> None:
        self.dtype = np.dtype(dtype)
        self._file: IO[bytes] | None = None
        self._memory: Column | None = None
        if folder is None:
            self._memory = np.zeros(count, dtype=self.dtype)
            return
        with disk_errors(f"scratch space in {folder}"):
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed by close()
            self._file.truncate(count * self.dtype.itemsize)

    def write(self, start: int, values: Column) -> None:
        """Put values into place."""
        if self._memory is not None:
            self._memory[start : start + len(values)] = values
            return
        assert self._file is not None
        left = np.ascontiguousarray(values, dtype=self.dtype).data.cast("B")
        offset = start * self.dtype.itemsize
        with disk_errors("scratch space"):
            while left:
                written = os.pwrite(self._file.fileno(), left, offset)
                left, offset = left[written:], offset + written

    def read(self, start: int, stop: int) -> Column:
        """Values start to stop."""
        if self._memory is not None:
            return self._memory[start:stop]
        assert self._file is not None
        wanted = bytearray((stop - start) * self.dtype.itemsize)
        left = memoryview(wanted)
        offset = start * self.dtype.itemsize
        while left:
            count = os.preadv(self._file.fileno(), [left], offset)
            left, offset = left[count:], offset + count
        return np.frombuffer(wanted, dtype=self.dtype)

    def close(self) -> None:
        """Give the space back; idempotent."""
        self._memory = None
        if self._file is not None:
            self._file.close()
