"""Tables on terminals of any width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from shardmig.report import terminal

HEADERS = ("phase", ">runs", ">skipped", ">points", ">texts", ">histograms", ">bytes")
CELLS = ("survey", "1,234", "1", "3,000,000,001", "25", "7", "999.9 MB")


def _shown(width: int, *, rows: int = 1) -> str:
    made = terminal.table(*HEADERS)
    for _ in range(rows):
        terminal.row(made, *CELLS)
    stream = io.StringIO()
    Console(file=stream, width=width).print(made)
    return stream.getvalue()


@pytest.mark.parametrize("width", [30, 50, 64, 80, 200])
def test_no_number_and_no_column_is_cut_however_narrow_the_terminal_is(width: int) -> None:
    shown = _shown(width, rows=2)
    for text in (*(header.lstrip(">") for header in HEADERS), *CELLS):
        assert text in shown


def test_a_table_that_fits_has_a_line_for_each_row() -> None:
    assert len(_shown(80, rows=2).splitlines()) == 3


def test_long_names_are_folded_before_a_table_is_taken_apart() -> None:
    made = terminal.table("run", ">points")
    terminal.row(made, "x" * 100, "12")
    stream = io.StringIO()
    Console(file=stream, width=40).print(made)
    assert stream.getvalue().splitlines()[0].split() == ["run", "points"]
