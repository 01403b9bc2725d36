"""Registered models and prompts: in MLflow a prompt is a registered model whose versions hold texts.

    MLflow                      field
    name, description           sys/id, sys/name; sys/description
    created, updated            sys/creation_time, sys/modification_time
    tag                         tags/<key>, string
    alias                       aliases/<alias>, int: the version
    version                     versions/<number>/description, stage, source, run_link, user, status, status_message,
                                creation_time, modification_time, tags/<key>
      its run                   versions/<number>/run/project, run/id; run/path where its source lies in the run's files
      its logged model          versions/<number>/model/project, model/id
      files outside of both     versions/<number>/files/<path>, file
    prompt                      experiments, string_set: the names of those that it is shown in
    prompt version              versions/<number>/text, type (text or chat), model_config, response_format

Numbers are kept, gaps too: MLflow counts versions, so for each gap a version is made and deleted. Versions deleted behind
the last one leave no trace in MLflow.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from shardmig.adapters.base import FileStore
from shardmig.adapters.mlflow.objects.base import (
    REGISTRY,
    TAGS,
    Facts,
    Making,
    Stored,
    Tree,
    scalars,
    tag_fields,
    times,
)
from shardmig.adapters.mlflow.objects.references import References, not_here
from shardmig.adapters.mlflow.objects.stores import IN_PAGE, Stores, pages
from shardmig.adapters.mlflow.refusals import mlflow_errors
from shardmig.archive.layout import sanitize
from shardmig.errors import BadInput, Permanent, TargetConflict, Unsupported
from shardmig.records import Field, FileRef, Finding, MigrationKey, Points, RunId, RunRef, Scope

ALIASES: Final = "aliases/"
VERSIONS: Final = "versions/"
MOST_VERSIONS: Final = 100_000
"""More than anybody has; each gap costs two calls."""
IS_PROMPT: Final = "mlflow.prompt.is_prompt"
EXPERIMENTS: Final = "_mlflow_experiment_ids"
"""Tag of a prompt: `,id,id,`."""
PLACEHOLDER: Final = "dummy-source"
"""MLflow's own, for versions that have no files."""

_PROMPT_TAGS: Final = {
    "mlflow.prompt.text": "text",
    "_mlflow_prompt_type": "type",
    "_mlflow_prompt_model_config": "model_config",
    "_mlflow_prompt_response_format": "response_format",
}
_OWN: Final = ("creation_time", "source", "user", "status", "status_message", "path")
_NOT_STAGED: Final = ("", "None", None)


class Registered:
    """`ObjectClass` of registered models, or of prompts."""

    is_linked = False

    def __init__(self, stores: Stores, references: References, scope: Scope) -> None:
        self.scope = scope
        self._stores = stores
        self._references = references
        self._is_prompt = scope == "prompts"

    def all(self) -> Iterator[Stored]:
        """As ObjectClass."""
        return self._search("")

    def find(self, key: MigrationKey) -> list[Stored]:
        """As ObjectClass."""
        return list(self._search(f"tags.`shardmig.key` = '{key}'"))

    def get(self, id_: str) -> Stored:
        """As ObjectClass."""
        with mlflow_errors(f"{self.scope} {id_!r}"):
            return self._stored(self._stores.registry.get_registered_model(id_))

    def fields(self, stored: Stored) -> Iterator[Field]:
        """As ObjectClass."""
        model, versions = stored.content
        yield from scalars({"sys/id": stored.name, "sys/name": model.name, "sys/description": model.description})
        changed = model.last_updated_timestamp
        yield from times({"sys/creation_time": model.creation_timestamp, "sys/modification_time": changed})
        yield from tag_fields(TAGS, {key: text for key, text in model.tags.items() if key != EXPERIMENTS})
        if linked := [id_ for id_ in model.tags.get(EXPERIMENTS, "").split(",") if id_]:
            yield Field("experiments", "string_set", self._references.names_of(linked))
        for alias, version in dict(model.aliases).items():
            yield Field(ALIASES + alias, "int", int(version))
        for version in versions:
            yield from self._version_fields(version)

    def points(self, stored: Stored) -> Iterator[Points]:  # noqa: ARG002
        """As ObjectClass: none."""
        return iter(())

    def trees(self, stored: Stored) -> Iterator[Tree]:
        """As ObjectClass: what MLflow itself stores, neither in a run nor in a logged model. What a version names in
        somebody else's store (s3, gs …) stays there: its URI is as good for the copy."""
        for version in stored.content[1]:
            source = version.source or ""
            is_stored = source and urlsplit(source).scheme in ("", "file", "mlflow-artifacts")
            if is_stored and not self._is_prompt and self._path_in_run(version) is None:
                yield Tree(f"{VERSIONS}{version.version}/files/", source)

    def is_volatile(self, path: str) -> bool:
        """As ObjectClass."""
        return path.endswith("modification_time") and not path.startswith(TAGS)

    def is_own(self, path: str) -> bool:
        """As ObjectClass."""
        name = path.rpartition("/")[2]
        return not path.startswith(TAGS) and f"/{TAGS}" not in path and name in _OWN

    def make(self, making: Making) -> tuple[Stored, list[Finding]]:
        """As ObjectClass. Files of a version lie below its run's artifacts."""
        facts = making.facts
        name = facts.text("sys/name") or facts.run.id
        numbers = [int(number) for number in facts.below(VERSIONS) if number.isdecimal()]
        if numbers and numbers[-1] > MOST_VERSIONS:
            raise BadInput(f"version {numbers[-1]} of {name!r} is beyond {MOST_VERSIONS}", run=facts.run.label)
        own_files = _by_version(making.refs)
        linked, findings = self._references.experiments(facts.set("experiments"))
        self._create(name, facts.text("sys/description"), facts.texts(TAGS) | self._prompt_tags(linked) | making.tags)
        for number in range(1, numbers[-1] + 1 if numbers else 1):
            if number in numbers:
                version = _Version(self._stores, self._references, facts, f"{VERSIONS}{number}", name)
                findings += version.make(self._version_tags(facts, number), own_files.get(str(number), []), making)
            else:
                make_gap(self._stores, name, number, is_prompt=self._is_prompt)
        self._set_pointers(name, facts, numbers)
        return self.get(name), findings

    def link(self, stored: Stored, old: RunId) -> None:
        """As ObjectClass: nothing does."""

    def tag(self, stored: Stored, tags: Mapping[str, str]) -> None:
        """As ObjectClass."""
        from mlflow.entities.model_registry import RegisteredModelTag

        for key, text in tags.items():
            self._stores.registry.set_registered_model_tag(stored.id, RegisteredModelTag(key, text))

    def discard(self, stored: Stored) -> None:
        """As ObjectClass."""
        for alias in dict(stored.content[0].aliases):
            self._stores.registry.delete_registered_model_alias(stored.id, alias)
        self._stores.registry.delete_registered_model(stored.id)

    def _search(self, condition: str) -> Iterator[Stored]:
        prompt = f"tags.`{IS_PROMPT}` = 'true'" if self._is_prompt else ""
        filters = " AND ".join(filter(None, (condition, prompt)))
        found = pages(self._stores.registry.search_registered_models, filter_string=filters, max_results=IN_PAGE)
        return map(self._stored, found)

    def _stored(self, model: Any) -> Stored:
        versions = self._versions(model.name)
        facts = [
            (one.version, one.last_updated_timestamp, one.current_stage, one.description, sorted(one.tags.items()))
            for one in versions
        ]
        own = (model.description, sorted(model.tags.items()), sorted(dict(model.aliases).items()))
        return Stored(
            id=model.name,
            project=REGISTRY,
            name=RunId(model.name),
            tags=dict(model.tags),
            content=(model, versions),
            revision=repr((own, facts)),
            created_ms=model.creation_timestamp,
            after=None if self._is_prompt else _copied_from(model.name, versions),
        )

    def _versions(self, name: str) -> list[Any]:
        """All versions, in their order."""
        quote = '"' if "'" in name else "'"
        if quote in name:
            raise Unsupported(f"{name!r} holds both kinds of quotes: MLflow cannot search for its versions")
        condition = f"name = {quote}{name}{quote}"
        if self._is_prompt:
            condition += f" AND tags.`{IS_PROMPT}` = 'true'"
        found = pages(self._stores.registry.search_model_versions, filter_string=condition, max_results=IN_PAGE)
        return sorted(found, key=lambda version: int(version.version))

    def _version_fields(self, version: Any) -> Iterator[Field]:
        folder = f"{VERSIONS}{version.version}"
        texts = {
            "description": version.description,
            "stage": version.current_stage if version.current_stage not in _NOT_STAGED else "",
            "source": version.source,
            "run_link": version.run_link,
            "user": version.user_id,
            "status": version.status,
            "status_message": version.status_message,
            "run/path": self._path_in_run(version),
        }
        tags = dict(version.tags)
        if self._is_prompt:
            texts |= {name: tags.pop(key) for key, name in _PROMPT_TAGS.items() if tags.get(key)}
        yield from scalars({f"{folder}/{name}": text for name, text in texts.items()})
        created = {f"{folder}/creation_time": version.creation_timestamp}
        yield from times(created | {f"{folder}/modification_time": version.last_updated_timestamp})
        yield from tag_fields(f"{folder}/{TAGS}", tags)
        yield from self._references.fields(f"{folder}/run", "runs", version.run_id)
        yield from self._references.fields(f"{folder}/model", "logged_models", _logged_model(version.source))

    def _path_in_run(self, version: Any) -> str | None:
        """Where in its run's artifacts a version lies; None: elsewhere."""
        if not version.run_id or not version.source or self._is_prompt:
            return None
        source: str = version.source
        if source.startswith(f"runs:/{version.run_id}"):
            return source.removeprefix(f"runs:/{version.run_id}").strip("/")
        try:
            with mlflow_errors(f"run {version.run_id}"):
                root = _plain(self._stores.tracking.get_run(version.run_id).info.artifact_uri)
        except Permanent:
            return None
        inside = _plain(source).removeprefix(root.rstrip("/") + "/")
        is_inside = inside != _plain(source) and not inside.startswith("shardmig/")
        return inside.strip("/") if is_inside else None

    def _version_tags(self, facts: Facts, number: int) -> dict[str, str]:
        folder = f"{VERSIONS}{number}/"
        tags = facts.texts(f"{folder}{TAGS}")
        if self._is_prompt:
            tags |= {key: text for key, name in _PROMPT_TAGS.items() if (text := facts.text(folder + name))}
        return tags

    def _prompt_tags(self, experiments: list[str]) -> dict[str, str]:
        linked = {EXPERIMENTS: f",{','.join(experiments)},"} if experiments else {}
        return linked | {IS_PROMPT: "true"} if self._is_prompt else {}

    def _create(self, name: str, description: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities.model_registry import RegisteredModelTag

        try:
            with mlflow_errors(f"{self.scope} {name!r}"):
                entries = [RegisteredModelTag(key, text) for key, text in tags.items()]
                self._stores.registry.create_registered_model(name, entries, description or None)
        except TargetConflict as error:
            raise TargetConflict(
                f"a registered model or prompt {name!r} is in MLflow already, and did not come from here",
                hint="rename or delete it",
            ) from error

    def _set_pointers(self, name: str, facts: Facts, numbers: list[int]) -> None:
        registry = self._stores.registry
        for number in numbers:
            if stage := facts.text(f"{VERSIONS}{number}/stage"):
                registry.transition_model_version_stage(name, str(number), stage, archive_existing_versions=False)
        for alias, number in facts.numbers(ALIASES).items():
            registry.set_registered_model_alias(name, alias, str(number))


def make_gap(stores: Stores, name: str, number: int, *, is_prompt: bool = False) -> None:
    """Use up a version's number."""
    from mlflow.entities.model_registry import ModelVersionTag

    tags = [ModelVersionTag(IS_PROMPT, "true")] if is_prompt else []
    stores.registry.create_model_version(name, PLACEHOLDER if is_prompt else f"shardmig:/gap/{number}", tags=tags)
    stores.registry.delete_model_version(name, str(number))


class _Version:
    """One version in the making. `folder`: of its fields."""

    def __init__(self, stores: Stores, references: References, facts: Facts, folder: str, name: str) -> None:
        self._stores = stores
        self._references = references
        self._facts = facts
        self._folder = folder
        self._name = name
        self._run = references.here(facts, f"{folder}/run", "runs")
        self._model = references.here(facts, f"{folder}/model", "logged_models")

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
        try:
            with mlflow_errors(f"{self._name} {self._folder}"), self._stores.as_default():
                made = self._stores.registry.create_model_version(self._name, source, **arguments)
                if arguments["model_id"]:
                    self._stores.tracking.set_model_versions_tags(self._name, made.version, arguments["model_id"])
        except BadInput:
            return False
        return True

    def _is_nowhere(self, source: str) -> bool:
        """Does it name a logged model, or a version of a registered one, that is not here? It is waited for."""
        if not source.startswith("models:/"):
            return False
        if _logged_model(source) is not None:
            return self._model is None
        name, _, number = source.removeprefix("models:/").rpartition("/")
        try:
            with mlflow_errors(source):
                self._stores.registry.get_model_version(name, number)
        except Permanent:
            self._references.wait_for(RunRef(project=REGISTRY, id=RunId(name), scope="registered_models"))
            return True
        return False

    def _source(self) -> str:
        source = self._facts.text(f"{self._folder}/source")
        if self._model is not None:
            old = _logged_model(source)
            return source.replace(f"models:/{old}", f"models:/{self._model}", 1)
        if self._run is None:
            return source
        run = f"runs:/{self._facts.text(f'{self._folder}/run/id')}"
        path = self._facts.text(f"{self._folder}/run/path")
        if source.startswith(run):
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


def _by_version(refs: Iterator[FileRef] | Any) -> dict[str, list[FileRef]]:
    found: dict[str, list[FileRef]] = {}
    for ref in refs:
        found.setdefault(ref.path.removeprefix(VERSIONS).partition("/")[0], []).append(ref)
    return found


def _logged_model(source: str | None) -> str | None:
    """The id of the logged model that a version was made from."""
    rest = (source or "").removeprefix("models:/").partition("/")[0]
    return rest if rest.startswith("m-") and (source or "").startswith("models:/m-") else None


def _copied_from(name: str, versions: list[Any]) -> RunId | None:
    """Another registered model that a version was copied from."""
    for version in versions:
        source = version.source or ""
        if source.startswith("models:/") and _logged_model(source) is None:
            with contextlib.suppress(ValueError):
                other, _ = source.removeprefix("models:/").rsplit("/", 1)
                if other != name:
                    return RunId(other)
    return None


def _plain(uri: str) -> str:
    """A path of a disk is the same with and without `file://`."""
    parts = urlsplit(uri)
    return unquote(parts.path) if parts.scheme == "file" else uri
