"""Exact arithmetic on steps. The only place where a step is converted, scaled or compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shardmig.errors import StepConflict
from shardmig.records import MAX_STEP_SCALE, Int64s, StepNeeds, Steps

_INT64_MAX: Final = 2**63 - 1
_SPLIT: Final = 10**MAX_STEP_SCALE
_MOST_SHOWN: Final = 2**53
"""A tracker may take a step through a double."""


def from_decimals(steps: Sequence[Decimal]) -> Steps:
    """A column of exact decimals. Raises StepConflict when no single scale holds them all in 64-bit integers
    (the caller cuts the column in two) or when a step has more than 18 decimal digits."""
    scale = max((_digits(step) for step in steps), default=0)
    if scale > MAX_STEP_SCALE:
        raise StepConflict(f"a step has {scale} decimal digits; {MAX_STEP_SCALE} can be kept")
    units = [int(step.scaleb(scale)) for step in steps]
    if any(abs(unit) > _INT64_MAX for unit in units):
        raise StepConflict(f"steps between {min(steps)} and {max(steps)} do not fit one 64-bit column at scale {scale}")
    return Steps(np.array(units, dtype=np.int64), scale)


def from_floats(steps: NDArray[np.float64]) -> Steps:
    """Binary doubles as the decimals that they are written as (shortest repr): 0.29 is 0.29.

    Fast where all are integers below 2^53 or have at most six decimal digits. Raises StepConflict as from_decimals,
    and for NaN or infinite steps.
    """
    if not np.isfinite(steps).all():
        raise StepConflict("a step is NaN or infinite")
    for scale in (0, 6):
        scaled = np.rint(steps * 10.0**scale)
        if np.all(np.abs(scaled) < 2**53) and np.array_equal(scaled / 10.0**scale, steps):
            return Steps(scaled.astype(np.int64), scale)
    return from_decimals([Decimal(repr(step)) for step in steps.tolist()])


def whole_and_fraction(steps: Steps) -> tuple[Int64s, Int64s]:
    """A normal form that does not depend on the scale: integer part (floored) and fraction in 1e-18."""
    if steps.scale == 0:
        return steps.units, np.zeros(len(steps), dtype=np.int64)
    whole, rest = np.divmod(steps.units, 10**steps.scale)
    return whole, rest * 10 ** (MAX_STEP_SCALE - steps.scale)


def needs(steps: Steps) -> StepNeeds:
    """The smallest multiplier that makes every step of the column an integer, and its lowest and highest step."""
    if len(steps) == 0:
        return StepNeeds()
    power = 10**steps.scale
    common = math.gcd(power, int(np.gcd.reduce(steps.units % power))) if steps.scale else 1
    lowest, highest = (Decimal(int(unit)).scaleb(-steps.scale) for unit in (steps.units.min(), steps.units.max()))
    return StepNeeds(power // common, _plain(lowest), _plain(highest))


def merge_needs(one: StepNeeds, other: StepNeeds) -> StepNeeds:
    """What both ask for together."""
    if not one.lowest:
        return StepNeeds(math.lcm(one.denominator, other.denominator), other.lowest, other.highest)
    if not other.lowest:
        return StepNeeds(math.lcm(one.denominator, other.denominator), one.lowest, one.highest)
    return StepNeeds(
        math.lcm(one.denominator, other.denominator),
        _plain(min(Decimal(one.lowest), Decimal(other.lowest))),
        _plain(max(Decimal(one.highest), Decimal(other.highest))),
    )


def proposed_multiplier(wanted: StepNeeds) -> int:
    """The smallest multiplier that keeps every step exact.

    Raises StepConflict when the highest step times it leaves 64 bits: no multiplier keeps all steps then.
    """
    multiplier = wanted.denominator
    bounds = [Decimal(bound) for bound in (wanted.lowest, wanted.highest) if bound]
    if any(abs(bound) * multiplier > _INT64_MAX for bound in bounds):
        raise StepConflict(
            f"steps reach from {wanted.lowest} to {wanted.highest} and need a multiplier of {multiplier}: "
            "the products do not fit 64-bit integers",
            hint="choose one with --step-multiplier and accept merged steps with --allow-step-merge",
        )
    return multiplier


def multiply(steps: Steps, multiplier: int) -> tuple[Int64s, NDArray[np.bool_]]:
    """steps x multiplier as 64-bit integers, and a mask of those that had to be rounded (half to even).

    Raises StepConflict when a product does not fit 64 bits.
    """
    power = 10**steps.scale
    common = math.gcd(multiplier, power)
    multiplier, power = multiplier // common, power // common
    highest = max((abs(int(bound)) for bound in (steps.units.min(), steps.units.max())), default=0) if len(steps) else 0
    if highest * multiplier > _INT64_MAX:
        return _multiply_wide(steps, multiplier, power)
    products = steps.units * np.int64(multiplier)
    if power == 1:
        return products, np.zeros(len(products), dtype=np.bool_)
    whole, rest = np.divmod(products, power)
    twice = rest * 2 if power <= _INT64_MAX // 2 else rest
    half = power if power <= _INT64_MAX // 2 else power // 2
    up = (twice > half) | ((twice == half) & (whole % 2 == 1))
    return whole + up, rest != 0


def divide(numbers: Int64s, multiplier: int) -> Steps:
    """The inverse of `multiply` for products that were exact: number / multiplier as exact decimal steps.

    Raises StepConflict when a quotient has no exact decimal of at most 18 digits.
    """
    if multiplier == 1 or len(numbers) == 0:
        return Steps(numbers, 0)
    for scale in range(MAX_STEP_SCALE + 1):
        power = 10**scale
        if power % multiplier == 0:
            factor = power // multiplier
            if max(abs(int(numbers.min())), abs(int(numbers.max()))) * factor <= _INT64_MAX:
                return Steps(numbers * np.int64(factor), scale)
    return from_decimals([Decimal(int(number)) / Decimal(multiplier) for number in numbers])


def exact(step: Decimal) -> Steps:
    """One step as a column of one."""
    return from_decimals([step])


def shown_step(step: Decimal, multiplier: int) -> int | None:
    """Where something that is no point is shown: the nearest whole number; None beyond what a double holds."""
    number = int((step * multiplier).quantize(Decimal(1), ROUND_HALF_EVEN))
    return number if abs(number) <= _MOST_SHOWN else None


def _multiply_wide(steps: Steps, multiplier: int, power: int) -> tuple[Int64s, NDArray[np.bool_]]:
    products = [divmod(int(unit) * multiplier, power) for unit in steps.units]
    numbers = [whole + (2 * rest > power or (2 * rest == power and whole % 2 == 1)) for whole, rest in products]
    worst = max(numbers, key=abs)
    if abs(worst) > _INT64_MAX:
        raise StepConflict(
            f"a step becomes {worst}, which does not fit a 64-bit integer", hint="lower --step-multiplier"
        )
    return np.array(numbers, dtype=np.int64), np.array([rest != 0 for _, rest in products], dtype=np.bool_)


def _digits(step: Decimal) -> int:
    exponent = step.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else MAX_STEP_SCALE + 1


def _plain(step: Decimal) -> str:
    return format(step.normalize() if step else Decimal(0), "f")
