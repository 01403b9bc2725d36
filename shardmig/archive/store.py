"""Object stores, with those of pathlib.Path's methods that an archive is read and written with.

`s3://bucket/prefix` (`gs://`, `az://`) stands wherever a folder on disk may stand. An object store has no folders (a
prefix with something below it is taken for one), no renames and no links; an object appears whole or not at all.
Credentials and endpoint come from the environment, as the store's own tools read them. The client, obstore, tries again
what fails, and so does this module: a server may be away for a minute.
"""

from __future__ import annotations

import errno
import functools
import io
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple, TypeVar

from shardmig.archive.refusals import refusal
from shardmig.errors import MissingExtra, Unavailable

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutMode
    from obstore.auth.boto3 import Boto3CredentialProvider
    from obstore.store import ObjectStore

_ENVIRONMENT: Final = ("AWS_", "GOOGLE_", "AZURE_")
_READ_BYTES: Final = 4 << 20
_WHOLE_BYTES: Final = 256 << 10
_UPLOAD_BYTES: Final = 8 << 20
"""Smaller objects take one request, larger ones are sent in pieces of this size."""
_UPLOADS_AT_ONCE: Final = 4
_MOST_PIECES: Final = 9_000
_LISTED_AT_ONCE: Final = 1_000
_PATIENCE_S: Final = 90
_IMPATIENCE_S: Final = 5
_PAUSE_S: Final = 1
_MAX_ATTEMPTS: Final = "AWS_MAX_ATTEMPTS"
_ATTEMPTS: Final = 1_000
"""Pauses are random: how often a call is tried says nothing about how long. Measured: ten times within 1.3 s."""


Answer = TypeVar("Answer")


class Stat(NamedTuple):
    """What an object store tells of an object, in the words of os.stat."""

    st_size: int
    st_mtime_ns: int
    st_ino: int = 0
    e_tag: str | None = None
    version: str | None = None


class ObjectPath:
    """One name in a bucket. Making it asks nothing; every other call is a request, unless a listing told its `known` facts.

    Raises Unavailable, AuthFailed, QuotaExceeded, HostilePath, and UsageError where there is no such bucket.
    """

    __slots__ = ("_known", "_root", "key")

    def __init__(self, root: str, key: str, known: Stat | None = None) -> None:
        self._root, self.key, self._known = root, key, known

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(self._root, f"{self.key}/{name}" if self.key else name)

    def __str__(self) -> str:
        return f"{self._root}/{self.key}" if self.key else self._root

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectPath) and str(self) == str(other)

    def __lt__(self, other: ObjectPath) -> bool:
        return str(self) < str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def name(self) -> str:
        """What stands behind the last slash."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> ObjectPath:
        """What stands before it."""
        return ObjectPath(self._root, self.key.rpartition("/")[0])

    def looked(self) -> ObjectPath | None:
        """This object, its facts known; None where there is none of this name."""
        import obstore

        if self._known is not None:
            return self
        try:
            return self._listed(self._ask(lambda client: obstore.head(client, self.key)))
        except FileNotFoundError:
            return None

    def absolute(self) -> ObjectPath:
        """Itself: a URL depends on nothing."""
        return self

    def is_file(self) -> bool:
        """Is there an object of this name?"""
        return self.looked() is not None

    def is_dir(self) -> bool:
        """Is anything below this name?"""
        return next(self.below(), None) is not None

    def stat(self) -> Stat:
        """Size, and time of the last change. Raises FileNotFoundError."""
        found = self.looked()
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
        return found.stat() if self._known is None else self._known

    def children(self) -> tuple[list[str], list[ObjectPath]]:
        """The names of the folders, and the objects, right below it; both sorted."""
        import obstore

        found = self._ask(lambda client: obstore.list_with_delimiter(client, self.key or None))
        folders = [prefix.rpartition("/")[2] for prefix in found["common_prefixes"]]
        return sorted(folders), sorted(self._listed(meta) for meta in found["objects"])

    def below(self, start: str = "") -> Iterator[ObjectPath]:
        """Every object below it, at any depth, by name; behind the name `start`."""
        import obstore

        behind = (self / start).key if start else None

        def page(client: ObjectStore) -> Sequence[ObjectMeta]:
            return next(obstore.list(client, self.key or None, offset=behind, chunk_size=_LISTED_AT_ONCE), [])

        while found := self._ask(page):
            yield from map(self._listed, found)
            if len(found) < _LISTED_AT_ONCE:
                return
            behind = found[-1]["path"]

    def relative_to(self, other: ObjectPath) -> str:
        """Its name from there on."""
        start = f"{other}/"
        assert str(self).startswith(start)
        return str(self)[len(start) :]

    def open(self) -> BinaryIO:
        """The object, readable at any place: a small one as a whole, else in ranges, when they are wanted."""
        size = self.stat().st_size
        return (
            io.BytesIO(self.read_range(0, size))
            if size <= _WHOLE_BYTES
            else io.BufferedReader(_Ranges(self), _READ_BYTES)
        )

    def read_range(self, start: int, stop: int) -> bytes:
        """Some of its bytes."""
        import obstore

        if start == stop:
            return b""
        return self._ask(lambda client: bytes(obstore.get_range(client, self.key, start=start, end=stop)))

    def blocks(self) -> Iterator[bytes]:
        """Its content from front to back. Raises FileNotFoundError."""
        size = self.stat().st_size
        for start in range(0, size, _READ_BYTES):
            yield self.read_range(start, min(start + _READ_BYTES, size))

    def write(self, blocks: Iterable[bytes]) -> None:
        """Make it hold these bytes, whatever it held. What `blocks` raises passes, and then nothing was written."""
        import obstore

        rest = iter(blocks)
        head = _beginning(rest)
        if len(head) < _UPLOAD_BYTES:
            self._ask(lambda client: obstore.put(client, self.key, head, use_multipart=False))
            return
        with self._refusals():  # a stream comes by once: all patience is with the client
            obstore.put(
                self._client(_PATIENCE_S),
                self.key,
                _chained(head, rest),
                chunk_size=_UPLOAD_BYTES,
                max_concurrency=_UPLOADS_AT_ONCE,
            )

    def upload(self, file: Path) -> None:
        """Make it hold what a file on disk holds."""
        import obstore

        size = max(_UPLOAD_BYTES, file.stat().st_size // _MOST_PIECES)
        self._ask(lambda client: obstore.put(client, self.key, file, chunk_size=size, max_concurrency=_UPLOADS_AT_ONCE))

    def create(self, content: bytes, *, over: ObjectPath | None = None) -> bool:
        """Make it hold this, unless it is there: then False. `over`: as it was looked at; it is replaced, unless it
        changed since."""
        import obstore

        mode: PutMode = "create"
        if over is not None:
            seen, mode = over.stat(), {}
            if seen.e_tag is not None:
                mode["e_tag"] = seen.e_tag
            if seen.version is not None:
                mode["version"] = seen.version
        try:
            with self._refusals():  # sent again by others than the client, it might meet itself
                obstore.put(self._client(_PATIENCE_S), self.key, content, mode=mode, use_multipart=False)
        except FileExistsError:
            return False
        return True

    def unlink(self) -> None:
        """Remove the object, if it is there."""
        import obstore

        try:
            self._ask(lambda client: obstore.delete(client, self.key))
        except FileNotFoundError:
            return

    def _ask(self, request: Callable[[ObjectStore], Answer]) -> Answer:
        """The answer to what may be sent again, for as long as a store may be away. The client itself is impatient: while it
        waits, nobody can interrupt it."""
        ends_s = time.monotonic() + (0 if _MAX_ATTEMPTS in os.environ else _PATIENCE_S)
        while True:
            try:
                with self._refusals():
                    return request(self._client(_IMPATIENCE_S))
            except Unavailable:
                if time.monotonic() > ends_s:
                    raise
                time.sleep(_PAUSE_S)

    def _listed(self, meta: ObjectMeta) -> ObjectPath:
        return ObjectPath(self._root, meta["path"], _stat(meta))

    def _client(self, patience_s: int) -> ObjectStore:
        settings = tuple(sorted(one for one in os.environ.items() if one[0].startswith(_ENVIRONMENT)))
        return _client(self._root, patience_s, settings)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, FileNotFoundError, ValueError) as error:
            # That something is not there passes as it is: its own cause, it would keep all callers alive for a while.
            raise refusal(str(self), error) from (None if isinstance(error, FileNotFoundError) else error)


class _Ranges(io.RawIOBase):
    """An object as a file."""

    def __init__(self, path: ObjectPath) -> None:
        self._path = path
        self._size = path.stat().st_size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        stop = min(self._at + len(buffer), self._size)
        if stop <= self._at:
            return 0
        found = self._path.read_range(self._at, stop)
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)


def _beginning(blocks: Iterator[bytes]) -> bytes:
    """As many as make a piece of an upload, or all."""
    head = b""
    for block in blocks:
        head += block
        if len(head) >= _UPLOAD_BYTES:
            break
    return head


def _chained(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from rest


def _stat(meta: ObjectMeta) -> Stat:
    changed_ns = int(meta["last_modified"].timestamp() * 1_000_000_000)
    return Stat(meta["size"], changed_ns, e_tag=meta["e_tag"], version=meta["version"])


@functools.lru_cache(maxsize=8)
def _client(root: str, patience_s: int, environment: tuple[tuple[str, str], ...]) -> ObjectStore:
    """One client, and so one pool of connections, for a bucket under the settings of the environment."""
    from obstore.store import from_url

    settings = dict(environment)
    attempts = settings.get(_MAX_ATTEMPTS, "")
    is_s3 = root.startswith("s3:")
    return from_url(
        root,
        config={"disable_bulk_delete": True} if is_s3 else None,  # not every store that is like S3 has it
        client_options={"allow_http": True, "timeout": timedelta(minutes=2)},
        retry_config={
            "max_retries": (int(attempts) if attempts.isdecimal() else _ATTEMPTS) - 1,
            "retry_timeout": timedelta(seconds=patience_s),
            "backoff": {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=5)},
        },
        credential_provider=_profile() if is_s3 and "AWS_PROFILE" in settings else None,
    )


def _profile() -> Boto3CredentialProvider:
    """Credentials of the profile that AWS_PROFILE names, which only AWS's own library can read."""
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        raise MissingExtra("AWS_PROFILE needs boto3", hint="pip install boto3") from error
    return Boto3CredentialProvider()
