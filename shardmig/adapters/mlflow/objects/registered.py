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
      copied from another one   versions/<number>/copied_from/creation_time, copied_from/model/creation_time: of that version
                                and of its model
      files outside of both     versions/<number>/files/<path>, file
    prompt                      experiments, string_set: the names of those that it is shown in
    prompt version              versions/<number>/text, type (text or chat), model_config, response_format

Numbers are kept, gaps too: MLflow counts versions, so for each gap a version is made and deleted. Versions deleted behind
the last one leave no trace in MLflow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

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
from shardmig.adapters.mlflow.objects.changes import decode
from shardmig.adapters.mlflow.objects.merging import TAKEN
from shardmig.adapters.mlflow.objects.references import CREATED, NOT_HERE, References, creation_of, registered_of
from shardmig.adapters.mlflow.objects.stores import IN_PAGE, Stores, pages
from shardmig.adapters.mlflow.objects.version_fields import NOT_STAGED, PROMPT_TAGS, path_in_run, version_fields
from shardmig.adapters.mlflow.objects.versions import VERSIONS, Version, other_versions, supposed
from shardmig.adapters.mlflow.refusals import mlflow_errors
from shardmig.adapters.sidecar.provenance import KEY, RUN_ID
from shardmig.errors import BadInput, TargetConflict, Unavailable
from shardmig.records import Field, FileRef, Finding, MigrationKey, Points, RunId, Scope

ALIASES: Final = "aliases/"
NAMED: Final = "shardmig.name"
"""Tag: the name under which it was brought."""
MOST_VERSIONS: Final = 100_000
"""More than anybody has; each gap costs two calls."""
IS_PROMPT: Final = "mlflow.prompt.is_prompt"
EXPERIMENTS: Final = "_mlflow_experiment_ids"
"""Tag of a prompt: `,id,id,`."""
PLACEHOLDER: Final = "dummy-source"
"""MLflow's own, for versions that have no files."""

_OWN: Final = ("creation_time", "source", "user", "status", "status_message", "path")


class Registered:
    """`ObjectClass` of registered models, or of prompts."""

    is_linked = False
    keeps_id = False

    def __init__(self, stores: Stores, references: References, scope: Scope) -> None:
        self.scope = scope
        self._stores = stores
        self._references = references
        self._is_prompt = scope == "prompts"
        self.completes = self._is_prompt  # they refer to experiments only, by a tag

    def all(self) -> Iterator[Stored]:
        """As ObjectClass."""
        return self._search("")

    def find(self, key: MigrationKey) -> list[Stored]:
        """As ObjectClass: of the copies with this key those that have the name it would have here now, and that are of the
        object that is meant, not of another source's of that name."""
        found = [one for one in self._search(f"tags.`{KEY}` = '{key}'") if self._is_meant(one, key)]
        for one in found:
            self._references.suppose(supposed(one))
        return found

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
            yield from version_fields(self._stores, self._references, version, is_prompt=self._is_prompt)
        if not self._is_prompt:
            yield from self._stores.permissions(self.scope, stored.id)

    def points(self, stored: Stored) -> Iterator[Points]:  # noqa: ARG002
        """As ObjectClass: none."""
        return iter(())

    def trees(self, stored: Stored) -> Iterator[Tree]:
        """As ObjectClass: what MLflow itself stores, neither in a run, here or where it came from, nor in a logged model. What a
        version names in somebody else's store (s3, gs …) stays there: its URI is as good for the copy."""
        if self._is_prompt:
            return
        of_absent_runs = {one.path for one in decode(stored.tags, stored.name) if one.path.endswith("/run/path")}
        for version in stored.content[1]:
            folder, source = f"{VERSIONS}{version.version}", version.source or ""
            is_stored = source and urlsplit(source).scheme in ("", "file", "mlflow-artifacts")
            if is_stored and f"{folder}/run/path" not in of_absent_runs and path_in_run(self._stores, version) is None:
                yield Tree(f"{folder}/files/", source)

    def is_volatile(self, path: str) -> bool:
        """As ObjectClass."""
        return path.endswith("modification_time") and not _is_named_by_users(path)

    def is_own(self, path: str) -> bool:
        """As ObjectClass."""
        name = path.rpartition("/")[2]
        return path == "sys/id" or (name in _OWN and not _is_named_by_users(path))

    def make(self, making: Making) -> tuple[Stored, list[Finding]]:
        """As ObjectClass. Files of a version lie below its run's artifacts."""
        facts = making.facts
        name = self._references.model_named(facts.text("sys/name") or facts.run.id)
        numbers = [int(number) for number in facts.below(VERSIONS) if number.isdecimal()]
        if numbers and numbers[-1] > MOST_VERSIONS:
            raise BadInput(f"version {numbers[-1]} of {name!r} is beyond {MOST_VERSIONS}", run=facts.run.label)
        own_files = _by_version(making.refs)
        linked, findings = self._references.experiments(facts.set("experiments"))
        tags = facts.texts(TAGS) | self._prompt_tags(linked) | making.tags | {NAMED: name}
        self._create(name, facts.text("sys/description"), tags)
        for number in range(1, numbers[-1] + 1 if numbers else 1):
            if number in numbers:
                version = Version(self._stores, self._references, facts, f"{VERSIONS}{number}", name)
                findings += version.make(self._version_tags(facts, number), own_files.get(str(number), []), making)
                made = version.number
            else:
                made = make_gap(self._stores, name, number, is_prompt=self._is_prompt)
            if made != number:  # a request came twice, or somebody made one meanwhile: all behind it would be shifted
                raise Unavailable(f"MLflow gave version {made} of {name!r} instead of {number}: it is made anew")
        findings += self._set_pointers(name, facts, numbers)
        if name != facts.text("sys/name"):
            findings.append(Finding("note", "model-name-changed", "sys/name", detail=f"MLflow has {name!r}, as asked"))
        return self.get(name), findings

    def merge(self, stored: Stored, making: Making) -> tuple[Stored, list[Finding]]:
        """As ObjectClass. New versions are appended; a number that MLflow has used up cannot be made again."""
        facts, name = making.facts, stored.id
        held = {int(version.version): version for version in stored.content[1]}
        own_files = _by_version(making.refs)
        linked, findings = self._references.experiments(facts.set("experiments"))
        self._change(stored, facts, self._prompt_tags(linked))
        numbers = [int(number) for number in facts.below(VERSIONS) if number.isdecimal()]
        others = other_versions(stored, facts, self.is_volatile)
        here, last = set(held) - others, max(held, default=0)
        for number in numbers:
            if number in others:
                detail = "this number is another version here: --on-existing replace makes the model anew"
                findings.append(Finding("loss", TAKEN, f"{VERSIONS}{number}", detail=detail))
                continue
            if number in held:
                self._change_version(held[number], facts)
                continue
            found = self._append(name, number, last, making, own_files.get(str(number), []))
            findings += found
            if not any(finding.code == TAKEN for finding in found):
                here.add(number)
                last = number
        staged = [one for one in numbers if one in held and held[one].current_stage not in NOT_STAGED]
        findings += self._set_pointers(name, facts, sorted(here), staged, taken=set(numbers) - here)
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

    def _is_meant(self, stored: Stored, key: MigrationKey) -> bool:
        named = stored.tags.get(NAMED, stored.id)  # people may have given it another name here since
        created_ms = creation_of(stored.tags, stored.id, stored.created_ms)
        is_named = named == self._references.model_named(stored.tags.get(RUN_ID, named))
        return is_named and self._references.is_meant(key, created_ms)

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
        """All wanted versions, in their order."""
        quote = '"' if "'" in name else "'"
        is_sayable = quote not in name  # MLflow cannot search for both kinds: then every version is looked at
        conditions = [f"name = {quote}{name}{quote}"] if is_sayable else []
        conditions += [f"tags.`{IS_PROMPT}` = 'true'"] if self._is_prompt else []
        search = self._stores.registry.search_model_versions
        found = pages(search, filter_string=" AND ".join(conditions), max_results=IN_PAGE)
        own = (version for version in found if is_sayable or version.name == name)
        every = sorted(own, key=lambda version: int(version.version))
        return every if self._is_prompt else self._stores.wanted.versions.of(name, every)

    def _version_tags(self, facts: Facts, number: int) -> dict[str, str]:
        folder = f"{VERSIONS}{number}/"
        tags = facts.texts(f"{folder}{TAGS}")
        if self._is_prompt:
            tags |= {key: text for key, name in PROMPT_TAGS.items() if (text := facts.text(folder + name))}
        return tags

    def _append(self, name: str, number: int, last: int, making: Making, own: list[FileRef]) -> list[Finding]:
        """A version behind the last one, unless its number was given to another one."""
        folder = f"{VERSIONS}{number}"
        version = Version(self._stores, self._references, making.facts, folder, name)
        for gap in range(last + 1, number):
            if make_gap(self._stores, name, gap, is_prompt=self._is_prompt) >= number - 1:
                break
        tags = self._version_tags(making.facts, number) | {CREATED: str(making.facts.number(f"{folder}/creation_time"))}
        findings = version.make(tags, own, making) if number > last else []
        if version.number == number:
            return findings
        if version.number:
            self._stores.registry.delete_model_version(name, str(version.number))
        detail = "MLflow counts versions and has used this number up: --on-existing replace makes the model anew"
        return [Finding("loss", TAKEN, folder, detail=detail)]

    def _change(self, stored: Stored, facts: Facts, own_tags: dict[str, str]) -> None:
        if (text := facts.text("sys/description")) != (stored.content[0].description or ""):
            self._stores.registry.update_registered_model(stored.id, text)
        wanted = facts.texts(TAGS) | own_tags
        self.tag(stored, {key: text for key, text in wanted.items() if stored.tags.get(key) != text})

    def _change_version(self, held: Any, facts: Facts) -> None:
        from mlflow.entities.model_registry import ModelVersionTag

        number = str(held.version)
        if (text := facts.text(f"{VERSIONS}{number}/description")) != (held.description or ""):
            self._stores.registry.update_model_version(held.name, number, text)
        for key, text in self._version_tags(facts, int(number)).items():
            if held.tags.get(key) != text:
                self._stores.registry.set_model_version_tag(held.name, number, ModelVersionTag(key, text))

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
                f"a registered model or prompt {name!r} is in MLflow already, and is another one: made there, or copied from "
                "another source, or from one of this name that was deleted since",
                hint="--model-rename-file gives one of them another name; or delete the one that is in the way",
            ) from error

    def _set_pointers(
        self,
        name: str,
        facts: Facts,
        numbers: list[int],
        staged: Collection[int] = (),
        taken: Collection[int] = (),
    ) -> Iterator[Finding]:
        """Stages, and aliases of the versions that are there. `staged`: those that have a stage and may have none now.
        `taken`: numbers that are no version, or another one, here."""
        registry = self._stores.registry
        for number in numbers:
            if stage := facts.text(f"{VERSIONS}{number}/stage") or ("None" if number in staged else ""):
                registry.transition_model_version_stage(name, str(number), stage, archive_existing_versions=False)
        for alias, number in facts.numbers(ALIASES).items():
            if number in numbers:
                registry.set_registered_model_alias(name, alias, str(number))
            elif number in taken:
                detail = f"version {number} was not brought: the alias neither"
                yield Finding("loss", TAKEN, ALIASES + alias, detail=detail)
            else:
                detail = f"version {number} was not selected: the alias is kept in a tag"
                yield Finding("approximation", NOT_HERE, ALIASES + alias, detail=detail)


def make_gap(stores: Stores, name: str, number: int, *, is_prompt: bool = False) -> int:
    """Use up a version's number; the one that was used up."""
    from mlflow.entities.model_registry import ModelVersionTag

    tags = [ModelVersionTag(IS_PROMPT, "true")] if is_prompt else []
    source = PLACEHOLDER if is_prompt else f"shardmig:/gap/{number}"
    made = stores.registry.create_model_version(name, source, tags=tags)
    stores.registry.delete_model_version(name, str(made.version))
    return int(made.version)


def _is_named_by_users(path: str) -> bool:
    return path.startswith((TAGS, ALIASES)) or f"/{TAGS}" in path


def _by_version(refs: Iterator[FileRef] | Any) -> dict[str, list[FileRef]]:
    found: dict[str, list[FileRef]] = {}
    for ref in refs:
        found.setdefault(ref.path.removeprefix(VERSIONS).partition("/")[0], []).append(ref)
    return found


def _copied_from(name: str, versions: list[Any]) -> RunId | None:
    """Another registered model that a version was copied from."""
    sources = (registered_of(version.source) for version in versions)
    return next((RunId(source.name) for source in sources if source is not None and source.name != name), None)
