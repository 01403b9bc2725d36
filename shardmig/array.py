"""Shards of a plan in a file, each executed by a process of its own (an array of a cluster's jobs), collected afterwards.

Beside the plan file lies `<plan file>.shards/`: a folder per shard with its journal, spool and logs, as a migration has
them, and the shard's outcome once its process ended on its own terms. Those processes know nothing of each other.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import msgspec

from shardmig import codec, planner
from shardmig.config import Settings
from shardmig.coordinator import Execution, Observe, full_disk_is_fatal, garbage_left, locks
from shardmig.errors import PlanMismatch, UsageError
from shardmig.journal import Journal, State, run_key
from shardmig.listing import Listing
from shardmig.migration import MigrationFolder, home_of, plan_of
from shardmig.planner import Request
from shardmig.progress import Watch
from shardmig.records import (
    AttemptEnded,
    AttemptStarted,
    Extended,
    Failure,
    Finished,
    JournalLine,
    MigrationId,
    MultiplierChosen,
    Phase,
    Plan,
    ProjectId,
    Report,
    Shard,
    ShardId,
    ShardOutcome,
    Started,
    TaskResult,
)
from shardmig.results import INTERRUPTED, STOPPED, exit_code_of, report_of

_ENGINE = "shards"


def freeze(request: Request, file: Path, *, step_multiplier: int = 0) -> tuple[Plan, dict[ProjectId, Failure]]:
    """Write the plan of a request into a file, and return it with the projects that could not be listed.

    `step_multiplier`: for a request that leaves it open. A load needs one now: processes that know nothing of each
    other could not choose one together. Raises UsageError without it.
    """
    multiplier = request.load.step_multiplier or step_multiplier
    if "load" in request.phases and not multiplier:
        raise UsageError(
            "a load in a plan file needs its step multiplier now", hint="give --step-multiplier N; plan proposes one"
        )
    listing = Listing(request, home_of(request.archive))
    with garbage_left():
        plan = planner.freeze(request, listing.runs(), created_ms=_now_ms())
    if not plan.shards:
        raise UsageError("no run is selected", hint="`shardmig plan` with fewer filters shows what there is")
    load = msgspec.structs.replace(plan.load, step_multiplier=multiplier)
    plan = msgspec.structs.replace(plan, load=load, refused=listing.refused)
    codec.write_whole(file, codec.encode(plan))
    return plan, plan.refused


class PlanFile:
    """A plan in a file, and the folder of what becomes of its shards. Raises PlanMismatch, UsageError."""

    def __init__(self, file: Path) -> None:
        self.path = file
        if not file.is_file():
            raise UsageError(f"there is no plan {file}", hint="`shardmig plan … --out FILE` writes one")
        written = file.read_bytes()
        self.plan = plan_of(written, file, hint="plan anew")
        self._digest = blake2b(written, digest_size=16).hexdigest()
        self._shards = file.with_name(f"{file.name}.shards")

    def shard(self, which: str) -> Shard:
        """The shard of that id, or of that number: ids count from 1."""
        for shard in self.plan.shards:
            if shard.id == which or (which.isdecimal() and int(shard.id) == int(which)):
                return shard
        raise UsageError(f"{self.path} has no shard {which}", hint=f"it has 1 to {len(self.plan.shards)}")

    def folder(self, shard: ShardId) -> MigrationFolder:
        """Where a shard is executed."""
        return MigrationFolder(self._shards, MigrationId(shard))

    def outcome(self, shard: ShardId) -> ShardOutcome | None:
        """What became of a shard, if its process came to an end."""
        try:
            found: ShardOutcome = codec.decode(self._outcome_file(shard).read_bytes(), ShardOutcome)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise PlanMismatch(
                f"{self._outcome_file(shard)} is not an outcome of this version: {error}",
                hint="execute the shard again",
            ) from error
        if found.plan != self._digest:
            raise PlanMismatch(
                f"{self._outcome_file(shard)} is of another plan",
                hint=f"remove {self._shards}, or name the plan otherwise",
            )
        return found

    def keep_outcome(self, shard: ShardId, exit_code: int, results: list[TaskResult]) -> None:
        """Write what became of a shard."""
        outcome = ShardOutcome(plan=self._digest, shard=shard, exit_code=exit_code, results=results)
        codec.write_whole(self._outcome_file(shard), codec.encode(outcome))

    def command(self, shard: ShardId) -> str:
        """What to type to execute a shard."""
        return shlex.join(("shardmig", "execute-shard", "--plan", str(self.path), "--shard", shard))

    def _outcome_file(self, shard: ShardId) -> Path:
        return self._shards / f"{shard}.outcome"


def execute_shard(
    file: PlanFile, which: str, settings: Settings, observe: Observe | None = None, *, until: Phase | None = None
) -> Report:
    """Execute one shard of a plan file, or go on with it; what is done is not done again. `until`: no phase behind it.

    Raises UsageError when what its runs were forked from or refer to is to be loaded first, and JournalLocked when
    another process executes this shard.
    """
    plan, shard = file.plan, file.shard(which)
    if until is not None and until not in plan.phases:
        raise UsageError(f"the plan has no phase {until}", hint=f"it has: {', '.join(plan.phases)}")
    alone = msgspec.structs.replace(plan, shards=(shard,), refused={})  # `collect` tells of what was refused, once
    _refuse_before_parents(file, shard, plan.phases_until(until))
    folder = file.folder(shard.id)
    with full_disk_is_fatal(folder), locks(folder, plan.archive, alone, is_shared=True):
        if not folder.plan_file.exists():
            folder.write_plan(alone)
        elif folder.read_plan() != alone:
            raise PlanMismatch(f"{folder.path} is of another plan", hint=f"remove {folder.path.parent}")
        state = folder.state()
        others = [run for other in plan.shards if other.depth < shard.depth for run in other.runs]
        report = Execution(folder, state, settings, observe, others=others).carry_out([], until=until)
        file.keep_outcome(shard.id, report.exit_code, list(_results(state, shard)))
    failed = [msgspec.structs.replace(one, retry_command=file.command(shard.id)) for one in report.failed]
    return msgspec.structs.replace(report, migration=plan.id, failed=failed)


def collect(file: PlanFile) -> tuple[Report, list[ShardId]]:
    """Journal the outcomes of a plan file's shards as a coordinator would have, and name those that have none for every
    phase. What was collected before is not told again. Afterwards every other command goes on from there.

    Raises PlanMismatch when the archive has this migration with other shards.
    """
    plan = file.plan
    folder = MigrationFolder(home_of(plan.archive), plan.id)
    with full_disk_is_fatal(folder), locks(folder, plan.archive, plan):
        if not folder.plan_file.exists():
            folder.write_plan(plan)
        state = folder.state()
        _refuse_other_shards(state, plan, folder)
        journal = Journal(folder.journal_file)

        def note(line: JournalLine) -> None:
            journal.append(line)
            state.apply(line)

        try:
            note(Started(_now_ms(), plan.fingerprint, 0, _ENGINE))
            if plan.created_ms > state.listed_ms:
                note(Extended(plan.created_ms, [], plan.refused))
            if "load" in plan.phases and not state.step_multiplier:
                note(MultiplierChosen(_now_ms(), plan.load.step_multiplier))
            missing = []
            for shard in plan.shards:
                outcome = file.outcome(shard.id)
                for result in outcome.results if outcome is not None else ():
                    for line in list(_news(state, result)):
                        note(line)
                if not _is_over(outcome, plan):
                    missing.append(shard.id)
            code = exit_code_of(state, interrupted=bool(missing))
            note(Finished(_now_ms(), code))
        finally:
            journal.close()
        report = report_of(folder, state, code, Watch(folder, state, None), None)
    failed = [
        msgspec.structs.replace(one, log=str(file.folder(one.shard).logs / Path(one.log).name)) for one in report.failed
    ]
    return msgspec.structs.replace(report, failed=failed), missing


def _refuse_before_parents(file: PlanFile, shard: Shard, phases: tuple[Phase, ...]) -> None:
    if shard.depth == 0 or "load" not in phases:
        return
    wanted = {(run.parent_ref.project, run.parent_ref.id) for run in shard.runs if run.parent_ref is not None}
    for other in file.plan.shards:
        has_parents = any((run.project, run.id) in wanted for run in other.runs)
        if other.depth >= shard.depth or (other.scope == shard.scope and not has_parents):
            continue
        outcome = file.outcome(other.id)
        if outcome is None or not any(result.phase == "load" for result in outcome.results):
            raise UsageError(
                f"shard {shard.id} may refer to what shard {other.id} holds, as a fork to its parent, and that is not loaded yet",
                hint=f"execute it first: {file.command(other.id)}",
            )


def _refuse_other_shards(state: State, plan: Plan, folder: MigrationFolder) -> None:
    if state.plan.shards != plan.shards or state.step_multiplier not in (0, plan.load.step_multiplier):
        raise PlanMismatch(
            f"{folder.path} is the same migration, but with other shards or another step multiplier",
            hint="the usual command finds what the shards have brought; `shardmig status` tells how it stands",
        )


def _results(state: State, shard: Shard) -> Iterator[TaskResult]:
    """What is known of a shard's runs, by phase, whichever shards they were cut into meanwhile."""
    for phase, outcomes in state.outcomes.items():
        runs = [outcome for run in shard.runs if (outcome := outcomes.get(run_key(run))) is not None]
        ends = [ended for (ended_phase, _), ended in state.last_ended.items() if ended_phase == phase]
        if ends:
            failures = (ended.failure for ended in ends if ended.failure is not None)
            yield TaskResult(
                shard=shard.id,
                phase=phase,
                attempt=state.attempts.get((phase, shard.id), 1),
                runs=runs,
                failure=next(failures, None) if len(runs) < len(shard.runs) else None,
                started_ms=min(ended.started_ms or ended.ended_ms for ended in ends),
                ended_ms=max(ended.ended_ms for ended in ends),
            )


def _news(state: State, result: TaskResult) -> Iterator[JournalLine]:
    """What a result says beyond the journal. What was brought since by another way is not undone."""
    runs = [
        outcome
        for outcome in result.runs
        if not state.settled(result.phase, outcome.run)
        and state.outcomes[result.phase].get(run_key(outcome.run)) != outcome
    ]
    if runs or (result.phase, result.shard) not in state.last_ended:
        news = msgspec.structs.replace(result, runs=runs)
        yield AttemptStarted(result.started_ms, result.phase, result.shard, result.attempt)
        yield AttemptEnded(result.ended_ms, news, result.phase, result.shard, result.attempt)


def _is_over(outcome: ShardOutcome | None, plan: Plan) -> bool:
    """Did the shard's process do what it could for every phase?"""
    if outcome is None or outcome.exit_code in (STOPPED, INTERRUPTED):
        return False
    return bool(outcome.exit_code) or {result.phase for result in outcome.results} == set(plan.phases)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
