"""A frozen plan against what the source lists today. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable, Mapping

import msgspec

from shardmig.errors import PlanMismatch
from shardmig.journal import RunKey, State, run_key
from shardmig.planner import Request, comes_last, cut
from shardmig.records import Entity, ProjectId, RunOutcome, RunRef, Shard


def extension(
    state: State, listed: Iterable[RunRef], request: Request, *, refused: Container[ProjectId] = ()
) -> tuple[list[Shard], list[RunRef]]:
    """Shards for what the source lists beyond the plan, and the runs of the plan that are gone. Raises PlanMismatch for
    planned runs that changed after they were brought (unless `update`), and for a source that lists nothing at all.
    `refused`, read after `listed`: projects that could not be listed, whose runs are not known to be gone."""
    first = state.plan.phases[0]
    limit = request.selection.limit
    unchanged: set[RunKey] = set()
    others: dict[Entity, RunRef] = {}
    for run in itertools.islice(listed, limit or None):
        if (key := state.planned(run)) is not None:
            unchanged.add(key)
        else:
            others[run.entity] = run
    absent = {run.entity: run for run in state.runs() if run_key(run) not in unchanged}
    missing = [run for name, run in absent.items() if name not in others and run.project not in refused]
    is_cut = bool(limit) and len(unchanged) + len(others) >= limit
    gone = [] if is_cut else _gone(state, missing, is_empty=not unchanged and not others)
    changed = {name: run for name, run in others.items() if name in absent}
    brought = [absent[name].label for name in changed if state.settled(first, absent[name])]
    if brought and not request.update:
        raise PlanMismatch(
            f"{len(brought)} runs changed in the source after they were brought, such as {brought[0]}",
            hint="--update brings them again",
        )
    planned = {run.entity for run in state.runs()} if others else set()
    shards = list(cut([run for name, run in others.items() if name not in planned], first=state.shards_made + 1))
    last = max((shard.depth for shard in [*state.shards.values(), *shards]), default=0) + 1
    for shard in state.shards.values() if changed else ():
        runs = tuple(changed.get(run.entity, run) for run in shard.runs)
        if runs != shard.runs:
            depth = last if any(map(comes_last, runs)) else shard.depth
            shards.append(msgspec.structs.replace(shard, runs=runs, depth=depth))
    return shards, gone


def _gone(state: State, missing: Iterable[RunRef], *, is_empty: bool) -> list[RunRef]:
    """Of the planned runs that the source no longer lists those that were not brought, and of which the execution before
    has told that they failed. One that was not reached stays: reading it tells. What an export has brought, a load takes
    from the archive."""
    reading = [phase for phase in state.plan.phases if phase == "export"] or state.plan.phases
    lost = [run for run in missing if any(not state.settled(phase, run) for phase in reading)]
    if lost and is_empty:  # a disk that is not mounted looks so
        raise PlanMismatch(
            f"the source lists no run at all, and {len(lost)} are planned, such as {lost[0].label}",
            hint="bring the source back, or select what there is",
        )
    told = [state.outcomes[phase] for phase in reading] if state.finished is not None else []
    return [run for run in lost if any(_has_failed(outcomes, run) for outcomes in told)]


def _has_failed(outcomes: Mapping[RunKey, RunOutcome], run: RunRef) -> bool:
    outcome = outcomes.get(run_key(run))
    return outcome is not None and outcome.state == "failed"
