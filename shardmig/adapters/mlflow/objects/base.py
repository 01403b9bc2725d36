"""What one class of objects can do: be listed, be told as fields, be made from fields."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from shardmig.adapters.base import FileStore
from shardmig.adapters.mlflow.facts import PROVENANCE
from shardmig.adapters.sidecar.uploads import Artifacts
from shardmig.adapters.wrappers import retrying
from shardmig.errors import NotFound, Permanent
from shardmig.records import (
    Field,
    FileRef,
    Finding,
    MigrationKey,
    Points,
    ProjectId,
    RunId,
    RunRef,
    Scope,
    StringPoints,
)

REGISTRY: Final = ProjectId("registry")
"""The project of what belongs to no experiment: registered models, prompts, evaluation datasets."""

TAGS: Final = "tags/"
LINKING: Final = "linking"
"""The state of an object that is whole, but for its last step. It is gone on with, not made anew."""
SERIES_POINTS: Final = 1000
"""Of a string series in one chunk: spans and records may be large."""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """One object as MLflow has it. `id` is MLflow's own; `project` and `name` are what it is called in an archive.
    `content` is the vendor's entity, `revision` a text that changes when the object does, `after` another object of the
    class that must be made first. `beyond` is a digest of what it holds that no field tells, as far as people add to it."""

    id: str
    project: ProjectId
    name: RunId
    tags: dict[str, str]
    content: Any
    revision: str
    created_ms: int | None = None
    is_deleted: bool = False
    after: RunId | None = None
    beyond: str = ""


class Tree(NamedTuple):
    """Files of an object: everything below `uri` but `without` belongs below the field path `folder`."""

    folder: str
    uri: str
    without: frozenset[str] = frozenset()


class Facts:
    """The scalar fields of one object, ready to be looked up."""

    def __init__(self, run: RunRef, fields: Iterable[Field]) -> None:
        self.run = run
        self.fields = list(fields)
        self._values = {field.path: field.value for field in self.fields}

    def text(self, path: str) -> str:
        """A text; "" = none."""
        value = self._values.get(path)
        return value if isinstance(value, str) else ""

    def number(self, path: str) -> int | None:
        """An integer or a time."""
        value = self._values.get(path)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def holds(self, path: str) -> bool:
        """Is it true?"""
        return self._values.get(path) is True

    def texts(self, folder: str) -> dict[str, str]:
        """All texts below a folder, by the rest of their paths."""
        return {
            path.removeprefix(folder): value
            for path, value in self._values.items()
            if path.startswith(folder) and isinstance(value, str)
        }

    def numbers(self, folder: str) -> dict[str, int]:
        """All integers below a folder, by the rest of their paths."""
        names = (path.removeprefix(folder) for path in self._values if path.startswith(folder))
        return {name: number for name in names if (number := self.number(folder + name)) is not None}

    def set(self, path: str) -> list[str]:
        """A set of texts."""
        value = self._values.get(path)
        return value if isinstance(value, list) else []

    def below(self, folder: str) -> list[str]:
        """The names directly below a folder; numbers in their order."""
        names = {path.removeprefix(folder).partition("/")[0] for path in self._values if path.startswith(folder)}
        return sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))


class Making(NamedTuple):
    """What an object is made of, and with: tags of shardmig's own, the chunks behind the fields, and their files.
    `refs` must be taken before `points`: so they come. `lost`, once they are taken: had the source lost some?
    `is_left_alone`, of what is merged: did nobody change what is there since it was written?"""

    facts: Facts
    tags: dict[str, str]
    refs: Iterable[FileRef]
    points: Iterable[Points]
    files: FileStore
    lost: Callable[[], bool]
    is_left_alone: bool = True


class ObjectClass(Protocol):
    """One class of objects. Raises AdapterError classes and the vendor's own exceptions, which the caller translates."""

    scope: Scope
    is_linked: bool
    """Does `link` do anything?"""
    keeps_id: bool
    """Has a copy the id of the original?"""
    completes: bool
    """Does `merge` make every reference that came since? Otherwise it takes making the object anew."""

    def all(self) -> Iterator[Stored]:
        """Every object, page by page, deleted experiments' too."""
        ...

    def find(self, key: MigrationKey) -> list[Stored]:
        """Those that carry this key."""
        ...

    def get(self, id_: str) -> Stored:
        """One object. Raises NotFound."""
        ...

    def fields(self, stored: Stored) -> Iterator[Field]:
        """Its scalar fields, without tags of shardmig's own."""
        ...

    def points(self, stored: Stored) -> Iterator[Points]:
        """Its series, in the order of their paths."""
        ...

    def trees(self, stored: Stored) -> Iterator[Tree]:
        """Where its files lie."""
        ...

    def is_volatile(self, path: str) -> bool:
        """Does MLflow change this field by itself, whenever the object is written to?"""
        ...

    def is_own(self, path: str) -> bool:
        """Can nobody give MLflow this field: ids, times, locations, references by MLflow's own ids?"""
        ...

    def make(self, making: Making) -> tuple[Stored, list[Finding]]:
        """A new object of these fields, marked with the tags from its first moment on. References that lead to
        nothing here are findings. Raises TargetConflict where something else stands in its place."""
        ...

    def merge(self, stored: Stored, making: Making) -> tuple[Stored, list[Finding]]:
        """Make an object that is there into one of these fields, as far as MLflow lets it be changed; what it has beyond
        them stays. Idempotent. As `make` otherwise."""
        ...

    def link(self, stored: Stored, old: RunId) -> None:
        """Last of all: let what is here already refer to it. `old`: its id in the source. Idempotent."""
        ...

    def tag(self, stored: Stored, tags: Mapping[str, str]) -> None:
        """Set tags of shardmig's own."""
        ...

    def discard(self, stored: Stored) -> None:
        """Remove it, so that `find` does not find it."""
        ...


def upload(artifacts: Artifacts, making: Making, folder: str) -> Iterator[Finding]:
    """Put the files whose fields are below `folder` where they belong; what cannot be put is a loss."""
    for ref in making.refs:
        try:
            local = making.files.path(ref)
            retrying(lambda local=local, ref=ref: artifacts.put(local, ref.path.removeprefix(folder)))  # type: ignore[misc]
        except Permanent as error:
            code = "file-missing" if isinstance(error, NotFound) else "file-refused"
            yield Finding("loss", code, ref.path, detail=error.message)


def texts_of(points: Iterable[Points]) -> Iterator[str]:
    """The texts of all string points."""
    for part in points:
        if isinstance(part, StringPoints):
            yield from part.values.to_list()


def json_of(value: Any, *, sort_keys: bool = False, cls: type[json.JSONEncoder] | None = None) -> str:
    """As JSON, for people to read. A lone surrogate, which has no UTF-8, is escaped, and all that is not ASCII with it."""
    text = json.dumps(value, sort_keys=sort_keys, ensure_ascii=False, cls=cls)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, sort_keys=sort_keys, cls=cls)
    return text


def scalars(values: Mapping[str, Any]) -> Iterator[Field]:
    """Texts, integers and truths as fields; what is empty is left out."""
    for path, value in values.items():
        if value is None or value == "":
            continue
        kind = "bool" if isinstance(value, bool) else "int" if isinstance(value, int) else "string"
        yield Field(path, kind, value)  # type: ignore[arg-type]


def times(values: Mapping[str, int | None]) -> Iterator[Field]:
    """Times in milliseconds as fields."""
    yield from (Field(path, "datetime", int(value)) for path, value in values.items() if value is not None)


def tag_fields(folder: str, tags: Mapping[str, str]) -> Iterator[Field]:
    """Tags as fields, but shardmig's own."""
    yield from (
        Field(folder + key, "string", text or "") for key, text in tags.items() if not key.startswith(PROVENANCE)
    )
