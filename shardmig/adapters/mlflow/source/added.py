"""What people added to a run that shardmig brought: tags, and artifacts. The run's manifest does not know them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from shardmig.adapters.base import Want
from shardmig.adapters.mlflow import native
from shardmig.adapters.mlflow.source.reading import Reading
from shardmig.adapters.sidecar.manifest import Manifest
from shardmig.adapters.sidecar.naming import OWN_FOLDER
from shardmig.records import Field
from shardmig.selection import Matcher


class AddedFiles(Reading):
    """Reads the artifacts alone. `own`: those that were brought."""

    own: frozenset[str] = frozenset()

    def _is_own(self, path: str) -> bool:
        return path not in self.own and not path.startswith(f"{OWN_FOLDER}/")


def brought_artifacts(manifest: Manifest) -> frozenset[str]:
    """The artifacts that a run came with."""
    return frozenset(_artifacts(manifest))


def _artifacts(manifest: Manifest) -> Iterator[str]:
    for entry in manifest.files:
        yield entry.artifact
        yield from (artifact for _, artifact in entry.members or ())
    for series in manifest.series:
        yield from (series.artifact, series.shown)


def tag_fields(tags: Mapping[str, str], want: Want) -> list[Field]:
    """Tags as fields, but those that are facts of the run."""
    wants = Matcher(want.selection).wants_field
    added: Iterable[Field] = (
        Field(native.TAGS + key, "string", text) for key, text in tags.items() if not native.is_reserved(key)
    )
    return [field for field in added if wants(field.path, field.type)]
