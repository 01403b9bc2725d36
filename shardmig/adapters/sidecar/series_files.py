"""String and histogram series as artifacts: parquet without loss, and a text for people.

string_series     <field>/series.parquet and <field>/series.txt: lines `step; time; text`
histogram_series  <field>/histograms.parquet and <field>/histograms.json: a list of
                  {"step", "timestamp", "type", "edges", "values"}
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shardmig.adapters.sidecar.tables import HISTOGRAM, TIME, step_array, time_array, value_column
from shardmig.archive.decimals import EXACT_STEP
from shardmig.archive.layout import disk_errors
from shardmig.records import NO_TIME, FieldType, HistogramPoints, Int64s, StringPoints

NAMES: Final[dict[FieldType, tuple[str, str]]] = {
    "string_series": ("series.parquet", "series.txt"),
    "histogram_series": ("histograms.parquet", "histograms.json"),
}


class SeriesFiles:
    """The two files of one series while its chunks come in. Memory: one chunk."""

    def __init__(self, folder: Path, number: int, field_type: FieldType) -> None:
        value = ("string_value", pa.large_string()) if field_type == "string_series" else ("histogram_value", HISTOGRAM)
        self.type = field_type
        self.parquet = folder / f"{number}.parquet"
        self.text = folder / f"{number}.text"
        self._schema = pa.schema([("step", EXACT_STEP), ("timestamp", TIME), value])
        self._writer = pq.ParquetWriter(self.parquet, self._schema, compression="zstd")
        self._file: IO[bytes] = self.text.open("wb")
        self._rows = 0

    def add(self, points: StringPoints | HistogramPoints) -> None:
        """Append points of this one series. Raises DiskFull."""
        name, values = value_column(points)
        columns = {"step": step_array(points.steps), "timestamp": time_array(points.times_ms), name: values}
        with disk_errors(f"staging of {points.paths[0]}"):
            self._writer.write_table(pa.table(columns, schema=self._schema))
            if isinstance(points, StringPoints):
                self._add_lines(points)
            else:
                self._add_histograms(points)
        self._rows += len(points.times_ms)

    def close(self) -> None:
        """Finish both files; idempotent. Raises DiskFull."""
        if self._file.closed:
            return
        with disk_errors("staging of a series"):
            if self.type == "histogram_series":
                self._file.write(b"\n]\n" if self._rows else b"[]\n")
            self._file.close()
            self._writer.close()

    def _add_lines(self, points: StringPoints) -> None:
        texts = points.values
        columns = (points.steps.to_decimals(), _iso(points.times_ms), texts.offsets[:-1], texts.offsets[1:])
        for step, time, start, stop in zip(*columns, strict=True):
            self._file.write(f"{step:f}; {time}; ".encode() + texts.utf8[start:stop] + b"\n")

    def _add_histograms(self, points: HistogramPoints) -> None:
        histograms = points.values
        edge_ends, value_ends = np.cumsum(histograms.edge_counts), np.cumsum(histograms.value_counts)
        for row, (step, time) in enumerate(zip(points.steps.to_decimals(), _iso(points.times_ms), strict=True)):
            shown = {
                "step": float(step),
                "timestamp": time,
                "type": histograms.kinds[row],
                "edges": histograms.edges[edge_ends[row] - histograms.edge_counts[row] : edge_ends[row]].tolist(),
                "values": histograms.values[value_ends[row] - histograms.value_counts[row] : value_ends[row]].tolist(),
            }
            self._file.write((b",\n" if self._rows or row else b"[\n") + msgspec.json.encode(shown))


def _iso(times_ms: Int64s) -> list[str]:
    texts = np.datetime_as_string(times_ms.astype("datetime64[ms]"), unit="ms").tolist()
    return ["" if time == NO_TIME else f"{text}Z" for text, time in zip(texts, times_ms.tolist(), strict=True)]
