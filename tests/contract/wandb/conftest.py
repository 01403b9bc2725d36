"""A W&B server for the contract of the W&B adapter."""

from __future__ import annotations

from tests.servers.wandb.fixture import _running_wandb, wandb

__all__ = ["_running_wandb", "wandb"]
