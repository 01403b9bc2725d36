"""One version of a registered model or prompt in the making."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from shardmig.adapters.base import FileStore
from shardmig.adapters.mlflow.objects.base import REGISTRY, Facts, Making, Stored, times
from shardmig.adapters.mlflow.objects.changes import decode, restored
from shardmig.adapters.mlflow.objects.model_versions import tell_version
from shardmig.adapters.mlflow.objects.references import (
    CREATED,
    NamedVersion,
    References,
    creation_of,
    not_here,
    registered_of,
    was_brought,
)
from shardmig.adapters.mlflow.objects.stores import Stores
from shardmig.adapters.mlflow.refusals import mlflow_errors
from shardmig.adapters.sidecar import provenance
from shardmig.archive.layout import sanitize
from shardmig.errors import BadInput, Permanent
from shardmig.records import FileRef, Finding, RunId, RunRef

VERSIONS: Final = "versions/"
COPIED: Final = "copied_from/creation_time"
"""Field of a version that was copied from one of a registered model: when that one was created."""
COPIED_MODEL: Final = "copied_from/model/creation_time"
"""And when that model was."""


class Version:
    """One version in the making. `folder`: of its fields."""

    def __init__(self, stores: Stores, references: References, facts: Facts, folder: str, name: str) -> None:
        self._stores = stores
        self._references = references
        self._facts = facts
        self._folder = folder
        self._name = name
        self._run = references.here(facts, f"{folder}/run", "runs")
        self._model = references.here(facts, f"{folder}/model", "logged_models")
        self.number = 0
        """Which number MLflow gave it; 0 = it was not made."""

    def make(self, tags: Mapping[str, str], own: list[FileRef], making: Making) -> list[Finding]:
        """Make it; what it refers to and is not here."""
        from mlflow.entities.model_registry import ModelVersionTag

        findings = list(self._dangling())
        source = self._source()
        if own and self._run is not None:
            source = self._upload(own, making.files)
        arguments = {
            "run_id": self._run,
            "tags": [ModelVersionTag(key, text) for key, text in tags.items()],
            "run_link": self._facts.text(f"{self._folder}/run_link") or None,
            "description": self._facts.text(f"{self._folder}/description") or None,
            "model_id": self._model,
        }
        if self._is_nowhere(source) or not self._create(source, arguments):
            self._create(f"shardmig:/not-here/{sanitize(self._name)}", arguments | {"model_id": None})
            detail = f"MLflow takes no {source!r} here: the URI is kept in a tag"
            findings.append(Finding("approximation", "source-not-kept", f"{self._folder}/source", detail=detail))
            if own:
                detail = "the server takes files of a version below a run only: load its run, too"
                findings.append(Finding("loss", "version-files-not-here", f"{self._folder}/files", len(own), detail))
        return findings

    def _create(self, source: str, arguments: Mapping[str, Any]) -> bool:
        """False: MLflow refuses the source; a server takes no path of a disk, for one."""
        what = f"{self._name} {self._folder}"
        try:
            with mlflow_errors(what), self._stores.as_default():
                made = self._stores.registry.create_model_version(self._name, source, **arguments)
        except BadInput:
            return False
        self.number = int(made.version)
        if arguments["model_id"]:  # a refusal of this is none of the source: the version is there
            with mlflow_errors(what), self._stores.as_default():
                tell_version(self._stores, arguments["model_id"], self._name, self.number)
        return True

    def _is_nowhere(self, source: str) -> bool:
        """Does it name a logged model, or a version of a registered one, that is not here? It is waited for."""
        if logged_model_of(source) is not None:
            return self._model is None
        old, here = registered_of(self._facts.text(f"{self._folder}/source")), registered_of(source)
        if old is None or here is None or self._is_meant(here):
            return False
        model = _copied(old.name, self._facts.number(f"{self._folder}/{COPIED_MODEL}"))
        return self._references.wait_for(model) or not self._is_meant(here)

    def _is_meant(self, here: NamedVersion) -> bool:
        """Is that version here, and the one that was meant? Another source may have brought another model of this name;
        people, or another copy of the model, a version of this number."""
        times_ms = originals(self._stores, here)
        meant_ms = (self._facts.number(f"{self._folder}/{name}") for name in (COPIED_MODEL, COPIED))
        return times_ms is not None and all(
            one is None or meant is None or one == meant for one, meant in zip(times_ms, meant_ms, strict=True)
        )

    def _source(self) -> str:
        source = self._facts.text(f"{self._folder}/source")
        if self._model is not None:
            old = logged_model_of(source)
            return source.replace(f"models:/{old}", f"models:/{self._model}", 1)
        if (copied := registered_of(source)) is not None:
            return f"models:/{self._references.model_named(copied.name)}/{copied.number}"
        if self._run is None:
            return source
        run = f"runs:/{self._facts.text(f'{self._folder}/run/id')}"
        path = self._facts.text(f"{self._folder}/run/path")
        if source.startswith(run) or (path and source.startswith("runs:/")):  # of a copy it names the run of that copy
            return f"runs:/{self._run}/{path}".rstrip("/")
        return f"{self._root()}/{path}" if path else source

    def _root(self) -> str:
        root: str = self._stores.tracking.get_run(self._run).info.artifact_uri
        return root.rstrip("/")

    def _dangling(self) -> Iterator[Finding]:
        for name, found in (("run", self._run), ("model", self._model)):
            if found is None and self._facts.text(f"{self._folder}/{name}/id"):
                yield not_here(f"{self._folder}/{name}", self._facts)

    def _upload(self, own: list[FileRef], files: FileStore) -> str:
        number = self._folder.removeprefix(VERSIONS)
        below = f"shardmig/registered_models/{sanitize(self._name)}/{number}"
        artifacts = self._stores.artifacts(self._root())
        for ref in own:
            artifacts.put(files.path(ref), f"{below}/{ref.path.removeprefix(f'{self._folder}/files/')}")
        return f"{self._root()}/{below}"


def other_versions(stored: Stored, facts: Facts, is_volatile: Callable[[str], bool]) -> set[int]:
    """Numbers of a copy under which another version is than the one that came: of a model that was deleted and created
    again, or one made here. When a version was created never changes; its own tag, or those of the copy, tell it."""
    paths = {f"{VERSIONS}{one.version}/creation_time": one for one in stored.content[1]}
    held = times({path: one.creation_timestamp for path, one in paths.items()})
    copied = Facts(facts.run, restored(held, decode(stored.tags, stored.name), is_volatile))
    return {
        int(one.version)
        for path, one in paths.items()
        if (came := facts.number(path)) is not None and one.tags.get(CREATED, str(copied.number(path))) != str(came)
    }


def supposed(stored: Stored) -> Iterator[RunRef]:
    """The registered models that versions of a copy were copied from, as far as their names here are not theirs."""
    values = {change.path: change.value for change in decode(stored.tags, stored.name)}
    for path, created_ms in values.items():
        source = values.get(f"{path.removesuffix(COPIED_MODEL)}source")
        old = registered_of(source) if path.endswith(f"/{COPIED_MODEL}") and isinstance(source, str) else None
        if old is not None and isinstance(created_ms, int):
            yield _copied(old.name, created_ms)


def _copied(name: str, created_ms: int | None) -> RunRef:
    return RunRef(project=REGISTRY, id=RunId(name), scope="registered_models", created_ms=created_ms)


class Originals(NamedTuple):
    """When the originals of a registered model and of a version of it were created. `version_ms`: None: nobody knows, of a
    copy that is in the making."""

    model_ms: int
    version_ms: int | None


def originals(stores: Stores, named: NamedVersion) -> Originals | None:
    """Of a version that was brought, or made here; None: it is not here."""
    try:
        with mlflow_errors(f"{named.name} {named.number}"):
            version = stores.registry.get_model_version(*named)
            model = stores.registry.get_registered_model(named.name)
    except Permanent:
        return None
    created_ms: int = model.creation_timestamp
    model_ms = creation_of(model.tags, named.name, created_ms) or created_ms
    is_in_the_making = was_brought(model.tags) and model.tags[provenance.STATE] != provenance.COMPLETE
    return Originals(model_ms, None if is_in_the_making else _original_ms(model, version))


def _original_ms(model: Any, version: Any) -> int:
    created_ms: int = version.creation_timestamp
    if (text := version.tags.get(CREATED, "")).isdecimal():
        return int(text)
    path = f"{VERSIONS}{version.version}/creation_time"
    values = (one.value for one in decode(model.tags, model.name) if one.path == path and one.given == created_ms)
    return next((value for value in values if isinstance(value, int)), created_ms)


def logged_model_of(source: str | None) -> str | None:
    """The id of the logged model that a version was made from."""
    rest = (source or "").removeprefix("models:/").partition("/")[0]
    return rest if rest.startswith("m-") and (source or "").startswith("models:/m-") else None
