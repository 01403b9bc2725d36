"""Where shards execute. An engine is handed bytes and a function; it imports no adapter and no worker."""

from __future__ import annotations

from shardmig.config import usable_cores
from shardmig.engines.base import Engine, Outcome, Tick, Work
from shardmig.engines.inline import InlineEngine
from shardmig.engines.local import LocalEngine
from shardmig.engines.ray import RayEngine, require_ray
from shardmig.errors import UsageError

__all__ = ["ENGINES", "Engine", "Outcome", "Tick", "Work", "make_engine", "require_engine"]

ENGINES = ("inline", "local", "ray")


def require_engine(name: str) -> None:
    """Raises MissingExtra for an engine whose package is not installed."""
    if name == "ray":
        require_ray()


def make_engine(
    name: str,
    slots: int | None = None,
    *,
    deadline_s: float | None = None,
    grace_s: float = 5.0,
    ray_address: str = "",
    ray_resources: str = "",
) -> Engine:
    """The engine of that name. `slots`: workers at once, by default one for each usable core (ray: of the cluster).

    deadline_s: a task that takes longer loses its worker (inline cannot enforce it). grace_s: how long a worker of
    `local` that has nothing to do may take to end. ray_address, ray_resources: as RayEngine has them. Raises UsageError
    for an unknown name or less than one slot, and what RayEngine raises.
    """
    if slots is not None and slots < 1:
        raise UsageError(f"{slots} workers cannot do anything", hint="--workers takes 1 or more")
    if name == "inline":
        return InlineEngine()
    if name == "local":
        return LocalEngine(slots or usable_cores(), deadline_s=deadline_s, grace_s=grace_s)
    if name == "ray":
        return RayEngine(slots, deadline_s=deadline_s, address=ray_address, resources=ray_resources)
    raise UsageError(f"there is no engine {name!r}", hint=f"known: {', '.join(ENGINES)}")
