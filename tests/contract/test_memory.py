"""The memory adapter passes both suites, bare, limited, and behind wrappers while faults are injected."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from shardmig.adapters.base import ReadSide, Want, WriteSide
from shardmig.adapters.conformance import SourceSuite, TargetSuite, plain_run, rich_run, wide_run
from shardmig.adapters.faults import Fault, FaultPlan, FaultySource, FaultyTarget
from shardmig.adapters.wrappers import RetryingSource, RetryingTarget, RetryPolicy
from shardmig.archive.files import ArchiveFiles, DigestSink
from shardmig.errors import BadInput, Fatal
from shardmig.records import ArchivePaths, Chunk, LoadOptions, ProjectId, Selection
from tests.contract.memory import Limits, MemorySource, MemorySystem, MemoryTarget, fill

QUICK = RetryPolicy(attempts=50, first_pause_s=0.0, longest_pause_s=0.0)


class Systems:
    """One system a folder: what a subclass of a suite opens again."""

    def __init__(self) -> None:
        self._systems: dict[Path, MemorySystem] = {}

    def empty(self, folder: Path) -> MemorySystem:
        return self._systems.setdefault(folder, MemorySystem())

    def filled(self, folder: Path) -> MemorySystem:
        if folder not in self._systems:
            fill(self.empty(folder), _runs(folder), lambda project: ArchiveFiles(_paths(folder), project))
        return self._systems[folder]


SYSTEMS = Systems()


class TestMemorySource(SourceSuite):
    def open_source(self, folder: Path) -> ReadSide:
        return MemorySource(SYSTEMS.filled(folder))


class TestMemorySourceUnderFaults(SourceSuite):
    """Transient faults at every fiftieth step are not seen by anyone behind the retrying wrapper."""

    def open_source(self, folder: Path) -> ReadSide:
        plan = FaultPlan.seeded(7, rate=0.02, steps=100_000, kinds=("transient", "rate-limited"))
        return RetryingSource(FaultySource(MemorySource(SYSTEMS.filled(folder)), plan), policy=QUICK)


class TestMemorySourceWithoutCursorsUnderFaults(SourceSuite):
    """A source that cannot resume is read again, and what was read is skipped."""

    def open_source(self, folder: Path) -> ReadSide:
        plan = FaultPlan({3: "transient", 50: "transient", 400: "transient"})
        return RetryingSource(FaultySource(MemorySource(SYSTEMS.filled(folder), resumes=False), plan), policy=QUICK)


class TestMemoryTarget(TargetSuite):
    def open_target(self, folder: Path, load: LoadOptions) -> WriteSide:
        return MemoryTarget(SYSTEMS.empty(folder), load)


class TestLimitedMemoryTarget(TargetSuite):
    def open_target(self, folder: Path, load: LoadOptions) -> WriteSide:
        limits = Limits(holds_infinity=False, longest_text=1000, decimal_steps=False)
        return MemoryTarget(SYSTEMS.empty(folder), load, limits)


class TestMemoryTargetUnderFaults(TargetSuite):
    """Faults of reading and finding are not seen behind the retrying wrapper."""

    def open_target(self, folder: Path, load: LoadOptions) -> WriteSide:
        plan = FaultPlan(dict.fromkeys((1, 2, 5, 20, 100, 2000), "transient"), places=("find_run", "read_run"))
        faulty = FaultyTarget(MemoryTarget(SYSTEMS.empty(folder), load), plan)
        return RetryingTarget(faulty, policy=QUICK)


@pytest.mark.parametrize(("fault", "error"), [("permanent", BadInput), ("fatal", Fatal)])
def test_faults_that_are_not_transient_pass_the_retrying_wrapper(
    tmp_path: Path, fault: Fault, error: type[Exception]
) -> None:
    system = SYSTEMS.filled(tmp_path)
    plan = FaultPlan({3: fault})
    source = RetryingSource(FaultySource(MemorySource(system), plan), policy=QUICK)
    runs = [next(iter(system.runs.values())).run]
    with pytest.raises(error, match="planned fault at step 3"):
        list(source.read_runs(runs, Want(selection=Selection(), chunk_points=10), DigestSink()))


def test_a_planned_kill_ends_the_process_as_sigkill_does(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        source = FaultySource(MemorySource(SYSTEMS.filled(tmp_path)), FaultPlan({2: "kill"}))
        list(source.list_runs(ProjectId("ws/plain"), Selection()))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def _runs(folder: Path) -> list[list[Chunk]]:
    files = ArchiveFiles(_paths(folder), ProjectId("ws/rich"))
    runs = [plain_run(run_id=f"RUN-{number}") for number in range(3)]
    return [*runs, plain_run("ws/other", "RUN-1"), rich_run(files), wide_run(60)]


def _paths(folder: Path) -> ArchivePaths:
    return ArchivePaths(str(folder / "data"), str(folder / "files"))
