"""A frozen plan against what the source lists today. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable

import msgspec

from shardmig.errors import PlanMismatch
from shardmig.journal import RunKey, State, run_key
from shardmig.planner import Request, cut
from shardmig.records import Entity, ProjectId, RunRef, Shard


def extension(
    state: State, listed: Iterable[RunRef], request: Request, *, refused: Container[ProjectId] = ()
) -> list[Shard]:
    """Shards for what the source lists beyond the plan. Raises PlanMismatch for planned runs that changed after
    they were brought (unless `update`), and for those that vanished before. `refused`, read after `listed`: projects
    that could not be listed, whose runs are not known to have vanished."""
    first = state.plan.phases[0]
    unchanged: set[RunKey] = set()
    others: dict[Entity, RunRef] = {}
    for run in itertools.islice(listed, request.selection.limit or None):
        if (key := state.planned(run)) is not None:
            unchanged.add(key)
        else:
            others[run.entity] = run
    absent = {run.entity: run for run in state.runs() if run_key(run) not in unchanged}
    missing = (run for name, run in absent.items() if name not in others and run.project not in refused)
    vanished = [run.label for run in missing if not state.settled(first, run)]
    if vanished:
        raise PlanMismatch(
            f"{len(vanished)} planned runs are no longer in the source, such as {vanished[0]}",
            hint="bring the source back, or select the runs that are left",
        )
    changed = {name: run for name, run in others.items() if name in absent}
    brought = [absent[name].label for name in changed if state.settled(first, absent[name])]
    if brought and not request.update:
        raise PlanMismatch(
            f"{len(brought)} runs changed in the source after they were brought, such as {brought[0]}",
            hint="--update brings them again",
        )
    planned = {run.entity for run in state.runs()} if others else set()
    shards = list(cut([run for name, run in others.items() if name not in planned], first=state.shards_made + 1))
    for shard in state.shards.values() if changed else ():
        runs = tuple(changed.get(run.entity, run) for run in shard.runs)
        if runs != shard.runs:
            shards.append(msgspec.structs.replace(shard, runs=runs))
    return shards
