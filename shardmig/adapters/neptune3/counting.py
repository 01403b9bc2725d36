"""What a server of Neptune 3.x counts: the fields of a run, the points of its float series, and its own diagnostics."""

from __future__ import annotations

from typing import Final

from shardmig.adapters.counts import FieldCount, ServerCounts
from shardmig.adapters.neptune3.points import SeriesQuestions
from shardmig.adapters.neptune3.survey import Survey
from shardmig.records import Field, FieldType

_DIAGNOSTICS: Final = "sys/diagnostics/attributes/"
_TOTALS: Final = {"total_count": "fields", "total_series_datapoints": "points"}
_FILES: Final = {"file_ref": "file", "file_ref_series": "file_series"}


def counts(survey: Survey, questions: SeriesQuestions) -> ServerCounts:
    """Of the fields of a survey. Of string, histogram and file series the server counts nothing; one that a fork may
    have inherited wholly is left out."""
    found = [FieldCount(field.path, field.type, 1) for field in survey.scalars]
    found += [FieldCount(path, "file", 1) for path in survey.files]
    rows = questions.count_floats(list(survey.series.get("float_series", {})))
    found += [FieldCount(path, "float_series", count) for path, count in rows.items()]
    others: tuple[FieldType, ...] = ("string_series", "histogram_series", "file_series")
    for kind in others:
        series = survey.series.get(kind, {})
        found += [FieldCount(path, kind, None) for path, facts in series.items() if facts.must_end_at is not None]
    return ServerCounts(found, dict(filter(None, map(_total, survey.scalars))))


def _total(field: Field) -> tuple[str, int] | None:
    if not field.path.startswith(_DIAGNOSTICS) or not isinstance(field.value, int):
        return None
    name = field.path.removeprefix(_DIAGNOSTICS)
    if name in _TOTALS:
        return _TOTALS[name], field.value
    kind = name.removesuffix("_count")
    return _FILES.get(kind, kind), field.value
