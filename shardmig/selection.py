"""What a selection selects. The one place that knows what each option means."""

from __future__ import annotations

import re
from functools import lru_cache

from shardmig.errors import UsageError
from shardmig.records import FieldClass, FieldType, RunRef, Selection

_CLASS_OF: dict[FieldType, FieldClass] = {
    "int": "parameters",
    "float": "parameters",
    "string": "parameters",
    "bool": "parameters",
    "datetime": "parameters",
    "string_set": "parameters",
    "float_series": "metrics",
    "string_series": "series",
    "histogram_series": "series",
    "file": "files",
    "file_series": "files",
    "file_set": "files",
    "artifact": "files",
}


def class_of(field_type: FieldType) -> FieldClass:
    """Which class of neptune-exporter's -c/--classes a type belongs to."""
    return _CLASS_OF[field_type]


class Matcher:
    """A selection made ready to ask. Raises UsageError for a regular expression that does not compile."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self._projects = frozenset(selection.projects)
        self._run_ids = frozenset(selection.run_ids)
        self._runs = _compile("--runs", selection.runs)
        attributes = selection.attributes
        self._attribute_regex = _compile("--attributes", attributes[0]) if len(attributes) == 1 else None
        self._attribute_paths = frozenset(attributes) if len(attributes) > 1 else None
        self._excluded = _compile("--exclude-attributes", selection.exclude_attributes)
        self._classes = frozenset(selection.classes)
        self.takes_every_field = not attributes and self._excluded is None and len(self._classes) == 4

    def wants_project(self, project: str) -> bool:
        """Is this project selected?"""
        return not self._projects or project in self._projects

    def wants_run(self, run: RunRef) -> bool:
        """Is this run selected? A run without creation time is outside every time window."""
        selection = self.selection
        if not self.wants_project(run.project) or (self._run_ids and run.id not in self._run_ids):
            return False
        if self._runs is not None and not self._runs.search(run.id):
            return False
        if run.archived and not selection.include_archived:
            return False
        after, before = selection.created_after_ms, selection.created_before_ms
        if after is not None and (run.created_ms is None or run.created_ms < after):
            return False
        return before is None or (run.created_ms is not None and run.created_ms < before)

    def wants_field(self, path: str, field_type: FieldType) -> bool:
        """Is this field selected?"""
        if self.takes_every_field:
            return True
        if _CLASS_OF[field_type] not in self._classes:
            return False
        if self._attribute_paths is not None and path not in self._attribute_paths:
            return False
        if self._attribute_regex is not None and not self._attribute_regex.search(path):
            return False
        return self._excluded is None or not self._excluded.search(path)


@lru_cache(maxsize=256)
def _compile(option: str, expression: str) -> re.Pattern[str] | None:
    if not expression:
        return None
    try:
        return re.compile(expression)
    except re.error as error:
        raise UsageError(f"{option}: {expression!r} is not a regular expression: {error}") from error
