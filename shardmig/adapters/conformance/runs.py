"""Runs to move: a rich one with every hazard known, a plain one, a wide one. All deterministic."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

import numpy as np

from shardmig import steps as exact_steps
from shardmig.adapters.base import FACT_NAMESPACES, FileSink
from shardmig.archive.digest import RunDigest
from shardmig.records import (
    NO_TIME,
    Chunk,
    End,
    Field,
    FieldDigest,
    Fields,
    FieldType,
    FileRef,
    Files,
    FloatPoints,
    Header,
    HistogramPoints,
    Histograms,
    Int64s,
    Points,
    ProjectId,
    RunId,
    RunRef,
    Steps,
    StringPoints,
    Texts,
)

FieldKey = tuple[str, FieldType]

CREATED_MS: Final = 1_700_000_000_123
MULTIPLIER: Final = 100
"""The smallest step multiplier that keeps every step of these runs."""

_LONG: Final = "n" * 250
HOSTILE_NAMES: Final = (
    "a:b",
    "a_b",
    "it's",
    'say "so"',
    "two\nlines",
    "case/Name",
    "case/name",
    "accent/e\u0301",
    "accent/\u00e9",
    "\u202eright to left\u202c",
    "שלום/עולם",
    "emoji/🚀",
    "percent/%2e%2e",
    "back\\slash",
    "dots/../up",
    "../outside",
    "/absolute",
    "double//slash",
    "trailing/",
    " spaces ",
    "star*?<>|",
    "nul\0inside",
    "con.txt",
    "made~0123456789abcdef",
    _LONG + "/one",
    _LONG + "/two",
    "long/" + "x" * 3000,
    "prefix",
    "prefix/of/another",
)
_HOSTILE_FILE_NAMES: Final = (
    "../../evil.txt",
    "/etc/passwd",
    "new\nline.txt",
    "CON",
    "a:b?.png",
    "x" * 300 + ".txt",
    ".",
)


def plain_run(project: str = "ws/plain", run_id: str = "RUN-1", parent: str | None = None) -> list[Chunk]:
    """A small ordinary run: a few scalars, one metric, no files."""
    run = _ref(project, run_id, parent)
    points = FloatPoints(["metrics/loss"], _counts(10), Steps(np.arange(10)), _times(10), np.linspace(1.0, 0.1, 10))
    fields = [*_run_facts(run_id, parent), Field("params/lr", "float", 0.001), Field("params/run", "string", run_id)]
    return [Header(run, "conformance", "1"), Fields(fields), points, End()]


def wide_run(fields: int = 3000) -> list[Chunk]:
    """A run of very many fields: half of them parameters, half metrics of two points."""
    half = fields // 2
    run = _ref("ws/wide", "WIDE-1")
    scalars = [Field(f"params/group{number % 7}/p{number:04}", "int", number) for number in range(half)]
    paths = sorted(f"metrics/group{number % 7}/m{number:04}" for number in range(half))
    lengths = np.full(half, 2, dtype=np.int64)
    values = np.arange(2 * half, dtype=np.float64) / 7
    points = FloatPoints(paths, lengths, Steps(np.tile(np.arange(2), half)), np.tile(_times(2), half), values)
    return [
        Header(run, "conformance", "1"),
        Fields(_sorted([*_run_facts("WIDE-1", None), *scalars])),
        points,
        End(),
    ]


def rich_run(files: FileSink, project: str = "ws/rich", run_id: str = "RICH-1") -> list[Chunk]:
    """A run with every type and every hazard that has hurt a migration. Its files are put into `files`."""
    run = _ref(project, run_id)
    scalars = [*_run_facts(run_id, None), *_scalars(), *_named_scalars()]
    return [
        Header(run, "conformance", "1"),
        Fields(_sorted(scalars)),
        Files(_files(run, files)),
        _floats(),
        _named_floats(),
        _strings(),
        _histograms(),
        End(),
    ]


def field_digests(chunks: Iterable[Chunk]) -> dict[FieldKey, FieldDigest]:
    """What the chunks hold, by field; equal if and only if the content is."""
    digest = RunDigest()
    for chunk in chunks:
        digest.add(chunk)
    return {(field.path, field.type): field for field in digest.field_digests()}


def field_paths(chunks: Iterable[Chunk]) -> set[str]:
    """The paths of all fields that the chunks hold."""
    return {path for path, _ in field_digests(chunks)}


def fact_fields(chunks: Iterable[Chunk]) -> list[Field]:
    """The fields that `WriteSide.expected_facts` is given."""
    scalars = (field for chunk in chunks if isinstance(chunk, Fields) for field in chunk.fields)
    return [field for field in scalars if field.path.startswith(FACT_NAMESPACES)]


def last_point_ms(chunks: Iterable[Chunk]) -> int | None:
    """The greatest time of all points, None if none has a time."""
    times_ms = [int(chunk.times_ms.max()) for chunk in chunks if isinstance(chunk, Points) and len(chunk.times_ms)]
    latest_ms = max(times_ms, default=NO_TIME)
    return None if latest_ms == NO_TIME else latest_ms


def _ref(project: str, run_id: str, parent: str | None = None) -> RunRef:
    parent_id = RunId(parent) if parent is not None else None
    return RunRef(project=ProjectId(project), id=RunId(run_id), created_ms=CREATED_MS, parent=parent_id)


def _run_facts(run_id: str, parent: str | None) -> list[Field]:
    facts = [
        Field("sys/creation_time", "datetime", CREATED_MS),
        Field("sys/description", "string", "two\nlines of description"),
        Field("sys/failed", "bool", False),
        Field("sys/group_tags", "string_set", ["group"]),
        Field("sys/id", "string", run_id),
        Field("sys/modification_time", "datetime", CREATED_MS + 60_000),
        Field("sys/name", "string", f"name of {run_id}"),
        Field("sys/owner", "string", "somebody"),
        Field("sys/running_time", "float", 59.5),
        Field("sys/tags", "string_set", ["one", "two words"]),
    ]
    return facts if parent is None else [*facts, Field("sys/forking/parent", "string", parent)]


def _scalars() -> list[Field]:
    ints = [0, -1, 2**53 + 1, 2**63 - 1, -(2**63)]
    floats = [0.1, float("nan"), float("inf"), float("-inf"), -0.0, 0.0, 5e-324, 1.7976931348623157e308, 1e16, 3.0]
    texts = [
        "",
        " ",
        "text",
        "a" * 20_000,
        "żółw\u202e🚀",
        "line\r\nline\n",
        "'\"",
        "NaN",
        "None",
        "nul\0inside",
        "1.0",
    ]
    sets = [[], ["one"], ["a,b", 'c"d', "ü"]]
    return [
        *(Field(f"values/int/{number}", "int", value) for number, value in enumerate(ints)),
        *(Field(f"values/float/{number:02}", "float", value) for number, value in enumerate(floats)),
        *(Field(f"values/string/{number:02}", "string", value) for number, value in enumerate(texts)),
        *(Field(f"values/set/{number}", "string_set", value) for number, value in enumerate(sets)),
        Field("values/bool/false", "bool", False),
        Field("values/bool/true", "bool", True),
        Field("values/datetime/early", "datetime", -1_000),
        Field("values/datetime/late", "datetime", 4_102_444_800_001),
        Field("values/long", "string", "a" * 19_999 + "b"),
        Field("two_types", "float", 0.5),
    ]


def _named_scalars() -> list[Field]:
    return [Field(f"{name}", "string", f"scalar {number}") for number, name in enumerate(HOSTILE_NAMES)]


def _floats() -> FloatPoints:
    count = 1000
    odd = [float("nan"), float("inf"), float("-inf"), -0.0, 0.0, 5e-324, -1.7976931348623157e308, 0.1]
    return _joined(
        [
            ("series/constant", [Decimal(step) for step in range(20)], [NO_TIME] * 20, [1.0] * 20),
            ("series/decimal", _decimals("0.01", "0.28", "0.29", "0.57", "1.1", "2"), _times(6).tolist(), [0.29] * 6),
            ("series/long", [Decimal(step) for step in range(count)], _times(count).tolist(), _curve(count)),
            ("series/negative_steps", _decimals("-5", "-0.5", "0"), _times(3).tolist(), [1.0, 2.0, 3.0]),
            ("series/odd_values", [Decimal(step) for step in range(8)], _times(8).tolist(), odd),
            (
                "series/repeated",
                _decimals("1", "1", "1", "1", "2"),
                [*_repeated(4), CREATED_MS],
                [3.0, 2.0, 2.0, 1.0, 0.0],
            ),
            ("series/some_times", _decimals("1", "2", "3"), [CREATED_MS, NO_TIME, CREATED_MS + 5], [1.0, 2.0, 3.0]),
            ("series/very_late", [Decimal(2**53), Decimal(2**53 + 1)], _times(2).tolist(), [1.0, 2.0]),
            ("two_types", _decimals("0", "1"), _times(2).tolist(), [0.25, 0.75]),
        ]
    )


def _named_floats() -> FloatPoints:
    two = _decimals("0", "1")
    return _joined(
        [
            (f"{name}#m", two, _times(2).tolist(), [float(number), 0.5])
            for number, name in enumerate(sorted(HOSTILE_NAMES))
        ]
    )


def _strings() -> StringPoints:
    texts = ["", "one", "two\nlines\r\n", "x" * 20_000, "żółw🚀", "same", "same", "', \"", "\u202ertl"]
    steps = exact_steps.from_decimals(_decimals("0", "0.5", "1", "2", "3", "4", "4", "5", "6"))
    times = _times(9)
    times[2] = NO_TIME
    return StringPoints(["logs/a:b", "logs/stdout"], _counts(4, 5), steps, times, Texts.from_list(texts))


def _histograms() -> HistogramPoints:
    edges = np.array([0.0, 1.0, 2.0, -1.5, 0.25, 1e300, 0.0, 1.0])
    values = np.array([3.0, 4.0, 0.125, float("nan"), 7.0])
    histograms = Histograms(["COUNTING", "DENSITY", "COUNTING"], _counts(3, 3, 2), edges, _counts(2, 2, 1), values)
    steps = exact_steps.from_decimals(_decimals("0", "0.29", "1"))
    return HistogramPoints(["histograms/weights"], _counts(3), steps, _times(3), histograms)


def _files(run: RunRef, files: FileSink) -> list[FileRef]:
    def put(path: str, content: bytes, name: str) -> FileRef:
        return files.put(run, path, "file", io.BytesIO(content), name=name)

    tree: list[tuple[str, io.BytesIO]] = [
        ("deep/er/ąę.txt", io.BytesIO(b"deep")),
        ("empty", io.BytesIO(b"")),
        ("top.bin", io.BytesIO(bytes(range(256)))),
    ]
    refs = [
        put("files/empty", b"", "empty.txt"),
        put("files/model", bytes(range(256)) * 300, "model.pt"),
        put("files/no_extension", b"plain", "LICENSE"),
        put("case/File", b"upper", "file.txt"),
        put("case/file", b"lower", "file.txt"),
        put("../../outside", b"outside", "outside.txt"),
        put("prefix", b"file under a scalar's name", "prefix.bin"),
        put("prefix/of", b"file under another's folder", "of.bin"),
        *(put(f"files/hostile/{number}", b"%d" % number, name) for number, name in enumerate(_HOSTILE_FILE_NAMES)),
        files.put(run, "source_code/list", "artifact", io.BytesIO(b"[]"), name="files_list.json"),
        files.put_tree(run, "files/tree", "file_set", tree),
        *(
            files.put(
                run,
                "images",
                "file_series",
                io.BytesIO(b"%d" % number),
                name="i.png",
                step=Decimal(step),
                time_ms=time_ms,
            )
            for number, (step, time_ms) in enumerate([("0", CREATED_MS), ("0.5", CREATED_MS + 1), ("1", None)])
        ),
    ]
    return sorted(refs, key=lambda ref: (ref.path, ref.step or Decimal(0)))


def _joined(series: Sequence[tuple[str, list[Decimal], list[int], Sequence[float]]]) -> FloatPoints:
    return FloatPoints(
        [path for path, _, _, _ in series],
        _counts(*(len(steps) for _, steps, _, _ in series)),
        exact_steps.from_decimals([step for _, steps, _, _ in series for step in steps]),
        np.array([time_ms for _, _, times_ms, _ in series for time_ms in times_ms], dtype=np.int64),
        np.array([value for _, _, _, values in series for value in values], dtype=np.float64),
    )


def _sorted(fields: list[Field]) -> list[Field]:
    return sorted(fields, key=lambda field: (field.path, field.type))


def _counts(*counts: int) -> Int64s:
    return np.array(counts, dtype=np.int64)


def _decimals(*texts: str) -> list[Decimal]:
    return [Decimal(text) for text in texts]


def _times(count: int) -> Int64s:
    return CREATED_MS + 1000 * np.arange(count, dtype=np.int64)


def _repeated(count: int) -> list[int]:
    return [CREATED_MS, CREATED_MS, CREATED_MS, CREATED_MS + 7][:count]


def _curve(count: int) -> list[float]:
    curve: list[float] = (1.0 / (1.0 + np.arange(count)) + 1e-3 * np.sin(np.arange(count))).tolist()
    return curve
