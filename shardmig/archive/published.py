"""One run as it lies on disk: its parts, its receipt, and whether the two agree."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from shardmig.archive.layout import part_name, parts_from, parts_of
from shardmig.archive.parsing import COLUMNS
from shardmig.archive.places import Place, existing, file_sha256
from shardmig.archive.receipts import receipt_in
from shardmig.archive.store import ObjectPath
from shardmig.errors import BadInput, NotFound
from shardmig.records import ProjectId, Receipt, RunId

_BATCH_BYTES: Final = 32 << 20
_MIN_BATCH_ROWS: Final = 64
_MAX_BATCH_ROWS: Final = 131_072
_AGAIN: Final = "copy the archive again, or export this run again"


WantsGroup = Callable[[Any], bool]
"""Asked with a row group's metadata: is it worth reading?"""


def every_group(_: Any) -> bool:
    """Read all."""
    return True


def paths_between(row_group: Any) -> tuple[str, str] | None:
    """The lowest and highest attribute path in a row group; None if its statistics do not tell."""
    for index in range(row_group.num_columns):
        column = row_group.column(index)
        if column.path_in_schema == "attribute_path":
            statistics = column.statistics
            if statistics is None or not statistics.has_min_max:
                return None
            return str(statistics.min), str(statistics.max)
    return None


class PublishedRun:
    """A run's parts. Opening reads nothing; every error names the file and the run."""

    def __init__(self, folder: Place, prefix: str, first: Place | None = None) -> None:
        self.folder = folder
        self.prefix = prefix
        self.first = first or folder / part_name(prefix, 0)
        """part_0."""

    def exists(self) -> bool:
        """Is it published? (Whole, `check` tells.)"""
        found = existing(self.first)
        self.first = found or self.first
        return found is not None

    @cached_property
    def parts(self) -> list[Place]:
        """All parts by number. Raises BadInput naming a part that is missing, NotFound if there is no part_0."""
        if not self.exists():
            raise NotFound(f"there is no {part_name(self.prefix, 0)} in {self.folder}", run=self.prefix)
        if self.receipt is not None:
            return [self.first, *parts_from(self.folder, self.prefix, 1, at_least=len(self.receipt.parts))]
        found = parts_of(self.folder, self.prefix)
        for number in range(max(found)):
            if number not in found:
                raise self._bad(self.folder / part_name(self.prefix, number), "is missing")
        return list(found.values())

    @property
    def receipt(self) -> Receipt | None:
        """The receipt in part_0; None for archives of neptune-exporter."""
        return self._head[0]

    @property
    def identity(self) -> tuple[ProjectId, RunId]:
        """(project, run id) from the columns of part_0, else from the receipt."""
        return self._head[1]

    @cached_property
    def _head(self) -> tuple[Receipt | None, tuple[ProjectId, RunId]]:
        """What one look at part_0 tells: in a long listing, opening files is what takes the time."""
        with self.opened(self.first) as file:
            receipt = receipt_in(file.metadata.metadata, str(self.first))
            if file.metadata.num_rows:
                project, run = (_only_value(file, name) for name in ("project_id", "run_id"))
                return receipt, (ProjectId(project), RunId(run))
        if receipt is None:
            raise self._bad(self.first, "holds no rows and no receipt")
        return receipt, (receipt.run.project, receipt.run.id)

    def rows(self) -> int:
        """Rows of all parts, from their footers."""
        total = 0
        for path in self.parts:
            with self.opened(path) as file:
                total += file.metadata.num_rows
        return total

    def check(self, *, hashes: bool) -> None:
        """Raise BadInput unless parts and receipt agree: which parts, their rows and sizes, and their hashes if asked.
        Nothing to compare without a receipt."""
        if self.receipt is None:
            return
        told = {part.name: part for part in self.receipt.parts}
        for path in self.parts:
            if path.name not in told:
                raise self._bad(path, "is not in the run's receipt")
        for path in (self.folder / name for name in told):
            if path not in self.parts:
                raise self._bad(path, "is missing")
        for path in self.parts:
            part = told[path.name]
            with self.opened(path) as file:
                if file.metadata.num_rows != part.rows:
                    raise self._bad(path, f"holds {file.metadata.num_rows} rows, its receipt says {part.rows}")
            if part.size_bytes >= 0 and path.stat().st_size != part.size_bytes:
                raise self._bad(path, f"has {path.stat().st_size} bytes, its receipt says {part.size_bytes}")
            if hashes and part.sha256 and file_sha256(path) != part.sha256:
                raise self._bad(path, "has other content than its receipt says")

    def refuse_rows_of_others(self) -> None:
        """Raise BadInput if a part has rows of another run: one that was renamed, or parts that were put together."""
        for path in self.parts:
            with self.opened(path) as file:
                groups = [
                    group for group in range(file.metadata.num_row_groups) if file.metadata.row_group(group).num_rows
                ]
                for group in groups:
                    for name, own in zip(("project_id", "run_id"), self.identity, strict=True):
                        if others := _values(file, group, name) - {own}:
                            raise self._bad(path, f"holds rows of another run: {name} {min(others)!r}, not {own!r}")

    def fingerprint(self) -> str:
        """Changes when the content does: the receipt's digest, else names, sizes and times of the parts."""
        if self.receipt is not None:
            return self.receipt.digest
        stats = [(path.name, path.stat()) for path in self.parts]
        return " ".join(f"{name}:{stat.st_size}:{stat.st_mtime_ns}" for name, stat in stats)

    def row_groups(self, path: Place, wants_group: WantsGroup = every_group) -> Iterator[pa.RecordBatch]:
        """The row groups of one part, each whole: only for parts of ours, whose row groups are small."""
        with self.opened(path) as file:
            for group in range(file.metadata.num_row_groups):
                row_group = file.metadata.row_group(group)
                if row_group.num_rows and wants_group(row_group):
                    table = file.read_row_group(group, columns=filled_columns(row_group), use_threads=False)
                    yield from table.combine_chunks().to_batches()

    def batches(
        self, path: Place, wants_group: WantsGroup = every_group, columns: Collection[str] = COLUMNS
    ) -> Iterator[pa.RecordBatch]:
        """The rows of one part in file order, in batches of bounded size."""
        with self.opened(path) as file:
            for group in range(file.metadata.num_row_groups):
                row_group = file.metadata.row_group(group)
                if row_group.num_rows and wants_group(row_group):
                    row_bytes = max(1, row_group.total_byte_size // row_group.num_rows)
                    yield from file.iter_batches(
                        batch_size=min(_MAX_BATCH_ROWS, max(_MIN_BATCH_ROWS, _BATCH_BYTES // row_bytes)),
                        row_groups=[group],
                        columns=[name for name in filled_columns(row_group) if name in columns],
                        use_threads=False,
                    )

    @contextmanager
    def opened(self, path: Place) -> Iterator[Any]:
        """One part, open; what pyarrow says of a damaged file becomes BadInput."""
        try:
            source = path.open() if isinstance(path, ObjectPath) else path
            with pq.ParquetFile(source, read_dictionary=["attribute_path", "attribute_type"]) as file:
                missing = {"project_id", "run_id", "attribute_path", "attribute_type"} - set(file.schema_arrow.names)
                if missing:
                    raise self._bad(path, f"has no column {', '.join(sorted(missing))}")
                yield file
        except FileNotFoundError as error:
            raise self._bad(path, "is missing") from error
        except (pa.ArrowException, OSError) as error:
            raise self._bad(path, f"cannot be read: {error}") from error

    def _bad(self, path: Place, what: str) -> BadInput:
        return BadInput(f"{path} {what}", run=self.prefix, hint=_AGAIN)


def filled_columns(row_group: Any) -> list[str]:
    """The columns that a reader needs and that hold anything in this row group, by its statistics."""
    # An empty set counts as null there, so that column is always read.
    filled: dict[str, None] = dict.fromkeys(("attribute_path", "attribute_type", "string_set_value"))
    names: set[str] = set()
    for index in range(row_group.num_columns):
        column = row_group.column(index)
        name = column.path_in_schema.split(".", 1)[0]
        names.add(name)
        statistics = column.statistics
        is_empty = statistics is not None and statistics.has_null_count and statistics.null_count == row_group.num_rows
        if name in COLUMNS and not is_empty:
            filled[name] = None
    return [name for name in filled if name in names]


def _only_value(file: Any, name: str) -> str:
    """The value of a column that is the same in every row."""
    return min(_values(file, 0, name))


def _values(file: Any, group: int, name: str) -> set[str]:
    """What a column holds in one row group, from the statistics if they tell it."""
    statistics = file.metadata.row_group(group).column(file.schema_arrow.names.index(name)).statistics
    is_told = statistics is not None and statistics.has_min_max and statistics.has_null_count
    if is_told and statistics.min == statistics.max and not statistics.null_count:
        return {str(statistics.min)}
    batches = file.iter_batches(batch_size=_MAX_BATCH_ROWS, row_groups=[group], columns=[name], use_threads=False)
    return {value or "" for batch in batches for value in batch.column(0).unique().to_pylist()}
