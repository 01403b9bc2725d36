"""What a run holds: its single values, typed, and the names of its series and files. One request for 10,000 fields."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final, NamedTuple

from shardmig.adapters.neptune3.client import Client
from shardmig.adapters.neptune3.protocol import body, layer, parsed
from shardmig.errors import BadInput, NotFound, Transient
from shardmig.records import Field, FieldType, Finding, FindingKind, RunRef, Selection
from shardmig.selection import Matcher

_FIELDS_PER_PAGE: Final = 10_000
_MOST_NAME_BYTES: Final = 60_000
_TYPES: Final[dict[str, FieldType]] = {
    "int": "int",
    "float": "float",
    "string": "string",
    "bool": "bool",
    "datetime": "datetime",
    "stringSet": "string_set",
    "floatSeries": "float_series",
    "stringSeries": "string_series",
    "histogramSeries": "histogram_series",
    "fileRef": "file",
    "fileRefSeries": "file_series",
}
_NOT_OFFERED: Final = ("experimentState", "gitRef")
"""Runs that were made with a 2.x client have them, sys/state for one. The protocol has no place for their values."""
_PROPERTIES: Final[dict[FieldType, str]] = {
    "int": "int_properties",
    "float": "float_properties",
    "string": "string_properties",
    "bool": "bool_properties",
    "datetime": "datetime_properties",
    "string_set": "string_set_properties",
    "float_series": "float_series_properties",
    "string_series": "string_series_properties",
    "histogram_series": "histogram_series_properties",
    "file": "file_ref_properties",
    "file_series": "file_ref_series_properties",
}


class SeriesFacts(NamedTuple):
    """What the server says of a series beside its points. `must_end_at`: a step that its own points must reach."""

    must_end_at: float | None
    has_previews: bool


class FileFacts(NamedTuple):
    """Where the server's object store keeps a file."""

    location: str
    size_bytes: int
    mime_type: str


class Survey:
    """The selected fields of one run."""

    def __init__(self, matcher: Matcher, *, whole_lineage: bool) -> None:
        self.scalars: list[Field] = []
        self.series: dict[FieldType, dict[str, SeriesFacts]] = {}
        self.files: dict[str, FileFacts] = {}
        self.findings: list[Finding] = []
        self._matcher = matcher
        self._whole_lineage = whole_lineage
        self._seen: set[tuple[str, str]] = set()
        self._fork_step: float | None = None

    def add(self, attribute: Any) -> None:
        """Take one attribute of the run; repetitions (pages of a run that grows) are passed over."""
        path, kind = attribute.name, _TYPES.get(attribute.type)
        if (path, attribute.type) in self._seen:
            return
        self._seen.add((path, attribute.type))
        if path == "sys/forking/step":
            self._fork_step = float(attribute.float_properties.value or attribute.int_properties.value)
        if kind is None:
            self._add_unknown(path, attribute.type)
        elif self._matcher.wants_field(path, kind):
            if not attribute.HasField(_PROPERTIES[kind]):
                self._find("note", "field-without-value", path, "the server lists it and gives no value")
            elif kind == "file":
                reference = attribute.file_ref_properties
                self.files[path] = FileFacts(reference.path, reference.sizeBytes, reference.mimeType)
            elif kind.endswith("_series"):
                properties = getattr(attribute, _PROPERTIES[kind])
                self.series.setdefault(kind, {})[path] = _series_facts(kind, properties)
            else:
                value = getattr(attribute, _PROPERTIES[kind]).value
                self.scalars.append(Field(path, kind, sorted(set(value)) if kind == "string_set" else value))

    def finish(self, *, with_previews: bool) -> None:
        """All attributes were added: bring them into order, and draw conclusions that need all of them."""
        self.scalars.sort(key=lambda field: (field.path, field.type))
        self.files = dict(sorted(self.files.items()))
        self.series = {kind: dict(sorted(found.items())) for kind, found in self.series.items()}
        if self._fork_step is not None and not self._whole_lineage:
            self._relax(self._fork_step)
            self._find(
                "note", "inherited-left-out", "", "points up to the fork are in the parent; --source-option lineage=yes"
            )
        previews = [path for path, facts in self.series.get("float_series", {}).items() if facts.has_previews]
        for path in [] if with_previews else previews:
            self._find("note", "previews-left-out", path, "never committed points; --source-option metric-previews=yes")

    def _relax(self, fork_step: float) -> None:
        """Series of a fork that end at or before its step have inherited points only: none of its own is missing."""
        for found in self.series.values():
            for path, facts in found.items():
                if facts.must_end_at is not None and facts.must_end_at <= fork_step:
                    found[path] = facts._replace(must_end_at=None)

    def _add_unknown(self, path: str, kind: str) -> None:
        if not self._matcher.wants_field(path, "string"):
            return
        if kind in _NOT_OFFERED:
            self._find("gap", "value-not-offered", path, f"the server gives no values of type {kind!r}")
        else:
            self._find("loss", "unknown-type", path, f"type {kind!r}")

    def _find(self, kind: FindingKind, code: str, path: str, detail: str) -> None:
        self.findings.append(Finding(kind, code, path, 1, detail))


def read_survey(client: Client, run: RunRef, matcher: Matcher, *, lineage: bool, previews: bool) -> Survey:
    """What the run holds of what is selected. Raises NotFound if the server no longer knows the run."""
    survey = Survey(matcher, whole_lineage=lineage)
    is_known = False
    for attribute in _attributes_of_any_type(client, run, _names(matcher.selection)):
        is_known = True
        survey.add(attribute)
    if not is_known:
        raise NotFound(f"the server has no attributes of {run.locator}", run=run.label, hint="was it deleted?")
    survey.finish(with_previews=previews)
    return survey


def is_answered_for(client: Client, run: RunRef) -> bool:
    """Is the server well, and does it know the run?"""
    try:
        return next(_attributes_of_any_type(client, run, ["sys/id"]), None) is not None
    except Transient:
        return False


def _names(selection: Selection) -> list[str]:
    """What to ask for by name: exact names that are selected, and what a survey itself needs. Empty = everything."""
    names = [*selection.attributes, "sys/id", "sys/forking/step"] if len(selection.attributes) > 1 else []
    return names if sum(len(name.encode()) for name in names) <= _MOST_NAME_BYTES else []


def _attributes_of_any_type(client: Client, run: RunRef, names: list[str]) -> Iterator[Any]:
    """Types are not named, so that none stays unseen. A server that wants them named, as the vendor's client does, is
    asked for all that the client knows."""
    is_answered = False
    try:
        for attribute in _attributes(client, run, names, []):
            is_answered = True
            yield attribute
    except BadInput:
        if is_answered:
            raise
    if not is_answered:
        yield from _attributes(client, run, names, [kind.value for kind in layer("models").AttributeTypeDTO])


def _attributes(client: Client, run: RunRef, names: list[str], kinds: list[str]) -> Iterator[Any]:
    page: dict[str, Any] = {"limit": _FIELDS_PER_PAGE}
    while True:
        asked: dict[str, Any] = {"experimentIdsFilter": [f"{run.project}/{run.locator}"], "nextPage": page}
        if names:
            asked["attributeNamesFilter"] = names
        if kinds:
            asked["attributeFilter"] = [{"attributeType": kind} for kind in kinds]
        answer = client.ask(
            f"fields of {run.label}",
            "retrieval.query_attributes_within_project_proto",
            partial(parsed, "attributes.ProtoQueryAttributesResultDTO"),
            project_identifier=run.project,
            body=body("QueryAttributesBodyDTO", asked),
        )
        for entry in answer.entries:
            yield from entry.attributes
        if not answer.nextPage.nextPageToken:
            return
        page = {"limit": _FIELDS_PER_PAGE, "nextPageToken": answer.nextPage.nextPageToken}


def _series_facts(kind: FieldType, properties: Any) -> SeriesFacts:
    has_previews = kind == "float_series" and properties.has_preview
    ends = properties.last_step if properties.HasField("last_step") and not has_previews else None
    return SeriesFacts(ends, has_previews)
