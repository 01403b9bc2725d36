"""W&B as source: transaction logs in folders, or a server.

Read from top to bottom: options → reader (the read side) → folders or servers (the catalogues) → logs (which of them are
one run), recorded (a run in folders) and staged (its artifacts) → reading (one run as chunks). The map between W&B's runs
and fields is in `native`.
"""

from __future__ import annotations

from collections.abc import Mapping

from shardmig.adapters.base import ReadSide
from shardmig.adapters.wandb.options import require_wandb
from shardmig.adapters.wandb.source.options import parse_options

__all__ = ["open_source", "parse_options"]


def open_source(options: Mapping[str, str]) -> ReadSide:
    """The read side. Raises UsageError for its options, MissingExtra where wandb is not installed."""
    from shardmig.adapters.wandb.source.folders import Folders
    from shardmig.adapters.wandb.source.reader import WandbSource
    from shardmig.adapters.wandb.source.servers import Servers

    require_wandb()
    chosen = parse_options(options)
    return WandbSource(Folders(chosen.paths) if chosen.paths else Servers(chosen), chosen)
