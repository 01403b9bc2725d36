"""Faults that a server shows: by plan, by dice, or for a while."""

from __future__ import annotations

import random
import threading
import time
from typing import Literal

Fault = Literal["500", "503", "429", "400", "401", "drop", "cut"]


class Faults:
    """Decides for each request whether it fails, and how.

    `rate` of the requests whose path holds `places` fail with one of `kinds`; `plan` names faults for coming
    requests by a part of their path; until `down_until_s` every connection is dropped.
    """

    def __init__(self, seed: int = 1) -> None:
        self.rate = 0.0
        self.kinds: tuple[Fault, ...] = ("500", "503", "429", "drop", "cut")
        self.retry_after_s = 0.0
        self.shown = 0
        self.down_until_s = 0.0
        self._planned: list[tuple[str, Fault, int]] = []
        self._dice = random.Random(seed)
        self._lock = threading.Lock()

    def plan(self, place: str, fault: Fault, count: int = 1) -> None:
        """The next `count` requests whose path holds `place` fail."""
        with self._lock:
            self._planned.append((place, fault, count))

    def be_down(self, seconds: float) -> None:
        """Drop every connection for so long."""
        self.down_until_s = time.monotonic() + seconds

    def next(self, path: str) -> Fault | None:
        """What happens to this request."""
        with self._lock:
            fault = self._decide(path)
            self.shown += fault is not None
            return fault

    def _decide(self, path: str) -> Fault | None:
        if time.monotonic() < self.down_until_s:
            return "drop"
        for number, (place, fault, count) in enumerate(self._planned):
            if place in path:
                self._planned[number : number + 1] = [(place, fault, count - 1)] if count > 1 else []
                return fault
        return self._dice.choice(self.kinds) if self._dice.random() < self.rate else None
