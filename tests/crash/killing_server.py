"""A server in front of a real MLflow server that kills who writes to it at a chosen one of the writes."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from tests.servers.in_front import Forwarding, InFront
from tests.servers.mlflow import MlflowServer

_NONE: Mapping[str, str] = MappingProxyType({})
_READS = ("/search", "/get", "/list")


class KilledAt(NamedTuple):
    """The number of a write, counted from 1 among those whose path has `part`, and whether the server gets it before the
    one who wrote it dies."""

    write: int
    arrives: bool
    part: str = ""


class KillingServer(InFront):
    """`victim` is killed at `at`. Requests that only read are not counted."""

    def __init__(self, mlflow: MlflowServer) -> None:
        super().__init__(mlflow, _Killing)
        self.victim: subprocess.Popen[str] | None = None
        self.at: KilledAt | None = None
        self.writes = 0

    def execute(self, command: list[str], folder: Path, at: KilledAt | None) -> tuple[int, str]:
        """Execute a command to its end or to its death; exit code, and what it said."""
        self.at, self.writes = at, 0
        self.victim = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        _, said = self.victim.communicate(timeout=300)
        return self.victim.returncode, said

    def kill(self) -> None:
        """Let it be dead when this returns."""
        assert self.victim is not None
        self.victim.kill()
        self.victim.poll()


class _Killing(Forwarding):
    server: KillingServer
    _fate: Literal["none", "dies", "dies once it arrived"] = "none"

    def forward(self, body: bytes) -> None:
        self._fate = self._decided()
        if self._fate == "dies":
            self.server.kill()
            self.hang_up()
            return
        super().forward(body)

    def send(self, status: int, content: bytes, headers: Mapping[str, str] = _NONE, *, is_cut: bool = False) -> None:
        if self._fate == "dies once it arrived":
            self.server.kill()
            self.hang_up()
            return
        super().send(status, content, headers, is_cut=is_cut)

    def _decided(self) -> Literal["none", "dies", "dies once it arrived"]:
        path = urlsplit(self.path).path
        if self.command == "GET" or any(part in path for part in _READS):
            return "none"
        at = self.server.at
        if at is None or at.part not in path:
            return "none"
        self.server.writes += 1
        if self.server.writes != at.write:
            return "none"
        return "dies once it arrived" if at.arrives else "dies"
