"""Projects that the source could not list: why, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import RenderableType

from shardmig.records import Failure, ProjectId
from shardmig.report import terminal


def shown(refused: Mapping[ProjectId, Failure]) -> Iterator[RenderableType]:
    """A line for each project, and what to do about it."""
    for project, failure in refused.items():
        hint = f"\n  {failure.hint}" if failure.hint else ""
        yield terminal.name(f"project {project or '(any)'} could not be listed: {failure.message}{hint}", style="red")
