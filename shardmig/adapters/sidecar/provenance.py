"""What every target notes of a run beside its content: where it came from, and whether it is whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from shardmig import __version__
from shardmig.errors import AdapterError
from shardmig.records import Header, MigrationKey

KEY: Final = "shardmig.key"
STATE: Final = "shardmig.state"
DIGEST: Final = "shardmig.digest"
INTENT: Final = "shardmig.intent"
SOURCE: Final = "shardmig.source"
PROJECT: Final = "shardmig.project"
RUN_ID: Final = "shardmig.run_id"
SCOPE: Final = "shardmig.scope"
STEP_MULTIPLIER: Final = "shardmig.step_multiplier"
VERSION: Final = "shardmig.version"
COMPLETE: Final = "complete"
LOADING: Final = "loading"


def notes(key: MigrationKey, digest: str, header: Header, *, state: str = LOADING) -> dict[str, str]:
    """The notes of one run, by their names; some may be empty. A target adds what only it needs."""
    return {
        KEY: key,
        STATE: state,
        DIGEST: digest,
        SOURCE: " ".join(filter(None, (header.source, header.source_version))),
        PROJECT: header.run.project,
        RUN_ID: header.run.id,
        SCOPE: header.run.scope,
        VERSION: __version__,
    }


@contextmanager
def in_place_of(old: str) -> Iterator[None]:
    """An error while a run is written says that the complete one is gone in whose place it comes. `old`: what the target
    calls that; "" = there was none."""
    try:
        yield
    except AdapterError as error:
        if old:
            error.message += f"; {old}, which was to be replaced, is deleted already: load the run again"
            error.args = (error.message,)
        raise
