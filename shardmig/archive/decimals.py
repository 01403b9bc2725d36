"""Exact steps as parquet decimals and back, by their 128-bit words: never a Python object per step."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shardmig.errors import BadInput
from shardmig.records import MAX_STEP_SCALE, Int64s

STEP: Final = pa.decimal128(18, 6)
"""neptune-exporter's column."""

EXACT_STEP: Final = pa.decimal128(38, MAX_STEP_SCALE)
"""Ours, for steps that STEP cannot hold."""

_MICRO: Final = 10 ** (MAX_STEP_SCALE - 6)
_LIMIT: Final = 10**12
_UNIT: Final = 10**MAX_STEP_SCALE


def step_columns(whole: Int64s, fraction: Int64s) -> tuple[pa.Array, pa.Array]:
    """(step, exact step) columns. `step` is rounded half to even where it has more than six digits, and null from 1e12
    on; `exact` is null where `step` tells the truth."""
    micros, rest = np.divmod(fraction, _MICRO)
    micros += (rest * 2 > _MICRO) | ((rest * 2 == _MICRO) & (micros % 2 == 1))
    fits = (whole < _LIMIT) & (whole > -_LIMIT)
    units = np.where(fits, whole, 0) * 10**6 + micros
    fits &= np.abs(units) < 10**18
    exact = fits & (rest == 0)
    step = _decimals(units.view(np.uint64), units >> 63, STEP, ~fits)
    if exact.all():
        return step, pa.nulls(len(whole), EXACT_STEP)
    return step, _exact_decimals(whole, fraction, exact)


def exact_steps(whole: Int64s, fraction: Int64s) -> pa.Array:
    """One column that holds any step: EXACT_STEP."""
    return _exact_decimals(whole, fraction, np.zeros(len(whole), dtype=np.bool_))


def read_steps(step: pa.Array, exact: pa.Array | None) -> tuple[Int64s, Int64s, NDArray[np.bool_]]:
    """(whole, fraction, is missing) from the two columns; `exact` counts where it is there."""
    missing = _nulls(step)
    whole, fraction = _whole_and_fraction(step)
    if exact is not None and exact.null_count < len(exact):
        absent = _nulls(exact)
        exact_whole, exact_fraction = _whole_and_fraction(exact)
        whole, fraction = np.where(absent, whole, exact_whole), np.where(absent, fraction, exact_fraction)
        missing &= absent
    return whole, fraction, missing


def _exact_decimals(whole: Int64s, fraction: Int64s, absent: NDArray[np.bool_]) -> pa.Array:
    shifted = pa.array(whole).cast(EXACT_STEP)
    words = np.frombuffer(shifted.buffers()[1], dtype=np.uint64).reshape(-1, 2)[: len(whole)]
    low = words[:, 0] + fraction.view(np.uint64)
    high = words[:, 1] + (low < words[:, 0])
    return _decimals(low, high.view(np.int64), EXACT_STEP, absent)


def _decimals(low: NDArray[np.uint64], high: Int64s, kind: Any, absent: NDArray[np.bool_]) -> pa.Array:
    words = np.empty((len(low), 2), dtype=np.uint64)
    words[:, 0] = low
    words[:, 1] = high.view(np.uint64)
    validity = None
    if absent.any():
        validity = pa.py_buffer(np.packbits(~absent, bitorder="little"))
    return pa.Array.from_buffers(kind, len(low), [validity, pa.py_buffer(words)])


def _whole_and_fraction(column: pa.Array) -> tuple[Int64s, Int64s]:
    if not pa.types.is_decimal128(column.type):
        column = _as_decimal(column)
    column = column.fill_null(0) if column.null_count else column
    scale = column.type.scale
    if not 0 <= scale <= MAX_STEP_SCALE:
        raise BadInput(f"a step column of type {column.type} has more decimal digits than shardmig keeps")
    low, high = _words(column)
    power = 10**scale
    if np.array_equal(high, low >> 63):
        whole, rest = np.divmod(low, power)
    else:
        try:
            whole = (
                pc.floor(column).cast(pa.decimal128(38, 0), safe=True).cast(pa.int64()).to_numpy(zero_copy_only=False)
            )
        except pa.ArrowInvalid as error:
            raise BadInput(f"a step does not fit 64 bits: {error}") from error
        rest = low - whole * power  # both wrap modulo 2^64: the difference is right
    return whole, rest * 10 ** (MAX_STEP_SCALE - scale)


def _as_decimal(column: pa.Array) -> pa.Array:
    try:
        return column.cast(pa.decimal128(38, 0) if pa.types.is_integer(column.type) else STEP)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadInput(f"a step column of type {column.type} cannot be read: {error}") from error


def _words(column: pa.Array) -> tuple[Int64s, Int64s]:
    buffer = column.buffers()[1]
    if buffer is None or len(column) == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    words = np.frombuffer(buffer, dtype=np.int64)[2 * column.offset :][: 2 * len(column)].reshape(-1, 2)
    return words[:, 0], words[:, 1]


def _nulls(column: pa.Array) -> NDArray[np.bool_]:
    absent: NDArray[np.bool_] = column.is_null().to_numpy(zero_copy_only=False)
    return absent
