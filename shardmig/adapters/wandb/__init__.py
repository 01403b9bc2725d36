"""Weights & Biases: transaction logs (`.wandb`) in run folders, and a server that they are sent to with `wandb sync`.

log, varint, records, history     the log's framing and records
columns, spools, items, times     a run's points in another order, on disk
whole_steps, merging, write       a run folder that is written
shown                             what W&B shows beside numbers
runlog, scan, held                a run that is read
stored, folder                    where runs lie
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from shardmig.adapters.base import WriteSide
from shardmig.adapters.wandb.options import WandbOptions, parse_options, require_wandb
from shardmig.adapters.wandb.stored import RunStore
from shardmig.records import LoadOptions

__all__ = ["open_target", "parse_options"]


def open_target(options: Mapping[str, str], load: LoadOptions) -> WriteSide:
    """The write side. Raises UsageError for its options, MissingExtra where wandb is not installed."""
    from shardmig.adapters.wandb.target import WandbTarget

    require_wandb()
    chosen = parse_options(options)
    return WandbTarget(lambda: _store(chosen), chosen, load)


def _store(options: WandbOptions) -> RunStore:
    from shardmig.adapters.wandb.folder import FolderStore

    if options.offline_dir:
        return FolderStore(Path(options.offline_dir).absolute())
    from shardmig.adapters.wandb.server import ServerStore

    return ServerStore(options)
