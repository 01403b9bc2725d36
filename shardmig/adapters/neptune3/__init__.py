"""A Neptune 3.x server (Neptune Scale, self-hosted or hosted) as a source.

Through the client layer of neptune-query, whose requests, tokens and TLS these are; its data frames, its retries and
its file names are not used. Nothing is ever written to the server.

Read from top to bottom: options → client (calls, tokens, refusals) → listing (projects, runs) → source (the read
side), which per run executes survey (typed values, names of series) → points (pages of series; wire: float columns)
→ downloads (files). ahead reads the next runs while the current one is handed out.
"""

from __future__ import annotations

from collections.abc import Mapping

from shardmig.adapters.neptune3.options import parse_options
from shardmig.adapters.neptune3.source import Neptune3Source

__all__ = ["Neptune3Source", "open_source", "parse_options"]


def open_source(options: Mapping[str, str]) -> Neptune3Source:
    """The read side for these options (see `options.Neptune3Options`). Raises UsageError, MissingExtra."""
    return Neptune3Source(parse_options(options))
