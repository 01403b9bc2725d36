"""What the classes of objects ask of MLflow's own stores, over an export of mlflow-export-import. For reading."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from shardmig.adapters.mlflow.artifacts import RunArtifacts
from shardmig.adapters.mlflow.exported import entities
from shardmig.adapters.mlflow.exported.catalogue import Catalogue, Place
from shardmig.adapters.mlflow.exported.store import ExportedStore
from shardmig.adapters.mlflow.objects.base import Stored
from shardmig.adapters.mlflow.objects.experiments import Experiments
from shardmig.adapters.mlflow.objects.folder_entries import version_of
from shardmig.adapters.mlflow.objects.references import References
from shardmig.adapters.mlflow.objects.registered import IS_PROMPT
from shardmig.adapters.mlflow.objects.spans import ARTIFACT_LOCATION, SPANS_FILE
from shardmig.adapters.mlflow.objects.stores import NAME_IN_FILTER, Page, Stores
from shardmig.adapters.mlflow.source.databricks import permission_fields
from shardmig.adapters.mlflow.source.limits import Artifact
from shardmig.adapters.mlflow.source.wanted import Wanted
from shardmig.errors import BadInput, NotFound
from shardmig.records import Field, Finding, Scope

NOT_EXPORTED: Final = "not-exported"
_ARTIFACTS: Final = "artifacts"


class ExportedStores(Stores):
    """Stores over an export. `runs`: what it has of experiments and runs."""

    links_traces = False

    def __init__(self, catalogue: Catalogue, runs: ExportedStore, wanted: Wanted) -> None:
        super().__init__("", None, wanted)
        self.catalogue = catalogue
        self.runs = runs
        self.places: dict[str, Path] = {}
        """Where the files lie that had a URI in the MLflow that was exported."""

    @cached_property
    def tracking(self) -> Any:
        """As Stores."""
        return _Tracking(self)

    @cached_property
    def registry(self) -> Any:
        """As Stores."""
        return _Registry(self)

    def artifacts(self, uri: str) -> RunArtifacts:
        """As Stores. Raises NotFound for files that are not in the export."""
        if uri not in self.places:
            raise NotFound(f"the export has no files of {uri}")
        return super().artifacts(str(self.places[uri]))

    def files(self, uri: str) -> Iterator[Artifact]:
        """As Stores. No folder: there were no files."""
        return super().files(str(self.places[uri])) if uri in self.places else iter(())

    def is_far(self, uri: str) -> bool:  # noqa: ARG002
        """As Stores."""
        return False

    def experiments(self) -> Iterator[Any]:
        """As Stores: also those that something names, without having been exported themselves."""
        known = {one.id: one for one in self.runs.experiments()}
        others = {one.experiment_id for one in (*self.tracking.models, *self.tracking.traces)} - known.keys()
        yield from map(entities.experiment, (*known.values(), *map(self.runs.named_only, sorted(others))))

    def permissions(self, scope: Scope, id_: str) -> Iterator[Field]:
        """As Stores: those that were asked for then."""
        told = self.runs.permissions(id_) if scope == "experiments" else self.registry.permissions(id_)
        yield from permission_fields(told)

    def close(self) -> None:
        """As Stores: nothing is held open."""


class ExportedExperiments(Experiments):
    """Those that were exported, not those that are only named."""

    def __init__(self, stores: ExportedStores, references: References) -> None:
        super().__init__(stores, references)
        self._exported = stores.runs

    def all(self) -> Iterator[Stored]:
        """As ObjectClass."""
        return (one for one in super().all() if self._exported.has_experiment(one.id))

    def get(self, id_: str) -> Stored:
        """As ObjectClass. Raises BadInput for one whose document is damaged."""
        self._exported.require_experiment(id_)
        return super().get(id_)


class _Tracking:
    """What is read of a tracking store. Raises BadInput for what is listed and not there."""

    def __init__(self, stores: ExportedStores) -> None:
        self._stores = stores
        self._catalogue = stores.catalogue

    @cached_property
    def models(self) -> list[Any]:
        """Every logged model; of one that cannot be read its name, so that it fails alone."""
        places = self._catalogue.logged_models
        return [_or(self.get_logged_model, entities.unread_model, id_, place) for id_, place in places.items()]

    @cached_property
    def traces(self) -> list[Any]:
        """Every trace, likewise."""
        places = self._catalogue.traces
        return [_or(self._trace_info, entities.unread_trace, id_, place) for id_, place in places.items()]

    @cached_property
    def _experiments(self) -> dict[str, Any]:
        return {one.id: one for one in self._stores.runs.experiments()}

    def get_experiment(self, id_: str) -> Any:
        known = self._experiments.get(str(id_))
        return entities.experiment(known or self._stores.runs.named_only(str(id_)))

    def get_run(self, id_: str) -> Any:
        run = self._stores.runs.get_run(id_)  # type: ignore[arg-type]
        info = SimpleNamespace(experiment_id=run.experiment_id, artifact_uri=self._stores.runs.artifact_uri(run))
        return SimpleNamespace(info=info, data=SimpleNamespace(tags=run.tags))

    def search_logged_models(self, experiment_ids: list[str], **_: Any) -> Page:
        return Page(one for one in self.models if one.experiment_id in experiment_ids)

    def get_logged_model(self, id_: str) -> Any:
        place = _place(self._catalogue.logged_models, id_)
        found = entities.logged_model(self._catalogue.told(place, f"logged model {id_}"))
        self._stores.places[found.artifact_location] = _files(place)
        return found

    def search_traces(self, locations: list[str], **_: Any) -> tuple[list[Any], None]:
        return [one for one in self.traces if one.experiment_id in locations], None

    def get_trace_info(self, id_: str) -> Any:
        place = _place(self._catalogue.traces, id_)
        spans = len(self._catalogue.told(place, f"trace {id_}").get("data") or ())
        if spans and not (_files(place) / SPANS_FILE).is_file():
            detail = "mlflow-export-import keeps no spans of servers that have them in their database"
            self._stores.lost.append(Finding("gap", NOT_EXPORTED, "spans", spans, detail))
        return self._trace_info(id_)

    def get_trace(self, _: str, **__: Any) -> None:
        """Spans of a database are not in an export."""

    def batch_get_traces(self, _: list[str]) -> list[Any]:
        """One file each: nothing is gained by reading some together."""
        raise NotImplementedError

    def search_datasets(self, **_: Any) -> Page:
        places = self._catalogue.datasets
        return Page(_or(self.get_dataset, entities.unread_dataset, id_, place) for id_, place in places.items())

    def get_dataset(self, id_: str) -> Any:
        return entities.dataset(self._dataset(id_))

    def get_dataset_experiment_ids(self, id_: str) -> list[str]:
        return [str(one) for one in self._dataset(id_).get("experiment_ids") or ()]

    def _load_dataset_records(self, id_: str, **_: Any) -> tuple[list[Any], None]:
        return list(self.get_dataset(id_).records), None

    def _dataset(self, id_: str) -> Mapping[str, Any]:
        place = _place(self._catalogue.datasets, id_)
        found: Mapping[str, Any] = self._catalogue.told(place, f"dataset {id_}").get("evaluation_dataset") or {}
        return found

    def _trace_info(self, id_: str) -> Any:
        place = _place(self._catalogue.traces, id_)
        told = self._catalogue.told(place, f"trace {id_}").get("info") or {}
        found = entities.trace_info(told, place.experiment)
        if location := found.tags.get(ARTIFACT_LOCATION):
            self._stores.places[location] = _files(place)
        return found


class _Registry:
    """What is read of a model registry."""

    def __init__(self, stores: ExportedStores) -> None:
        self._stores = stores
        self._catalogue = stores.catalogue

    def search_registered_models(self, filter_string: str, **_: Any) -> Page:
        if IS_PROMPT in filter_string:
            return Page(entities.prompt(name, []) for name in sorted(self._catalogue.prompts))
        places = self._catalogue.models
        return Page(_or(self._model, entities.unread_registered, name, place) for name, place in places.items())

    def get_registered_model(self, name: str) -> Any:
        if name in self._catalogue.prompts:
            detail = "mlflow-export-import keeps no aliases, tags, response formats and model settings of prompts"
            self._stores.lost.append(Finding("gap", NOT_EXPORTED, detail=detail))
            return entities.prompt(name, self._prompt_versions(name))
        list(self._versions(name))  # what cannot be read fails here
        return self._model(name)

    def get_model_version(self, name: str, version: str) -> Any:
        return version_of(self._versions(name), name, version)

    def search_model_versions(self, filter_string: str, **_: Any) -> Page:
        match = NAME_IN_FILTER.fullmatch(filter_string)
        every = self._catalogue.prompts if IS_PROMPT in filter_string else self._catalogue.models
        found = Page()
        for name in every if match is None else (match[2],):
            with suppress(BadInput):
                found += self._prompt_versions(name) if IS_PROMPT in filter_string else list(self._versions(name))
        return found

    def permissions(self, name: str) -> Any:
        """Who may do what with a model, as Databricks tells it."""
        return self._told(name).get("permissions")

    def _model(self, name: str) -> Any:
        return entities.registered_model(self._told(name))

    def _told(self, name: str) -> Mapping[str, Any]:
        place = _place(self._catalogue.models, name)
        told: Mapping[str, Any] = self._catalogue.told(place, f"model {name!r}").get("registered_model") or {}
        return told

    def _versions(self, name: str) -> Iterator[Any]:
        """All that are told, with the places of their files; of one that was exported twice the first."""
        seen: set[str] = set()
        told = (
            (path, one)
            for path in self._catalogue.model_documents.get(name, ())
            for one in self._told_versions(path, name)
        )
        for path, one in told:
            found = entities.model_version(one)
            if found.version in seen:
                continue
            seen.add(found.version)
            folders = (path.parent / "version_models" / found.version, path.parent / "version_model")
            folder = next((folder for folder in folders if folder.is_dir()), None)
            if found.source and folder is not None:
                self._stores.places[found.source] = folder
            yield found

    def _told_versions(self, path: Path, name: str) -> list[Mapping[str, Any]]:
        """Also those whose runs could not be exported, which are told among the failures; and the one that was exported
        alone, which has a document of its own."""
        model = self._catalogue.told(Place(path), f"model {name!r}").get("registered_model") or {}
        told = list(model.get("versions") or ())
        failed = self._catalogue.info(path).get("failed_versions") or ()
        told += [one["version"] for one in failed if isinstance(one, dict) and "version" in one]
        if (alone := path.parent / "version.json").is_file():
            told.append(self._catalogue.told(Place(alone), "").get("model_version") or {})
        return told

    def _prompt_versions(self, name: str) -> list[Any]:
        paths = self._catalogue.prompts[name].values()
        told = (self._catalogue.told(Place(path), "").get("prompt") or {} for path in paths)
        return [entities.prompt_version(one) for one in told]


def _or(read: Callable[[str], Any], unread: Callable[[str, Place], Any], id_: str, place: Place) -> Any:
    """One object; of one that cannot be read its name."""
    try:
        return read(id_)
    except BadInput:
        return unread(id_, place)


def _place(places: Mapping[str, Place], id_: str) -> Place:
    if id_ not in places:
        raise NotFound(f"the export has no {id_}")
    return places[id_]


def _files(place: Place) -> Path:
    assert place.path is not None
    return place.path.parent / _ARTIFACTS
