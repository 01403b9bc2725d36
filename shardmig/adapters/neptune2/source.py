"""The read side: projects, runs, and each run as Header, Fields, Files, points, End.

One request gives a run but its points and files. What is left are its *reads*: a page, a file. The first request of
each read is made ahead by a pool, across the borders of runs; a long series has its further pages fetched ahead too.
Everything is handed out in order: fields, files, float series, string series, each by path.

A cursor names the last read and how much of it is done. Reading that is resumed asks again for the run's fields and goes
on in the middle of that read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cached_property, partial
from typing import Any, Final

import msgspec

from shardmig import logs
from shardmig.adapters.base import FileSink, Want
from shardmig.adapters.counts import ServerCounts
from shardmig.adapters.neptune2 import counting, listing
from shardmig.adapters.neptune2.attributes import Locator, Reply, contents_of
from shardmig.adapters.neptune2.connection import Connection
from shardmig.adapters.neptune2.files import RunFiles
from shardmig.adapters.neptune2.options import Neptune2Options
from shardmig.adapters.neptune2.prefetch import in_order
from shardmig.adapters.neptune2.reading import Cursor, RunReading
from shardmig.adapters.neptune_server import OUTLAST_A_MINUTE, ServerError
from shardmig.adapters.wrappers import RetryPolicy
from shardmig.errors import Denied, Permanent, ShardmigError
from shardmig.logs import Event
from shardmig.records import Header, Piece, ProjectId, RunRef, Scope, Selection
from shardmig.selection import Matcher

_RUNS_AHEAD: Final = 8
"""Runs whose fields are fetched before they are needed: what memory holds of runs of 9,000 fields."""


class Neptune2Source:
    """A Neptune 2.x server as a source (see `adapters.base.ReadSide`). `patience`: of each single request."""

    def __init__(self, options: Neptune2Options, *, patience: RetryPolicy = OUTLAST_A_MINUTE) -> None:
        self._options = options
        self._patience = patience

    def list_projects(self, selection: Selection) -> Iterator[ProjectId]:
        """Projects that are named, else those of the options, else $NEPTUNE_PROJECT, else all that the token opens."""
        options = self._options
        yield from options.named_projects(selection) or listing.projects(self._connection, options)

    def list_runs(self, project: ProjectId, selection: Selection) -> Iterator[RunRef]:
        """Runs, then models, then model versions, each by sys/id. Raises Denied for a project that was named."""
        matcher = Matcher(selection)
        try:
            for scope in self._options.wanted_scopes:
                found = self._entities(project, scope, include_trashed=selection.include_archived)
                yield from filter(matcher.wants_run, found)
        except Denied as error:
            if project in self._options.named_projects(selection):
                raise
            logs.get_logger().warning(Event.PROJECT_SKIPPED, project=project, message=error.message)

    def read_runs(self, runs: Iterable[RunRef], want: Want, files: FileSink) -> Iterator[Piece]:
        """Run after run, see `adapters.base.ReadSide`; `files` is put into by several threads."""
        matcher = Matcher(want.selection)
        openings = (partial(_open, self._connection, run, matcher, want, files) for run in runs)
        with (
            closing(in_order(self._pool, openings, _RUNS_AHEAD)) as opened,
            closing(in_order(self._pool, _first_calls(opened), self._options.threads)) as results,
        ):
            for reading in results:
                if isinstance(reading, ShardmigError):
                    raise reading
                yield from reading.pieces(results, self._pool, self._options.threads)

    def counts_of(self, run: RunRef, selection: Selection) -> ServerCounts:
        """As `adapters.counts.Counting`."""
        at = msgspec.json.decode(run.locator, type=Locator)
        return counting.counts(self._connection, at, Matcher(selection))

    def close(self) -> None:
        """Close connections and threads; idempotent."""
        if "_pool" in self.__dict__:
            self._pool.shutdown(cancel_futures=True)
            del self._pool
        if "_connection" in self.__dict__:
            self._connection.close()
            del self._connection

    def _entities(self, project: ProjectId, scope: Scope, *, include_trashed: bool) -> Iterator[RunRef]:
        """What the queries of the options choose; of model versions, those of the models that they choose."""
        options = self._options
        list_all = partial(listing.entities, self._connection, project, include_trashed=include_trashed)
        if scope == "runs":
            yield from list_all(scope, query=options.runs_query)
        elif scope == "models":
            yield from list_all(scope, query=options.models_query)
        elif not options.models_query:
            yield from list_all(scope)
        else:
            models = {model.id for model in self._entities(project, "models", include_trashed=include_trashed)}
            yield from (version for version in list_all(scope) if version.id.rpartition("-")[0] in models)

    @cached_property
    def _connection(self) -> Connection:
        return Connection(self._options, self._patience)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._options.threads, thread_name_prefix="neptune2")


def _open(
    connection: Connection, run: RunRef, matcher: Matcher, want: Want, sink: FileSink
) -> RunReading | ShardmigError:
    """A run whose fields are known, or why it is not: told when its turn comes, behind the runs before it."""
    at = msgspec.json.decode(run.locator, type=Locator)
    try:
        reply: Reply = connection.ask("getExperimentAttributes", Reply, experimentId=at.entity)
    except (Permanent, ServerError) as error:
        error.run = run.label
        return error
    except ShardmigError as error:
        return error
    given = want.cursors.get(run.id)
    cursor = msgspec.msgpack.decode(given, type=Cursor) if given else Cursor()
    header = Header(run, "neptune2", connection.version)
    files = RunFiles(connection, run, at, sink)
    return RunReading(header, contents_of(reply, matcher), cursor, files, want.chunk_points)


def _first_calls(opened: Iterable[RunReading | ShardmigError]) -> Iterator[Callable[[], Any]]:
    """For each run: itself, then the results of its reads."""
    for reading in opened:
        yield partial(_itself, reading)
        if isinstance(reading, RunReading):
            yield from reading.calls()


def _itself(reading: RunReading | ShardmigError) -> RunReading | ShardmigError:
    return reading
