"""What all workers of a migration may ask of one server together: requests a second, points a minute, connections.

One `Budget` for each server and account, got by `budget_of`. On one computer its account is a small locked file; a worker on
another computer takes from the coordinator's accounts by leases. docs/budget.md has the whole.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from shardmig.adapters.budget.accounts import HERE, LONGEST_PAUSE_S, Allowance, Standing
from shardmig.adapters.budget.leases import LeasedAccounts, Lessor, is_here

__all__ = ["LONGEST_PAUSE_S", "Allowance", "Budget", "Lessor", "Standing", "budget_of", "spending_as", "standings"]

_LONGEST_SLEEP_S: Final = 1.0
_CONNECTION_POLL_S: Final = 0.005


class _Accounts(Protocol):
    """Where accounts are kept."""

    def take(self, name: str, allowance: Allowance, points: int, who: str) -> float:
        """0 when it is taken, else how long to wait before asking again."""

    def pause(self, name: str, seconds: float) -> None:
        """Let nobody take anything for so long."""

    def hold(self, name: str, count: int, who: str) -> int | None:
        """A connection's number, None while all are held."""

    def release(self, name: str, number: int) -> None:
        """Give a connection back."""


class _Headers(Protocol):
    """Those of an answer, whatever client it came by."""

    def get(self, name: str, /) -> str | None:
        """Its text, None: there is none."""


class Budget:
    """One server's budget. `budget_of` makes it. Safe to use from threads."""

    def __init__(self, name: str, allowance: Allowance) -> None:
        self.name = name
        self.allowance = allowance

    def take(self, points: int = 0) -> None:
        """Wait for this caller's turn to send one request with so many points in it. Turns come in the order of asking."""
        who = _who()
        while (wait_s := _accounts().take(self.name, self.allowance, points, who)) > 0:
            time.sleep(min(wait_s, _LONGEST_SLEEP_S))

    def pause(self, seconds: float) -> None:
        """Nobody's turn comes for this long, LONGEST_PAUSE_S at most."""
        _accounts().pause(self.name, seconds)

    def heed(self, headers: _Headers) -> None:
        """Pause when the headers of an answer say that nothing is left before the server's own counter begins anew: `RateLimit-Remaining`
        and `RateLimit-Reset` (seconds), with or without `X-` before them."""
        for prefix in ("RateLimit", "X-RateLimit"):
            left, reset = _number(headers.get(f"{prefix}-Remaining")), _number(headers.get(f"{prefix}-Reset"))
            if left is not None and left < 1 and reset is not None and reset > 0:
                self.pause(reset if reset < _IS_A_DATE_S else reset - time.time())

    @contextmanager
    def connection(self) -> Iterator[None]:
        """One of the connections, while the context lasts. What a killed worker held is free again at once."""
        if not (count := self.allowance.connections):
            yield
            return
        accounts, who = _accounts(), _who()
        while (number := accounts.hold(self.name, count, who)) is None:
            time.sleep(_CONNECTION_POLL_S)
        try:
            yield
        finally:
            accounts.release(self.name, number)


_IS_A_DATE_S: Final = 1e9
"""Some servers say when, some how long."""


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


_budgets: dict[str, Budget] = {}
_budgets_lock = threading.Lock()


def budget_of(name: str, *, requests_per_s: float = 0, points_per_min: float = 0, connections: int = 0) -> Budget:
    """The one Budget of this process for `name`: the adapter, a space, and the address (with the account where servers count by it).
    0 = no limit. The last caller says how much."""
    allowance = Allowance(requests_per_s, points_per_min, connections)
    with _budgets_lock:
        budget = _budgets.setdefault(name, Budget(name, allowance))
        budget.allowance = allowance
        return budget


_leased: LeasedAccounts | None = None
_label = ""


@contextmanager
def spending_as(label: str, lessor: str = "") -> Iterator[None]:
    """While it lasts, this process takes in the name of `label`, from the accounts of the coordinator at `lessor` if
    that is another computer."""
    global _label, _leased  # noqa: PLW0603 - one attempt at a time in a worker; threads of the attempt must see it too
    _label = label
    _leased = LeasedAccounts(lessor) if lessor and not is_here(lessor) else None
    try:
        yield
    finally:
        _label = ""
        if _leased is not None:
            _leased.close()
            _leased = None


def standings() -> list[Standing]:
    """How the budgets of this computer stand that were used within the hour."""
    return HERE.standings()


def _accounts() -> _Accounts:
    return HERE if _leased is None else _leased


def _who() -> str:
    """This caller: what people are told, and what tells it from every other."""
    return f"{_label or 'coordinator'} ({socket.gethostname()} {os.getpid()}.{threading.get_native_id()})"
