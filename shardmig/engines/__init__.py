"""Where shards execute. An engine is handed bytes and a function; it imports no adapter and no worker."""

from __future__ import annotations

from shardmig.config import Settings, usable_cores
from shardmig.engines.base import Ahead, Engine, Outcome, Tick, Work
from shardmig.engines.inline import InlineEngine
from shardmig.engines.local import LocalEngine
from shardmig.engines.ray import RayEngine, require_ray
from shardmig.errors import UsageError

__all__ = ["ENGINES", "Ahead", "Engine", "Outcome", "Tick", "Work", "engine_of", "make_engine", "require_engine"]

ENGINES = ("inline", "local", "ray")


def require_engine(name: str) -> None:
    """Raises MissingExtra for an engine whose package is not installed."""
    if name == "ray":
        require_ray()


def engine_of(settings: Settings, ahead: Ahead | None = None) -> Engine:
    """The engine that settings name, to be closed. Raises as `make_engine`."""
    return make_engine(
        settings.engine,
        settings.workers or None,
        deadline_s=settings.deadline_s or None,
        grace_s=settings.grace_s,
        ray_address=settings.ray_address,
        ray_resources=settings.ray_resources,
        ahead=ahead,
    )


def make_engine(
    name: str,
    slots: int | None = None,
    *,
    deadline_s: float | None = None,
    grace_s: float = 5.0,
    ray_address: str = "",
    ray_resources: str = "",
    ahead: Ahead | None = None,
) -> Engine:
    """The engine of that name. `slots`: workers at once, by default one for each usable core (ray: of the cluster).

    deadline_s: a task that takes longer loses its worker (inline cannot enforce it). grace_s: how long a worker of
    `local` that has nothing to do may take to end. ahead: what `local` begins with before it is given tasks. ray_address,
    ray_resources: as RayEngine has them. Raises UsageError for an unknown name or less than one slot, and what
    RayEngine raises.
    """
    if slots is not None and slots < 1:
        raise UsageError(f"{slots} workers cannot do anything", hint="--workers takes 1 or more")
    if name == "inline":
        return InlineEngine()
    if name == "local":
        return LocalEngine(slots or usable_cores(), deadline_s=deadline_s, grace_s=grace_s, ahead=ahead)
    if name == "ray":
        return RayEngine(slots, deadline_s=deadline_s, address=ray_address, resources=ray_resources)
    raise UsageError(f"there is no engine {name!r}", hint=f"known: {', '.join(ENGINES)}")
