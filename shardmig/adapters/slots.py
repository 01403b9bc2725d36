"""A bound on calls under way that all processes of one user share, whatever engine or migration they belong to.

Each slot is one byte of a lock file. The operating system gives back what a killed process held.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Final

_POLL_S: Final = 0.005


class SharedSlots:
    """At most `count` holders among all threads of all processes that name the same thing. Get it by `shared_slots`:
    a process must have one for each name, since it loses its locks when it closes the file anywhere."""

    def __init__(self, name: str, count: int) -> None:
        digest = blake2b(name.encode(), digest_size=8).hexdigest()
        path = Path(tempfile.gettempdir()) / f"shardmig-{os.getuid()}-{digest}.slots"
        self.count = count
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._held: set[int] = set()
        self._turn = threading.Lock()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for a slot and hold it while the context lasts."""
        slot = self._take()
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, slot)
            self._held.discard(slot)

    def _take(self) -> int:
        with self._turn:  # one thread of a process looks for a slot, the others queue behind it
            while True:
                for slot in range(self.count):
                    if slot not in self._held and self._locks(slot):
                        self._held.add(slot)
                        return slot
                time.sleep(_POLL_S)

    def _locks(self, slot: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
        except BlockingIOError:
            return False
        return True


_slots: dict[str, SharedSlots] = {}
_slots_lock = threading.Lock()


def shared_slots(name: str, count: int) -> SharedSlots:
    """The one SharedSlots of this process for `name`, such as the address of a server. The last caller's count holds.
    Raises OSError if the temporary folder cannot hold its file."""
    with _slots_lock:
        if name not in _slots:
            _slots[name] = SharedSlots(name, count)
        _slots[name].count = count
        return _slots[name]
