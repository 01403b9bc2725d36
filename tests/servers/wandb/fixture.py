"""The server as a fixture: one for all tests of a process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.wandb.server import KEY, WandbServer, wandb_server


@pytest.fixture(scope="session")
def _running_wandb() -> Iterator[WandbServer]:
    with wandb_server() as server:
        yield server


@pytest.fixture
def wandb(_running_wandb: WandbServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> WandbServer:
    """An empty server, and an environment that leads wandb's own client to it."""
    server = _running_wandb
    server.forget()
    for name, value in {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "WANDB_ERROR_REPORTING": "false"}.items():
        monkeypatch.setenv(name, value)
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb-own"))
    return server
