"""Differences that need no streaming: scalar fields, files, run facts. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from itertools import zip_longest
from typing import Final

from shardmig.archive.digest import plain_step
from shardmig.records import FILE_TYPES, NO_TIME, Field, FieldDigest, FieldType, FileRef, Finding

FieldKey = tuple[str, FieldType]
Small = Field | FileRef
_Identity = tuple[str, str, bool, Decimal]

SHOWN: Final = 3
_PREVIEW: Final = 80
_LINEAGE_WORDS: Final = ("parent", "fork")
_FACT_CODES: Final = {
    "status": "status-differs",
    "start_time": "times-differ",
    "end_time": "times-differ",
    "name": "name-differs",
}


def only_one_has_it(key: FieldKey, expected: FieldDigest | None, found: FieldDigest | None) -> Finding | None:
    """field-missing, field-extra, file-missing or file-extra; None if both have the field."""
    if (expected is None) == (found is None):
        return None
    path, field_type = key
    rows = expected.rows if expected is not None else found.rows if found is not None else 0
    noun = "file" if field_type in FILE_TYPES else "field"
    detail = f"{field_type}, {rows} rows" if rows > 1 else field_type
    return Finding("loss", f"{noun}-missing" if found is None else f"{noun}-extra", path, rows, detail)


def retyped(
    expected: Mapping[FieldKey, FieldDigest], found: Mapping[FieldKey, FieldDigest], suspects: Iterable[FieldKey]
) -> dict[str, Finding]:
    """type-differs, by path: the archive has the path in one type and the target in another."""
    ours = {key for key in suspects if key not in found}
    theirs = {key for key in suspects if key not in expected}
    differing: dict[str, Finding] = {}
    for path in sorted({path for path, _ in ours} & {path for path, _ in theirs}):
        wanted, got = (", ".join(sorted(kind for name, kind in side if name == path)) for side in (ours, theirs))
        differing[path] = Finding("loss", "type-differs", path, 1, f"expected {wanted}, found {got}")
    return differing


def small_differences(expected: Iterable[Small], found: Iterable[Small]) -> Iterator[Finding]:
    """What differs between scalars and files, a finding for each field and code."""
    ours, theirs = (_by_identity(side) for side in (expected, found))
    shown: dict[tuple[str, str], list[str]] = {}
    for identity in sorted(ours.keys() | theirs.keys()):
        for one, other in _unlike(ours.get(identity, []), theirs.get(identity, [])):
            for code, detail in _changes(one, other):
                shown.setdefault((identity[0], code), []).append(_at_step(one or other) + detail)
    for (path, code), details in shown.items():
        yield Finding("loss", code, path, len(details), "; ".join(details[:SHOWN]))


def fact_differences(expected: Mapping[str, str], found: Mapping[str, str]) -> Iterator[Finding]:
    """What differs between the run facts. A tag that only the target has is a note: users add tags."""
    for name in sorted(expected.keys() | found.keys()):
        wanted, got = expected.get(name), found.get(name)
        if wanted == got:
            continue
        if wanted is None and name.startswith("tag:"):
            yield Finding("note", "tag-extra", name, detail=f"found {preview(got or '')}")
            continue
        shown = [text if text is None else _fact(name, text) for text in (wanted, got)]
        detail = f"expected {shown[0] or 'nothing'}, found {shown[1] or 'nothing'}"
        yield Finding("loss", _fact_code(name, got), name, detail=detail)


def text_change(expected: str, found: str) -> str:
    """Both texts where they begin to differ."""
    common = next(
        (at for at, (one, other) in enumerate(zip(expected, found, strict=False)) if one != other),
        min(len(expected), len(found)),
    )
    if common < _PREVIEW:
        return f"expected {preview(expected)}, found {preview(found)}"
    start = common - 10
    return f"from character {common}: expected …{preview(expected[start:])}, found …{preview(found[start:])}"


def preview(text: str) -> str:
    """A text as findings show it: quoted, and cut with its length told."""
    return repr(text) if len(text) <= _PREVIEW else f"{text[:_PREVIEW]!r}… ({len(text)} characters)"


def time_text(time_ms: int | None) -> str:
    """A time as findings show it."""
    if time_ms is None or time_ms == NO_TIME:
        return "no time"
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms"


def _fact_code(name: str, found: str | None) -> str:
    if any(word in name.lower() for word in _LINEAGE_WORDS):
        return "lineage-differs"
    if name.startswith("tag:"):
        return "tag-missing" if found is None else "tag-differs"
    return _FACT_CODES.get(name, "fact-differs")


def _fact(name: str, text: str) -> str:
    return time_text(int(text)) if name.endswith("_time") and text.lstrip("-").isdigit() else preview(text)


def _by_identity(side: Iterable[Small]) -> dict[_Identity, list[Small]]:
    found: dict[_Identity, list[Small]] = {}
    for small in side:
        found.setdefault(_identity(small), []).append(small)
    return found


def _unlike(ours: list[Small], theirs: list[Small]) -> Iterator[tuple[Small | None, Small | None]]:
    """Pairs of what only one side has: a series of files may have several at one step."""
    same = Counter(map(_content_of, ours)) & Counter(map(_content_of, theirs))
    left = [sorted(_without(side, same), key=_content_of) for side in (ours, theirs)]
    yield from zip_longest(*left)


def _without(side: list[Small], same: Counter[tuple[str, ...]]) -> Iterator[Small]:
    again = Counter(same)
    for small in side:
        again[_content_of(small)] -= 1
        if again[_content_of(small)] < 0:
            yield small


def _content_of(small: Small) -> tuple[str, ...]:
    """All that is compared."""
    if isinstance(small, Field):
        return type(small.value).__name__, repr(small.value)
    return small.name, str(small.time_ms), small.sha256, str(small.is_tree)


def _identity(small: Small) -> _Identity:
    step = small.step if isinstance(small, FileRef) else None
    return small.path, small.type, step is not None, step if step is not None else Decimal(0)


def _at_step(small: Small | None) -> str:
    return f"step {plain_step(small.step)}: " if isinstance(small, FileRef) and small.step is not None else ""


def _changes(one: Small | None, other: Small | None) -> Iterator[tuple[str, str]]:
    match one, other:
        case Field(), Field():
            if type(one.value) is not type(other.value) or repr(one.value) != repr(other.value):
                yield "values-differ", _value_change(one, other)
        case FileRef(), FileRef():
            if one.sha256 != other.sha256 or one.is_tree != other.is_tree:
                yield "file-differs", f"expected {_content(one)}, found {_content(other)}"
            if one.name != other.name:
                yield "file-name-differs", f"expected {preview(one.name)}, found {preview(other.name)}"
            if one.time_ms != other.time_ms:
                yield "times-differ", f"expected {time_text(one.time_ms)}, found {time_text(other.time_ms)}"
        case FileRef(), None:
            yield "file-missing", _content(one)
        case None, FileRef():
            yield "file-extra", _content(other)
        case Field(), None:
            yield "field-missing", preview(str(one.value))
        case None, Field():
            yield "field-extra", preview(str(other.value))


def _value_change(one: Field, other: Field) -> str:
    if isinstance(one.value, str) and isinstance(other.value, str):
        return text_change(one.value, other.value)
    if one.type == "datetime" and isinstance(one.value, int) and isinstance(other.value, int):
        return f"expected {time_text(one.value)}, found {time_text(other.value)}"
    return f"expected {preview(repr(one.value))}, found {preview(repr(other.value))}"


def _content(ref: FileRef) -> str:
    size = f"{ref.size_bytes} bytes" if ref.size_bytes >= 0 else "unknown size"
    return f"{'a tree of ' if ref.is_tree else ''}{size}, sha256 {ref.sha256[:12] or 'unknown'}"
