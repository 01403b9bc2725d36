"""The coordinator: reconcile, dispatch, commit. The only writer of the journal; knows no adapter by name.

It freezes what is asked for into a plan, hands attempts to an engine and journals how each ended. What it believes
of a run is an index only: workers ask the archive and the target themselves, so a lost journal line is healed by
the next attempt. The same request again finds the same migration and goes on.
"""

from __future__ import annotations

import gc
import itertools
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import msgspec

from shardmig import codec, planner
from shardmig.adapters.budget import Lessor
from shardmig.adapters.registry import imports_of
from shardmig.archive.claim import claimed
from shardmig.archive.layout import disk_error
from shardmig.config import Settings
from shardmig.engines import Ahead, Engine, Outcome, engine_of
from shardmig.errors import DiskFull, PlanMismatch, StepConflict, UsageError
from shardmig.journal import Journal, Lock, State, compact
from shardmig.listing import Listing
from shardmig.migration import MigrationFolder, find_migration, home_of
from shardmig.planner import Request
from shardmig.progress import Watch
from shardmig.reconcile import extension
from shardmig.records import (
    ArchivePaths,
    AttemptEnded,
    AttemptStarted,
    Entity,
    Extended,
    Failure,
    Finished,
    JournalLine,
    MultiplierChosen,
    Phase,
    Plan,
    Progress,
    Report,
    RunId,
    RunRef,
    ShardId,
    Started,
    StepNeeds,
    TargetRunId,
    Task,
    TaskResult,
)
from shardmig.results import exit_code_of, report_of, was_carried_out
from shardmig.schedule import FUTILE_ATTEMPTS, Ready, Schedule
from shardmig.steps import merge_needs, proposed_multiplier
from shardmig.worker.task import execute as execute_task

Observe = Callable[[Progress], None]


def execute(
    request: Request, settings: Settings, observe: Observe | None = None, *, home: Path | None = None
) -> Report:
    """Carry a request out, or go on with it. Returns how every run of its plan stands.

    A request that was carried out to its end before is carried out anew, and finds most of it there already; one that
    was interrupted goes on where it was.

    `home`: where migrations are kept, by default in the archive. `observe` is called about twice a second from
    this thread. Raises UsageError, PlanMismatch (also when a run changed in the source after it was brought),
    JournalLocked.
    SIGINT and SIGTERM: the first drains, the second kills the workers; both leave everything resumable.
    """
    if request.phases[0] == "load" and not request.load.step_multiplier:
        raise UsageError("a load needs its step multiplier, or a phase before it that finds the steps out")
    folder = MigrationFolder(home or home_of(request.archive), planner.migration_id(request))
    imports = imports_of(request.source, request.target)
    with (
        closing(engine_of(settings, Ahead(execute_task, imports) if imports else None)) as engine,
        closing(Listing(request, folder.path.parent, observe)) as listing,
        full_disk_is_fatal(folder),
        locks(folder, request.archive, request),
    ):
        with garbage_left():
            state, extension = _reconcile(folder, request, listing)
        execution = Execution(folder, state, settings, observe, engine=engine)
        return execution.carry_out(extension, looks_again=True, sample=request.sample, predict=request.predict)


def retry(
    archive: ArchivePaths,
    settings: Settings,
    observe: Observe | None = None,
    *,
    migration: str = "",
    shards: Iterable[ShardId] = (),
) -> Report:
    """Execute again what failed or was not reached in a migration: these shards, or all. The plan is taken as it is."""
    folder = find_migration(archive, migration)
    state = folder.state()
    if unknown := [shard for shard in shards if shard not in state.shards]:
        raise UsageError(
            f"migration {folder.id} has no shard {', '.join(unknown)}",
            hint=f"`{shlex.join(('shardmig', 'status', '--migration', folder.id, '-d', archive.data))}` lists them",
        )
    with full_disk_is_fatal(folder), locks(folder, archive, state.plan):
        return Execution(folder, folder.state(), settings, observe).carry_out([], only=tuple(shards))


@contextmanager
def full_disk_is_fatal(folder: MigrationFolder) -> Iterator[None]:
    """What the coordinator itself cannot write stops the migration, resumable, as what a worker cannot write does."""
    try:
        folder.create()
        yield
    except OSError as error:
        if isinstance(fatal := disk_error(str(folder.path), error), DiskFull):
            raise fatal from error
        raise


@contextmanager
def locks(
    folder: MigrationFolder, archive: ArchivePaths, asked: Request | Plan, *, is_shared: bool = False
) -> Iterator[None]:
    """This migration, the archive if it is written, and the target if it is written: each by one coordinator, or
    `is_shared` by processes that each execute another shard of one plan."""
    with ExitStack() as stack:

        def hold(path: Path, what: str) -> None:
            stack.callback(Lock(path, what, is_shared=is_shared).release)

        stack.callback(Lock(folder.lock_file, f"migration {folder.id}").release)
        if "export" in asked.phases:
            hold(home_of(archive) / "export.lock", f"archive {archive.data}")
            if not is_shared:
                stack.enter_context(claimed(archive, home_of(archive)))
        if "load" in asked.phases and asked.target is not None:
            name = blake2b(codec.encode(asked.target), digest_size=6).hexdigest()
            hold(home_of(archive) / f"load-{name}.lock", f"the load into {asked.target.name}")
        yield


@contextmanager
def garbage_left() -> Iterator[None]:
    """Without looks for cyclic garbage: among a million records that are all kept they take a fifth of the time. Later
    looks leave these records out."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _reconcile(folder: MigrationFolder, request: Request, listing: Listing) -> tuple[State, list[Extended]]:
    """The frozen plan (made now if there is none) with what became of it, and what the source has beyond it."""
    if not folder.plan_file.exists():
        plan = planner.freeze(request, listing.runs(), created_ms=_now_ms())
        folder.write_plan(msgspec.structs.replace(plan, refused=listing.refused))
        return folder.state(), []
    # Listed first: the memory that takes is free again when the state is there.
    listed = list(itertools.islice(listing.runs(), request.selection.limit or None))
    state = folder.state()
    plan = state.plan
    if plan.fingerprint != planner.fingerprint(request):
        raise PlanMismatch(
            f"{folder.plan_file} was made for another request", hint=f"remove {folder.path} to plan anew"
        )
    shards, gone = extension(state, listed, request, refused=listing.refused)
    return state, [Extended(_now_ms(), shards, listing.refused, gone)]


class Execution:
    """One execution of a plan by this process, which holds its locks. `others`: of the same plan, by other processes."""

    def __init__(
        self,
        folder: MigrationFolder,
        state: State,
        settings: Settings,
        observe: Observe | None,
        *,
        engine: Engine | None = None,
        others: Iterable[RunRef] = (),
    ) -> None:
        self._others = others
        self._folder = folder
        self._plan = state.plan
        self._settings = settings
        self._engine = engine or engine_of(settings)
        if state.is_wordy:
            compact(folder.journal_file, state)
        self._journal = Journal(folder.journal_file)
        self._state = state
        self._in_flight: dict[bytes, Ready] = {}
        self._observe = observe
        self._signals = 0
        self._lessor = ""
        self._fatal: Failure | None = None

    def carry_out(
        self,
        extension: list[Extended],
        *,
        looks_again: bool = False,
        only: tuple[ShardId, ...] = (),
        until: Phase | None = None,
        sample: int = 0,
        predict: bool = False,
    ) -> Report:
        """Execute what is left. `until`: no phase behind this one."""
        self._sample, self._predict = sample, predict
        looks_again = looks_again and was_carried_out(self._state)
        workers, engine = self._engine.slots, self._settings.engine
        try:
            self._note(Started(_now_ms(), self._plan.fingerprint, workers, engine, looks_again))
            for line in extension:
                self._note(line)
            self._watch = Watch(self._folder, self._state, self._observe)
            self._schedule = Schedule(self._state, max_attempts=self._settings.max_attempts, only=only, until=until)
            with self._interruptible(), self._leasing():
                try:
                    for outcome in self._engine.execute(self._tasks(), execute_task, self._watch.tick):
                        self._commit(outcome)
                        self._watch.committed()
                except KeyboardInterrupt:
                    self._signals = max(self._signals, 1)
            code = exit_code_of(self._state, interrupted=bool(self._signals), fatal=self._fatal, until=until)
            self._note(Finished(_now_ms(), code))
        finally:
            self._engine.close()
            self._journal.close()
        return report_of(self._folder, self._state, code, self._watch, self._fatal)

    def _tasks(self) -> Iterator[bytes | None]:
        while True:
            self._choose_multiplier()
            ready = self._schedule.next(time.monotonic())
            if ready is not None:
                yield self._start(ready)
            elif self._in_flight:
                yield None
            elif (pause_s := self._schedule.pause_s(time.monotonic())) is not None:
                time.sleep(min(pause_s, 0.5))
                self._watch.tick()
            else:
                return

    def _start(self, ready: Ready) -> bytes:
        phase, shard = ready
        attempt = self._state.attempts.get((phase, shard.id), 0) + 1
        task = codec.encode(
            Task(
                migration=self._folder.id,
                phase=phase,
                shard=shard,
                attempt=attempt,
                source=self._plan.source,
                archive=self._plan.archive,
                target=self._plan.target,
                selection=self._plan.selection,
                load=msgspec.structs.replace(self._plan.load, step_multiplier=self._state.step_multiplier),
                spool=str(self._folder.spool),
                log=str(self._folder.log_file(phase, shard.id, attempt)),
                progress=str(self._folder.progress_file(phase, shard.id)),
                chunk_points=self._settings.chunk_points,
                part_bytes=self._settings.part_bytes,
                compression=self._settings.compression,
                parents=self._parents(ready),
                sample=self._sample,
                predict=self._predict,
                lessor=self._lessor,
            )
        )
        self._note(AttemptStarted(_now_ms(), phase, shard.id, attempt))
        self._in_flight[task] = ready
        self._watch.started(ready)
        return task

    def _parents(self, ready: Ready) -> dict[RunId, TargetRunId]:
        """What the parents of these runs are in the target; "" for one that is in the plan and was not loaded."""
        project = ready.shard.runs[0].project
        found: dict[RunId, TargetRunId] = {}
        for parent in (run.parent_ref for run in ready.shard.runs if ready.phase == "load"):
            if parent is None or parent.project != project:
                continue
            if (known := self._state.loaded_as(parent)) is not None:
                found[parent.id] = known
            elif parent.entity in self._planned:
                found[parent.id] = TargetRunId("")
        return found

    @cached_property
    def _planned(self) -> frozenset[Entity]:
        """Every run of the plan, whatever its version. Looked at only where a parent was not loaded."""
        return frozenset(run.entity for run in itertools.chain(self._state.runs(), self._others))

    def _commit(self, outcome: Outcome) -> None:
        ready = self._in_flight.pop(outcome.task)
        result: TaskResult | None = None
        lost: Failure | None = None
        if outcome.reply is not None:
            result = self._with_log_kept(codec.decode(outcome.reply, TaskResult))
        else:
            lost = Failure(type(outcome.failure).__name__, "transient", str(outcome.failure))
        attempt = self._state.attempts[ready.phase, ready.shard.id]
        self._watch.ended(ready)
        self._note(AttemptEnded(_now_ms(), result, ready.phase, ready.shard.id, attempt, lost))
        if result is not None and result.failure is not None and result.failure.disposition == "fatal":
            self._fatal = result.failure
            self._engine.stop()
        given_up, children = self._schedule.end(ready, result, lost, time.monotonic())
        if self._schedule.futile >= FUTILE_ATTEMPTS and self._fatal is None and result is not None:
            self._stop_unreachable(result)
        if given_up:
            closing = TaskResult(shard=ready.shard.id, phase=ready.phase, attempt=attempt, runs=given_up)
            self._note(AttemptEnded(_now_ms(), closing, ready.phase, ready.shard.id, attempt))
        if children:
            self._note(Extended(_now_ms(), children))
            self._schedule.replaced(children)

    def _with_log_kept(self, result: TaskResult) -> TaskResult:
        """A worker that could not write its log here has sent it."""
        if not result.log:
            return result
        with open(self._folder.log_file(result.phase, result.shard, result.attempt), "ab") as file:
            file.write(result.log)
        return msgspec.structs.replace(result, log=b"")

    def _stop_unreachable(self, result: TaskResult) -> None:
        """Rather than try every run of the plan against something that is down, for days."""
        failures = [result.failure, *(outcome.failure for outcome in result.runs)]
        reason = next((failure.message for failure in failures if failure is not None), "")
        message = f"{FUTILE_ATTEMPTS} attempts in a row could reach nothing: {reason}"
        self._fatal = Failure(
            "Unavailable", "fatal", message, hint="when it answers again, give the same command again"
        )
        self._engine.stop()

    def _choose_multiplier(self) -> None:
        """Once the steps of all runs are known, the smallest multiplier that keeps each of them."""
        phases = self._plan.phases
        if self._state.step_multiplier or "load" not in phases or not self._schedule.multiplier_can_be_chosen():
            return
        wanted = StepNeeds()
        for outcome in self._state.outcomes[phases[0]].values():
            wanted = merge_needs(wanted, outcome.steps)
        try:
            chosen = proposed_multiplier(wanted)
        except StepConflict as error:
            raise UsageError(error.message, hint=error.hint) from error
        self._note(MultiplierChosen(_now_ms(), chosen))

    def _note(self, line: JournalLine) -> None:
        self._journal.append(line)
        self._state.apply(line)

    @contextmanager
    def _leasing(self) -> Iterator[None]:
        """Workers on other computers take from this one's rate budgets."""
        if not self._engine.host:
            yield
            return
        with Lessor(self._engine.host) as lessor:
            self._lessor = lessor.address
            yield

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """First signal: drain. Second: stop now. Nothing done is lost either way."""

        def interrupt(_number: int, _frame: object) -> None:
            self._signals += 1
            if self._signals > 1:
                raise KeyboardInterrupt
            self._engine.stop()
            self._watch.say("interrupted: shards in flight are finished; press Ctrl-C again to stop now")

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
