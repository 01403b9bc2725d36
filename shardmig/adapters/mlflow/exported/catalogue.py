"""Which documents an export has of what is no run, and which objects it lists and does not have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

from shardmig.adapters.mlflow.exported.document import opened
from shardmig.errors import BadInput

_LISTS: Final = {
    "experiment.json": ("logged_models", "traces"),
    "logged_models.json": ("failed_logged_models",),
    "traces.json": ("failed_traces",),
    "models.json": ("models", "failed_models"),
}
"""Of each kind of document, the lists of objects that it holds."""

_FILES: Final = ("artifacts", "version_models", "version_model")
"""Folders beside a document that hold files of users."""


class Place(NamedTuple):
    """Where an object's document lies. `experiment`: the folder says so; "" = it says nothing."""

    path: Path | None
    experiment: str = ""
    name: str = ""


class Documents:
    """The JSON files of an export. What lies among the artifacts of a run or a model is none, whatever its name."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def named(self, name: str) -> list[Path]:
        """Those of that name, at any depth, below `experiments` first."""
        return sorted(self._by_name.get(name, []), key=lambda path: ("experiments" not in path.parts, path))

    def called(self, path: Path) -> str:
        """What a document is called that cannot be read, and is listed so that it fails."""
        return str(path.relative_to(self.root))

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for folder, folders, names in os.walk(self.root):
            if Path(folder).name != "models":  # there a folder is called like a registered model
                folders[:] = [name for name in folders if name not in _FILES]
            for name in names:
                if name.endswith(".json"):
                    found.setdefault(name, []).append(Path(folder, name))
        return found


class Catalogue:
    """Documents by the names of their objects, found at any depth. An object that lies there twice (below `experiments/`
    and beside a model that was made of it) counts once. A list that cannot be read stands for an object that fails."""

    def __init__(self, documents: Documents) -> None:
        self._named = documents.named
        self._called = documents.called
        self._root = documents.root

    @cached_property
    def logged_models(self) -> dict[str, Place]:
        """By id."""
        found = self._by_folder("logged_model.json")
        return self._with_listed(found, "logged_models", "failed_logged_models")

    @cached_property
    def traces(self) -> dict[str, Place]:
        """By id."""
        return self._with_listed(self._by_folder("trace.json"), "traces", "failed_traces")

    @cached_property
    def models(self) -> dict[str, Place]:
        """By name. Of several exports of one model the first."""
        found = {name: Place(paths[0], name=name) for name, paths in self.model_documents.items()}
        return self._with_listed(found, "models", "failed_models")

    @cached_property
    def model_documents(self) -> dict[str, list[Path]]:
        """By name: each version that was exported alone brings one."""
        found: dict[str, list[Path]] = {}
        for path in self._named("model.json"):
            found.setdefault(_text(path, "registered_model", "name") or path.parent.name, []).append(path)
        return found

    @cached_property
    def datasets(self) -> dict[str, Place]:
        """By id."""
        found = {}
        for path in self._named("evaluation_dataset.json"):
            name, _, id_ = path.parent.name.rpartition("_")
            found[_text(path, "evaluation_dataset", "dataset_id") or id_] = Place(path, name=name)
        for path in self._named("evaluation_datasets_summary.json"):
            try:
                listed = _told(path).get("datasets") or ()
            except BadInput:
                found[self._called(path)] = Place(path, name=self._called(path))
                continue
            for one in listed:
                found.setdefault(str(one.get("dataset_id")), Place(None, name=str(one.get("name"))))
        return found

    @cached_property
    def prompts(self) -> dict[str, dict[str, Path]]:
        """By name and version. What the folder says counts where the document is damaged."""
        found: dict[str, dict[str, Path]] = {}
        for path in self._named("prompt.json"):
            name, _, number = path.parent.name.rpartition("_v")
            number = _text(path, "prompt", "version") or number
            found.setdefault(_text(path, "prompt", "name") or name, {})[number] = path
        return found

    def told(self, place: Place, what: str) -> dict[str, Any]:
        """What the document of an object says. Raises BadInput where it is not there."""
        if place.path is None:
            raise BadInput(
                f"{self._root} lists {what} and does not have it",
                hint="its export failed or was cut; if its MLflow still exists, read that: --source mlflow URI",
            )
        return _told(place.path)

    def info(self, path: Path) -> dict[str, Any]:
        """The part `info` of a document: how its export went."""
        return _part(path, "info")

    def _by_folder(self, name: str) -> dict[str, Place]:
        """Documents that lie in a folder named like their object: `<experiment>/traces/<id>/trace.json`."""
        found: dict[str, Place] = {}
        for path in self._named(name):
            above = path.parents[2].name if path.parents[1].name in ("traces", "logged_models") else ""
            found.setdefault(self._id_in(path), Place(path, above))
        return found

    def _id_in(self, path: Path) -> str:
        id_ = _text(path, "info", "trace_id") if path.name == "trace.json" else _text(path, "model_id")
        return id_ or path.parent.name

    def _with_listed(self, found: dict[str, Place], *lists: str) -> dict[str, Place]:
        for name, known in _LISTS.items():
            for path in self._named(name) if set(known) & set(lists) else ():
                above = path.parent.name if name == "experiment.json" else path.parents[1].name
                try:
                    listed = list(self._listed(path, lists))
                except BadInput:
                    found[self._called(path)] = Place(path, above, self._called(path))
                    continue
                for id_ in listed:
                    found.setdefault(id_, Place(None, above, id_))
        return found

    def _listed(self, path: Path, lists: tuple[str, ...]) -> Iterator[str]:
        for part in (_told(path), _part(path, "info")):
            for name in lists:
                listed = part.get(name)
                yield from (one for one in listed if isinstance(one, str)) if isinstance(listed, list) else ()


def _told(path: Path) -> dict[str, Any]:
    return _part(path, "mlflow")


def _part(path: Path, name: str) -> dict[str, Any]:
    with opened(path) as document:
        whole = document.value()
    part = whole.get(name) if isinstance(whole, dict) else None
    return part if isinstance(part, dict) else {}


def _text(path: Path, *keys: str) -> str:
    """A text in a document; "" where it is damaged."""
    try:
        found: Any = _told(path)
    except BadInput:
        return ""
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return "" if found is None else str(found)
