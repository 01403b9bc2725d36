"""Accounts of budgets in small locked files, shared by all processes of one user on one computer.

An account says what was spent within its windows, until when all have to pause, and who waits. Connections are bytes of the
same file, each locked by its holder: the operating system gives back what a killed process held. The monotonic
clock is one for all processes of a computer.
"""

from __future__ import annotations

import fcntl
import os
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final, TypeVar

import msgspec

T = TypeVar("T")

LONGEST_PAUSE_S: Final = 120.0
"""A pause that a server asks for binds all workers for this long at most: who is asked for more gives up."""

_HEAD: Final = struct.Struct("d")
"""The end of the pause stands first: it can be read without the lock."""
_MOST_BYTES: Final = 1 << 20
_CONNECTIONS_AT: Final = 1 << 24
_BUCKETS: Final = 60
_OVERSLEPT_S: Final = 1.0
"""Who does not ask again so long after its time has been killed, and keeps nobody waiting."""
_RECENT_S: Final = 3600.0


class Allowance(msgspec.Struct, frozen=True):
    """How much: 0 = no limit."""

    requests_per_s: float = 0
    points_per_min: float = 0
    connections: int = 0


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a budget stands now. waiting: labels of those who wait, the longest first."""

    name: str
    allowance: Allowance
    points_last_min: int
    pause_s: float
    connections_held: int
    waiting: list[str]


class _Spent(msgspec.Struct, array_like=True):
    """What was granted between two moments."""

    first_s: float
    last_s: float
    amount: float


class Account(msgspec.Struct):
    """What an account file holds. The arithmetic is here; time is given."""

    name: str = ""
    allowance: Allowance = Allowance()
    paused_until_s: float = 0.0
    requests: list[_Spent] = []
    points: list[_Spent] = []
    waiting: dict[str, float] = {}
    """By who waits, in order of arrival: when it asks again."""

    def forget(self, now_s: float) -> None:
        """What does not count any more, and what was written before the computer was started again."""
        if self.paused_until_s > now_s + LONGEST_PAUSE_S:
            self.paused_until_s = 0.0
        per_s = self.allowance.requests_per_s
        self.requests = [one for one in self.requests if now_s - (1 / per_s if per_s else 0) < one.last_s <= now_s]
        self.points = [one for one in self.points if now_s - 60 < one.last_s < now_s + _RECENT_S]
        self.waiting = {who: at for who, at in self.waiting.items() if now_s - _OVERSLEPT_S < at < now_s + _RECENT_S}

    def take(self, points: int, who: str, now_s: float) -> float:
        """0 when it is taken, else how long to wait."""
        ahead = list(self.waiting).index(who) if who in self.waiting else len(self.waiting)
        gap_s = 1 / self.allowance.requests_per_s if self.allowance.requests_per_s else 0.0
        wait_s = max(
            self.paused_until_s - now_s,
            _wait_s(self.requests, 1, 1, gap_s, now_s) if gap_s else 0.0,
            _wait_s(self.points, points, self.allowance.points_per_min, 60, now_s) if self._counts(points) else 0.0,
        )
        if ahead or wait_s > 0:
            first_at_s = next(iter(self.waiting.values()), now_s)
            wait_s = max(wait_s, first_at_s - now_s, 0.001) + ahead * gap_s
            self.waiting[who] = now_s + min(wait_s, 1.0)
            return wait_s
        self.waiting.pop(who, None)
        if gap_s:
            self.requests = [_Spent(now_s, now_s, 1)]
        if self._counts(points):
            excess_s = 60 * max(0.0, points / self.allowance.points_per_min - 1)
            _spend(self.points, points, 60 / _BUCKETS, now_s + excess_s)
        return 0.0

    def _counts(self, points: int) -> bool:
        return bool(points and self.allowance.points_per_min)


def _wait_s(spent: list[_Spent], amount: float, most: float, window_s: float, now_s: float) -> float:
    """How long until `amount` fits into every window. More than fits into one at all goes alone, and counts until the
    rate is kept again."""
    room = most - amount - sum(one.amount for one in spent)
    for one in spent:
        if room >= 0:
            break
        room += one.amount
        if room >= 0 or one is spent[-1]:
            return one.last_s + window_s - now_s
    return 0.0


def _spend(spent: list[_Spent], amount: float, bucket_s: float, now_s: float) -> None:
    """Note it. What was granted shortly before is noted as if it had been now, so no window ever holds more than is said."""
    if spent and now_s - spent[-1].first_s < bucket_s:
        spent[-1].last_s = now_s
        spent[-1].amount += amount
    else:
        spent.append(_Spent(now_s, now_s, amount))


class Accounts:
    """The accounts of this computer. Safe to use from threads; a process must have one, since it loses its locks when it
    closes a file anywhere."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._lock = threading.Lock()

    def take(self, name: str, allowance: Allowance, points: int, who: str) -> float:
        """0 when it is taken, else how long to wait before asking again."""
        file = self._file(name)
        if not allowance.requests_per_s and not (points and allowance.points_per_min):
            return max(0.0, file.pause_s())

        def taken(account: Account, now_s: float) -> float:
            account.allowance = allowance
            return account.take(points, who, now_s)

        return file.changed(taken)

    def pause(self, name: str, seconds: float) -> None:
        """Let nobody take anything for so long."""

        def paused(account: Account, now_s: float) -> None:
            account.paused_until_s = max(account.paused_until_s, now_s + min(seconds, LONGEST_PAUSE_S))

        self._file(name).changed(paused)

    def hold(self, name: str, count: int, who: str) -> int | None:  # noqa: ARG002 - a connection is nobody's turn
        """A connection's number, None while all are held."""
        return self._file(name).hold(count)

    def release(self, name: str, number: int) -> None:
        """Give a connection back."""
        self._file(name).release(number)

    def standings(self) -> list[Standing]:
        """Of the accounts that were used within the hour."""
        found = []
        for path in sorted(_folder().glob(f"shardmig-{os.getuid()}-*.budget")):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime < _RECENT_S:
                    found.append(_standing(path))
        return [standing for standing in found if standing.name]

    def _file(self, name: str) -> _File:
        with self._lock:
            path = _path(name)
            if str(path) not in self._files:
                self._files[str(path)] = _File(path, name)
            return self._files[str(path)]


HERE: Final = Accounts()


class _File:
    """One account's file."""

    def __init__(self, path: Path, name: str) -> None:
        self._name = name
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._held: set[int] = set()
        self._lock = threading.Lock()

    def pause_s(self) -> float:
        """What is left of a pause."""
        head = os.pread(self._file, _HEAD.size, 0)
        left_s = _HEAD.unpack(head)[0] - time.monotonic() if len(head) == _HEAD.size else 0.0
        return left_s if left_s <= LONGEST_PAUSE_S else 0.0

    def changed(self, change: Callable[[Account, float], T]) -> T:
        """What a change of the account gives; nobody else reads or writes it meanwhile."""
        with self._lock:  # the lock of a file binds processes, not threads
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1, 0)
            try:
                account = _decoded(os.pread(self._file, _MOST_BYTES, 0))
                account.name = self._name
                now_s = time.monotonic()
                account.forget(now_s)
                result = change(account, now_s)
                content = _HEAD.pack(account.paused_until_s) + msgspec.msgpack.encode(account)
                os.pwrite(self._file, content, 0)
                os.ftruncate(self._file, len(content))
                return result
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, 0)

    def hold(self, count: int) -> int | None:
        """The lowest free connection."""
        with self._lock:
            for number in range(count):
                if number not in self._held and self._locks(number):
                    self._held.add(number)
                    return number
            return None

    def release(self, number: int) -> None:
        """Give it back."""
        with self._lock:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _CONNECTIONS_AT + number)
            self._held.discard(number)

    def _locks(self, number: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _CONNECTIONS_AT + number)
        except BlockingIOError:
            return False
        return True


def _standing(path: Path) -> Standing:
    """Read without the lock: people are told, nothing depends on it."""
    with path.open("rb") as file:
        account, now_s = _decoded(file.read()), time.monotonic()
    account.forget(now_s)
    return Standing(
        name=account.name,
        allowance=account.allowance,
        points_last_min=round(sum(one.amount for one in account.points)),
        pause_s=max(0.0, account.paused_until_s - now_s),
        connections_held=sum(1 for _ in _locked(path, account.allowance.connections)),
        waiting=list(account.waiting),
    )


def _locked(path: Path, count: int) -> Iterator[int]:
    """Connections that another process holds, as the kernel tells it."""
    device = path.stat()
    place = f"{os.major(device.st_dev):02x}:{os.minor(device.st_dev):02x}:{device.st_ino}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if place in words and words[-2].isdigit() and 0 <= int(words[-2]) - _CONNECTIONS_AT < count:
                yield int(words[-2]) - _CONNECTIONS_AT


def _decoded(content: bytes) -> Account:
    try:
        return msgspec.msgpack.decode(content[_HEAD.size :], type=Account)
    except msgspec.MsgspecError:  # new, or of another version
        return Account()


def _path(name: str) -> Path:
    digest = blake2b(name.encode(), digest_size=8).hexdigest()
    return _folder() / f"shardmig-{os.getuid()}-{digest}.budget"


def _folder() -> Path:
    return Path(tempfile.gettempdir())
