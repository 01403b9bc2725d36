"""A pace of calls that all processes of one user keep together, whatever engine or migration they belong to.

The time of the next turn stands in a small locked file. The monotonic clock is one for all processes of a computer.
"""

from __future__ import annotations

import fcntl
import os
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Final

from shardmig.adapters.wrappers import PATIENT, RateLimit

_TIME: Final = struct.Struct("d")
_LONGEST_S: Final = 3600.0
"""A turn further away than this is one of before the computer was started again."""


class SharedPace(RateLimit):
    """At most `per_second` calls a second among all threads of all processes that name the same thing; None = as many as
    like to, but pauses bind all of them. Get it by `shared_pace`."""

    def __init__(self, name: str, per_second: float | None) -> None:
        super().__init__(per_second)
        digest = blake2b(name.encode(), digest_size=8).hexdigest()
        path = Path(tempfile.gettempdir()) / f"shardmig-{os.getuid()}-{digest}.pace"
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def take(self) -> None:
        """Wait for this caller's turn."""
        turn_s = self._moved(lambda next_s: max(next_s, time.monotonic()), self._interval_s)
        if (wait_s := turn_s - time.monotonic()) > 0:
            time.sleep(wait_s)

    def pause(self, seconds: float) -> None:
        """Nobody's turn comes for this long; at most for as long as a caller waits who is asked to."""
        pause_s = min(seconds, PATIENT.longest_wait_s)
        self._moved(lambda next_s: max(next_s, time.monotonic() + pause_s), 0.0)

    def _moved(self, turn_of: Callable[[float], float], then_s: float) -> float:
        """The turn made of the next one; the one after it comes `then_s` later."""
        with self._lock:  # the lock of a file binds processes, not threads
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            try:
                held = os.pread(self._file, _TIME.size, 0)
                next_s = _TIME.unpack(held)[0] if len(held) == _TIME.size else 0.0
                turn_s = turn_of(next_s if next_s < time.monotonic() + _LONGEST_S else 0.0)
                os.pwrite(self._file, _TIME.pack(turn_s + then_s), 0)
                return turn_s
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)


_paces: dict[str, SharedPace] = {}
_paces_lock = threading.Lock()


def shared_pace(name: str, per_second: float | None) -> SharedPace:
    """The one SharedPace of this process for `name` (an address with an account). The first caller's rate holds. Raises
    OSError if the temporary folder cannot hold its file."""
    with _paces_lock:
        if name not in _paces:
            _paces[name] = SharedPace(name, per_second)
        return _paces[name]
