"""Scalars as params: exact text, and back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardmig.adapters.sidecar.scalars import field_of, text_of
from shardmig.records import Field

INT64 = st.integers(-(2**63), 2**63 - 1)
fields = st.one_of(
    INT64.map(lambda value: Field("f", "int", value)),
    INT64.map(lambda value: Field("f", "datetime", value)),
    st.floats(allow_nan=False).map(lambda value: Field("f", "float", value)),
    st.booleans().map(lambda value: Field("f", "bool", value)),
    st.text().map(lambda value: Field("f", "string", value)),
    st.lists(st.text(st.characters(codec="utf-8"))).map(lambda value: Field("f", "string_set", value)),
)


@given(fields)
def test_every_scalar_comes_back_from_its_text(field: Field) -> None:
    assert field_of("f", field.type, text_of(field)) == field


@pytest.mark.parametrize(
    ("field", "text"),
    [
        (Field("f", "int", 9007199254740993), "9007199254740993"),
        (Field("f", "float", 0.1), "0.1"),
        (Field("f", "float", 3.0), "3.0"),
        (Field("f", "float", -0.0), "-0.0"),
        (Field("f", "float", math.inf), "inf"),
        (Field("f", "bool", True), "True"),
        (Field("f", "datetime", 1700000000123), "2023-11-14T22:13:20.123Z"),
        (Field("f", "string", "1.0"), "1.0"),
        (Field("f", "string_set", ["ü", 'a"b']), '["ü","a\\"b"]'),
    ],
)
def test_texts_are_exact(field: Field, text: str) -> None:
    assert text_of(field) == text


@pytest.mark.parametrize(
    ("field_type", "text"), [("int", "07"), ("int", "x"), ("float", "1e0"), ("bool", "true"), ("string_set", "[]x")]
)
def test_a_text_that_was_changed_by_hand_is_no_value_of_its_type(field_type: str, text: str) -> None:
    assert field_of("f", field_type, text) == Field("f", "string", text)  # type: ignore[arg-type]
