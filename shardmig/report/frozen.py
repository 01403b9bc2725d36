"""The answer of `plan --out`: the shards that were written into a plan file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import msgspec
from rich.console import RenderableType
from rich.text import Text

from shardmig.records import Failure, Phase, Plan, ProjectId
from shardmig.report import refused, terminal, words


class FrozenPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A plan file. `waves`: how many shards have no ancestors, one generation of them, two …; those of a wave are loaded
    when all before are."""

    file: str
    migration: str
    phases: tuple[Phase, ...]
    shards: int
    runs: int
    step_multiplier: int
    waves: list[int]
    refused: dict[ProjectId, Failure]


def frozen_plan(plan: Plan, file: str, refused: Mapping[ProjectId, Failure]) -> FrozenPlan:
    """What there is to tell of a plan file."""
    waves = Counter(shard.depth for shard in plan.shards)
    return FrozenPlan(
        file=file,
        migration=plan.id,
        phases=plan.phases,
        shards=len(plan.shards),
        runs=sum(len(shard.runs) for shard in plan.shards),
        step_multiplier=plan.load.step_multiplier,
        waves=[waves[depth] for depth in sorted(waves)],
        refused=dict(refused),
    )


def shown(plan: FrozenPlan) -> Iterator[RenderableType]:
    """For people."""
    multiplier = f", step multiplier {plan.step_multiplier}" if plan.step_multiplier else ""
    yield terminal.name(
        f"{plan.file}: {words.plural(plan.runs, 'run')} in {words.plural(plan.shards, 'shard')}{multiplier}",
        style="bold",
    )
    if len(plan.waves) > 1:
        first = 1
        for count in plan.waves:
            yield Text(f"shards {first}-{first + count - 1}" + ("" if first == 1 else ": when those before are loaded"))
            first += count
    yield terminal.name(f"execute each with: shardmig execute-shard --plan {plan.file} --shard N")
    yield terminal.name(f"then: shardmig collect --plan {plan.file}")
    yield from refused.shown(plan.refused)
