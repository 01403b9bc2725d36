"""What W&B shows of a run beside its numbers: histograms, tables of texts, images and pages.

These forms are for people. What is read back are the lossless files beside them, so whatever cannot be shown is a note:
`not-shown`. A histogram has at most 512 bins and whole edges, a table at most 10,000 rows, as in wandb itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from struct import unpack_from
from typing import IO, Final

import msgspec
import numpy as np

from shardmig import steps as step_arithmetic
from shardmig.adapters.sidecar.manifest import FileEntry, Manifest, forced_key
from shardmig.adapters.wandb.items import Item
from shardmig.adapters.wandb.naming import WandbNaming
from shardmig.adapters.wandb.write import StagedRun
from shardmig.errors import StepConflict
from shardmig.records import (
    NO_TIME,
    Chunk,
    FieldType,
    Finding,
    HistogramPoints,
    Int64s,
    Steps,
    StringPoints,
)

MOST_BINS: Final = 512
MOST_ROWS: Final = 10_000
_IMAGES: Final = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"GIF8": "gif", b"BM": "bmp"}
_PAGES: Final = (".html", ".htm")


class Shown:
    """The shown forms of one run. One use."""

    def __init__(self, staged: StagedRun, naming: WandbNaming, multiplier: int) -> None:
        self._staged = staged
        self._naming = naming
        self._multiplier = multiplier
        self._numbers: dict[tuple[str, FieldType], int] = {}
        self._left_out: dict[str, int] = {}
        self._table: _Table | None = None

    def watched(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """The same chunks; what is shown of them is added on their way."""
        for chunk in chunks:
            if isinstance(chunk, HistogramPoints):
                for path, histograms in chunk.series():
                    self._show_histograms(path, histograms)
            elif isinstance(chunk, StringPoints):
                for path, texts in chunk.series():
                    self._show_texts(path, texts)
            yield chunk

    def finish(self, manifest: Manifest) -> None:
        """After the last chunk: the last table, images and pages, and the names of all keys."""
        self._end_table()
        for entry in sorted(
            manifest.files, key=lambda one: one.step is None
        ):  # those without step go into the last row
            if entry.members is None:
                self._show_file(entry)
        for (path, field_type), number in self._numbers.items():
            self._staged.name_key(number, self._naming.key(path), forced_key(self._naming, path, field_type))

    def findings(self) -> list[Finding]:
        """What is not shown, or not all of it."""
        return [Finding("note", "not-shown", path, count=count) for path, count in sorted(self._left_out.items())]

    def _show_histograms(self, path: str, points: HistogramPoints) -> None:
        values = points.values
        edge_ends, value_ends = np.cumsum(values.edge_counts), np.cumsum(values.value_counts)
        for row, (step, time_ms) in enumerate(self._places(points.steps, points.times_ms)):
            edges = values.edges[edge_ends[row] - values.edge_counts[row] : edge_ends[row]]
            counts = values.values[value_ends[row] - values.value_counts[row] : value_ends[row]]
            is_plain = len(edges) == len(counts) + 1 <= MOST_BINS + 1
            if step < 0 or not is_plain or not (np.isfinite(edges).all() and np.isfinite(counts).all()):
                self._leave_out(path)
                continue
            text = msgspec.json.encode({"_type": "histogram", "values": counts.tolist(), "bins": edges.tolist()})
            self._staged.add_item(Item(step, self._number(path, "histogram_series"), time_ms, text))

    def _show_texts(self, path: str, points: StringPoints) -> None:
        if self._table is None or self._table.path != path:
            self._end_table()
            name = f"media/table/{self._naming.unlike_any_other(path, path)}.table.json"
            self._table = _Table(path, name, self._staged.folder / "files" / name)
        some = points.values[: max(0, MOST_ROWS - self._table.rows)]
        decimals = points.steps[: len(some)].to_decimals()
        self._leave_out(path, len(points.values) - len(some))
        for step, time_ms, text in zip(decimals, points.times_ms.tolist(), some.to_list(), strict=False):
            time = None if time_ms == NO_TIME else f"{np.datetime64(time_ms, 'ms')}Z"
            self._table.add([float(step), time, text])
        steps, times_ms = zip(*self._places(points.steps[-1:], points.times_ms[-1:]), strict=True)
        self._table.step, self._table.time_ms = max(0, steps[0]), times_ms[0]

    def _end_table(self) -> None:
        if self._table is None:
            return
        table, self._table = self._table, None
        table.close()
        value = {"_type": "table-file", "ncols": 3, "nrows": table.rows, "path": table.name, **_content(table.file)}
        number = self._number(table.path, "string_series")
        self._staged.add_item(Item(table.step, number, table.time_ms, msgspec.json.encode(value)))

    def _show_file(self, entry: FileEntry) -> None:
        file = self._staged.folder / "files" / entry.artifact
        kind = _kind_of(file)
        if kind is None:
            return
        step, time_ms = self._staged.last_step, NO_TIME if entry.time_ms is None else entry.time_ms
        if entry.step is not None:
            step = self._places(step_arithmetic.exact(entry.step), np.array([time_ms]))[0][0]
        if step < 0:
            self._leave_out(entry.path)
            return
        value = {**kind, "path": entry.artifact, **_content(file)}
        self._staged.add_item(Item(step, self._number(entry.path, entry.type), time_ms, msgspec.json.encode(value)))

    def _places(self, steps: Steps, times_ms: Int64s) -> list[tuple[int, int]]:
        """Step and time of each row; -1 for a step that W&B does not have."""
        try:
            numbers, _ = step_arithmetic.multiply(steps, self._multiplier)
        except StepConflict:
            numbers = np.full(len(steps), -1)
        return list(zip(numbers.tolist(), times_ms.tolist(), strict=True))

    def _number(self, path: str, field_type: FieldType) -> int:
        if (path, field_type) not in self._numbers:
            self._numbers[path, field_type] = self._staged.further_number()
        return self._numbers[path, field_type]

    def _leave_out(self, path: str, count: int = 1) -> None:
        if count:
            self._left_out[path] = self._left_out.get(path, 0) + count


class _Table:
    """A wandb.Table on its way to its file."""

    def __init__(self, path: str, name: str, file: Path) -> None:
        self.path = path
        self.name = name
        self.file = file
        self.rows = 0
        self.step = 0
        self.time_ms = NO_TIME
        file.parent.mkdir(parents=True, exist_ok=True)
        self._stream: IO[bytes] = file.open("wb")
        self._stream.write(b'{"columns":["step","time","value"],"data":[')

    def add(self, row: list[object]) -> None:
        """Append a row."""
        self._stream.write((b"," if self.rows else b"") + msgspec.json.encode(row))
        self.rows += 1

    def close(self) -> None:
        """Finish the file; idempotent."""
        if not self._stream.closed:
            self._stream.write(b"]}")
            self._stream.close()


def _content(file: Path) -> dict[str, object]:
    digest = sha256()
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return {"sha256": digest.hexdigest(), "size": file.stat().st_size}


def _kind_of(file: Path) -> dict[str, object] | None:
    """How wandb calls a file of this kind; None: it has no form of its own."""
    if file.suffix.lower() in _PAGES:
        return {"_type": "html-file"}
    with file.open("rb") as stream:
        head = stream.read(32)
    kind = next((name for magic, name in _IMAGES.items() if head.startswith(magic)), None)
    if kind is None:
        return None
    size = {}
    if kind == "png" and len(head) >= 24:
        size = dict(zip(("width", "height"), unpack_from(">II", head, 16), strict=True))
    elif kind == "gif" and len(head) >= 10:
        size = dict(zip(("width", "height"), unpack_from("<HH", head, 6), strict=True))
    return {"_type": "image-file", "format": kind, **size}
