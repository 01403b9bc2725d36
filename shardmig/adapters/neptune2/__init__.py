"""A Neptune 2.x server as a source, read through the vendor's own client (`neptune` 1.14, package neptune-client).

The client gives what is hard to get right elsewhere: the API token and its exchange, the renewal of access tokens, the
server's Swagger documents, TLS settings, proxies, one session. Its objects above that are not used: they open a run
again for every field (54 requests a run where one is enough), turn times into local time and points into rows.

Read from top to bottom: options → connection (a request, and what its refusal means: refusals) → listing (projects,
runs, models) → attributes (one reply: scalars, and what is left to read) → series, files → prefetch (in order, ahead of
need) → source (the read side).
"""

from __future__ import annotations

from collections.abc import Mapping

from shardmig.adapters.neptune2.options import parse_options
from shardmig.adapters.neptune2.source import Neptune2Source

__all__ = ["Neptune2Source", "open_source", "parse_options"]


def open_source(options: Mapping[str, str]) -> Neptune2Source:
    """The read side for these options (see `options.Neptune2Options`). Raises UsageError."""
    return Neptune2Source(parse_options(options))
