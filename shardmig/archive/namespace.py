"""Neptune's namespaces and fields on an archive: the Python API.

```python
archive = open_archive("exports")
run = archive["ws/proj"]["RUN-1"]
run["params/lr"].fetch()
run["metrics/loss"].fetch_values().to_pandas()
```
Lazy: nothing is read before it is asked for, and then only the row groups that hold it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from shardmig.archive.bucket_files import files_of
from shardmig.archive.files import ArchiveFiles
from shardmig.archive.handles import FieldHandle, NoSuchName, Value, WrongFieldType
from shardmig.archive.layout import archive_paths, project_folder
from shardmig.archive.places import root_of
from shardmig.archive.reader import ArchiveReader
from shardmig.archive.runs_table import runs_table
from shardmig.errors import NotFound
from shardmig.records import ArchivePaths, FieldType, ProjectId, Receipt, RunId, RunRef, Scope

__all__ = [
    "Archive",
    "FieldHandle",
    "Namespace",
    "NoSuchName",
    "Project",
    "Run",
    "Value",
    "WrongFieldType",
    "open_archive",
]


def open_archive(data_path: str | Path, files_path: str | Path | None = None) -> Archive:
    """An archive on disk or in an object store (`s3://bucket/prefix`), ours or neptune-exporter's.

    `data_path`: the folder of the project folders, or the one that holds `data` and `files`. `files_path` defaults to
    the `files` beside it. Raises NotFound if there is no such folder.
    """
    archive = archive_paths(data_path, files_path)
    if not root_of(archive.data).is_dir():
        raise NotFound(f"there is no archive at {archive.data}", hint="name the folder that holds the project folders")
    return Archive(archive)


class Archive:
    """Projects by id; iterating gives the ids."""

    def __init__(self, paths: ArchivePaths) -> None:
        self.paths = paths
        self._reader = ArchiveReader(paths)

    def __repr__(self) -> str:
        return f"<archive {self.paths.data}>"

    def __iter__(self) -> Iterator[ProjectId]:
        return self._reader.projects()

    def __getitem__(self, project: str) -> Project:
        if not project_folder(root_of(self.paths.data), project).is_dir():  # else spare the look at every run
            known = list(self)
            if project not in known:
                raise _no_such("project", project, self.paths.data, known)
        return Project(self._reader, self.paths, ProjectId(project))


class Project:
    """Runs by id; iterating gives the ids. What is no run, such as a registered model: `project.scope("registered_models")`."""

    def __init__(self, reader: ArchiveReader, paths: ArchivePaths, project: ProjectId, scope: Scope = "runs") -> None:
        self._reader, self._paths = reader, paths
        self.id = project
        self._scope: Scope = scope

    def __repr__(self) -> str:
        return f"<{self._scope} of {self.id}>"

    def __iter__(self) -> Iterator[RunId]:
        return (run.id for run in self._reader.runs(self.id, self._scope))

    def __getitem__(self, run: str) -> Run:
        ref = RunRef(project=self.id, id=RunId(run), scope=self._scope)
        try:
            published = self._reader.published(ref)
        except NotFound:
            raise _no_such(self._scope.removesuffix("s").replace("_", " "), run, self.id, self) from None
        return Run(self._reader, files_of(self._paths, self.id), self._reader.described(published, ref))

    def scope(self, scope: Scope) -> Project:
        """What the same project has of another scope: models, traces, datasets and so on."""
        return Project(self._reader, self._paths, self.id, scope)

    def runs(self) -> Iterator[Run]:
        """All runs."""
        files = files_of(self._paths, self.id)
        return (Run(self._reader, files, ref) for ref in self._reader.runs(self.id, self._scope))

    def runs_table(self, fields: str = "") -> pa.Table:
        """One row a run, one column a scalar field; `fields` is a regular expression that selects them by name.

        A field whose type differs between runs is one column for each type, named `path:type`.
        """
        return runs_table(self._reader, self._reader.runs(self.id, self._scope), fields)


class Namespace:
    """Fields below a path. Iterating gives the names right below it, each once; indexing leads on."""

    def __init__(self, run: Run, path: str) -> None:
        self._run = run
        self.path = path

    def __repr__(self) -> str:
        return f"<namespace {self.path!r} of {self._run.label}>"

    def __iter__(self) -> Iterator[str]:
        start = len(self._below)
        return iter(sorted({field.path[start:].split("/", 1)[0] for field in self.fields()}))

    def __getitem__(self, name: str) -> FieldHandle | Namespace:
        return self._run[self._below + name]

    def __contains__(self, name: str) -> bool:
        below = f"{self._below}{name}"
        return any(field.path == below or field.path.startswith(f"{below}/") for field in self.fields())

    def fields(self) -> list[FieldHandle]:
        """All fields below, at any depth, by path and type."""
        return [field for field in self._run.fields() if field.path.startswith(self._below)]

    @property
    def _below(self) -> str:
        return f"{self.path}/" if self.path else ""


class Run:
    """Fields and namespaces of one run by path; iterating gives the outermost names."""

    def __init__(self, reader: ArchiveReader, files: ArchiveFiles, ref: RunRef) -> None:
        self._reader, self._files = reader, files
        self.ref = ref
        self.id = ref.id
        self.label = ref.label

    def __repr__(self) -> str:
        return f"<run {self.label}>"

    def __iter__(self) -> Iterator[str]:
        return iter(self.namespace(""))

    def __contains__(self, path: str) -> bool:
        return path in self.namespace("")

    def __getitem__(self, path: str) -> FieldHandle | Namespace:
        """The field of that path, else the namespace. Raises NoSuchName, and WrongFieldType if two fields of different
        types have the path: `field(path, type)` tells them apart."""
        found = self._by_path.get(path, [])
        if not found and path.strip("/") in self:
            return self.namespace(path)
        return self.field(path)

    def field(self, path: str, field_type: FieldType | None = None) -> FieldHandle:
        """The field of that path (and type). Raises NoSuchName, WrongFieldType."""
        found = self._by_path.get(path, [])
        if not found:
            raise _no_such("field", path, self.label, self._by_path)
        typed = [field for field in found if field_type in (None, field.type)]
        if len(typed) == 1:
            return typed[0]
        types = " and ".join(field.type for field in found)
        raise WrongFieldType(
            f"{path!r} of {self.label} is {types}",
            run=self.label,
            field=path,
            hint=f"run.field({path!r}, {found[0].type!r})",
        )

    def namespace(self, path: str) -> Namespace:
        """Everything below a path, also where a field has that very path."""
        return Namespace(self, path.strip("/"))

    def fields(self) -> list[FieldHandle]:
        """All fields by path and type."""
        return [field for fields in self._by_path.values() for field in fields]

    def receipt(self) -> Receipt | None:
        """What was exported, and that it is whole; None for archives of neptune-exporter."""
        return self._reader.receipt(self.ref)

    @cached_property
    def _by_path(self) -> dict[str, list[FieldHandle]]:
        fields: dict[str, list[FieldHandle]] = {}
        for (path, field_type), rows in self._reader.fields(self.ref).items():
            handle = FieldHandle(self._reader, self._files, self.ref, path, field_type, rows)
            fields.setdefault(path, []).append(handle)
        return fields


def _no_such(what: str, name: str, where: str, known: Iterable[str]) -> NoSuchName:
    similar = get_close_matches(name, list(known), n=3)
    return NoSuchName(
        f"there is no {what} {name!r} in {where}" + (f"; similar: {', '.join(map(repr, similar))}" if similar else ""),
        field=name if what == "field" else "",
    )
