"""What the classes of objects ask of MLflow's own stores, over a folder `mlruns`: entry by entry.

MLflow's listings leave out what they cannot read, or die of it (measured, 3.17.2). Here each folder is read alone. One that
cannot be read is listed by its name and fails when it is read, and so do the logged models and traces of a damaged experiment.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

from shardmig.adapters.mlflow.objects.registered import IS_PROMPT
from shardmig.adapters.mlflow.objects.stores import NAME_IN_FILTER, Page
from shardmig.adapters.mlflow.source.files import META, TRASH, FileStore
from shardmig.errors import BadInput, NotFound

_MODELS: Final = "models"
_TRACES: Final = "traces"
_TAGS: Final = "tags"
_VERSION: Final = "version-"
_PARTS: Final = frozenset(
    {META, "trace_info.yaml", "params", _TAGS, "metrics", "request_metadata", "assessments", "aliases"}
)
"""What MLflow makes in the folder of an object. A database keeps artifacts in such folders, and none of these."""


class _Unread(str):
    """The id of an experiment, for something that is only listed: it is told the name of a damaged one, too."""

    __slots__ = ()


class _Place(NamedTuple):
    folder: Path
    experiment: str


class FolderTracking:
    """What is read of a tracking store. Raises BadInput for what is listed and cannot be read."""

    def __init__(self, store: Any, root: Path) -> None:
        """`store`: MLflow's own, over the folder `root`."""
        self._store = store
        self._root = root
        self._whole: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        """Everything else, as MLflow does it."""
        return getattr(self._store, name)

    def search_experiments(self, **_: Any) -> Page:
        """All of them."""
        return Page(self._experiments.values())

    def get_experiment(self, id_: str) -> Any:
        """One of them. Raises NotFound."""
        if isinstance(id_, _Unread):
            return self._experiments[id_]
        if id_ not in self._whole:
            self._whole[id_] = self._experiment(id_)
        return self._whole[id_]

    def search_logged_models(self, experiment_ids: list[str], **_: Any) -> Page:
        """Those of these experiments; deleted ones are left out."""
        found = _listed(self._models, experiment_ids, self._logged_model, _unread_model)
        return Page(one for one in found if one is not None)

    def get_logged_model(self, id_: str) -> Any:
        """One of them. Raises NotFound."""
        if (found := self._logged_model(id_)) is None:
            raise NotFound(f"logged model {id_} is deleted")
        return found

    def search_traces(self, locations: list[str], **_: Any) -> tuple[list[Any], None]:
        """Those of these experiments."""
        return list(_listed(self._traces, locations, self.get_trace_info, _unread_trace)), None

    def get_trace_info(self, id_: str) -> Any:
        """One of them. Raises NotFound."""
        place = _found(self._traces, id_)
        with _reading(place.folder):
            info = self._store._get_trace_info_from_dir(str(place.folder))  # noqa: SLF001
            if info is None:
                raise ValueError("it has no trace_info.yaml")
            _refuse_another(info.trace_id, id_)
            _refuse_another(info.experiment_id, place.experiment)
            self.get_experiment(place.experiment)
        return info

    def get_run(self, id_: str) -> Any:
        """One run, for those who refer to it."""
        with _reading(f"run {id_}"):
            return self._store.get_run(id_)

    @cached_property
    def _folders(self) -> dict[str, Path]:
        folders = [*_subfolders(self._root), *_subfolders(self._root / TRASH)]
        return self._by_id(filter(_is_experiment, folders))

    @cached_property
    def _experiments(self) -> dict[str, Any]:
        """By id; of those that cannot be read their names, which are those that their runs are listed with."""
        unread = []
        for id_ in self._folders:
            try:
                self.get_experiment(id_)
            except BadInput:
                unread.append(id_)
        found = {id_: self._whole[id_] for id_ in self._folders if id_ in self._whole}
        taken = {one.name for one in found.values()}
        names = {one.id: one.name for one in FileStore(self._root).experiments()} if unread else {}
        for id_ in unread:
            name = names.get(id_, id_)
            while name in taken:
                name = f"{name} ({id_})"
            taken.add(name)
            found[id_] = _unread_experiment(id_, name, is_deleted=self._folders[id_].parent.name == TRASH)
        return found

    @cached_property
    def _models(self) -> dict[str, _Place]:
        return self._below(_MODELS)

    @cached_property
    def _traces(self) -> dict[str, _Place]:
        return self._below(_TRACES)

    def _below(self, kind: str) -> dict[str, _Place]:
        homes = {
            folder: experiment
            for experiment, above in self._folders.items()
            for folder in _subfolders(above / kind)
            if _is_entry(folder)
        }
        return {id_: _Place(folder, homes[folder]) for id_, folder in self._by_id(homes).items()}

    def _by_id(self, folders: Iterable[Path]) -> dict[str, Path]:
        """Folders are called by the ids of what they hold. A second one of an id goes by its path, and fails: it says that
        it is the first."""
        found: dict[str, Path] = {}
        for folder in folders:
            found[folder.name if folder.name not in found else folder.relative_to(self._root).as_posix()] = folder
        return found

    def _experiment(self, id_: str) -> Any:
        from mlflow.entities import Experiment

        folder = _found(self._folders, id_)
        with _reading(folder):
            meta = _meta(self._store, folder)
            _refuse_another(str(meta["experiment_id"]), id_)
            meta |= {"experiment_id": id_, _TAGS: self._store.get_all_experiment_tags(id_)}
            found: Any = Experiment.from_dictionary(meta)
            if not isinstance(found.name, str):
                raise TypeError("its name is no text")
        return found

    def _logged_model(self, id_: str) -> Any:
        """One of them; None: it is deleted."""
        from mlflow.entities import LoggedModel

        place = _found(self._models, id_)
        with _reading(place.folder):
            told = self._store._get_model_info_from_dir(str(place.folder))  # noqa: SLF001
            if told.get("lifecycle_stage") == "deleted":
                return None
            found: Any = LoggedModel.from_dictionary(told)
            _refuse_another(found.model_id, id_)
            _refuse_another(found.experiment_id, place.experiment)
            self.get_experiment(place.experiment)
        return found


class FolderRegistry:
    """What is read of a model registry. Raises BadInput for what is listed and cannot be read.

    MLflow asks its global client for the logged model of each version, and so whatever $MLFLOW_TRACKING_URI names, or a
    database that it makes in the working folder (measured, 3.17.2). Nothing of what that tells is needed: it is not asked.
    """

    def __init__(self, store: Any, root: Path) -> None:
        """As FolderTracking."""
        self._store = store
        self._folders = {folder.name: folder for folder in filter(_is_entry, _subfolders(root / _MODELS))}

    def search_registered_models(self, filter_string: str, **_: Any) -> Page:
        """Every model, or every prompt."""
        wants_prompts = IS_PROMPT in filter_string
        chosen = {name: folder for name, folder in self._folders.items() if _is_prompt(folder) == wants_prompts}
        return Page(_or(self.get_registered_model, _unread_registered, name) for name in chosen)

    def get_registered_model(self, name: str) -> Any:
        """A model or prompt without its versions, which can be read. Raises NotFound."""
        from mlflow.entities.model_registry import RegisteredModel

        self._versions(name)  # what cannot be read fails here
        folder = self._folders[name]
        with _reading(folder):
            meta = _meta(self._store, folder)
            meta[_TAGS] = self._store.get_all_registered_model_tags_from_path(str(folder))
            meta["aliases"] = self._store.get_all_registered_model_aliases_from_path(str(folder))
            found: Any = RegisteredModel.from_dictionary(meta)
            _refuse_another(found.name, name)
        return found

    def get_model_version(self, name: str, version: str) -> Any:
        """One version. Raises NotFound."""
        return version_of(self._versions(name), name, version)

    def search_model_versions(self, filter_string: str, **_: Any) -> Page:
        """The versions of one model or prompt, or of all of them; none of one that cannot be read."""
        match = NAME_IN_FILTER.fullmatch(filter_string)
        found = Page()
        for name in self._folders if match is None else (match[2],):
            with suppress(BadInput):
                found += self._versions(name)
        return found

    def _versions(self, name: str) -> list[Any]:
        from mlflow.entities.model_registry.model_version_stages import STAGE_DELETED_INTERNAL

        folders = [one for one in _subfolders(_found(self._folders, name)) if one.name.startswith(_VERSION)]
        every = [self._version(folder, name) for folder in folders]
        return [one for one in every if one.current_stage != STAGE_DELETED_INTERNAL]

    def _version(self, folder: Path, name: str) -> Any:
        from mlflow.entities.model_registry import ModelVersion

        with _reading(folder):
            meta = _meta(self._store, folder)
            meta[_TAGS] = self._store._get_model_version_tags_from_dir(str(folder))  # noqa: SLF001
            found: Any = ModelVersion.from_dictionary(meta)
            _refuse_another(found.name, name)
            _refuse_another(f"{_VERSION}{found.version}", folder.name)
        return found


def _listed(
    places: dict[str, _Place], experiments: list[str], read: Callable[[str], Any], unread: Callable[[str, str], Any]
) -> Iterator[Any]:
    """What lies in these experiments; of what cannot be read the name."""
    for id_, place in places.items():
        if place.experiment in experiments:
            yield _or(read, lambda id_, home=place.experiment: unread(id_, _Unread(home)), id_)  # type: ignore[misc]


def _or(read: Callable[[str], Any], unread: Callable[[str], Any], id_: str) -> Any:
    try:
        return read(id_)
    except BadInput:
        return unread(id_)


@contextmanager
def _reading(what: Path | str) -> Iterator[None]:
    """Translates whatever a damaged folder makes MLflow raise."""
    import yaml  # type: ignore[import-untyped]
    from google.protobuf.json_format import Error as NoJson
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, yaml.YAMLError, NoJson, TypeError, KeyError, ValueError, AttributeError, OSError) as error:
        raise BadInput(f"{what} is not what MLflow writes: {type(error).__name__}: {error}") from error


def _meta(store: Any, folder: Path) -> dict[str, Any]:
    found = store._read_yaml(str(folder), META)  # noqa: SLF001
    if not isinstance(found, dict):
        raise TypeError(f"its {META} holds nothing")
    return found


def _refuse_another(told: Any, expected: str) -> None:
    if told != expected:
        raise ValueError(f"it says that it is {told!r}, where {expected!r} was to be")


def version_of(versions: Iterable[Any], name: str, number: str) -> Any:
    """The version of this number. Raises NotFound."""
    found = next((one for one in versions if str(one.version) == number), None)
    if found is None:
        raise NotFound(f"{name!r} has no version {number}")
    return found


def _found(places: dict[str, Any], id_: str) -> Any:
    if id_ not in places:
        raise NotFound(f"the folder has no {id_}")
    return places[id_]


def _subfolders(folder: Path) -> list[Path]:
    """Those directly in a folder. One that nobody may look into stands for them: it fails where it is read."""
    try:
        return sorted(Path(folder, name) for name in os.listdir(folder) if os.path.isdir(folder / name))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        return [folder]


def _is_experiment(folder: Path) -> bool:
    """Without a meta.yaml it is one, and damaged, if it holds anything that MLflow has only in experiments."""
    if folder.name in (TRASH, _MODELS):
        return False
    if _holds(folder, lambda name: name == META):
        return True
    inside = (folder, *_subfolders(folder), *_subfolders(folder / _MODELS), *_subfolders(folder / _TRACES))
    return folder.name.isdecimal() and any(map(_is_entry, inside))


def _is_entry(folder: Path) -> bool:
    return _holds(folder, lambda name: name in _PARTS or name.startswith(_VERSION))


def _holds(folder: Path, is_sought: Callable[[str], bool]) -> bool:
    """True also where nobody may look: then that is told when it is read."""
    try:
        return any(map(is_sought, os.listdir(folder)))
    except OSError:
        return True


def _is_prompt(folder: Path) -> bool:
    try:
        return (folder / _TAGS / IS_PROMPT).read_text(encoding="utf-8") == "true"
    except (OSError, ValueError):
        return False


def _unread_experiment(id_: str, name: str, *, is_deleted: bool) -> Any:
    from mlflow.entities import Experiment

    return Experiment(_Unread(id_), name, "", "deleted" if is_deleted else "active")


def _unread_model(id_: str, experiment: str) -> Any:
    from mlflow.entities import LoggedModel

    return LoggedModel(experiment, id_, "", "", 0, 0)


def _unread_trace(id_: str, experiment: str) -> Any:
    from mlflow.entities import TraceInfo, TraceLocation, TraceState

    return TraceInfo(id_, TraceLocation.from_experiment_id(experiment), 0, TraceState.STATE_UNSPECIFIED)


def _unread_registered(name: str) -> Any:
    from mlflow.entities.model_registry import RegisteredModel

    return RegisteredModel(name)
