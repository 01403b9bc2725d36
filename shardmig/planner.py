"""Selection to frozen plan: which runs, cut into which shards, in which order. Pure."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Final

import msgspec

from shardmig import codec
from shardmig.errors import UsageError
from shardmig.records import (
    FORMAT_VERSION,
    AdapterSpec,
    ArchivePaths,
    Counters,
    Entity,
    LoadOptions,
    MigrationId,
    Phase,
    Plan,
    RunRef,
    Scope,
    Selection,
    Shard,
    ShardId,
)

MAX_SHARD_RUNS: Final = 32
MAX_SHARD_WEIGHT: Final = 5_000_000
_SHARDS_AIMED_AT: Final = 64
_SHARDS_WAITED_FOR: Final = 1024
_FEWEST_RUNS: Final = 4
_RUN_WEIGHT: Final = 100
"""What a run costs beside its points: listing, creating, publishing. Keeps shards of tiny runs even."""

_FEWEST_IN_SHARD: Final[dict[Scope, int]] = {"traces": 16}
"""Of entities that are all small, and that sources read several at a time: one a shard would cost more than they do."""

_NOTHING: Final = Counters()

_STAGES: Final[dict[Scope, int]] = {
    "experiments": 0,
    "runs": 1,
    "models": 2,
    "model_versions": 1,
    "logged_models": 2,
    "registered_models": 3,
    "prompts": 3,
    "traces": 4,
    "datasets": 5,
}
"""What is loaded before what: an entity refers to others of earlier stages only, and to its parent."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a user asks for. `predict`: a survey that also says what the target would change. `update`: bring runs
    again that changed in the source since. `sample`: see Task.sample."""

    phases: tuple[Phase, ...]
    source: AdapterSpec
    archive: ArchivePaths
    target: AdapterSpec | None = None
    selection: Selection = Selection()
    load: LoadOptions = LoadOptions()
    predict: bool = False
    update: bool = False
    sample: int = 0


def fingerprint(request: Request) -> str:
    """Of what is asked for: the same request has the same one, whatever workers or engine execute it."""
    asked = msgspec.structs.replace(request, update=False)
    return blake2b(codec.encode((FORMAT_VERSION, asked)), digest_size=16).hexdigest()


def migration_id(request: Request) -> MigrationId:
    """Names the folder of a migration: its phases and a digest, so that the same command finds it again."""
    return MigrationId(f"{'-'.join(request.phases)}-{fingerprint(request)[:12]}")


def freeze(request: Request, runs: Iterable[RunRef], *, created_ms: int) -> Plan:
    """The plan for these runs. Raises UsageError when a run is listed twice."""
    chosen = list(itertools.islice(runs, request.selection.limit or None))
    _refuse_twins(chosen)
    return Plan(
        id=migration_id(request),
        fingerprint=fingerprint(request),
        phases=request.phases,
        source=request.source,
        archive=request.archive,
        target=request.target,
        selection=request.selection,
        load=request.load,
        shards=tuple(cut(chosen)),
        created_ms=created_ms,
    )


def cut(runs: Sequence[RunRef], *, first: int = 1) -> Iterator[Shard]:
    """Cut runs into shards: a partition. Ids count up from `first`.

    A shard holds runs of one project, scope and depth; ancestors come before descendants, heavy shards before light
    ones. Its weight stays below a 64th of what its depth holds and below MAX_SHARD_WEIGHT where single runs allow it;
    shards of a depth that others wait for are smaller, since the whole fleet waits for the last of them; those of what is
    always small are not.
    """
    depth_of = _after_what_they_refer_to(runs, _as_late_as_possible(runs, _depths(runs)))
    weights: Counter[int] = Counter()
    counts: Counter[int] = Counter()
    for run in runs:
        weights[depth_of(run)] += cost(run)
        counts[depth_of(run)] += 1
    shards = {depth: min(_SHARDS_WAITED_FOR, max(1, counts[depth] // _FEWEST_RUNS)) for depth in counts}
    shards[max(counts, default=0)] = _SHARDS_AIMED_AT

    def group(run: RunRef) -> tuple[int, Scope, str]:
        return depth_of(run), run.scope, run.project

    ordered = sorted(runs, key=lambda run: (*group(run), -run.weight, run.id))
    batches = [
        (depth, batch)
        for (depth, scope, _), members in itertools.groupby(ordered, key=group)
        for batch in _batches(members, _budget(scope, weights[depth] / shards[depth]))
    ]
    batches.sort(key=lambda one: (one[0], -sum(map(cost, one[1]))))
    for number, (depth, batch) in enumerate(batches, first):
        yield Shard(id=ShardId(f"{number:05d}"), scope=batch[0].scope, runs=tuple(batch), depth=depth)


def halves(shard: Shard, *, first: int) -> list[Shard]:
    """A shard cut in two children, to find the run that kills its worker. Needs at least two runs."""
    middle = len(shard.runs) // 2
    return [
        msgspec.structs.replace(shard, id=ShardId(f"{first + number:05d}"), runs=runs, parent=shard.id)
        for number, runs in enumerate((shard.runs[:middle], shard.runs[middle:]))
    ]


def _budget(scope: Scope, share: float) -> float:
    return min(MAX_SHARD_WEIGHT, max(share, _FEWEST_IN_SHARD.get(scope, 1) * _RUN_WEIGHT))


def _batches(runs: Iterable[RunRef], budget: float) -> Iterator[list[RunRef]]:
    batch: list[RunRef] = []
    weight = 0
    for run in runs:
        if batch and (len(batch) == MAX_SHARD_RUNS or weight + cost(run) > budget):
            yield batch
            batch, weight = [], 0
        batch.append(run)
        weight += cost(run)
    if batch:
        yield batch


def cost(run: RunRef, found: Counters = _NOTHING) -> int:
    """What a run is expected to cost, in points; `found`: what an earlier phase found in it. Sources often cannot tell
    before, and then every run costs the same."""
    return max(run.weight, found.points + found.texts + found.histograms + found.bytes // 16) + _RUN_WEIGHT


def _depths(runs: Sequence[RunRef]) -> dict[Entity, int]:
    """How many selected ancestors each run has that names a parent. A cycle (a broken source) is cut where it is
    entered."""
    if all(run.parent is None for run in runs):
        return {}
    by_key = {run.entity: run for run in runs}
    depths: dict[Entity, int] = {}
    for run in runs:
        chain = [run]
        seen = {run.entity}
        while (parent := _parent(chain[-1], by_key)) is not None and parent.entity not in depths:
            if parent.entity in seen:
                break
            chain.append(parent)
            seen.add(parent.entity)
        root = _parent(chain[-1], by_key)
        depth = depths.get(root.entity, -1) + 1 if root is not None else 0
        for member in reversed(chain):
            depths.setdefault(member.entity, depth)
            depth += 1
    return depths


def _as_late_as_possible(runs: Sequence[RunRef], depths: dict[Entity, int]) -> dict[Entity, int]:
    """Depths that leave runs without descendants to the last: who waits for a depth to end waits for few runs then."""
    heights: dict[Entity, int] = {}
    highest: dict[str, int] = {}
    for run in sorted((run for run in runs if run.entity in depths), key=lambda run: -depths[run.entity]):
        parent = run.parent_ref.entity if run.parent_ref is not None else None
        if parent is not None and depths.get(parent, depths[run.entity]) < depths[run.entity]:
            heights[parent] = max(heights.get(parent, 0), heights.get(run.entity, 0) + 1)
            highest[run.scope] = max(highest.get(run.scope, 0), heights[parent])
    return {key: highest.get(key[1], 0) - heights.get(key, 0) for key in depths}


def _after_what_they_refer_to(runs: Sequence[RunRef], depths: dict[Entity, int]) -> Callable[[RunRef], int]:
    """Deeper, so that an entity is loaded after those that it may refer to."""
    deepest: dict[int, int] = {}
    for run in runs:
        stage = _stage(run)
        deepest[stage] = max(deepest.get(stage, 0), depths.get(run.entity, 0))
    first: dict[int, int] = {}
    for stage in sorted(deepest):
        first[stage] = sum(deepest[before] + 1 for before in first)
    return lambda run: first[_stage(run)] + depths.get(run.entity, 0)


def comes_last(run: RunRef) -> bool:
    """Is it brought after everything else? A deleted experiment is deleted after all that it holds."""
    return run.scope == "experiments" and run.archived


def _stage(run: RunRef) -> int:
    return len(_STAGES) if comes_last(run) else _STAGES[run.scope]


def _parent(run: RunRef, by_key: dict[Entity, RunRef]) -> RunRef | None:
    return by_key.get(parent.entity) if (parent := run.parent_ref) is not None else None


def _refuse_twins(runs: Sequence[RunRef]) -> None:
    seen: set[Entity] = set()
    for run in runs:
        if run.entity in seen:
            raise UsageError(f"the source lists run {run.label} twice", hint="select it with --run-ids, or report this")
        seen.add(run.entity)
