"""How numbers, names and times are written for people, on a terminal and on a page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def printable(text: str) -> str:
    """Text that cannot control a terminal: whatever has no glyph (controls, escapes, line breaks, direction marks,
    lone surrogates) is written as its escape sequence. Ordinary names stay as they are."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def count(number: int) -> str:
    """An integer with thousands separators."""
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """1 run, 2 runs."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def size(size_bytes: float) -> str:
    """Bytes in decimal units: 512 B, 1.5 MB."""
    if size_bytes < 1000:
        return f"{size_bytes:.0f} B"
    for unit in ("kB", "MB", "GB", "TB"):
        size_bytes /= 1000
        if size_bytes < 999.95:
            return f"{size_bytes:.1f} {unit}"
    return f"{size_bytes / 1000:.1f} PB"


def duration(seconds: float) -> str:
    """0.4 s, 12 s, 3 min 20 s, 2 h 05 min, 3 d 4 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def moment(time_ms: int | None) -> str:
    """An instant in UTC, to the second; "" for none. Out of the calendar's range: the number itself."""
    if time_ms is None:
        return ""
    try:
        return f"{_EPOCH + timedelta(milliseconds=time_ms):%Y-%m-%d %H:%M:%SZ}"
    except OverflowError:
        return f"{time_ms} ms"


def instant(time_ms: int) -> str:
    """An instant in UTC in ISO form, to the millisecond. Out of the calendar's range: the number itself."""
    try:
        return (_EPOCH + timedelta(milliseconds=time_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except OverflowError:
        return f"{time_ms} ms"


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
