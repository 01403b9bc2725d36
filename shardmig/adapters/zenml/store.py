"""ZenML's store, local or a server, by the few calls that are needed. Each is tried again while the store is busy or away."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

from zenml.artifacts.preexisting_data_materializer import PreexistingDataMaterializer
from zenml.enums import ArtifactSaveType, ArtifactType, MetadataResourceTypes, StackComponentType
from zenml.metadata.metadata_types import MetadataTypeEnum
from zenml.models import (
    ArtifactVersionFilter,
    ArtifactVersionRequest,
    ComponentFilter,
    ComponentResponse,
    ModelFilter,
    ModelRequest,
    ModelVersionArtifactFilter,
    ModelVersionArtifactRequest,
    ModelVersionFilter,
    ModelVersionRequest,
    ModelVersionUpdate,
    Page,
    RunMetadataRequest,
    RunMetadataResource,
    StackFilter,
    TagFilter,
    TagRequest,
)
from zenml.stack.stack_component import StackComponent
from zenml.utils import source_utils
from zenml.zen_stores.base_zen_store import BaseZenStore

from shardmig.adapters.wrappers import retrying
from shardmig.adapters.zenml.artifacts import FileSystem, Folder
from shardmig.adapters.zenml.entities import Artifact, NewArtifact, Version, artifact_of, version_of, whole_version_of
from shardmig.adapters.zenml.local import LocalStore
from shardmig.adapters.zenml.opening import Opened, release
from shardmig.adapters.zenml.refusals import database_errors, zenml_errors
from shardmig.errors import BadInput, NotFound, TargetConflict, Unavailable, UsageError

T = TypeVar("T")

PAGE: Final = 500
_MATERIALIZER: Final = source_utils.resolve(PreexistingDataMaterializer)
_DATA_TYPE: Final = source_utils.resolve(Path)


class ZenmlStore:
    """One project of one store. Opened at its first use."""

    def __init__(
        self, open_store: Callable[[], Opened], project: str = "", artifact_store: str = "", *, page: int = PAGE
    ) -> None:
        self._open_store = open_store
        self._project = project
        self._artifact_store = artifact_store
        self._page = page
        self._models: dict[str, UUID] = {}
        self._tags: dict[str, UUID] = {}
        self._systems: dict[str, FileSystem] = {}

    def model_id(self, name: str, description: str) -> str:
        """The model of this name; made if there is none."""
        if name not in self._models:
            found = self._model_named(name)
            if found is None:
                try:
                    found = self._call(f"model {name}", lambda: self._create_model(name, description))
                except TargetConflict:  # another process was faster
                    found = self._model_named(name)
            if found is None:
                raise NotFound(f"model {name} is gone")
            self._models[name] = found
        return str(self._models[name])

    def models(self) -> Iterator[tuple[str, str]]:
        """(id, name) of all models, oldest first."""
        for page in self._pages(lambda number: self._store.list_models(self._filtered(ModelFilter, page=number))):
            yield from ((str(model.id), model.name) for model in page.items)

    def versions(self, model_id: str, *, whole: bool = False) -> Iterator[Version]:
        """The versions of a model, oldest first; `whole`: with all that is in them."""
        for page in self._pages(
            lambda number: self._store.list_model_versions(
                self._filtered(ModelVersionFilter, page=number, model=model_id), hydrate=whole
            )
        ):
            yield from map(whole_version_of if whole else version_of, page.items)

    def version(self, version_id: str) -> Version:
        """A model version with all that is in it. Raises NotFound."""
        return whole_version_of(
            self._call(f"model version {version_id}", lambda: self._store.get_model_version(UUID(version_id)))
        )

    def find_version(self, version_id: str) -> Version | None:
        """A model version by id, without what is in it."""
        return self._one_version(id=version_id)

    def version_named(self, name: str, model_id: str) -> Version | None:
        """A model version by its exact name, without what is in it."""
        return self._one_version(name=f"equals:{name}", model=model_id)

    def tag_ids(self, names: Iterable[str]) -> list[str]:
        """The tags of these names; made where there are none. ZenML tries to make a tag that it is given by name."""
        return [str(self._tag_id(name)) for name in names]

    def create_version(self, model_id: str, name: str, description: str, tag_ids: list[str]) -> str:
        """A new model version. Raises TargetConflict if the name is taken."""

        def create() -> UUID:
            request = ModelVersionRequest(
                name=name, description=description, model=UUID(model_id), project=self._project_id, tags=tag_ids or None
            )
            return self._store.create_model_version(request).id

        try:
            return str(self._call(f"model version {name}", create))
        except NotFound:
            self._tags.clear()  # one of them was deleted
            raise

    def rename_version(self, version_id: str, name: str) -> None:
        """Raises NotFound; TargetConflict if the name is taken."""
        self._call(
            f"model version {name}",
            lambda: self._store.update_model_version(UUID(version_id), ModelVersionUpdate(name=name)),
        )

    def delete_version(self, version_id: str) -> None:
        """Remove a model version; idempotent."""
        self._gone(f"model version {version_id}", lambda: self._store.delete_model_version(UUID(version_id)))

    def artifact(self, name: str, version: str) -> Artifact | None:
        """An artifact version with its metadata."""
        chosen = self._filtered(ArtifactVersionFilter, artifact=f"equals:{name}", version=f"equals:{version}", size=1)
        page = self._call(f"artifact {name}", lambda: self._store.list_artifact_versions(chosen, hydrate=True))
        exact = [one for one in map(artifact_of, page.items) if (one.name, one.version) == (name, version)]
        return exact[0] if exact else None

    def artifacts_named(self, name: str) -> Iterator[Artifact]:
        """All versions of an artifact with their metadata, oldest first."""
        return (one for one in self._artifacts(artifact=f"equals:{name}") if one.name == name)

    def artifacts_of(self, version_id: str) -> Iterator[Artifact]:
        """The artifact versions linked to a model version with their metadata, oldest first."""
        return self._artifacts(model_version_id=version_id)

    def artifact_ids_of(self, version_id: str) -> list[str]:
        """The ids of the artifact versions linked to a model version, sorted."""
        wanted = ModelVersionArtifactFilter(model_version_id=UUID(version_id), size=self._page)
        pages = self._pages(
            lambda number: self._store.list_model_version_artifact_links(wanted.model_copy(update={"page": number}))
        )
        return sorted(str(link.artifact_version.id) for page in pages for link in page.items)

    def artifacts_below(self, uri: str) -> list[Artifact]:
        """All artifact versions that lie in a folder, or are it."""
        found = self._artifacts(uri=f"startswith:{uri}")
        return [one for one in found if one.uri == uri or one.uri.startswith(f"{uri}/")]

    def add_artifact(self, version_id: str, new: NewArtifact) -> str:
        """Register files, and link them to a model version; idempotent. Raises TargetConflict if other files have
        that name and version."""
        try:
            made = self._call(f"artifact {new.name}", lambda: self._create_artifact(new))
        except TargetConflict:
            held = self.artifact(new.name, new.version)
            if held is None or held.uri != new.uri:
                raise
            made = UUID(held.id)
            if any(held.metadata.get(key) != value for key, value in new.metadata.items()):
                # The store, which commits the two apart, did not come to it.
                self._describe(RunMetadataResource(id=made, type=MetadataResourceTypes.ARTIFACT_VERSION), new.metadata)
        link = ModelVersionArtifactRequest(model_version=UUID(version_id), artifact_version=made)
        self._call(f"artifact {new.name}", lambda: self._store.create_model_version_artifact_link(link))
        return str(made)

    def delete_artifact(self, artifact_id: str) -> None:
        """Remove an artifact version from the store, not its files; idempotent."""
        self._gone(f"artifact {artifact_id}", lambda: self._store.delete_artifact_version(UUID(artifact_id)))

    def add_metadata(self, version_id: str, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Add to metadata dictionaries of a model version. What is there under the same names is replaced."""
        self._describe(RunMetadataResource(id=UUID(version_id), type=MetadataResourceTypes.MODEL_VERSION), values)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is written within becomes visible at once, or with an exception not at all, where the store can do that.
        Models and tags are to be made before it: this object remembers them."""
        if isinstance(self._store, LocalStore):
            with database_errors("ZenML's database"), self._store.together():
                yield
        else:
            yield

    @property
    def undoes(self) -> bool:
        """Is nothing there of what was written `together` until all of it is?"""
        return isinstance(self._store, LocalStore)

    def new_folder(self, path: str) -> Folder:
        """A folder in the artifact store that is written to."""
        store_id = str(self._artifact_component.id)
        return self.folder(f"{self._system(store_id).path.rstrip('/')}/{path}", store_id)

    def folder(self, uri: str, store_id: str | None) -> Folder:
        """What lies at `uri` in an artifact store. Raises NotFound when the store is gone."""
        if store_id is None:
            raise NotFound(f"the artifact store of {uri} was removed from ZenML")
        return Folder(self._system(store_id), uri)

    def close(self) -> None:
        """Release the store; idempotent."""
        if "_opened" in self.__dict__:
            release(self._store)
            del self.__dict__["_opened"]

    @cached_property
    def _opened(self) -> Opened:
        with zenml_errors("ZenML's store"):
            return self._open_store()

    @property
    def _store(self) -> BaseZenStore:
        return self._opened.store

    @cached_property
    def _project_id(self) -> UUID:
        name = self._project or self._opened.project
        try:
            return self._call(f"project {name}", lambda: self._store.get_project(name)).id
        except NotFound as error:
            raise UsageError(f"ZenML has no project {name!r}", hint="name one with the option project") from error

    @cached_property
    def _artifact_component(self) -> ComponentResponse:
        if self._artifact_store:
            chosen = ComponentFilter(type=StackComponentType.ARTIFACT_STORE, name=f"equals:{self._artifact_store}")
            found = self._call("artifact store", lambda: self._store.list_stack_components(chosen, hydrate=True)).items
        else:
            stacks = self._call(
                "stack", lambda: self._store.list_stacks(_stack_filter(self._opened.stack), hydrate=True)
            )
            found = [one.components[StackComponentType.ARTIFACT_STORE][0] for one in stacks.items[:1]]
        if not found:
            raise UsageError(
                f"ZenML has no artifact store {self._artifact_store!r}", hint="name one with the option artifact-store"
            )
        return found[0]

    def _system(self, store_id: str) -> FileSystem:
        if store_id not in self._systems:
            component = self._call(
                f"artifact store {store_id}", lambda: self._store.get_stack_component(UUID(store_id), hydrate=True)
            )
            with zenml_errors(f"artifact store {component.name}"):
                system: Any = StackComponent.from_model(component)
            self._systems[store_id] = system
        return self._systems[store_id]

    def _create_model(self, name: str, description: str) -> UUID:
        request = ModelRequest(name=name, description=description, project=self._project_id)
        return self._store.create_model(request).id

    def _describe(self, what: RunMetadataResource, values: Mapping[str, Mapping[str, Any]]) -> None:
        def create() -> None:
            request = RunMetadataRequest(
                project=self._project_id,
                resources=[what],
                values={key: dict(value) for key, value in values.items()},
                types=dict.fromkeys(values, MetadataTypeEnum.DICT),
            )
            self._store.create_run_metadata(request)

        self._call(f"metadata of {what.id}", create)

    def _create_artifact(self, new: NewArtifact) -> UUID:
        request = ArtifactVersionRequest(
            artifact_name=new.name,
            version=new.version,
            type=ArtifactType.DATA,
            save_type=ArtifactSaveType.PREEXISTING,
            uri=new.uri,
            materializer=_MATERIALIZER,
            data_type=_DATA_TYPE,
            project=self._project_id,
            artifact_store_id=self._artifact_component.id,
            has_custom_name=True,
            metadata=dict(new.metadata) or None,
        )
        return self._store.create_artifact_version(request).id

    def _model_named(self, name: str) -> UUID | None:
        chosen = self._filtered(ModelFilter, name=f"equals:{name}")
        page = self._call(f"model {name}", lambda: self._store.list_models(chosen))
        return next((model.id for model in page.items), None)

    def _tag_id(self, name: str) -> UUID:
        if name not in self._tags:
            found = self._tag_named(name)
            if found is None:
                try:
                    found = self._call(f"tag {name}", lambda: self._store.create_tag(TagRequest(name=name))).id
                except TargetConflict:  # another process was faster
                    found = self._tag_named(name)
            if found is None:
                raise NotFound(f"tag {name} is gone")
            self._tags[name] = found
        return self._tags[name]

    def _tag_named(self, name: str) -> UUID | None:
        page = self._call(f"tag {name}", lambda: self._store.list_tags(TagFilter(name=f"equals:{name}")))
        return next((tag.id for tag in page.items), None)

    def _one_version(self, **wanted: str) -> Version | None:
        chosen = self._filtered(ModelVersionFilter, **wanted)
        page = self._call("model versions", lambda: self._store.list_model_versions(chosen))
        return next(map(version_of, page.items), None)

    def _artifacts(self, **wanted: str) -> Iterator[Artifact]:
        for page in self._pages(
            lambda number: self._store.list_artifact_versions(
                self._filtered(ArtifactVersionFilter, page=number, **wanted), hydrate=True
            )
        ):
            yield from map(artifact_of, page.items)

    def _filtered(self, kind: type[T], **wanted: Any) -> T:
        return kind(**{"project": self._project_id, "size": self._page, "sort_by": "asc:created"} | wanted)

    def _pages(self, page: Callable[[int], Page[Any]]) -> Iterator[Page[Any]]:
        """Raises Unavailable when something was deleted meanwhile: what lay behind it moved to a page that was read already."""
        number, last, total = 1, 1, 0
        while number <= last:
            try:
                held = self._call("a listing", lambda number=number: page(number))  # type: ignore[misc]
            except BadInput:  # how ZenML says that there are not so many pages any more
                if number == 1:
                    raise
                held = None
            if held is None or held.total < total:
                raise Unavailable("ZenML was changed while it was listed")
            yield held
            number, last, total = number + 1, held.total_pages, held.total

    def _gone(self, what: str, delete: Callable[[], None]) -> None:
        try:
            self._call(what, delete)
        except NotFound:
            return

    def _call(self, what: str, call: Callable[[], T]) -> T:
        def once() -> T:
            with zenml_errors(what):
                return call()

        return retrying(once)


def _stack_filter(stack: str | UUID) -> StackFilter:
    return StackFilter(id=stack) if isinstance(stack, UUID) else StackFilter(name=f"equals:{stack}")
