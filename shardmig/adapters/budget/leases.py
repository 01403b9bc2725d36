"""Budgets over several computers: the coordinator keeps the accounts, workers elsewhere take from them by leases.

A lease lasts as long as the connection that it was given over: what a lost worker held is free again when its connection breaks.
"""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
import threading
import time
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, Final

import msgspec

from shardmig.adapters.budget.accounts import HERE, Allowance
from shardmig.errors import Unavailable

_ASK_AGAIN_S: Final = 0.1
"""A budget without limits is asked this often whether all have to pause."""


class _Take(msgspec.Struct, tag=True):
    name: str
    allowance: Allowance
    points: int
    who: str


class _Pause(msgspec.Struct, tag=True):
    name: str
    seconds: float


class _Hold(msgspec.Struct, tag=True):
    name: str
    count: int
    who: str


class _Release(msgspec.Struct, tag=True):
    name: str
    number: int


_Wish = _Take | _Pause | _Hold | _Release


class Lessor:
    """Leases from this process's accounts while the context lasts. `address` is what workers are told: where, and a
    secret without which nothing is answered."""

    def __init__(self, host: str) -> None:
        """host: as other computers reach this one."""
        secret = secrets.token_hex(16)
        self._listener = Listener(("", 0), authkey=bytes.fromhex(secret))
        self._port: int = self._listener.address[1]
        self.address = f"{host}:{self._port}:{secret}"
        self._is_closed = False
        self._mark = _mark_of(self.address)
        self._mark.touch(mode=0o600)
        threading.Thread(target=self._listen, name="budget", daemon=True).start()

    def __enter__(self) -> Lessor:
        return self

    def __exit__(self, *_: object) -> None:
        self._mark.unlink(missing_ok=True)
        self._is_closed = True
        with suppress(OSError):  # wakes who listens
            socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
        self._listener.close()

    def _listen(self) -> None:
        while not self._is_closed:
            with suppress(OSError, EOFError, AuthenticationError):  # a stranger, or a worker that was killed
                connection = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), name="budget", daemon=True).start()

    def _serve(self, connection: Connection[Any, Any]) -> None:
        held: list[tuple[str, int]] = []
        try:
            while True:
                wish: _Wish = msgspec.msgpack.decode(connection.recv_bytes(), type=_Wish)
                connection.send_bytes(msgspec.msgpack.encode(self._granted(wish, held)))
        except (EOFError, OSError, ValueError, msgspec.MsgspecError):
            for name, number in held:
                HERE.release(name, number)
        finally:
            connection.close()

    def _granted(self, wish: _Wish, held: list[tuple[str, int]]) -> float | int | None:
        if isinstance(wish, _Take):
            return HERE.take(wish.name, wish.allowance, wish.points, wish.who)
        if isinstance(wish, _Pause):
            HERE.pause(wish.name, wish.seconds)
            return None
        if isinstance(wish, _Release):
            held.remove((wish.name, wish.number))
            HERE.release(wish.name, wish.number)
            return None
        number = HERE.hold(wish.name, wish.count, wish.who)
        if number is not None:
            held.append((wish.name, number))
        return number


class LeasedAccounts:
    """The accounts of a coordinator on another computer. Raises Unavailable where it does not answer."""

    def __init__(self, lessor: str) -> None:
        host, port, secret = lessor.rsplit(":", 2)
        self._place, self._secret = (host, int(port)), bytes.fromhex(secret)
        self._lock = threading.Lock()
        self._connection: Connection[Any, Any] | None = None
        self._asked_s: dict[str, float] = {}

    def take(self, name: str, allowance: Allowance, points: int, who: str) -> float:
        """0 when it is taken, else how long to wait before asking again."""
        now_s = time.monotonic()
        if allowance == Allowance(connections=allowance.connections):
            if now_s < self._asked_s.get(name, 0.0) + _ASK_AGAIN_S:
                return 0.0
            self._asked_s[name] = now_s
        return float(self._asked(_Take(name, allowance, points, who)))

    def pause(self, name: str, seconds: float) -> None:
        """Let nobody take anything for so long."""
        self._asked_s.pop(name, None)
        self._asked(_Pause(name, seconds))

    def hold(self, name: str, count: int, who: str) -> int | None:
        """A connection's number, None while all are held."""
        number: int | None = self._asked(_Hold(name, count, who))
        return number

    def release(self, name: str, number: int) -> None:
        """Give a connection back."""
        with suppress(Unavailable):  # then it is free already
            self._asked(_Release(name, number))

    def close(self) -> None:
        """End all leases; idempotent."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _asked(self, wish: _Wish) -> Any:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = Client(self._place, authkey=self._secret)
                self._connection.send_bytes(msgspec.msgpack.encode(wish))
                return msgspec.msgpack.decode(self._connection.recv_bytes())
            except (EOFError, OSError, AuthenticationError) as error:
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
                place = f"{self._place[0]}:{self._place[1]}"
                raise Unavailable(
                    f"the coordinator, which keeps the budget, does not answer at {place}: {error}"
                ) from error


def is_here(lessor: str) -> bool:
    """Does this process see the same accounts as that coordinator?"""
    return _mark_of(lessor).exists()


def _mark_of(lessor: str) -> Path:
    secret = lessor.rsplit(":", 1)[1]
    return Path(tempfile.gettempdir(), f"shardmig-{os.getuid()}-{secret[:8]}.lessor")
