"""The answer of `status`: every shard of a migration, its state, and why it will or will not execute."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec
from rich.console import RenderableType
from rich.text import Text

from shardmig.adapters.budget import Standing
from shardmig.records import Failure, PhaseProgress, ProjectId, ShardStatus
from shardmig.report import budget, refused, terminal, words

_MOST_LISTED: Final = 100
_STYLES: Final = {"done": "green", "failed": "red", "executing": "yellow"}


class MigrationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A migration as its journal tells it. `folder`: where journal, logs and spools are. `standing`: whether somebody is
    executing it, in one sentence. `refused`: projects that could not be listed when the source was listed last.
    `retry_command`: of what failed, "" while it executes or when nothing did. `budgets`: of the servers it talks to,
    while it executes."""

    migration: str
    folder: str
    source: str
    target: str
    created_ms: int
    executions: int
    standing: str
    step_multiplier: int
    phases: list[PhaseProgress]
    shards: list[ShardStatus]
    refused: dict[ProjectId, Failure] = {}
    retry_command: str = ""
    budgets: list[Standing] = []


def all_shown(statuses: Sequence[MigrationStatus], *, now_ms: int, verbose: bool = False) -> Iterator[RenderableType]:
    """Several migrations for people."""
    if not statuses:
        yield Text("nothing was planned or executed in this archive yet")
    for number, status in enumerate(statuses):
        if number:
            yield Text()
        yield from shown(status, now_ms, verbose=verbose)


def shown(status: MigrationStatus, now_ms: int, *, verbose: bool = False) -> Iterator[RenderableType]:
    """One migration for people."""
    yield terminal.name(f"{status.migration}: {status.standing}", style="bold")
    route = f"{status.source} to {status.target}" if status.target else f"from {status.source}"
    planned = f"planned {words.moment(status.created_ms)}, executed {words.plural(status.executions, 'time')}"
    multiplier = f", step multiplier {status.step_multiplier}" if status.step_multiplier else ""
    yield terminal.name(f"{route}; {planned}{multiplier}")
    yield terminal.name(f"journal and logs: {status.folder}")
    listed = terminal.table("shard", "phase", "state", ">runs", ">done", ">failed", ">attempts", ">took", "why")
    for alike in _folded(status.shards, verbose=verbose):
        first = alike[0]
        terminal.row(
            listed,
            first.shard if len(alike) == 1 else words.plural(len(alike), "shard"),
            first.phase,
            Text(first.state, style="red" if first.straggles else _STYLES.get(first.state, "")),
            words.count(sum(shard.runs for shard in alike)),
            words.count(sum(shard.runs_done for shard in alike)),
            words.count(sum(shard.runs_failed for shard in alike)),
            words.count(sum(shard.attempts for shard in alike)),
            _took(first, now_ms) if len(alike) == 1 else "",
            first.why,
        )
    yield listed
    for phase in status.phases:
        settled = phase.runs_done + phase.runs_skipped
        failed = f", {words.count(phase.runs_failed)} failed" if phase.runs_failed else ""
        yield Text(f"{phase.phase}: {words.count(settled)} of {words.plural(phase.runs, 'run')} done{failed}")
    yield from refused.shown(status.refused)
    yield from budget.shown(status.budgets)
    if status.retry_command:
        yield terminal.name(f"retry with: {status.retry_command}")


def _folded(shards: list[ShardStatus], *, verbose: bool) -> Iterable[list[ShardStatus]]:
    """Shards that stand alike in a phase as one line, if there are many. Those that straggle stand alone."""
    if verbose or len(shards) <= _MOST_LISTED:
        return ([shard] for shard in shards)
    alike: dict[tuple[str, ...], list[ShardStatus]] = {}
    for shard in shards:
        alone = shard.shard if shard.straggles else ""
        alike.setdefault((shard.phase, shard.state, shard.why, alone), []).append(shard)
    return alike.values()


def _took(shard: ShardStatus, now_ms: int) -> str:
    if shard.started_ms is None:
        return ""
    return words.duration(max(0, (shard.ended_ms or now_ms) - shard.started_ms) / 1000)
