"""The vendor's own `wandb sync`, in a process of its own that sends run folder after run folder.

One process for many runs, because starting the vendor's command line takes longer than sending a small run (1.3 s against
0.2 s, measured). The API key is in the environment of that process only.
"""

from __future__ import annotations

import atexit
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Final

from shardmig.adapters.staging import staging_folder
from shardmig.errors import TimedOut, Unavailable

_DONE: Final = b"\0synced\n"
_MOST_TOLD: Final = 500
_PATIENCE_S: Final = 10.0
_SERVICE: Final = "WANDB_SERVICE"
"""Where the vendor's code notes the `wandb-core` of this process, for its children to use. A sync has one of its own, which
ends with it (measured: within 0.1 s): another's would send on, into the run that the next attempt writes."""
_OF_RUNS: Final = {"WANDB_RESUME", "WANDB_RESUME_FROM", "WANDB_FORK_FROM"}
"""Meant for runs that people begin from this shell: a sync takes them for itself, and sends no rows (measured)."""
_shared: dict[frozenset[tuple[str, str]], Sync] = {}


def shared_sync(environment: Mapping[str, str]) -> Sync:
    """The one Sync of this process for these settings: it outlives a shard, and ends with the process."""
    found = _shared.get(frozenset(environment.items()))
    if found is None:
        found = _shared[frozenset(environment.items())] = Sync(environment)
        atexit.register(found.close)
    return found


class Sync:
    """Sends run folders. Opened at the first one. `environment`: what the vendor needs to reach the server."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._home: Path | None = None
        self._staging = ExitStack()

    def send(self, folder: Path, deadline_s: float) -> None:
        """Send a run folder. That this returns does not mean that anything arrived: see `server`. Raises TimedOut after
        the deadline, Unavailable where the vendor's program ended."""
        process = self._process or self._begin()
        assert process.stdin is not None
        try:
            process.stdin.write(os.fsencode(folder) + b"\n")
            process.stdin.flush()
        except BrokenPipeError as error:
            told = self._told()
            self.close()
            raise Unavailable(f"wandb sync ended: {told}") from error
        self._wait(process, deadline_s)

    def close(self) -> None:
        """End the process; idempotent."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.close()
                process.wait(_PATIENCE_S)
            except (BrokenPipeError, subprocess.TimeoutExpired):
                process.kill()
                process.wait()
            process.stdout.close()
        self._staging.close()
        self._home = None

    def _begin(self) -> subprocess.Popen[bytes]:
        self._home = self._staging.enter_context(staging_folder())
        places = {f"WANDB_{name}_DIR": str(self._home) for name in ("CACHE", "CONFIG", "DATA")}
        inherited = {name: value for name, value in os.environ.items() if name not in {_SERVICE, *_OF_RUNS}}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "shardmig.adapters.wandb.syncing"],
                env=inherited | dict(self._environment) | places,
                cwd=self._home,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        return self._process

    def _wait(self, process: subprocess.Popen[bytes], deadline_s: float) -> None:
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        held = b""
        while not held.endswith(_DONE):
            ready, _, _ = select.select([descriptor], [], [], deadline_s)
            if not ready:
                process.kill()
                self.close()
                raise TimedOut(f"wandb sync did not finish within {deadline_s:g} s")
            some = os.read(descriptor, 65536)
            if not some:
                told = self._told()
                self.close()
                raise Unavailable(f"wandb sync ended: {told}")
            held = (held + some)[-_MOST_TOLD:]

    @property
    def _log(self) -> Path:
        assert self._home is not None
        return self._home / "sync.log"

    def _told(self) -> str:
        return self._log.read_bytes()[-_MOST_TOLD:].decode("utf-8", "replace").strip()


def _receive(folders: SimpleQueue[bytes]) -> None:
    """Take what standard input names. It ends with the process that asked: whoever writes the run anew is not to be sent into."""
    for line in sys.stdin.buffer:
        folders.put(line)
    os._exit(0)


def _main() -> None:
    """Sync each folder that standard input names, as the command line would."""
    import click
    from wandb.cli.cli import cli

    answer = os.dup(1)
    os.dup2(2, 1)  # what wandb prints is no answer
    folders: SimpleQueue[bytes] = SimpleQueue()
    Thread(target=_receive, args=(folders,), daemon=True).start()
    while line := folders.get():
        try:
            cli.main(["sync", "--yes", os.fsdecode(line.rstrip(b"\n"))], standalone_mode=False)
        except click.ClickException as error:
            sys.stderr.write(f"{error.format_message()}\n")
        os.write(answer, _DONE)


if __name__ == "__main__":
    _main()
