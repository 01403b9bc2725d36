"""What a server of Neptune 2.x counts: one request for the fields of a run, one for each of its series."""

from __future__ import annotations

from shardmig.adapters.counts import FieldCount, ServerCounts
from shardmig.adapters.neptune2.attributes import FLOATS, Locator, Read, Reply, contents_of
from shardmig.adapters.neptune2.connection import Connection
from shardmig.adapters.neptune2.files import count_images
from shardmig.adapters.neptune2.series import Series
from shardmig.errors import Permanent
from shardmig.selection import Matcher


def counts(connection: Connection, at: Locator, matcher: Matcher) -> ServerCounts:
    """Of the fields that are selected. What it does not understand is missing here, and a loss of the export."""
    reply: Reply = connection.ask("getExperimentAttributes", Reply, experimentId=at.entity)
    contents = contents_of(reply, matcher)
    scalars = [FieldCount(field.path, field.type, 1) for field in contents.fields]
    return ServerCounts(scalars + [_counted(connection, at.entity, read) for read in contents.reads])


def _counted(connection: Connection, entity: str, read: Read) -> FieldCount:
    rows: int | None = 1
    try:
        if read.type == "file_series":
            rows = count_images(connection, entity, read.path)
        elif read.type.endswith("_series"):
            rows = Series(connection, entity, read.path, read.stage == FLOATS).page(0, limit=1).total
    except Permanent:  # the export names it as a loss
        rows = None
    return FieldCount(read.path, read.type, rows)
