"""The read side: models are projects, model versions are runs.

A model version that shardmig itself wrote is given as the run that it was before: under its original project and id,
exact. Any other is given by the map of `native`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from hashlib import blake2b
from importlib.metadata import version as installed
from typing import Any

import msgspec

from shardmig.adapters.base import FileSink, Want
from shardmig.adapters.sidecar.reading import brought, then_added
from shardmig.adapters.zenml import facts, native
from shardmig.adapters.zenml.added import Added
from shardmig.adapters.zenml.entities import Artifact, Version
from shardmig.adapters.zenml.naming import is_loading
from shardmig.adapters.zenml.opening import Opened
from shardmig.adapters.zenml.options import StoreOptions
from shardmig.adapters.zenml.run import ENTRY, read_run
from shardmig.adapters.zenml.store import ZenmlStore
from shardmig.errors import BadInput, about_run
from shardmig.records import End, Header, Piece, ProjectId, RunId, RunRef, Selection
from shardmig.selection import Matcher

SOURCE = "zenml"


class ZenmlSource:
    """Read side of ZenML."""

    def __init__(self, open_store: Callable[[], Opened], options: StoreOptions) -> None:
        self._store = ZenmlStore(open_store, options.project)

    def list_projects(self, selection: Selection) -> Iterator[ProjectId]:
        """Models by name, and the projects of the runs that were brought here."""
        matcher = Matcher(selection)
        yield from (project for project in sorted(self._listed) if matcher.wants_project(project))

    def list_runs(self, project: ProjectId, selection: Selection) -> Iterator[RunRef]:
        """As ReadSide."""
        yield from filter(Matcher(selection).wants_run, self._listed.get(project, []))

    def read_runs(self, runs: Iterable[RunRef], want: Want, files: FileSink) -> Iterator[Piece]:
        """Run after run; none can be resumed inside."""
        for run in runs:
            with about_run(run.label):
                yield from self._read_run(run, want, files)

    def close(self) -> None:
        """As ReadSide."""
        self._store.close()

    @cached_property
    def _listed(self) -> dict[ProjectId, list[RunRef]]:
        """All runs by project, the earliest first."""
        brought = {str(own[facts.VERSION]): own for entry in self._store.artifacts_named(ENTRY) if (own := _own(entry))}
        runs: dict[ProjectId, list[RunRef]] = {}
        others: dict[ProjectId, list[tuple[Version, str]]] = {}
        for model_id, model in self._store.models():
            for version, mark in self._versions(model_id):
                if version.id in brought:
                    run = _brought(brought[version.id], version, mark)
                    runs.setdefault(run.project, []).append(run)
                else:
                    others.setdefault(ProjectId(model), []).append((version, mark))
        for project, held in others.items():
            taken = {run.id for run in runs.get(project, [])}
            runs.setdefault(project, []).extend(_other(project, *one, taken) for one in held)
        for found in runs.values():
            found.sort(key=lambda run: (run.created_ms or 0, run.id))
        return runs

    def _versions(self, model_id: str) -> Iterator[tuple[Version, str]]:
        """The versions of a model with the fingerprint of what is in them: ZenML tells no time for metadata that are added
        and artifacts that are linked."""
        for version in self._store.versions(model_id, whole=True):
            whole = msgspec.structs.replace(version, tags=sorted(version.tags))
            content = [msgspec.structs.asdict(whole), self._store.artifact_ids_of(version.id)]
            text = json.dumps(content, sort_keys=True, default=str)
            mark = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
            yield msgspec.structs.replace(version, description="", tags=[], metadata={}), mark

    def _read_run(self, run: RunRef, want: Want, files: FileSink) -> Iterator[Piece]:
        version = self._store.version(run.locator)
        if is_loading(version.name):
            raise BadInput(
                f"model version {version.name} was never loaded to its end",
                hint="finish that load, or delete the model version",
            )
        own = version.metadata.get(facts.SHARDMIG, {})
        if facts.KEY not in own:
            yield Piece(run, Header(run, SOURCE, installed("zenml")))
            reading = native.Reading(run, version, self._store, want)
            yield from (Piece(run, chunk) for chunk in reading.chunks(files))
            yield Piece(run, End(reading.findings))
            return
        yield from self._restored(run, version, own, want, files)

    def _restored(
        self, run: RunRef, version: Version, own: Mapping[str, Any], want: Want, files: FileSink
    ) -> Iterator[Piece]:
        """The run that was brought, then what people added to it."""
        entry = self._store.artifact(ENTRY, own[facts.KEY])
        added = None if entry is None else Added(run, version, self._store, want, entry.uri)
        pieces = read_run(self._store, version, own[facts.KEY], want, files, run)
        restored = brought(pieces, run, str(own.get(facts.DIGEST, "")), want)
        if added is None:
            yield from restored
        else:
            yield from then_added(restored, lambda: added.chunks(files), lambda: added.findings, added.learn)


def _own(entry: Artifact) -> dict[str, Any]:
    own = entry.metadata.get(facts.SHARDMIG)
    return own if isinstance(own, dict) and facts.VERSION in own else {}


def _brought(own: dict[str, Any], version: Version, fingerprint: str) -> RunRef:
    return RunRef(
        project=ProjectId(own["project"]),
        id=RunId(own["run_id"]),
        scope=own["scope"],
        created_ms=own["created_ms"],
        archived=own["archived"],
        parent=own["parent"],
        parent_project=own["parent_project"],
        locator=version.id,
        fingerprint=fingerprint,
    )


def _other(project: ProjectId, version: Version, fingerprint: str, taken: set[RunId]) -> RunRef:
    name = RunId(version.name)
    run_id = name if name not in taken else RunId(f"{name} (version {version.number})")
    return RunRef(
        project=project, id=run_id, created_ms=version.created_ms, locator=version.id, fingerprint=fingerprint
    )
