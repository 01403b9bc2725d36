"""As much of Neptune's query language as clients and the adapter use.

(`sys/trashed`:bool = false) AND NOT (`sys/id`:string > "RUN-9" OR sys/tags:stringSet CONTAINS 'x')
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

Predicate = Callable[[Mapping[str, Any]], bool]

_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<bracket>[()])|(?P<operator>!=|>=|<=|=|>|<)|(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
    r"""|(?P<path>`[^`]*`)|(?P<word>[^\s()=<>!`"']+))"""
)
_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "CONTAINS": lambda held, asked: asked in held,
    "MATCHES": lambda held, asked: re.search(asked, held) is not None,
}


class SyntaxProblem(Exception):
    """The query cannot be parsed."""


def parse(query: str) -> Predicate:
    """A query as a predicate on attributes by path. Raises SyntaxProblem."""
    if not query.strip():
        return lambda _: True
    return _Parser(query).whole()


class _Parser:
    def __init__(self, query: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        position = 0
        query = query.strip()
        while position < len(query):
            found = _TOKEN.match(query, position)
            if found is None:
                raise SyntaxProblem(query[position:])
            self._tokens.append((str(found.lastgroup), found[str(found.lastgroup)]))
            position = found.end()

    def whole(self) -> Predicate:
        predicate = self._any()
        if self._tokens:
            raise SyntaxProblem(str(self._tokens))
        return predicate

    def _any(self) -> Predicate:
        parts = [self._all()]
        while self._takes("word", "OR"):
            parts.append(self._all())
        return _either(parts)

    def _all(self) -> Predicate:
        parts = [self._one()]
        while self._takes("word", "AND"):
            parts.append(self._one())
        return _each(parts)

    def _one(self) -> Predicate:
        if self._takes("word", "NOT"):
            negated = self._one()
            return lambda attributes: not negated(attributes)
        if self._takes("bracket", "("):
            inner = self._any()
            if not self._takes("bracket", ")"):
                raise SyntaxProblem("a bracket is not closed")
            return inner
        return self._comparison()

    def _comparison(self) -> Predicate:
        kind, text = self._next()
        path, _, type_ = text.partition(":") if kind == "word" else (text.strip("`"), "", "")
        if not type_:
            _, type_ = self._next()
        type_ = type_.lstrip(":") or self._next()[1]
        compare = _COMPARE[self._next()[1]]
        asked = _value(type_, self._next()[1].strip("\"'"))
        return lambda attributes: path in attributes and compare(attributes[path].value, asked)

    def _takes(self, kind: str, text: str) -> bool:
        if self._tokens and self._tokens[0][0] == kind and self._tokens[0][1].upper() == text:
            del self._tokens[0]
            return True
        return False

    def _next(self) -> tuple[str, str]:
        if not self._tokens:
            raise SyntaxProblem("the query ends too early")
        return self._tokens.pop(0)


def _either(parts: list[Predicate]) -> Predicate:
    return parts[0] if len(parts) == 1 else lambda attributes: any(part(attributes) for part in parts)


def _each(parts: list[Predicate]) -> Predicate:
    return parts[0] if len(parts) == 1 else lambda attributes: all(part(attributes) for part in parts)


def _value(type_: str, text: str) -> Any:
    match type_:
        case "bool":
            return text.lower() == "true"
        case "int" | "integer" | "float":
            return float(text)
        case "datetime":
            return round(datetime.fromisoformat(text).timestamp() * 1000)
        case "string" | "stringSet" | "experimentState":
            return text
        case _:
            raise SyntaxProblem(f"there is no type {type_}")
