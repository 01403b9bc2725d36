"""A command of the unmodified product, executed in a folder of its own while something happens to it.

`faults.c`, preloaded, lets one process of it die, pause or meet a full disk at a chosen one of its I/O steps.
"""

from __future__ import annotations

import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

Role = Literal["coordinator", "worker"]
_COMMAND_LINE: dict[Role, str] = {"coordinator": "-m shardmig migrate", "worker": "shardmig.engines."}
_TAKE_SPACE = {"write", "pwrite", "writev"}


class Fault(NamedTuple):
    """What happens to which process at which of its I/O steps. Step 0: nothing, the steps are only noted."""

    role: Role
    step: int
    action: Literal["kill", "pause", "full"] = "kill"


class Steps(list[str]):
    """The I/O steps of an execution that nothing disturbed, in their order: call and file."""

    def sample(self, points: int) -> list[int]:
        """Numbers of steps, counted from 1: all if so many are asked for, else an even sample of those at which
        another call or another file begins, since a database writes hundreds of pages in a row. A sample leaves out
        the very last ones: executions differ by a few steps."""
        if points >= len(self):
            return list(range(1, len(self) + 1))
        turns = [number for number, step in enumerate(self, 1) if number == 1 or step != self[number - 2]]
        return _even(turns[: len(turns) * 19 // 20], points)

    def sample_of_writes(self, points: int) -> list[int]:
        """As `sample`, of the steps that take space. Not the last ones: executions differ by a few steps."""
        writes = [number for number, step in enumerate(self, 1) if step.partition(" ")[0] in _TAKE_SPACE]
        sure = writes[: len(writes) * 9 // 10]
        return sure if points >= len(sure) else _even(sure, points)


class FaultyCommand(ABC):
    """A command that changes files only below `root`, which must be a folder that is there."""

    def __init__(self, root: Path, faults: Path) -> None:
        self.root = root.resolve()
        self.ledger = root.with_name(root.name + ".ledger")
        self.mark = root.with_name(root.name + ".mark")
        self._faults = faults

    @abstractmethod
    def command(self) -> list[str]:
        """The command line, always the same."""

    def environment(self, fault: Fault | None) -> dict[str, str]:
        """The environment of the command, with the fault in it."""
        if fault is None:
            return dict(os.environ)
        return os.environ | {
            "LD_PRELOAD": str(self._faults),
            "FAULTS_UNDER": str(self.root),
            "FAULTS_ROLE": _COMMAND_LINE[fault.role],
            "FAULTS_LEDGER": str(self.ledger),
            "FAULTS_AT": str(fault.step),
            "FAULTS_ACTION": fault.action,
            "FAULTS_MARK": str(self.mark),
        }

    def execute(self, fault: Fault | None = None) -> subprocess.CompletedProcess[str]:
        """Execute the command to its end."""
        return subprocess.run(
            self.command(), cwd=self.root, env=self.environment(fault), capture_output=True, text=True, timeout=300
        )

    @contextmanager
    def executing(self, fault: Fault) -> Iterator[subprocess.Popen[str]]:
        """The command while it executes, as the leader of a process group, as a shell would start it."""
        with subprocess.Popen(
            self.command(),
            cwd=self.root,
            env=self.environment(fault),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        ) as coordinator:
            try:
                yield coordinator
            finally:
                if coordinator.poll() is None:
                    os.killpg(coordinator.pid, signal.SIGKILL)

    def steps(self) -> Steps:
        """The I/O steps that were noted: call and file."""
        return Steps(line.partition(" ")[2] for line in self.ledger.read_text().splitlines())

    def left_over(self) -> list[str]:
        """Names of files that only a command in progress has."""
        files = [path for path in self.root.rglob("*") if not path.is_dir()]
        spools = [file.name for file in files if file.parent.name == "spool"]
        drafts = [file.name for file in files if file.suffix in (".tmp", ".draft", ".part")]
        journals = [file.name for file in self.root.glob("mlflow.db-*")]
        return sorted(spools + drafts + journals)


def _even(numbers: list[int], points: int) -> list[int]:
    return [numbers[point * (len(numbers) - 1) // (points - 1)] for point in range(points)]
