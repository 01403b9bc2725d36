"""`messages.json` of an offline archive, written: one JSON message a line, as the vendor's schemas ask for them.

Points are encoded by columns, no Python object a point. Every message is valid by construction: names come from
`naming`, texts are UTF-8, times and steps are 64-bit integers, values are numbers or the vendor's words for NaN and the
infinities. (One invalid metric makes the vendor's uploader drop all metrics after it and still return True: measured.)
"""

from __future__ import annotations

from hashlib import blake2b
from pathlib import PurePosixPath
from typing import Final, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shardmig.adapters.sidecar.fitting import NativePoints
from shardmig.records import Float64s

IMAGE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp"})
"""Files that Comet shows as images."""

HISTOGRAM: Final = "histogram3d"
"""The type of an asset that Comet draws as one histogram of a series."""

_WORDS: Final = ('"NaN"', '"Infinity"', '"-Infinity"', "-0.0")
_ROWS_AT_ONCE: Final = 100_000


class Asset(NamedTuple):
    """A file as Comet shows it. `id`: 32 letters and digits that it is known by. `type`: Comet's name for what it is."""

    name: str
    id: str
    step: int | None
    time_ms: int
    type: str = "asset"

    @property
    def is_image(self) -> bool:
        """Is it shown among the graphics?"""
        return self.type == "asset" and PurePosixPath(self.name).suffix.lower() in IMAGE_SUFFIXES


def identity_of(experiment: str, name: str) -> str:
    """The id of an asset: always the same, so that an asset that is sent twice is one."""
    return blake2b(f"{experiment}\0{name}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


Plain = int | float | str | bool


def metric_lines(key: str, points: NativePoints) -> list[pa.Buffer]:
    """One line a point of the metric `key`."""
    before = b'{"type":"metric_msg","payload":{"metric":{"metricName":' + msgspec.json.encode(key) + b',"metricValue":'
    starts = range(0, len(points.steps), _ROWS_AT_ONCE)
    return [_joined(before.decode(), points.part(slice(start, start + _ROWS_AT_ONCE))) for start in starts]


def param_line(key: str, value: Plain, time_ms: int) -> bytes:
    """A parameter. NaN and the infinities are the vendor's words, as texts."""
    param = {"paramName": key, "paramValue": _number_or_word(value), "step": None, "source": "manual"}
    return _line("parameter_msg", {"param": param, "local_timestamp": time_ms})


def other_line(key: str, value: Plain) -> bytes:
    """An "other": a fact of the experiment itself."""
    return _line("log_other", {"key": key, "value": value})


def file_line(asset: Asset, member: str) -> bytes:
    """A file, called `member` in the archive."""
    params: dict[str, object] = {"context": None, "overwrite": False, "runId": None, "step": asset.step}
    params["extension"] = PurePosixPath(asset.name).suffix[1:]
    if asset.is_image:
        params |= {"figName": asset.name, "figCounter": 0, "imageId": asset.id}
    else:
        params |= {"fileName": asset.name, "assetId": asset.id}
    if asset.type != "asset":
        params["type"] = asset.type
    payload = {
        "additional_params": params,
        "clean": True,
        "file_path": member,
        "local_timestamp": asset.time_ms,
        "metadata": {},
        "upload_type": "visualization" if asset.is_image else asset.type,
    }
    return _line("file_upload", payload)


def _line(kind: str, payload: dict[str, object]) -> bytes:
    return msgspec.json.encode({"type": kind, "payload": payload}) + b"\n"


def _number_or_word(value: Plain) -> Plain:
    if isinstance(value, float) and not np.isfinite(value):
        return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _joined(before: str, points: NativePoints) -> pa.Buffer:
    lines = pc.binary_join_element_wise(
        pa.scalar(before, pa.string()),
        _texts_of(points.values),
        pa.scalar(',"step":', pa.string()),
        pc.cast(pa.array(points.steps), pa.string()),
        pa.scalar(',"epoch":null},"local_timestamp":', pa.string()),
        pc.cast(pa.array(points.times_ms), pa.string()),
        pa.scalar("}}\n", pa.string()),
        "",
    )
    return lines.buffers()[2]


def _texts_of(values: Float64s) -> pa.Array:
    """The shortest JSON of each value that reads as the same double. Arrow writes -0.0 as -0, which JSON readers take
    for an integer."""
    texts = pc.cast(pa.array(values), pa.string())
    odd = [np.isnan(values), np.isposinf(values), np.isneginf(values), (values == 0) & np.signbit(values)]
    is_odd = np.any(odd, axis=0)
    if not is_odd.any():
        return texts
    words = pa.array(np.select(odd, _WORDS, default=""), pa.string())
    return pc.if_else(pa.array(is_odd), words, texts)
