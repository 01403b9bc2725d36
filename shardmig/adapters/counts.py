"""What a server itself says of how much a run holds: `audit` holds it against the archive."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import msgspec

from shardmig.records import FieldType, RunRef, Selection


class FieldCount(msgspec.Struct, frozen=True):
    """One field that the server lists. rows: how many points, texts, histograms or files it counts there; None = it
    says no more than that there are some."""

    path: str
    type: FieldType
    rows: int | None


class ServerCounts(msgspec.Struct, frozen=True):
    """Of one run. totals: what the server sums up by itself, by a type of fields (how many of them), `fields` (all of
    them) and `points` (rows of all series). Empty where the server has no such sums."""

    fields: list[FieldCount]
    totals: dict[str, int] = {}


@runtime_checkable
class Counting(Protocol):
    """A source whose server counts."""

    def counts_of(self, run: RunRef, selection: Selection) -> ServerCounts:
        """What the server says of the selected fields of a run, by as few requests as it takes. Threads may share it.
        Patient with an outage. Raises Permanent for this run alone."""
        ...

    def close(self) -> None:
        """Release everything; idempotent."""
        ...
