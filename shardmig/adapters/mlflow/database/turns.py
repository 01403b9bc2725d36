"""Taking turns between the workers of this machine."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path


@contextmanager
def turn(purpose: str, place: str) -> Iterator[None]:
    """Only one process at a time holds the turn for `purpose` at `place`; it ends with its process in any case.

    The lock lies in the temporary folder, as MLflow's own: beside a database it would stay there for ever.
    """
    digest = blake2b(place.encode(), digest_size=8).hexdigest()
    path = Path(tempfile.gettempdir()) / f"shardmig-{os.getuid()}-{purpose}-{digest}.lock"
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
