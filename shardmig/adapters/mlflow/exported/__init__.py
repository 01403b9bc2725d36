"""Folders that mlflow-export-import wrote, as a source. Never written.

Read from top to bottom: catalogue (which documents there are) → document (one JSON file, in bounded memory) → store
(experiments and runs, as a run store) → stores (everything else, as MLflow's own stores) → entities (of one document).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from shardmig.adapters.base import ReadSide
from shardmig.errors import MissingExtra, UsageError


class ExportedOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to read, beside the options that choose among objects (see `source.wanted`).

    path   a folder that any export command wrote
    """

    path: str = ""


def open_source(options: Mapping[str, str]) -> ReadSide:
    """The read side. Raises UsageError for its options, MissingExtra where more than runs is wanted without mlflow."""
    from importlib.util import find_spec
    from pathlib import Path

    from shardmig.adapters.mlflow.exported.catalogue import Catalogue, Documents
    from shardmig.adapters.mlflow.exported.store import ExportedStore
    from shardmig.adapters.mlflow.source.reader import MlflowSource
    from shardmig.adapters.mlflow.source.wanted import split_options, wanted_names

    wanted, where = split_options(options)
    wanted.refuse_without_server()
    try:
        chosen = msgspec.convert(where, ExportedOptions)
    except msgspec.ValidationError as error:
        known = ", ".join(["path", *wanted_names()])
        raise UsageError(f"mlflow-export-import source: {error}", hint=f"known options: {known}") from error
    folder = Path(chosen.path)
    if not chosen.path or not folder.is_dir():
        raise UsageError(f"there is no folder {chosen.path!r}", hint="name it behind --source mlflow-export-import")
    documents = Documents(folder)
    runs = ExportedStore(documents)
    if wanted.scopes == {"runs"}:
        return MlflowSource(runs, None, lost=runs.lost, wanted=wanted)
    if find_spec("mlflow") is None:
        hint = "pip install 'shardmig[mlflow]', or choose --objects runs"
        raise MissingExtra("models, traces, prompts and datasets need the package 'mlflow'", hint=hint)

    from shardmig.adapters.mlflow.exported.stores import ExportedExperiments, ExportedStores
    from shardmig.adapters.mlflow.objects.classes import classes
    from shardmig.adapters.mlflow.objects.reading import ObjectSource
    from shardmig.adapters.mlflow.objects.references import References

    stores = ExportedStores(Catalogue(documents), runs, wanted)
    references = References(stores)
    kinds = classes(stores, references, wanted.scopes)
    if "experiments" in kinds:
        kinds["experiments"] = ExportedExperiments(stores, references)
    objects = ObjectSource(stores, references, kinds)
    return MlflowSource(runs, None, lost=runs.lost, objects=objects, wanted=wanted)
