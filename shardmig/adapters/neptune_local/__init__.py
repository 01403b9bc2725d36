"""Neptune data that lies on disk and was never (or not wholly) synchronized, as a source.

Two generations: container folders of the 1.x clients (`.neptune/offline`, `.neptune/async`) and sqlite databases of
neptune-scale. Read-only: nothing below the given paths is created, changed, locked or touched.

Read from top to bottom: options → discover (what lies where, listing) → source (the read side) →
  1.x clients    log2 (records; lines2, versions2) → survey2 (first pass: final state) → points2 (second pass: series)
  neptune-scale  database3 (rows) → survey3 → points3
  both           copies (what lies there twice), recording (what a pass must offer), columns (points into chunks),
                 local_files (files named by path).
"""

from __future__ import annotations

from collections.abc import Mapping

from shardmig.adapters.neptune_local.options import parse_options
from shardmig.adapters.neptune_local.source import LocalSource

__all__ = ["LocalSource", "open_source"]


def open_source(options: Mapping[str, str]) -> LocalSource:
    """The read side for these options (see `options.LocalOptions`). Raises UsageError."""
    return LocalSource(parse_options(options))
