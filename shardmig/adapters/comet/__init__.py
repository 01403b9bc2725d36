"""Comet as target: offline archives left in a folder, or sent to a server with the vendor's own uploader.

Archives are written and read without comet_ml, which is imported to send them only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from shardmig.adapters.base import WriteSide
from shardmig.adapters.comet.options import CometOptions, parse_options
from shardmig.errors import MissingExtra
from shardmig.records import LoadOptions

if TYPE_CHECKING:
    from shardmig.adapters.comet.target import Place

__all__ = ["CometOptions", "open_target", "parse_options"]


def open_target(options: Mapping[str, str], load: LoadOptions) -> WriteSide:
    """The write side. Raises UsageError for its options."""
    from shardmig.adapters.comet.target import CometTarget

    chosen = parse_options(options)
    return CometTarget(lambda: _place(chosen), chosen, load)


def _place(options: CometOptions) -> Place:
    if options.offline_dir:
        from shardmig.adapters.comet.offline import OfflineFolder

        return OfflineFolder(Path(options.offline_dir))
    try:
        from shardmig.adapters.comet.server import CometServer
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"sending to Comet needs the package {error.name!r}", hint="pip install 'shardmig[comet]'"
        ) from error
    return CometServer(options)
