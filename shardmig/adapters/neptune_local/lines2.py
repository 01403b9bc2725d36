"""Decodes lines of a 1.x log.

A block of lines is decoded at once; a block that is refused is decoded line by line, and such a line with the
standard library's lenient decoder, which is what the client itself reads with. What stays unreadable becomes a
`Trouble` record in its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from json import JSONDecodeError, JSONDecoder
from typing import Any, Final

import msgspec

from shardmig.adapters.neptune_local.operations2 import (
    BAD_RECORD,
    CUT_RECORD,
    Problem,
    Record,
    Trouble,
    name_of_unknown,
)

_decoder: Final = msgspec.json.Decoder(list[Record])
_line_decoder: Final = msgspec.json.Decoder(Record)
_lenient: Final = JSONDecoder(strict=False)


def decode_block(block: bytes, file: str, line: int, *, is_tail: bool) -> Sequence[Record | Trouble]:
    """The records of whole lines, of which the first is number `line` of `file`. `is_tail`: nothing follows, so the
    last line may be cut."""
    body = block[:-1] if block.endswith(b"\n") else block
    try:
        return _decoder.decode(b"[" + body.replace(b"\n", b",") + b"]")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        lines = body.split(b"\n")
    records: list[Record | Trouble] = []
    for number, text in enumerate(lines):
        try:
            records.append(_line_decoder.decode(text))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            last = is_tail and number == len(lines) - 1
            records += _decode_leniently(text, f"{file}:{line + number}", last)
    return records


def _decode_leniently(line: bytes, where: str, is_tail: bool) -> list[Record | Trouble]:
    """Whole records of a line that may hold a cut one before, behind or between them. What is no record is one
    `Trouble` for the whole line, where it was met first."""
    if not line.strip(b"\0\r\n\t "):
        return []
    text = line.decode("utf-8", "surrogateescape")
    found: list[Record | Trouble] = []
    if not line.isascii() and not _is_utf8(line):
        found.append(Trouble(Problem("loss", "bad-bytes", where)))
    bad_at, start = -1, 0
    while 0 <= start < len(text):
        try:
            value, end = _lenient.raw_decode(text, start) if text[start] == "{" else (None, start)
            records = list(_convert(value, where))
        except (JSONDecodeError, RecursionError):
            end, records = start, []
        if records:
            found += records
            start = end + len(text[end:]) - len(text[end:].lstrip("\0\r\n\t "))
        else:
            bad_at = len(found) if bad_at < 0 else bad_at
            start = text.find('{"obj"', max(end, start + 1))
    if bad_at >= 0:
        is_cut = is_tail and start < 0
        problem = Problem("gap", CUT_RECORD, where) if is_cut else Problem("loss", BAD_RECORD, where, line)
        found.insert(bad_at, Trouble(problem))
    return found


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _convert(value: Any, where: str) -> Iterator[Record | Trouble]:
    """The record that a JSON value is; nothing if it is none."""
    try:
        repaired = _without_surrogates(value)
        record = msgspec.convert(repaired, Record)
    except (msgspec.ValidationError, RecursionError):
        name = name_of_unknown(value)
        if name is not None:
            version, at = value.get("version"), value.get("at")
            problem = Problem("loss", "unknown-operation", _without_surrogates(name))
            yield Trouble(problem, version if isinstance(version, int) else 0, at if isinstance(at, float) else None)
    else:
        if repaired != value:
            yield Trouble(Problem("approximation", "lone-surrogate", where))
        yield record


def _without_surrogates(value: Any) -> Any:
    """Lone surrogates have no UTF-8: U+FFFD takes their place."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(one) for one in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(one) for key, one in value.items()}
    return value
