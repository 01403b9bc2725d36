"""A copy from one MLflow to another, as a user types it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from shardmig.cli.app import execute
from tests.processes import workers_of


class Copy(NamedTuple):
    """From where to where, and the folder of the archive between."""

    folder: Path
    source: str
    target: str

    def migrate(self, *options: str, code: int = 0) -> dict[str, set[str]]:
        """Copy everything, deleted runs too; {reason code: fields} of what `load` reported."""
        reported: dict[str, set[str]] = {}
        for finding in self.findings(*options, code=code):
            reported.setdefault(finding["code"], set()).add(finding.get("field", ""))
        return reported

    def findings(self, *options: str, code: int = 0) -> list[dict[str, Any]]:
        """Copy as `migrate`; what `load` reported, one by one."""
        outcomes = self._told(self.migration(*options), code)["outcomes"]["load"]
        return [finding for outcome in outcomes for finding in outcome["findings"]]

    def failing(self, *options: str) -> set[str]:
        """Copy while some writes are bound to fail; the ids of what failed."""
        outcomes = self._told(self.migration("--max-attempts", "1", *options), 3)["outcomes"]["load"]
        return {outcome["run"]["id"] for outcome in outcomes if outcome["state"] == "failed"}

    def verify(self, *options: str, code: int = 0) -> list[str]:
        """The verdicts on all runs."""
        line = [*self._shardmig("verify"), *self._into(), "--include-archived-runs", "--json", *options]
        return sorted(outcome["verdict"] for outcome in self._told(line, code)["outcomes"]["verify"])

    def migration(self, *options: str) -> list[str]:
        """The command line that copies."""
        line = [*self._shardmig("migrate"), "--source", "mlflow", self.source, *self._into()]
        return [*line, "--include-archived-runs", "--json", *options]

    def migrate_while_workers_die(self, *, deaths: int) -> int:
        """Copy, killing whichever worker executes a quarter of a second after it began, so many times; the exit code."""
        process = subprocess.Popen(
            [*self.migration("--workers", "1", "--max-attempts", "9")], stdout=subprocess.DEVNULL, cwd=self.folder
        )
        killed: set[int] = set()
        while process.poll() is None:
            for worker in workers_of(process.pid) - killed:
                if len(killed) < deaths:
                    time.sleep(0.25)
                    killed.add(worker)
                    os.kill(worker, signal.SIGKILL)
            time.sleep(0.01)
        assert len(killed) == deaths
        return process.returncode

    def _into(self) -> Iterable[str]:
        folder = self.folder / "archive"
        yield from ("-d", str(folder / "data"), "-f", str(folder / "files"), "--no-progress")
        yield from ("--target", "mlflow", "--mlflow-tracking-uri", self.target)

    def _shardmig(self, command: str) -> list[str]:
        return [sys.executable, "-m", "shardmig", command]

    def _told(self, line: list[str], code: int) -> Any:
        if "inline" in line:  # in this process: starting one costs more than most copies
            with contextlib.chdir(self.folder), contextlib.redirect_stdout(io.StringIO()) as told:
                assert execute(line[line.index("shardmig") + 1 :]) == code, told.getvalue()[-3000:]
            return json.loads(told.getvalue())
        ended = subprocess.run(line, capture_output=True, text=True, cwd=self.folder)
        assert ended.returncode == code, ended.stderr[-3000:]
        return json.loads(ended.stdout)
