"""Comet as source: offline archives, or a server.

Read from top to bottom: options → reader, listing, archives (offline) or server, remote (online) → points (columns). The map
between experiments and fields is `native`; that of what people added to a run that was brought is `added`.
"""

from __future__ import annotations

from collections.abc import Mapping

from shardmig.adapters.base import ReadSide
from shardmig.adapters.comet.source.options import parse_options


def open_source(options: Mapping[str, str]) -> ReadSide:
    """The read side. Raises UsageError for its options."""
    chosen = parse_options(options)
    if chosen.path:
        from shardmig.adapters.comet.source.reader import ArchiveSource

        return ArchiveSource(chosen)
    from shardmig.adapters.comet.source.server import ServerSource

    return ServerSource(chosen)
