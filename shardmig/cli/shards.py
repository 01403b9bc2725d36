"""The commands that execute the shards of a plan file one by one, without a coordinator, and collect what became of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Option

from shardmig.cli import moving
from shardmig.cli.exits import ExitCode
from shardmig.cli.flags import ExecutionFlags, WatchFlags
from shardmig.cli.speech import Speech
from shardmig.errors import UsageError

if TYPE_CHECKING:
    from shardmig.planner import Request
    from shardmig.records import Report

PlanPath = Annotated[Path, Option("--plan", metavar="FILE", help="What `shardmig plan --out FILE` wrote.")]


def execute_shard(
    plan: PlanPath,
    shard: Annotated[str, Option(metavar="N", help="Its number, from 1 on, or its id.")],
    execution: ExecutionFlags,
    watch: WatchFlags,
    speech: Speech,
    phase: Annotated[
        Literal["survey", "export", "load"] | None, Option(help="No phase behind this one. Default: all of the plan.")
    ] = None,
) -> int:
    """Execute one shard of a plan file.

    \b
    shardmig execute-shard --plan plan.msgpack --shard "$SLURM_ARRAY_TASK_ID"

    Needs no other process. Its outcome is written beside the plan; the same command again goes on, and does nothing twice.
    """
    from shardmig import array

    settings = moving.settings_of(replace(execution, workers=execution.workers or 1))
    file = array.PlanFile(plan.absolute())
    chosen = file.shard(shard)
    moving.check_writable(watch)
    with moving.observer(watch, speech) as observe:
        report = array.execute_shard(file, chosen.id, settings, observe, until=phase)
    return moving.tell("execute-shard", report, watch, speech, retry=file.command(chosen.id))


def collect(plan: PlanPath, watch: WatchFlags, speech: Speech) -> int:
    """Journal what became of the shards of a plan file.

    \b
    shardmig collect --plan plan.msgpack

    Names the shards that have no outcome yet. Afterwards status, retry, verify and the usual command go on from there.
    """
    from shardmig import array
    from shardmig.report.words import plural
    from shardmig.results import retry_command

    file = array.PlanFile(plan.absolute())
    moving.check_writable(watch)
    report, missing = array.collect(file)
    if missing:
        shown = ",".join(str(int(one)) for one in missing)
        speech.say(f"no outcome yet of {plural(len(missing), 'shard')}: {shown}")
        speech.say(f"execute with: {file.command(missing[0])}")
    retry = retry_command(report.migration, file.plan.archive)
    return moving.tell("collect", report, watch, speech, retry=retry)


def write_plan(
    survey: Request, phases: list[str], out: Path, execute: Callable[[Request], Report], speech: Speech
) -> int:
    """Write the plan of what was to be surveyed, and say what shards it has. `execute` surveys, where the step multiplier
    is wanted and not given."""
    import msgspec

    from shardmig import array
    from shardmig.report import estimate, frozen

    if not out.absolute().parent.is_dir():
        raise UsageError(f"--out: there is no folder {out.parent}")
    request = msgspec.structs.replace(
        survey, phases=("survey", "load") if phases == ["load"] else tuple(phases), predict=False
    )
    multiplier = 0
    if "load" in phases and not request.load.step_multiplier:
        found = estimate.estimate_of(execute(msgspec.structs.replace(survey, predict=False)), phases)
        if found.step_multiplier is None:
            raise UsageError(found.step_conflict, hint="--step-multiplier N, with --allow-step-merge if it must be")
        multiplier = found.step_multiplier
    plan, refused = array.freeze(request, out.absolute(), step_multiplier=multiplier)
    answer = frozen.frozen_plan(plan, str(out), refused)
    speech.answer(answer, frozen.shown(answer))
    return ExitCode.FAILED_RUNS if refused else ExitCode.COMPLETE
