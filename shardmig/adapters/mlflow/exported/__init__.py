"""Folders that mlflow-export-import wrote, as a source: experiments and runs. Never written.

Read from top to bottom: store (the folder as a run store) → document (one JSON file, in bounded memory).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from shardmig.adapters.base import ReadSide
from shardmig.errors import UsageError


class ExportedOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to read.

    path   a folder that any export command wrote: of everything, of experiments, of one experiment or of one run
    """

    path: str = ""


def open_source(options: Mapping[str, str]) -> ReadSide:
    """The read side. Raises UsageError for its options and for a folder without any run or experiment."""
    from pathlib import Path

    from shardmig.adapters.mlflow.exported.store import ExportedStore
    from shardmig.adapters.mlflow.source.reader import MlflowSource

    try:
        chosen = msgspec.convert(dict(options), ExportedOptions)
    except msgspec.ValidationError as error:
        raise UsageError(f"mlflow-export-import source: {error}", hint="its only option is path") from error
    folder = Path(chosen.path)
    if not chosen.path or not folder.is_dir():
        raise UsageError(f"there is no folder {chosen.path!r}", hint="name it behind --source mlflow-export-import")
    store = ExportedStore(folder)
    return MlflowSource(store, None, lost=store.lost)
