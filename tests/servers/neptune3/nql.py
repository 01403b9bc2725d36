"""The part of NQL that the clients write: comparisons, MATCHES, CONTAINS, EXISTS, NOT, AND, OR, parentheses."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from tests.servers.neptune3.store import Run

Condition = Callable[[Run], bool]

_TOKEN = re.compile(
    r"""\s*(?:(?P<name>`[^`]*`)|(?P<text>"(?:\\.|[^"\\])*"|'[^']*')|(?P<op>==|!=|>=|<=|=|>|<|\(|\)|:)"""
    r"""|(?P<word>[^\s()`"'=!<>:]+))"""
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda one, other: bool(one == other),
    "=": lambda one, other: bool(one == other),
    "!=": lambda one, other: bool(one != other),
    ">": lambda one, other: bool(one > other),
    ">=": lambda one, other: bool(one >= other),
    "<": lambda one, other: bool(one < other),
    "<=": lambda one, other: bool(one <= other),
}


class BadQuery(Exception):
    """The query is not NQL, or a part of it that is not known here."""


def parse(query: str) -> Condition:
    """The condition that a query states. Raises BadQuery."""
    parser = _Parser(query)
    condition = parser.alternatives()
    if parser.tokens:
        raise BadQuery(f"unexpected {parser.tokens[0]!r}")
    return condition


class _Parser:
    def __init__(self, query: str) -> None:
        self.tokens: list[str] = []
        place = 0
        while query[place:].strip():
            match = _TOKEN.match(query, place)
            if match is None:
                raise BadQuery(f"cannot read {query[place:]!r}")
            self.tokens.append(match.group().strip())
            place = match.end()

    def alternatives(self) -> Condition:
        parts = [self._conjunction()]
        while self._take("OR"):
            parts.append(self._conjunction())
        return lambda run: any(part(run) for part in parts)

    def _conjunction(self) -> Condition:
        parts = [self._negation()]
        while self._take("AND"):
            parts.append(self._negation())
        return lambda run: all(part(run) for part in parts)

    def _negation(self) -> Condition:
        if self._take("NOT"):
            negated = self._negation()
            return lambda run: not negated(run)
        if self._take("("):
            inner = self.alternatives()
            self._expect(")")
            return inner
        return self._predicate()

    def _predicate(self) -> Condition:
        path = self._next().strip("`")
        kind = self._next() if self._take(":") else None
        negated = self._take("NOT")
        operator = self._next().upper()
        if operator == "EXISTS":
            return lambda run: path in run.values and kind in (None, run.values[path][0])
        text = _unquoted(self._next())

        def holds(run: Run) -> bool:
            held = run.values.get(path)
            if held is None or kind not in (None, held[0]):
                return False
            return _holds(operator, held, text) != negated

        return holds

    def _next(self) -> str:
        if not self.tokens:
            raise BadQuery("the query ends too soon")
        return self.tokens.pop(0)

    def _take(self, token: str) -> bool:
        if self.tokens and self.tokens[0].upper() == token:
            self.tokens.pop(0)
            return True
        return False

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise BadQuery(f"{token!r} is missing")


def _unquoted(token: str) -> str:
    if token[:1] == '"':
        return re.sub(r"\\(.)", r"\1", token[1:-1])
    return token.strip("'")


def _holds(operator: str, held: tuple[str, Any], text: str) -> bool:
    kind, value = held
    if operator == "MATCHES":
        return re.search(text, str(value)) is not None
    if operator == "CONTAINS":
        return text in value
    if operator not in _COMPARE:
        raise BadQuery(f"unknown operator {operator!r}")
    return _COMPARE[operator](value, _typed(kind, text))


def _typed(kind: str, text: str) -> Any:
    match kind:
        case "int" | "float":
            return float(text)
        case "bool":
            return text.lower() == "true"
        case "datetime":
            return round(datetime.fromisoformat(text).timestamp() * 1000)
        case _:
            return text
