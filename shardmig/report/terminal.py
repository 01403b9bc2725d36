"""Consoles and tables, the same for every answer. Names from outside are escaped here, once."""

from __future__ import annotations

import io
import sys
from typing import TextIO

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from shardmig.report.words import printable

_NO_TERMINAL_COLUMNS = 10_000
"""Nothing is cut or wrapped in a file or pipe."""

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


def table(*headers: str, title: str = "") -> Table:
    """An empty table. A header that begins with `>` makes a column of numbers."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", title_justify="left")
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
