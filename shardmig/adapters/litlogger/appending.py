"""Puts points and metadata into one experiment, so that no point is there twice.

An append is not idempotent, and Lightning keeps whatever comes. What makes a replay safe is order: the points of a series
always come in the same order (they are those of one archived run, told by its digest), at most one request is under way for
an experiment, and the server tells how many values each series has. So what is there is a beginning of each series, as long
as that count, and the rest is what is still to be sent:

- an experiment that an earlier attempt left is asked for its counts first; of each series so many points are passed over,
  and the last of them must be the server's last one in step and value;
- a request whose answer did not come is not simply sent again: the counts tell what of it arrived;
- before the run is called complete the counts must be what was sent. Counts that come late are waited for.

Where that cannot be told (another last point, more values than were sent: somebody else wrote to it, or an append that was
thought lost became visible after its repetition) the experiment is removed, and the next attempt begins a new one. A count
that is wrong is so never believed, only a count and a last point that agree with what was sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from shardmig.adapters.litlogger.answers import Stream, Summary
from shardmig.adapters.litlogger.cloud import Cloud
from shardmig.adapters.sidecar.fitting import Metrics, NativePoints
from shardmig.adapters.sidecar.rules import Value
from shardmig.adapters.wrappers import PATIENT, RetryPolicy, retrying
from shardmig.errors import Unavailable

MOST_VALUES: Final = 1000
"""Of one request: what litlogger itself sends at most."""


class _Part(NamedTuple):
    """Some next points of one series."""

    key: str
    points: NativePoints

    def __len__(self) -> int:
        return len(self.points.steps)

    def cut(self, at: int) -> tuple[_Part, _Part]:
        """Its first `at` points, and the others."""
        return (
            _Part(self.key, self.points.part(slice(0, at))),
            _Part(self.key, self.points.part(slice(at, None))),
        )


class RunInLightning:
    """`RunSink` of an experiment. `is_new`: it cannot hold points yet. `values`: the metadata so far; they go up with the
    run's end."""

    def __init__(self, cloud: Cloud, stream: Stream, *, is_new: bool, policy: RetryPolicy = PATIENT) -> None:
        self._cloud = cloud
        self._stream = stream
        self._policy = policy
        self.is_new = is_new
        self._there: dict[str, Summary] = {} if is_new else cloud.summaries(stream)
        self._come: Counter[str] = Counter()
        self._acknowledged = Counter({key: held.num_values for key, held in self._there.items()})
        self._waiting: list[_Part] = []
        self._rows = 0
        self.values: dict[str, str] = {}

    def add_values(self, values: Mapping[str, Value]) -> None:
        """As RunSink."""
        self.values |= {key: str(value) for key, value in values.items()}

    def add_points(self, metrics: Metrics) -> None:
        """As RunSink: what is there already is passed over. Raises Unavailable when it is not what it should be."""
        points = metrics.points()
        for key, rows in metrics.spans():
            part = self._not_there(_Part(key, points.part(rows)))
            if len(part):
                self._waiting.append(part)
                self._rows += len(part)
        while self._rows >= MOST_VALUES:
            self._send(self._next_request())

    def flush(self) -> None:
        """As RunSink; afterwards the server holds as many values of each series as came. Raises Unavailable."""
        while self._rows:
            self._send(self._next_request())
        retrying(self._settle, policy=self._policy)

    def _not_there(self, part: _Part) -> _Part:
        """The points behind those that the server has of this series."""
        before = self._come[part.key]
        self._come[part.key] += len(part)
        held = self._there.get(part.key)
        left = 0 if held is None else held.num_values - before
        if held is None or left <= 0:
            return part
        known, rest = part.cut(min(left, len(part)))
        if left <= len(part):
            step, value = int(known.points.steps[-1]), float(known.points.values[-1])
            if (held.last_step, held.last_value) != (step, value):
                self._begin_anew(f"the last point of {part.key} is not what was sent")
        return rest

    def _next_request(self) -> list[_Part]:
        request: list[_Part] = []
        room = MOST_VALUES
        while self._waiting and room:
            part = self._waiting.pop(0)
            if len(part) > room:
                part, rest = part.cut(room)
                self._waiting.insert(0, rest)
            request.append(part)
            room -= len(part)
        self._rows -= MOST_VALUES - room
        return request

    def _send(self, request: list[_Part]) -> None:
        left = request
        is_first = True

        def attempt() -> None:
            nonlocal left, is_first
            if not is_first:
                left = self._not_arrived(request)
            is_first = False
            if left:
                self._cloud.append_once(self._stream, _as_metrics(left))

        retrying(attempt, policy=self._policy, limit=self._cloud.budget)
        for part in request:
            self._acknowledged[part.key] += len(part)

    def _not_arrived(self, request: list[_Part]) -> list[_Part]:
        """What of a request that was not answered the server does not have."""
        held = self._cloud.summaries(self._stream)
        left: list[_Part] = []
        expected = self._acknowledged.copy()
        for part in request:
            count = held[part.key].num_values if part.key in held else 0
            arrived = count - expected[part.key]
            if arrived < 0 and part.key not in {one.key for one in left}:
                raise Unavailable(f"{self._stream.name}: Lightning does not count all points of {part.key} yet")
            expected[part.key] += len(part)
            _, rest = part.cut(min(max(arrived, 0), len(part)))
            if len(rest):
                left.append(rest)
        return left

    def _settle(self) -> None:
        held = self._cloud.summaries(self._stream)
        for key, count in self._come.items():
            found = held[key].num_values if key in held else 0
            if found > count:
                self._begin_anew(f"there are {found} values of {key}, of {count} that were sent")
            if found < count:
                raise Unavailable(f"{self._stream.name}: Lightning counts {found} of {count} values of {key}")

    def _begin_anew(self, reason: str) -> None:
        self._cloud.delete_stream(self._stream.project_id, self._stream.id)
        error = Unavailable(f"experiment {self._stream.name} was removed and is to be written anew: {reason}")
        error.patience_spent = True  # by the next attempt of the run, not by this call
        raise error


def _as_metrics(parts: list[_Part]) -> list[Any]:
    """The vendor's objects, as short-lived as a request."""
    from litlogger.types import Metrics as VendorMetrics
    from litlogger.types import MetricValue

    made: dict[str, Any] = {}
    for key, points in parts:
        times = points.times_ms.astype("datetime64[ms]").tolist()  # naive and UTC: what the client writes as +00:00
        one = made.setdefault(key, VendorMetrics(name=key, values=[]))
        columns = (points.values.tolist(), points.steps.tolist(), times)
        one.values += [MetricValue(*row) for row in zip(*columns, strict=True)]
    return list(made.values())
