from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from shardmig.archive.digest import RunDigest, digest_of
from shardmig.records import (
    Chunk,
    Field,
    Fields,
    FileRef,
    Files,
    HistogramPoints,
    StepNeeds,
    Steps,
)
from tests.unit.archive.runs import floats, histograms, int64s, publish, read, texts


def digest(*chunks: Chunk) -> str:
    counted = RunDigest()
    for chunk in chunks:
        counted.add(chunk)
    assert counted.digest() == digest_of(counted.field_digests())
    return counted.digest()


def _file(sha256: str = "aa", name: str = "x.txt", step: str | None = "1", time_ms: int | None = 5) -> Chunk:
    at = None if step is None else Decimal(step)
    return Files(
        [FileRef(path="f", type="file_series", stored="s", name=name, sha256=sha256, step=at, time_ms=time_ms)]
    )


def _histogram(kind: str, edges: list[float], values: list[float]) -> Chunk:
    return HistogramPoints(["h"], int64s([1]), Steps(int64s([1])), int64s([1]), histograms([(kind, edges, values)]))


DIFFERENT: dict[str, tuple[Chunk, Chunk]] = {
    "value": (floats("m", [1], [1.0]), floats("m", [1], [np.nextafter(1.0, 2)])),
    "sign of zero": (floats("m", [1], [0.0]), floats("m", [1], [-0.0])),
    "step": (floats("m", [1], [1.0]), floats("m", [2], [1.0])),
    "fraction of step": (floats("m", [1], [1.0], scale=18), floats("m", [2], [1.0], scale=18)),
    "time": (floats("m", [1], [1.0], times=[1]), floats("m", [1], [1.0], times=[2])),
    "no time": (floats("m", [1], [1.0]), floats("m", [1], [1.0], times=[0])),
    "path": (floats("m", [1], [1.0]), floats("n", [1], [1.0])),
    "doubled row": (floats("m", [1, 1], [1.0, 1.0]), floats("m", [1], [1.0])),
    "four times for twice": (floats("m", [1] * 4, [1.0] * 4), floats("m", [1] * 2, [1.0] * 2)),
    "swapped values": (floats("m", [1, 2], [1.0, 2.0]), floats("m", [1, 2], [2.0, 1.0])),
    "text": (texts("m", [1], ["a"]), texts("m", [1], ["b"])),
    "cut of texts": (texts("m", [1, 1], ["ab", "c"]), texts("m", [1, 1], ["a", "bc"])),
    "kind": (_histogram("COUNTING", [0, 1], [1]), _histogram("DENSITY", [0, 1], [1])),
    "cut of edges": (_histogram("DENSITY", [0, 1], [1]), _histogram("DENSITY", [0], [1, 1])),
    "bool and int": (Fields([Field("p", "bool", True)]), Fields([Field("p", "int", 1)])),
    "text and int": (Fields([Field("p", "string", "1")]), Fields([Field("p", "int", 1)])),
    "members": (Fields([Field("p", "string_set", ["a,b"])]), Fields([Field("p", "string_set", ["a", "b"])])),
    "zero": (Fields([Field("p", "float", 0.0)]), Fields([Field("p", "float", -0.0)])),
    "bytes of file": (_file("aa"), _file("ab")),
    "name of file": (_file(name="x"), _file(name="y")),
    "step of file": (_file(step="1"), _file(step="2")),
    "no step of file": (_file(step=None), _file(step="0")),
    "time of file": (_file(time_ms=0), _file(time_ms=None)),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_other_content_has_another_digest(what: str) -> None:
    one, other = DIFFERENT[what]
    assert digest(one) != digest(other)


def test_all_nans_are_one() -> None:
    payload = np.array([0x7FF8000000000123], dtype=np.uint64).view(np.float64)
    assert digest(floats("m", [1], [float("nan")])) == digest(floats("m", [1], list(payload)))
    assert digest(_histogram("DENSITY", [0, float("nan")], [1])) == digest(
        _histogram("DENSITY", [0, -float("nan")], [1])
    )


def test_a_step_is_the_same_at_any_scale() -> None:
    assert digest(floats("m", [1], [1.0])) == digest(floats("m", [1000], [1.0], scale=3))
    assert digest(_file(step="1")) == digest(_file(step="1.000"))


def test_a_scalar_that_comes_again_counts_once_and_the_last_wins() -> None:
    first, second = Fields([Field("p", "int", 1)]), Fields([Field("p", "int", 2)])
    assert digest(first, second) == digest(second)


def test_an_empty_series_is_no_field() -> None:
    assert digest(floats("m", [], [])) == digest()


def test_counts_and_step_needs_are_those_of_all_chunks() -> None:
    counted = RunDigest()
    counted.add(floats("m", [25, 50], [1.0, 2.0], scale=2))
    counted.add(texts("t", [-7], ["a"]))
    counted.add(Fields([Field("p", "int", 1)]))
    counted.add(
        Files([FileRef(path="f", type="file", stored="s", size_bytes=7), FileRef(path="g", type="file", stored="t")])
    )
    counters = counted.counters()
    assert (counters.runs, counters.fields, counters.points, counters.texts) == (1, 5, 2, 1)
    assert (counters.files, counters.bytes) == (2, 7)
    assert counted.steps() == StepNeeds(4, "-7", "0.5")


def test_a_float_that_a_source_gives_as_an_integer_is_the_float_that_parquet_holds(tmp_path: Path) -> None:
    publish(tmp_path, [Fields([Field("lr", "float", 1), Field("seed", "int", 1)])])
    assert [chunk.fields for chunk in read(tmp_path) if isinstance(chunk, Fields)] == [
        [Field("lr", "float", 1.0), Field("seed", "int", 1)]
    ]


def test_a_set_that_a_source_gives_with_a_member_twice_is_a_set(tmp_path: Path) -> None:
    publish(tmp_path, [Fields([Field("tags", "string_set", ["b", "a", "b"])])])
    assert [chunk.fields for chunk in read(tmp_path) if isinstance(chunk, Fields)] == [
        [Field("tags", "string_set", ["a", "b"])]
    ]
