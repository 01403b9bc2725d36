"""The artifacts that a log names: their files lie where the client staged them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from shardmig.adapters.wandb.source.foreign import Artifact


class StagedArtifacts:
    """Takes the artifact records of a run."""

    def __init__(self) -> None:
        self._by_name: dict[str, dict[str, Any]] = {}

    def see(self, record: Any) -> None:
        """Take a record. One that was logged again as it was is the same version."""
        versions = self._by_name.setdefault(record.name, {})
        versions[record.digest or str(len(versions))] = record

    def all(self) -> Iterator[Artifact]:
        """Each artifact. Versions of one name are `<name>:0`, `<name>:1`, … in the order in which they were logged."""
        for name, versions in self._by_name.items():
            for number, record in enumerate(versions.values()):
                yield _artifact(record, name if len(versions) == 1 else f"{name}:{number}")


def _artifact(record: Any, name: str) -> Artifact:
    members: list[tuple[str, str]] = []
    references: dict[str, str] = {}
    lacks = ""
    try:
        for path, reference, place in _entries(record.manifest):
            if reference:
                references[path] = reference
            else:
                members.append((path, place))
    except (OSError, EOFError, ValueError, KeyError) as error:
        lacks = f"the list of its files is not whole on this computer: {error}"
    return Artifact(
        name=name,
        type=record.type,
        members=sorted(members),
        description=record.description,
        metadata=record.metadata,
        aliases=list(record.aliases),
        tags=list(record.tags),
        references=references,
        lacks=lacks,
    )


def _entries(manifest: Any) -> Iterable[tuple[str, str, str]]:
    """Path, reference and local path of each member. The client writes the list of a very large artifact into a file."""
    if not manifest.manifest_file_path:
        return [(entry.path, entry.ref, entry.local_path) for entry in manifest.contents]
    return _listed(Path(manifest.manifest_file_path))


def _listed(file: Path) -> Iterator[tuple[str, str, str]]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            yield entry["path"], entry.get("ref") or "", entry.get("local_path") or ""
