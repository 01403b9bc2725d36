"""What can go wrong on purpose."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field


@dataclass
class Faults:
    """Set at any time while the server answers.

    A fault is a status, `drop` (the connection is closed without an answer), `cut` (half of the answer is sent) or, where the
    server has it, `committed` (carried out, and closed without an answer).

    latency_s: before each answer. upcoming: faults of the next requests; "" = none. share: of the requests that fail, by one of
    `kinds`. path: a word; only requests that hold it have `upcoming` and `share`. failing: status by a word of the request;
    such a request never succeeds. retry_after_s: sent with a 429.
    """

    latency_s: float = 0.0
    upcoming: list[str] = field(default_factory=list)
    share: float = 0.0
    kinds: tuple[str, ...] = ("500", "503", "429", "drop", "cut")
    path: str = ""
    failing: dict[str, int] = field(default_factory=dict)
    retry_after_s: int = 0
    dead_until: float = 0.0
    injected: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(20)
        self._lock = threading.Lock()

    def die(self, seconds: float) -> None:
        """Answer nobody for a while."""
        self.dead_until = time.monotonic() + seconds

    def strike(self, request: str) -> str:
        """What happens to this request: "" = it is answered."""
        if time.monotonic() < self.dead_until:
            return "drop"
        for word, status in self.failing.items():
            if word in request:
                return str(status)
        if self.path not in request:
            return ""
        with self._lock:
            fault = ""
            if self.upcoming:
                fault = self.upcoming.pop(0)
            elif self.share and self._random.random() < self.share:
                fault = self._random.choice(self.kinds)
            self.injected += bool(fault)
            return fault
