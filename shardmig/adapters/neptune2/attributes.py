"""One reply holds a whole run but its points and files: what of it are fields, and what is left to read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

from shardmig.records import Field, FieldType, Finding, FindingKind
from shardmig.selection import Matcher

FILES, FLOATS, TEXTS = 1, 2, 3
"""Stages of reading a run, after its fields."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NOTHING: Final = msgspec.Raw(b"{}")


class Locator(msgspec.Struct, frozen=True):
    """The server's own ids of an entity and its project."""

    entity: str
    project: str


class Reply(msgspec.Struct):
    """What getExperimentAttributes answers; each attribute is decoded by its own type, later."""

    attributes: list[dict[str, msgspec.Raw]]


class Read(NamedTuple):
    """A field that takes requests of its own. Reads of a run are sorted by stage, path and type."""

    stage: int
    path: str
    type: FieldType
    known: Any = None


class _Value(msgspec.Struct):
    value: Any = None


class _Values(msgspec.Struct):
    values: list[str]


class FileFacts(msgspec.Struct):
    """Of a file: the extension is the only name that the server keeps."""

    ext: str | None = None
    size: int | None = None


class SeriesFacts(msgspec.Struct, rename="camel"):
    """Of an image series."""

    last_step: float | None = None


class SeriesEnd(msgspec.Struct, rename="camel"):
    """Of a series of numbers or texts, which is read without it: what is no step tells nothing."""

    last_step: Any = None

    def is_behind(self, step: float) -> bool:
        """Does the server tell a step behind this one?"""
        told = self.last_step
        return isinstance(told, int | float) and told > step and not math.isclose(told, step)


class ArtifactFacts(msgspec.Struct):
    """Of an artifact."""

    hash: str | None = None


class _Commit(msgspec.Struct, frozen=True, rename="camel"):
    commit_id: str | None = None
    message: str | None = None
    author_name: str | None = None
    author_email: str | None = None
    commit_date: str | None = None


class _GitRef(msgspec.Struct, rename="camel"):
    commit: _Commit = _Commit()
    repository_dirty: bool | None = None
    current_branch: str | None = None
    remotes: list[str] | None = None


class _NotebookRef(msgspec.Struct, rename="camel"):
    notebook_id: str | None = None
    notebook_name: str | None = None
    notebook_deleted: bool | None = None
    checkpoint_id: str | None = None
    checkpoint_name: str | None = None
    checkpoint_created: str | None = None
    checkpoint_deleted: bool | None = None


class Contents(NamedTuple):
    """Of one run: wanted fields and reads, sorted, and what was noticed."""

    fields: list[Field]
    reads: list[Read]
    modified_ms: int | None
    findings: list[Finding]


def contents_of(reply: Reply, matcher: Matcher) -> Contents:
    """Sort out the attributes of a run. What cannot be understood is a loss of that field, never of the run."""
    findings: list[Finding] = []
    fields: dict[tuple[str, FieldType], Field] = {}
    facts: list[Field] = []
    reads: list[Read] = []
    modified_ms: int | None = None
    for path, kind, properties in sorted(map(_attribute, reply.attributes), key=lambda one: one[:2]):
        try:
            found = list(_understood(path, kind, properties))
        except (msgspec.ValidationError, ValueError, OverflowError) as error:
            findings += _if_wanted(matcher, Finding("loss", "bad-value", path, detail=f"{kind}: {error}"))
            continue
        if not found:
            findings += _if_wanted(matcher, Finding(*_without_value(kind), path, detail=kind))
        for one in found:
            if path == "sys/modification_time" and isinstance(one, Field):
                modified_ms = int(str(one.value))
            if matcher.wants_field(one.path, one.type):
                if isinstance(one, Read):
                    reads.append(one)
                elif one.path != path:
                    facts.append(one)
                else:
                    fields[one.path, one.type] = one
    for fact in facts:
        held = fields.setdefault((fact.path, fact.type), fact)
        if held.value != fact.value:
            detail = f"of {fact.path.rpartition('/')[0]}: {fact.value}; a field of the run has its name"
            findings.append(Finding("loss", "bad-value", fact.path, detail=detail))
    reads.sort(key=lambda one: one[:3])
    return Contents([fields[key] for key in sorted(fields)], reads, modified_ms, findings)


def milliseconds(moment: datetime) -> int:
    """Epoch milliseconds; a moment without zone is UTC, as all of Neptune's are."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(milliseconds=1)


def _attribute(attribute: dict[str, msgspec.Raw]) -> tuple[str, str, msgspec.Raw]:
    path, kind = (msgspec.json.decode(attribute[name], type=str) for name in ("name", "type"))
    properties = attribute.get(f"{kind}Properties", _NOTHING)
    return path, kind, _NOTHING if bytes(properties) == b"null" else properties


def _if_wanted(matcher: Matcher, finding: Finding) -> list[Finding]:
    """The finding, if its field may have been selected: of what is not understood, the class is not known."""
    wanted = any(matcher.wants_field(finding.field, type_) for type_ in _ONE_OF_EACH_CLASS)
    return [finding] if wanted else []


def _without_value(kind: str) -> tuple[FindingKind, str]:
    return ("gap", "field-without-value") if kind in _UNDERSTAND else ("loss", "unknown-type")


def _understood(path: str, kind: str, properties: msgspec.Raw) -> Iterator[Field | Read]:
    understand = _UNDERSTAND.get(kind)
    return understand(path, properties) if understand is not None else iter(())


def _scalar(type_: FieldType, convert: Callable[[Any], Any]) -> Callable[[str, msgspec.Raw], Iterator[Field | Read]]:
    def understand(path: str, properties: msgspec.Raw) -> Iterator[Field | Read]:
        value = msgspec.json.decode(properties, type=_Value).value
        if value is not None:
            yield Field(path, type_, convert(value))

    return understand


def _facts(struct: type[msgspec.Struct]) -> Callable[[str, msgspec.Raw], Iterator[Field | Read]]:
    """A reference of several facts: a field for each, below its path."""

    def understand(path: str, properties: msgspec.Raw) -> Iterator[Field | Read]:
        known = msgspec.json.decode(properties, type=struct)
        yield from _fields_of(path, known)

    return understand


def _fields_of(path: str, known: msgspec.Struct) -> Iterator[Field]:
    for name in known.__struct_fields__:
        value = getattr(known, name)
        if isinstance(value, msgspec.Struct):
            yield from _fields_of(f"{path}/{name}", value)
        elif isinstance(value, list):
            yield Field(f"{path}/{name}", "string_set", sorted(set(value)))
        elif isinstance(value, bool):
            yield Field(f"{path}/{name}", "bool", value)
        elif value is not None and name in _MOMENTS:
            yield Field(f"{path}/{name}", "datetime", _moment(value))
        elif value is not None:
            yield Field(f"{path}/{name}", "string", value)


def _later(
    stage: int, type_: FieldType, struct: type[msgspec.Struct]
) -> Callable[[str, msgspec.Raw], Iterator[Field | Read]]:
    def understand(path: str, properties: msgspec.Raw) -> Iterator[Field | Read]:
        known = msgspec.json.decode(properties, type=struct)
        yield Read(stage, path, type_, known)
        if isinstance(known, ArtifactFacts) and known.hash:
            yield Field(f"{path}/hash", "string", known.hash)

    return understand


def _integer(value: Any) -> int:
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise ValueError(f"{value!r} is no integer of 64 bits")
    return value


def _float(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is no number")  # noqa: TRY004 (a wrong value, caught as one)
    return float(value)


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")  # noqa: TRY004
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")  # noqa: TRY004
    return value


def _moment(value: Any) -> int:
    return milliseconds(datetime.fromisoformat(_text(value)))


def _string_set(path: str, properties: msgspec.Raw) -> Iterator[Field | Read]:
    yield Field(path, "string_set", sorted(set(msgspec.json.decode(properties, type=_Values).values)))


class _NoFacts(msgspec.Struct):
    """Of file sets, nothing is needed before they are read."""


_MOMENTS: Final = frozenset({"commit_date", "checkpoint_created"})
_ONE_OF_EACH_CLASS: Final[tuple[FieldType, ...]] = ("string", "float_series", "string_series", "file")
_UNDERSTAND: Final[dict[str, Callable[[str, msgspec.Raw], Iterator[Field | Read]]]] = {
    "int": _scalar("int", _integer),
    "float": _scalar("float", _float),
    "string": _scalar("string", _text),
    "bool": _scalar("bool", _bool),
    "datetime": _scalar("datetime", _moment),
    "experimentState": _scalar("string", _text),
    "stringSet": _string_set,
    "gitRef": _facts(_GitRef),
    "notebookRef": _facts(_NotebookRef),
    "file": _later(FILES, "file", FileFacts),
    "fileSet": _later(FILES, "file_set", _NoFacts),
    "imageSeries": _later(FILES, "file_series", SeriesFacts),
    "artifact": _later(FILES, "artifact", ArtifactFacts),
    "floatSeries": _later(FLOATS, "float_series", SeriesEnd),
    "stringSeries": _later(TEXTS, "string_series", SeriesEnd),
}
