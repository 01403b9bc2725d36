"""Steps are exact: decimals in, decimals out, under every multiplier."""

from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardmig import steps
from shardmig.errors import StepConflict
from shardmig.records import StepNeeds

small_decimals = st.decimals(min_value=-(10**9), max_value=10**9, places=6, allow_nan=False)


@given(st.lists(small_decimals, min_size=1, max_size=50))
def test_decimals_come_back_as_they_went_in(decimals: list[Decimal]) -> None:
    assert steps.from_decimals(decimals).to_decimals() == decimals


@given(st.lists(st.integers(-(2**63) + 1, 2**63 - 1), min_size=1, max_size=20))
def test_64_bit_integers_are_steps(numbers: list[int]) -> None:
    assert steps.from_decimals([Decimal(number) for number in numbers]).units.tolist() == numbers


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e9, max_value=1e9), min_size=1, max_size=20)
)
def test_floats_are_the_decimals_they_are_written_as_or_refused(floats: list[float]) -> None:
    try:
        column = steps.from_floats(np.array(floats))
    except StepConflict:
        return
    assert column.to_decimals() == [Decimal(repr(value)) for value in floats]


@given(st.lists(small_decimals, min_size=1, max_size=30))
def test_the_needed_multiplier_makes_every_step_an_integer_and_no_smaller_one_does(decimals: list[Decimal]) -> None:
    wanted = steps.needs(steps.from_decimals(decimals))
    fractions = [Fraction(step) for step in decimals]
    assert all((step * wanted.denominator).denominator == 1 for step in fractions)
    for prime in (2, 5):
        if wanted.denominator % prime == 0:
            assert any((step * (wanted.denominator // prime)).denominator != 1 for step in fractions)
    assert (Decimal(wanted.lowest), Decimal(wanted.highest)) == (min(decimals), max(decimals))


@given(st.lists(small_decimals, min_size=1, max_size=30), st.sampled_from([1, 2, 3, 4, 10, 100, 1000, 10**6]))
def test_multiplying_is_exact_or_rounds_half_to_even_and_says_so(decimals: list[Decimal], multiplier: int) -> None:
    numbers, rounded = steps.multiply(steps.from_decimals(decimals), multiplier)
    with localcontext() as context:
        context.prec = 60
        products = [step * multiplier for step in decimals]
        assert numbers.tolist() == [int(product.to_integral_value(rounding="ROUND_HALF_EVEN")) for product in products]
    assert rounded.tolist() == [product != int(product) for product in products]


@given(st.lists(small_decimals, min_size=1, max_size=30))
def test_dividing_undoes_the_needed_multiplier(decimals: list[Decimal]) -> None:
    column = steps.from_decimals(decimals)
    multiplier = steps.needs(column).denominator
    numbers, rounded = steps.multiply(column, multiplier)
    assert not rounded.any()
    assert steps.divide(numbers, multiplier).to_decimals() == decimals


@given(st.lists(small_decimals, min_size=1), st.lists(small_decimals, min_size=1))
def test_needs_of_two_columns_merge_to_the_needs_of_both(one: list[Decimal], other: list[Decimal]) -> None:
    merged = steps.merge_needs(steps.needs(steps.from_decimals(one)), steps.needs(steps.from_decimals(other)))
    assert merged == steps.needs(steps.from_decimals(one + other))


def test_0_29_times_100_is_29() -> None:
    numbers, rounded = steps.multiply(steps.from_floats(np.array([0.29])), 100)
    assert (numbers.tolist(), rounded.tolist()) == ([29], [False])


def test_all_hundredths_below_ten_are_exact() -> None:
    floats = np.array([number / 100 for number in range(1000)])
    numbers, _ = steps.multiply(steps.from_floats(floats), 100)
    assert numbers.tolist() == list(range(1000))


def test_millisecond_steps_beyond_1e12_are_kept() -> None:
    assert steps.from_floats(np.array([1.79e12, 1.79e12 + 1])).units.tolist() == [1_790_000_000_000, 1_790_000_000_001]


def test_a_product_beyond_64_bits_is_refused() -> None:
    with pytest.raises(StepConflict, match="does not fit"):
        steps.multiply(steps.from_decimals([Decimal(2**62)]), 4)


def test_no_multiplier_is_proposed_when_none_keeps_all_steps() -> None:
    with pytest.raises(StepConflict, match="do not fit"):
        steps.proposed_multiplier(StepNeeds(10**6, "0", str(2**62)))


def test_steps_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(StepConflict):
        steps.from_floats(np.array([float("nan")]))


def test_nothing_needs_nothing() -> None:
    assert steps.proposed_multiplier(steps.needs(steps.from_decimals([]))) == 1


@given(st.lists(small_decimals, min_size=1, max_size=20))
def test_the_normal_form_does_not_depend_on_the_scale(decimals: list[Decimal]) -> None:
    column = steps.from_decimals(decimals)
    wider = type(column)(column.units * 10, column.scale + 1)
    for one, other in zip(steps.whole_and_fraction(column), steps.whole_and_fraction(wider), strict=True):
        assert one.tolist() == other.tolist()
