"""Consoles and tables, the same for every answer. Names from outside are escaped here, once."""

from __future__ import annotations

import io
import sys
from typing import Final, TextIO

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Column, Table
from rich.text import Text

from shardmig.report.words import printable

_NO_TERMINAL_COLUMNS = 10_000
"""Nothing is cut or wrapped in a file or pipe."""

_PADDING: Final = 2
_NARROWEST_TEXT: Final = 12

Cell = str | Text


def console(stream: TextIO | None = None) -> Console:
    """A console on `stream` (stdout). Colour only on a terminal and without NO_COLOR; no markup is interpreted."""
    stream = sys.stdout if stream is None else stream
    width = None if stream.isatty() else _NO_TERMINAL_COLUMNS
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)


def text_of(renderable: RenderableType) -> str:
    """What a console without a terminal shows."""
    stream = io.StringIO()
    console(stream).print(renderable)
    return stream.getvalue()


def name(text: str, style: str = "") -> Text:
    """A name that came from outside, safe to show."""
    return Text(printable(text), style=style, overflow="fold")


class _Table(Table):
    """A table that never cuts a number: where the terminal is too narrow, each row is a list of its own."""

    def __rich_console__(self, on: Console, options: ConsoleOptions) -> RenderResult:
        if sum(_least_width(column) + _PADDING for column in self.columns) <= options.max_width:
            yield from super().__rich_console__(on, options)
            return
        for number, cells in enumerate(zip(*(column.cells for column in self.columns), strict=True)):
            if number:
                yield Text()
            listed = Table.grid(padding=(0, _PADDING))
            for column, cell in zip(self.columns, cells, strict=True):
                listed.add_row(Text(str(column.header), style="bold"), cell)
            yield listed


def _least_width(column: Column) -> int:
    """Numbers need all of their width; text can be folded."""
    texts = [cell if isinstance(cell, Text) else Text(str(cell)) for cell in (column.header, *column.cells)]
    widest = max(text.cell_len for text in texts)
    return widest if column.no_wrap else min(widest, _NARROWEST_TEXT)


def table(*headers: str, title: str = "") -> Table:
    """An empty table. A header that begins with `>` makes a column of numbers."""
    made = _Table(box=None, pad_edge=False, padding=(0, _PADDING, 0, 0), header_style="bold", title_justify="left")
    if title:
        made.title = Text(title, style="bold")
    for header in headers:
        if header.startswith(">"):
            made.add_column(header[1:], justify="right", no_wrap=True)
        else:
            made.add_column(header, overflow="fold")
    return made


def row(into: Table, *cells: Cell) -> None:
    """Add a row; plain strings are escaped."""
    into.add_row(*(cell if isinstance(cell, Text) else name(cell) for cell in cells))
