"""Content digests: equal content gives equal digests, whatever the chunking and the order of rows.

Per field: the sum, modulo 2^64 in each of two lanes, of a 64-bit hash of every row. A row is its step (whole part
and fraction, so that 1.0 and 1.00 are one step), its time and its value: the bits of a float (all NaNs are one, -0.0
and +0.0 are two), else a BLAKE2b of the value. Per run: a BLAKE2b over (path, type, rows, digest) of all fields.
Guards against loss, doubling and damage, not against somebody who wants two contents to match.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from decimal import Decimal
from hashlib import blake2b
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shardmig import steps as exact_steps
from shardmig.records import (
    FILE_TYPES,
    Chunk,
    Counters,
    End,
    Field,
    FieldDigest,
    Fields,
    FieldType,
    FileRef,
    Files,
    Float64s,
    FloatPoints,
    Header,
    HistogramPoints,
    Histograms,
    Points,
    StepNeeds,
    StringPoints,
    Texts,
)

_Words = NDArray[np.uint64]
_Sums = tuple[int, int, int]
"""(rows, sum of lane 0, sum of lane 1)."""

_SEEDS: Final = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))
_MULTIPLIERS: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFT: Final = np.uint64(32)
_MASK: Final = (1 << 64) - 1
_NAN: Final = np.float64("nan")


class RunDigest:
    """Digests, counts and step needs of a run from its chunks, in any order and cut.

    A scalar, or a file that is not a series, that comes again replaces the earlier one (a resumed source may repeat
    it); rows of series are added up. Memory: a few integers a field.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, FieldType], _Sums] = {}
        self._file_bytes: dict[tuple[str, FieldType], int] = {}
        self._steps = StepNeeds()

    def add(self, chunk: Chunk) -> None:
        """Count one chunk."""
        match chunk:
            case FloatPoints():
                bits = float_bits(chunk.values)
                self._add_rows(chunk, "float_series", bits, bits)
            case StringPoints():
                self._add_rows(chunk, "string_series", *_text_words(chunk.values))
            case HistogramPoints():
                self._add_rows(chunk, "histogram_series", *_histogram_words(chunk.values))
            case Fields(fields):
                for field in fields:
                    self._sums[field.path, field.type] = (1, *_lanes(_scalar_bytes(field)))
            case Files(files):
                for ref in files:
                    self._add_file(ref)
            case Header() | End():
                pass

    def field_digests(self) -> list[FieldDigest]:
        """One for each field, sorted by path and type."""
        return [
            FieldDigest(path, field_type, rows, f"{first:016x}{second:016x}")
            for (path, field_type), (rows, first, second) in sorted(self._sums.items())
        ]

    def digest(self) -> str:
        """The run's content digest, 32 hex digits."""
        return digest_of(self.field_digests())

    def counters(self) -> Counters:
        """What was counted: one run, its fields of every type, its rows by type and the bytes of its files."""
        rows = dict.fromkeys(("float_series", "string_series", "histogram_series", "file"), 0)
        for (_, field_type), (count, _, _) in self._sums.items():
            kind = "file" if field_type in FILE_TYPES else field_type
            if kind in rows:
                rows[kind] += count
        return Counters(
            runs=1,
            fields=len(self._sums),
            points=rows["float_series"],
            texts=rows["string_series"],
            histograms=rows["histogram_series"],
            files=rows["file"],
            bytes=sum(self._file_bytes.values()),
        )

    def steps(self) -> StepNeeds:
        """What all steps of the run ask of a step multiplier."""
        return self._steps

    def _add_file(self, ref: FileRef) -> None:
        key = (ref.path, ref.type)
        size = max(ref.size_bytes, 0)
        if ref.type != "file_series":
            self._sums[key] = (1, *_lanes(_file_bytes(ref)))
            self._file_bytes[key] = size
            return
        self._sums[key] = _plus(self._sums.get(key, (0, 0, 0)), (1, *_lanes(_file_bytes(ref))))
        self._file_bytes[key] = self._file_bytes.get(key, 0) + size
        if ref.step is not None:
            self._steps = exact_steps.merge_needs(self._steps, exact_steps.needs(exact_steps.exact(ref.step)))

    def _add_rows(self, chunk: Points, field_type: FieldType, first: _Words, second: _Words) -> None:
        if len(chunk.times_ms) == 0:
            return
        self._steps = exact_steps.merge_needs(self._steps, exact_steps.needs(chunk.steps))
        whole, fraction = exact_steps.whole_and_fraction(chunk.steps)
        keys = [np.ascontiguousarray(column).view(np.uint64) for column in (whole, fraction, chunk.times_ms)]
        lanes = [
            _sums_by_series(_hash_rows(lane, [*keys, words]), chunk.lengths)
            for lane, words in enumerate((first, second))
        ]
        for path, *added in zip(chunk.paths, chunk.lengths.tolist(), lanes[0], lanes[1], strict=True):
            if added[0]:
                key = (path, field_type)
                self._sums[key] = _plus(self._sums.get(key, (0, 0, 0)), (added[0], added[1], added[2]))


def digest_of(fields: Iterable[FieldDigest]) -> str:
    """A run's digest from the digests of its fields."""
    whole = blake2b(digest_size=16)
    for field in sorted(fields, key=lambda field: (field.path, field.type)):
        path = field.path.encode("utf-8", "surrogatepass")
        whole.update(struct.pack("<Q", len(path)) + path)
        whole.update(f"\0{field.type}\0{field.rows}\0{field.digest}\n".encode())
    return whole.hexdigest()


def float_bits(values: Float64s) -> _Words:
    """The bits of floats, every NaN the same."""
    values = np.ascontiguousarray(values)
    missing = np.isnan(values)
    return (np.where(missing, _NAN, values) if missing.any() else values).view(np.uint64)


def _hash_rows(lane: int, columns: list[_Words]) -> _Words:
    hashed = np.full(len(columns[0]), _SEEDS[lane], dtype=np.uint64)
    for column in columns:
        hashed ^= column
        hashed *= _MULTIPLIERS[lane]
        hashed ^= hashed >> _SHIFT
    hashed *= _MULTIPLIERS[1 - lane]
    hashed ^= hashed >> _SHIFT
    return hashed


def _sums_by_series(hashed: _Words, lengths: NDArray[np.int64]) -> list[int]:
    totals = np.zeros(len(hashed) + 1, dtype=np.uint64)
    np.cumsum(hashed, out=totals[1:])
    ends = np.cumsum(lengths)
    sums: list[int] = (totals[ends] - totals[ends - lengths]).tolist()
    return sums


def _plus(one: _Sums, other: _Sums) -> _Sums:
    return one[0] + other[0], (one[1] + other[1]) & _MASK, (one[2] + other[2]) & _MASK


def _text_words(texts: Texts) -> tuple[_Words, _Words]:
    utf8 = memoryview(texts.utf8)
    offsets = texts.offsets.tolist()
    return _columns(b"".join(blake2b(utf8[start:stop], digest_size=16).digest() for start, stop in pairwise(offsets)))


def _histogram_words(histograms: Histograms) -> tuple[_Words, _Words]:
    edges, values = float_bits(histograms.edges).data, float_bits(histograms.values).data
    edge_ends = np.cumsum(histograms.edge_counts).tolist()
    value_ends = np.cumsum(histograms.value_counts).tolist()
    rows: list[bytes] = []
    edge_start = value_start = 0
    for kind, edge_end, value_end in zip(histograms.kinds, edge_ends, value_ends, strict=True):
        row = blake2b(f"{kind}\0{edge_end - edge_start}\0".encode(), digest_size=16)
        row.update(edges[edge_start:edge_end])
        row.update(values[value_start:value_end])
        rows.append(row.digest())
        edge_start, value_start = edge_end, value_end
    return _columns(b"".join(rows))


def _columns(words: bytes) -> tuple[_Words, _Words]:
    pairs = np.frombuffer(words, dtype="<u8").astype(np.uint64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _lanes(row: bytes) -> tuple[int, int]:
    first, second = struct.unpack("<QQ", blake2b(row, digest_size=16).digest())
    return first, second


def _scalar_bytes(field: Field) -> bytes:
    value = field.value
    if field.type == "float" and isinstance(value, int | float):  # a source may give 1 where parquet holds 1.0
        return float_bits(np.array([value], dtype=np.float64)).tobytes()
    if isinstance(value, list):
        members = [member.encode("utf-8", "surrogatepass") for member in sorted(set(value))]
        return b"".join(struct.pack("<Q", len(member)) + member for member in members)
    return str(value).encode("utf-8", "surrogatepass")


def _file_bytes(ref: FileRef) -> bytes:
    step = "" if ref.step is None else plain_step(ref.step)
    return f"{ref.sha256}\0{step}\0{'' if ref.time_ms is None else ref.time_ms}\0{ref.name}".encode(
        "utf-8", "surrogatepass"
    )


def plain_step(step: Decimal) -> str:
    """One text for equal steps: no exponent, no trailing zeros."""
    return format(step.normalize() if step else Decimal(0), "f")
