"""What can go wrong on purpose."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field


@dataclass
class Faults:
    """Set at any time while the server answers.

    latency_s: before each answer. upcoming: of the next requests to paths that hold `path`, each a status, `drop` (the
    connection is closed without an answer), `cut` (half of the answer is sent) or `committed` (carried out, but closed
    without an answer); "" = none. share: of all requests to such paths that fail, by one of `kinds`. failing: paths by a
    word in them that never succeed, with their status. retry_after_s: sent with a 429.
    """

    latency_s: float = 0.0
    upcoming: list[str] = field(default_factory=list)
    path: str = ""
    share: float = 0.0
    kinds: tuple[str, ...] = ("500", "503", "drop")
    failing: dict[str, int] = field(default_factory=dict)
    retry_after_s: int = 0
    injected: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(20)
        self._lock = threading.Lock()

    def strike(self, path: str) -> str:
        """What happens to this request: "" = it is answered."""
        for word, status in self.failing.items():
            if word in path:
                return str(status)
        if self.path not in path:
            return ""
        with self._lock:
            fault = ""
            if self.upcoming:
                fault = self.upcoming.pop(0)
            elif self.share and self._random.random() < self.share:
                fault = self._random.choice(self.kinds)
            self.injected += bool(fault)
            return fault
