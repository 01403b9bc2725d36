"""Comet as target: offline archives left in a folder, or sent to a server with the vendor's own uploader.

Archives are written and read without comet_ml, which is imported to send them only.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
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
    if find_spec("comet_ml") is None:
        raise MissingExtra("sending to Comet needs the package 'comet_ml'", hint="pip install 'shardmig[comet]'")
    from shardmig.adapters.comet.server import CometServer

    return CometServer(options)
