"""What people added to a model version that shardmig brought: artifacts, tags, a stage. The run's manifest knows none of
them. (Metadata that they added are read with the run's own.)

    ZenML                                   field
    linked artifact, and its metadata       artifacts/<name>, artifact_metadata/<name>/<key>, as of ZenML's own
    stage                                   sys/zenml/stage
    tags                                    sys/zenml/added_tags
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from shardmig.adapters.base import FileSink, Want
from shardmig.adapters.names import unlike
from shardmig.adapters.run_facts import RunFacts
from shardmig.adapters.zenml import facts
from shardmig.adapters.zenml.entities import Artifact, Version
from shardmig.adapters.zenml.naming import Naming
from shardmig.adapters.zenml.native import ARTIFACTS, Reading
from shardmig.adapters.zenml.store import ZenmlStore
from shardmig.records import Chunk, Field, Fields, Files, RunRef

_TAGS: Final = ("sys/tags", "sys/group_tags")


class Added(Reading):
    """Reads that alone. `folder`: below which the run's own artifacts lie."""

    def __init__(self, run: RunRef, version: Version, store: ZenmlStore, want: Want, folder: str) -> None:
        self._folder = folder
        self._known = RunFacts(run)
        self._taken: set[str] = set()
        super().__init__(run, version, store, want)

    def learn(self, chunk: Chunk) -> None:
        """Some of the run itself: what its tags are, and which fields it has already."""
        if isinstance(chunk, Fields):
            self._known.learn(chunk.fields)
            self._taken |= {field.path for field in chunk.fields}
        elif isinstance(chunk, Files):
            self._taken |= {ref.path for ref in chunk.files}

    def chunks(self, sink: FileSink) -> Iterator[Chunk]:
        """As Reading; under names that the run does not have."""
        linked, self._artifacts = self._artifacts, {}
        for name, artifact in linked.items():
            path = unlike(f"{ARTIFACTS}{name}", self._taken)
            self._taken.add(path)
            self._artifacts[path.removeprefix(ARTIFACTS)] = artifact
        return super().chunks(sink)

    def gives(self, artifact: Artifact) -> bool:
        """As Reading: those of others."""
        return artifact.uri != self._folder and not artifact.uri.startswith(f"{self._folder}/")

    def _metadata(self) -> Iterator[tuple[str, dict[str, Any]]]:
        return iter(())

    def _facts(self) -> Iterator[Field]:
        if self._version.stage:
            yield Field(unlike("sys/zenml/stage", self._taken), "string", self._version.stage)
        if not all(self._matcher.wants_field(path, "string_set") for path in _TAGS):
            return  # nobody told which are the run's own
        own = {tag for caseless in (False, True) for tag in facts.tags_of(self._known, Naming(caseless=caseless))}
        if added := sorted(set(self._version.tags) - own):
            yield Field(unlike("sys/zenml/added_tags", self._taken), "string_set", added)
