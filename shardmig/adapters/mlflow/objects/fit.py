"""What MLflow holds of an object's chunks. Pure.

Scalars that MLflow sets by itself are exact: they are kept in tags. Values of a logged model's metrics are not:

    nan-is-zero        NaN becomes 0: the column has no place for it
    infinity-clamped   ±inf becomes ±1.7976931348623157e308
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from shardmig.adapters.base import Fitted
from shardmig.records import Chunk, Finding, Float64s, FloatPoints

LARGEST: Final = float(np.finfo(np.float64).max)


def fit_object(chunk: Chunk) -> Fitted:
    """`WriteSide.fit` for the chunks of objects."""
    if not isinstance(chunk, FloatPoints):
        return Fitted(chunk, None, [])
    fitted = msgspec.structs.replace(chunk, values=fit_values(chunk.values))
    changed = [
        Finding("approximation", code, path, int(mask.sum()))
        for path, points in chunk.series()
        for code, mask in (("nan-is-zero", np.isnan(points.values)), ("infinity-clamped", np.isinf(points.values)))
        if mask.any()
    ]
    return Fitted(fitted, None, changed)


def sent_values(values: Float64s) -> Float64s:
    """What MLflow is sent of them. NaN stays: MLflow makes 0 of it for the model, and keeps it for the run."""
    return np.nan_to_num(values, nan=np.nan, posinf=LARGEST, neginf=-LARGEST)


def fit_values(values: Float64s) -> Float64s:
    """Values as MLflow holds them."""
    return np.nan_to_num(values, nan=0.0, posinf=LARGEST, neginf=-LARGEST)
