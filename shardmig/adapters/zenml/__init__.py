"""ZenML as target and as source: its local store, or a server.

ZenML itself is imported when a store is opened; the plan and `--help` do without it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from shardmig.adapters.base import ReadSide, WriteSide
from shardmig.adapters.zenml.options import parse_options, parse_source_options
from shardmig.errors import MissingExtra
from shardmig.records import LoadOptions

__all__ = ["open_source", "open_target", "parse_options"]


def open_source(options: Mapping[str, str]) -> ReadSide:
    """The read side. Raises UsageError for its options, MissingExtra where ZenML is not installed."""
    chosen = parse_source_options(options)
    with _import():
        from shardmig.adapters.zenml.opening import open_store
        from shardmig.adapters.zenml.source import ZenmlSource

    return ZenmlSource(lambda: open_store(chosen, only_read=True), chosen)


def open_target(options: Mapping[str, str], load: LoadOptions) -> WriteSide:
    """The write side. Raises UsageError for its options, MissingExtra where ZenML is not installed."""
    chosen = parse_options(options)
    with _import():
        from shardmig.adapters.zenml.opening import open_store
        from shardmig.adapters.zenml.target import ZenmlTarget

    return ZenmlTarget(lambda: open_store(chosen), chosen, load)


@contextmanager
def _import() -> Iterator[None]:
    """Left alone, ZenML logs to the console, colours the exceptions of its host and tells its makers what is done."""
    os.environ.setdefault("ZENML_LOGGING_VERBOSITY", "NOTSET")
    os.environ.setdefault("ZENML_ENABLE_RICH_TRACEBACK", "false")
    os.environ.setdefault("ZENML_ANALYTICS_OPT_IN", "false")
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"ZenML needs the package {error.name!r}, which is not installed", hint="pip install 'shardmig[zenml]'"
        ) from error
