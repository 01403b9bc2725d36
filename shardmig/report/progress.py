"""Progress while a migration executes: a live table on a terminal, one line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, TextIO

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from shardmig.records import PhaseProgress, Progress
from shardmig.report import terminal, words

LINE_EVERY_S: Final = 5.0
_BAR_WIDTH: Final = 24


class LiveProgress:
    """Observes a migration and draws it in place. A context manager: the last state stays on the screen."""

    def __init__(self, stream: TextIO) -> None:
        self._live = Live(console=terminal.console(stream), refresh_per_second=4)

    def __enter__(self) -> LiveProgress:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, traceback)

    def __call__(self, progress: Progress) -> None:
        """Take a snapshot."""
        if progress.message:
            self._live.console.print(terminal.name(progress.message, style="yellow"))
        self._live.update(_drawn(progress))


class LineProgress:
    """Observes a migration and says a line when something is worth it: every few seconds, and each message at once."""

    def __init__(self, say: Callable[[str], None], *, every_s: float = LINE_EVERY_S) -> None:
        self._say = say
        self._every_s = every_s
        self._said_s = time.monotonic()

    def __enter__(self) -> LineProgress:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to put away."""

    def __call__(self, progress: Progress) -> None:
        """Take a snapshot."""
        if progress.message:
            self._say(progress.message)
        if time.monotonic() - self._said_s >= self._every_s:
            self._said_s = time.monotonic()
            self._say(line(progress))


def line(progress: Progress) -> str:
    """A snapshot in one line."""
    if not progress.phases:
        return (
            f"listing the source: {words.plural(progress.listed, 'run')} so far, {words.duration(progress.elapsed_s)}"
        )
    phases = "; ".join(f"{phase.phase}: {_runs(phase)}, {_shards(phase)}" for phase in progress.phases)
    return f"{phases}; {_speed(progress)}"


def _drawn(progress: Progress) -> RenderableType:
    if not progress.phases:
        return Text(line(progress), style="dim")
    drawn = terminal.table("", "", ">", "")
    drawn.show_header = False
    for phase in progress.phases:
        share = phase.weight_settled / phase.weight if phase.weight else 0.0
        bar = ProgressBar(total=1.0, completed=share, width=_BAR_WIDTH)

        drawn.add_row(Text(phase.phase, style="bold"), bar, f"{share:.0%}", f"{_runs(phase)}, {_shards(phase)}")
    return Group(drawn, Text(_speed(progress), style="dim"))


def _runs(phase: PhaseProgress) -> str:
    settled = phase.runs_done + phase.runs_skipped
    failed = f" ({words.count(phase.runs_failed)} failed)" if phase.runs_failed else ""
    return f"{words.count(settled)} of {words.plural(phase.runs, 'run')}{failed}"


def _shards(phase: PhaseProgress) -> str:
    in_flight = f" + {phase.shards_in_flight} in flight" if phase.shards_in_flight else ""
    return f"shards {words.count(phase.shards_settled)}{in_flight} of {words.count(phase.shards)}"


def _speed(progress: Progress) -> str:
    moved, elapsed_s = progress.moved, max(progress.elapsed_s, 1e-3)
    points = f"{words.count(moved.points)} points ({words.count(round(moved.points / elapsed_s))}/s)"
    files = f"{words.plural(moved.files, 'file')}, {words.size(moved.bytes)} ({words.size(moved.bytes / elapsed_s)}/s)"
    return f"{points}, {files}, {words.duration(progress.elapsed_s)}, {_left(progress)}"


def _left(progress: Progress) -> str:
    if all(phase.weight_settled >= phase.weight for phase in progress.phases):
        return "nothing left"
    return "time left not known yet" if progress.eta_s is None else f"about {words.duration(progress.eta_s)} left"
