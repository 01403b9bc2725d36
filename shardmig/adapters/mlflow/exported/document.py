"""A JSON document piece by piece: what is large in it is never held whole.

The documents of mlflow-export-import hold NaN and infinities, which are no JSON; Python's decoder takes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from shardmig.errors import BadInput

_SPACE: Final = " \t\r\n"
_BEHIND_VALUE: Final = frozenset(_SPACE + ",:]}")


@contextmanager
def opened(path: Path) -> Iterator[Document]:
    """A document to walk through. Raises BadInput, naming the file, for anything that is not JSON."""
    try:
        with path.open(encoding="utf-8") as file:
            yield Document(file)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error
    except ValueError as error:
        raise BadInput(f"{path} is no whole JSON document: {error}", hint="was its export cut short?") from error


class Document:
    """A place in a document. Each value is either taken whole or entered, in order. Raises ValueError."""

    def __init__(self, file: IO[str], block_chars: int = 1 << 20) -> None:
        self._file = file
        self._block_chars = block_chars
        self._decoder = json.JSONDecoder()
        self._held = ""
        self._at = 0
        self._is_all = False

    def value(self) -> Any:
        """The value that is next."""
        self._next()
        while True:
            try:
                found, end = self._decoder.raw_decode(self._held, self._at)
            except ValueError:
                if not self._more():
                    raise
                continue
            if self._held[end : end + 1] not in _BEHIND_VALUE and self._more():  # a number may go on: 0, 0.5, 0.5e9
                continue
            self._at = end
            return found

    def members(self) -> Iterator[str]:
        """Enter an object: its keys. The value of each must be taken or entered before the next key."""
        if self._entered("{", "}"):
            return
        while True:
            key = self.value()
            self._expect(":")
            yield str(key)
            if self._ends("}"):
                return

    def items(self) -> Iterator[Any]:
        """Enter an array: its values, each whole."""
        if (short := self._held_array()) is not None:
            yield from short
            return
        if self._entered("[", "]"):
            return
        while True:
            yield self.value()
            if self._ends("]"):
                return

    def _held_array(self) -> list[Any] | None:
        """The array that is next if it lies in the block at hand: decoded at once it takes half the time."""
        if self._next() != "[":
            return None
        found: list[Any]
        try:
            found, self._at = self._decoder.raw_decode(self._held, self._at)
        except ValueError:  # it goes on behind the block, or breaks off: then all before that still comes
            return None
        return found

    def _entered(self, opening: str, closing: str) -> bool:
        """Is the object or array that begins here empty?"""
        self._expect(opening)
        if self._next() == closing:
            self._at += 1
            return True
        return False

    def _ends(self, closing: str) -> bool:
        sign = self._next()
        if sign not in (",", closing):
            raise ValueError(f"{sign!r} where a comma or {closing!r} should be")
        self._at += 1
        return sign == closing

    def _expect(self, sign: str) -> None:
        if self._next() != sign:
            raise ValueError(f"{self._held[self._at]!r} where {sign!r} should be")
        self._at += 1

    def _next(self) -> str:
        while True:
            while self._at < len(self._held):
                if self._held[self._at] not in _SPACE:
                    return self._held[self._at]
                self._at += 1
            if not self._more():
                raise ValueError("it ends too early")

    def _more(self) -> bool:
        """Read on; False at the end of the file."""
        if self._is_all:
            return False
        block = self._file.read(self._block_chars)
        self._is_all = not block
        self._held = self._held[self._at :] + block
        self._at = 0
        return bool(block)
