"""What people added to an experiment that shardmig brought: files and media. The run's manifest does not know them.
(Metadata and points that they added are read with the run's own.)"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from shardmig.adapters.litlogger.answers import Media
from shardmig.adapters.litlogger.reading import Reading
from shardmig.adapters.names import unlike
from shardmig.adapters.sidecar.manifest import Manifest, wanted_path
from shardmig.adapters.sidecar.naming import OWN_FOLDER
from shardmig.records import FileRef


class Added(Reading):
    """Reads these alone, as those of Lightning's own experiments."""

    _artifacts_of_run: frozenset[str] = frozenset()
    _fields: frozenset[str] = frozenset()
    _captions: frozenset[str] = frozenset()
    _pictures: tuple[str, ...] = ()

    def pass_over(self, manifest: Manifest) -> None:
        """What the run came with."""
        self._artifacts_of_run = manifest.artifacts
        self._fields = frozenset(entry.path for entry in manifest.files)
        self._captions = frozenset(_captions(manifest))
        self._pictures = tuple(f"{one.path}: steps " for one in manifest.series if one.type == "histogram_series")

    def artifacts(self) -> Iterable[str]:
        """As Reading."""
        return (
            path
            for path in super().artifacts()
            if path not in self._artifacts_of_run and not path.startswith(f"{OWN_FOLDER}/")
        )

    def named(self, field: str) -> str:
        """As Reading; a name that no file of the run has: it may have come from Lightning once."""
        return unlike(field, self._fields)

    def media(self) -> Iterable[Media]:
        """As Reading. What shows the run's own content is told by its caption; see `shown`."""
        return (
            one
            for one in super().media()
            if one.caption not in self._captions and not one.caption.startswith(self._pictures)
        )


def _captions(manifest: Manifest) -> Iterator[str]:
    for entry in manifest.files:
        if entry.members is None:
            ref = FileRef(path=entry.path, type=entry.type, stored=entry.artifact, name=entry.name, step=entry.step)
            yield wanted_path(ref)
