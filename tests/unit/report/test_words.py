"""Numbers, names and times for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardmig.report import words


@given(st.text(alphabet=st.characters()))
def test_no_name_controls_a_terminal(name: str) -> None:
    assert words.printable(name).isprintable()


@pytest.mark.parametrize("name", ["metrics/loss", "żółw", "损失", "a b", "~", "\\x1b"])
def test_an_ordinary_name_stays_as_it_is(name: str) -> None:
    assert words.printable(name) == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [("\x1b[2J", "\\x1b[2J"), ("a\nb\tc\0", "a\\nb\\tc\\x00"), ("\u202egnp", "\\u202egnp"), ("\ud800", "\\ud800")],
)
def test_controls_are_shown_as_escapes(name: str, shown: str) -> None:
    assert words.printable(name) == shown


@pytest.mark.parametrize(
    ("size_bytes", "told"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (2.5e9, "2.5 GB"), (3e15, "3.0 PB")],
)
def test_sizes_are_decimal(size_bytes: float, told: str) -> None:
    assert words.size(size_bytes) == told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.04, "0.0 s"),
        (12.4, "12 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
        (273_600, "3 d 4 h"),
    ],
)
def test_durations_are_told_in_two_units(seconds: float, told: str) -> None:
    assert words.duration(seconds) == told


def test_times_are_utc_wherever_this_runs_and_any_number_has_a_text() -> None:
    assert words.moment(1_717_156_800_123) == "2024-05-31 12:00:00Z"
    assert words.instant(1_717_156_800_123) == "2024-05-31T12:00:00.123Z"
    assert words.instant(-1) == "1969-12-31T23:59:59.999Z"
    assert words.moment(None) == ""
    assert words.moment(2**62) == f"{2**62} ms"
    assert words.instant(-(2**62)) == f"{-(2**62)} ms"
