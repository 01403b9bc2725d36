"""The answer of `status`: every shard of a migration, its state, and why it will or will not execute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from rich.console import RenderableType
from rich.text import Text

from shardmig.records import PhaseProgress, ShardStatus
from shardmig.report import terminal, words

_STYLES: Final = {"done": "green", "failed": "red", "executing": "yellow"}


class MigrationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A migration as its journal tells it. `standing`: whether somebody is executing it, in one sentence.
    `retry_command`: of what failed, "" while it executes or when nothing did."""

    migration: str
    source: str
    target: str
    created_ms: int
    executions: int
    standing: str
    step_multiplier: int
    phases: list[PhaseProgress]
    shards: list[ShardStatus]
    retry_command: str = ""


def all_shown(statuses: Sequence[MigrationStatus], *, now_ms: int) -> Iterator[RenderableType]:
    """Several migrations for people."""
    if not statuses:
        yield Text("nothing was planned or executed in this archive yet")
    for number, status in enumerate(statuses):
        if number:
            yield Text()
        yield from shown(status, now_ms)


def shown(status: MigrationStatus, now_ms: int) -> Iterator[RenderableType]:
    """One migration for people."""
    yield terminal.name(f"{status.migration}: {status.standing}", style="bold")
    route = f"{status.source} to {status.target}" if status.target else f"from {status.source}"
    planned = f"planned {words.moment(status.created_ms)}, executed {words.plural(status.executions, 'time')}"
    multiplier = f", step multiplier {status.step_multiplier}" if status.step_multiplier else ""
    yield terminal.name(f"{route}; {planned}{multiplier}")
    listed = terminal.table("shard", "phase", "state", ">runs", ">done", ">failed", ">attempts", ">took", "why")
    for shard in status.shards:
        terminal.row(
            listed,
            shard.shard,
            shard.phase,
            Text(shard.state, style=_STYLES.get(shard.state, "")),
            words.count(shard.runs),
            words.count(shard.runs_done),
            words.count(shard.runs_failed),
            words.count(shard.attempts),
            _took(shard, now_ms),
            shard.why,
        )
    yield listed
    for phase in status.phases:
        settled = phase.runs_done + phase.runs_skipped
        failed = f", {words.count(phase.runs_failed)} failed" if phase.runs_failed else ""
        yield Text(f"{phase.phase}: {words.count(settled)} of {words.plural(phase.runs, 'run')} done{failed}")
    if status.retry_command:
        yield terminal.name(f"retry with: {status.retry_command}")


def _took(shard: ShardStatus, now_ms: int) -> str:
    if shard.started_ms is None:
        return ""
    return words.duration(max(0, (shard.ended_ms or now_ms) - shard.started_ms) / 1000)
