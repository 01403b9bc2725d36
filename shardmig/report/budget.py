"""What people are told of rate budgets: how much a target allows, how each budget stands, and who waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from rich.console import RenderableType

from shardmig.adapters.base import Capabilities
from shardmig.adapters.budget import Standing
from shardmig.report import terminal, words


def allowed(target: Capabilities) -> str:
    """What a target allows in a second and a minute, "" = whatever it takes."""
    return _limits(target.requests_per_s or 0, target.points_per_min or 0)


def of_systems(standings: Iterable[Standing], names: Iterable[str]) -> list[Standing]:
    """The budgets of servers of these systems."""
    return [standing for standing in standings if standing.name.partition(" ")[0] in names]


def shown(standings: Iterable[Standing]) -> Iterator[RenderableType]:
    """Each budget in one line for people."""
    for standing in standings:
        parts = [_limits(standing.allowance.requests_per_s, standing.allowance.points_per_min)]
        if standing.allowance.points_per_min:
            parts.append(f"{words.count(standing.points_last_min)} points in the last minute")
        if standing.allowance.connections:
            parts.append(f"{standing.connections_held} of {standing.allowance.connections} connections taken")
        if standing.pause_s:
            parts.append(f"all pause for {words.duration(standing.pause_s)}, as the server asked")
        if standing.waiting:
            waiting = Counter(label.partition(" (")[0] for label in standing.waiting)
            who = ", ".join(f"{label} ({number})" if number > 1 else label for label, number in waiting.items())
            parts.append(f"waiting: {who}")
        if told := "; ".join(filter(None, parts)):
            yield terminal.name(f"budget of {standing.name}: {told}")


def _limits(requests_per_s: float, points_per_min: float) -> str:
    limits = [f"{requests_per_s:g} requests/s"] if requests_per_s else []
    return " and ".join([*limits, *([f"{words.count(round(points_per_min))} points/min"] if points_per_min else [])])
