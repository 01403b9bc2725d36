"""What can go wrong on purpose."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field


@dataclass
class Faults:
    """Set at any time while the server answers.

    latency_s: before each answer. share: of the requests that fail, by one of `kinds`: a status, `drop` (the connection
    is closed without an answer) or `cut` (half of the answer is sent). upcoming: of the next requests. retry_after_s: sent with a 429. failing: status by
    a word of the request (an operation or an attribute's name); such a request never succeeds. dead_until: of
    time.monotonic(); until then every connection is dropped.
    """

    latency_s: float = 0.0
    share: float = 0.0
    kinds: tuple[str, ...] = ("500", "503", "429", "drop", "cut")
    upcoming: list[str] = field(default_factory=list)
    retry_after_s: int = 0
    failing: dict[str, int] = field(default_factory=dict)
    dead_until: float = 0.0
    injected: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(20)
        self._lock = threading.Lock()

    def die(self, seconds: float) -> None:
        """Answer nobody for a while."""
        self.dead_until = time.monotonic() + seconds

    def strike(self, words: str) -> str:
        """What happens to this request: "" = it is answered."""
        if time.monotonic() < self.dead_until:
            return "drop"
        for word, status in self.failing.items():
            if word in words:
                return str(status)
        with self._lock:
            if self.upcoming:
                self.injected += 1
                return self.upcoming.pop(0)
            if not self.share or self._random.random() >= self.share:
                return ""
            self.injected += 1
            return self._random.choice(self.kinds)
