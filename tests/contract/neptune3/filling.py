"""Puts runs into a server: with operations as neptune-scale sends them, without a client process for each run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from tests.servers.neptune3.messages import common, operations
from tests.servers.neptune3.server import Neptune3
from tests.servers.neptune3.store import MICRO, Point, Series

CREATED_MS = 1_700_000_000_123


def create(
    server: Neptune3,
    project: str,
    run_id: str,
    *,
    name: str = "",
    fork: tuple[str, str] | None = None,
    created_ms: int = CREATED_MS,
) -> None:
    """Create a run; `fork` is the id of its parent and the step."""
    run = common.Run(run_id=run_id, experiment_id=name or run_id)
    run.creation_time.FromMilliseconds(created_ms)
    if fork is not None:
        run.fork_point.parent_run_id = fork[0]
        run.fork_point.step.CopyFrom(step_of(fork[1]))
    send(server, operations.RunOperation(project=project, run_id=run_id, create=run))


def assign(server: Neptune3, project: str, run_id: str, values: Mapping[str, Any]) -> None:
    """Set single values."""
    update = common.UpdateRunSnapshot(assign={path: value_of(value) for path, value in values.items()})
    send(server, operations.RunOperation(project=project, run_id=run_id, update=update))


def append(
    server: Neptune3,
    project: str,
    run_id: str,
    path: str,
    points: Iterable[tuple[str | int, int, Any]],
    *,
    completion: float | None = None,
) -> None:
    """Append (step, time_ms, value) to a series; `completion` makes them previews."""
    snapshots = []
    for step, time_ms, value in points:
        snapshot = common.UpdateRunSnapshot(step=step_of(str(step)), append={path: value_of(value)})
        snapshot.timestamp.FromMilliseconds(time_ms)
        if completion is not None:
            snapshot.preview.is_preview = True
            snapshot.preview.completion_ratio = completion
        snapshots.append(snapshot)
    batch = common.UpdateRunSnapshots(snapshots=snapshots)
    send(server, operations.RunOperation(project=project, run_id=run_id, update_batch=batch))


def upload(server: Neptune3, project: str, location: str, content: bytes, mime_type: str = "text/plain") -> Any:
    """A file in the object store, and the value that refers to it."""
    server.store.objects[project, location] = content
    return common.FileRef(path=location, size_bytes=len(content), mime_type=mime_type)


def histogram(edges: list[float], values: list[float], *, counts: bool = True) -> Any:
    """A histogram as a value."""
    if counts:
        return common.Histogram(bin_edges=edges, counts=common.Histogram.Counts(values=[int(one) for one in values]))
    return common.Histogram(bin_edges=edges, densities=common.Histogram.Densities(values=values))


def add_long_series(server: Neptune3, project: str, run_id: str, path: str, count: int) -> None:
    """A float series of many points, put into the store directly."""
    points = [Point(step * MICRO, CREATED_MS + step, math.sin(step / 1_000)) for step in range(count)]
    server.store.projects[project].by_custom_id[run_id].series[path] = Series("floatSeries", points)


def send(server: Neptune3, operation: Any) -> None:
    """Apply an operation that must not be refused."""
    server.store.project(operation.project)
    request = server.apply(type(operation).FromString(operation.SerializeToString()))
    assert not server.statuses[request], server.statuses[request]


def step_of(text: str) -> Any:
    """An exact step."""
    micro = int(Decimal(text) * MICRO)
    return common.Step(whole=micro // MICRO, micro=micro % MICRO)


def value_of(value: Any) -> Any:
    """A Value message by the Python type."""
    match value:
        case bool():
            return common.Value(bool=value)
        case int():
            return common.Value(int64=value)
        case float():
            return common.Value(float64=value)
        case str():
            return common.Value(string=value)
        case set() | frozenset():
            return common.Value(string_set=common.StringSet(values=sorted(value)))
        case common.FileRef():
            return common.Value(file_ref=value)
        case common.Histogram():
            return common.Value(histogram=value)
        case _:
            message = common.Value()
            message.timestamp.FromDatetime(value)
            return message


def rich_project(server: Neptune3, project: str = "ws/rich") -> None:
    """Two runs, one forked from the other, with fields of every type and every hazard known."""
    create(server, project, "run-1", name="exp")
    assign(server, project, "run-1", SCALARS)
    tags = common.UpdateRunSnapshot()
    for tag in ("b", "a"):
        tags.modify_sets["sys/tags"].string.values[tag] = common.SET_OPERATION.Value("ADD")
    send(server, operations.RunOperation(project=project, run_id="run-1", update=tags))
    for number in range(7):
        points = [(f"{step * 0.5}", CREATED_MS + step, FLOATS[(step + number) % len(FLOATS)]) for step in range(40)]
        append(server, project, "run-1", f"metrics/m{number}", points)
    lines = [(step, CREATED_MS + step, f"line {step} ✓\n" * (step % 3)) for step in range(130)]
    append(server, project, "run-1", "logs/out", lines)
    append(server, project, "run-1", "logs/err", lines[:3])
    shapes = [
        (step, CREATED_MS, histogram([0.0, 0.5, 2.0], [float(step), 2.0], counts=step % 2 == 0)) for step in range(60)
    ]
    append(server, project, "run-1", "hist/w", shapes)
    files = {f"files/{name}": upload(server, project, f"run-1/{name}", name.encode()) for name in ("x.y", "x_y", "z")}
    assign(server, project, "run-1", files)
    images = [
        (f"{step}.25", CREATED_MS + step, upload(server, project, f"run-1/img/{step}.png", bytes([step]), "image/png"))
        for step in range(3)
    ]
    append(server, project, "run-1", "images/pred", images)
    create(server, project, "fork", name="exp", fork=("run-1", "4"), created_ms=CREATED_MS + 1_000)
    append(server, project, "fork", "metrics/m0", [(5, CREATED_MS, 1.25)])
    append(server, project, "fork", "metrics/new", [("4.5", CREATED_MS, math.nan), (6, CREATED_MS, 0.0)])


FLOATS = (0.0, -0.0, 0.1, math.nan, math.inf, -math.inf, 1e-308, 2.5, 3.0)
SCALARS: dict[str, Any] = {
    "params/big": 2**53 + 1,
    "params/least": -(2**63),
    "params/lr": 0.1 + 0.2,
    "params/nan": math.nan,
    "params/inf": -math.inf,
    "params/yes": True,
    "params/no": False,
    "params/empty": "",
    "params/text": "two\nlines, 'quoted' \u202e ✓",
    "params/set": frozenset({"b", "a"}),
    "names/a:b": 1,
    "names/a_b": 2,
    "names/" + "x" * 900: 3,
}
