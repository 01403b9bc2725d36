"""The write side: run operations as neptune-scale sends them, and the rules by which a server refuses some."""

from __future__ import annotations

import time
from typing import Any

from tests.servers.neptune3.messages import common, ingest
from tests.servers.neptune3.store import MICRO, Point, Project, Run, Series, Store

_CODE: Any = ingest.IngestCode
_WRITABLE = ("sys/tags", "sys/group_tags", "sys/name", "sys/description")
_MAX_PATH_BYTES = 1024


def apply(store: Store, operation: Any) -> list[int]:
    """Carry out one RunOperation; an ingest code for each refusal, none if all of it was taken."""
    project = store.project(operation.project)
    if operation.HasField("create"):
        return _create(project, operation.run_id, operation.create)
    run = project.by_custom_id.get(operation.run_id)
    if run is None:
        return [_CODE.RUN_NOT_FOUND]
    snapshots = operation.update_batch.snapshots if operation.HasField("update_batch") else [operation.update]
    refused = [code for snapshot in snapshots for code in _update(run, snapshot)]
    run.values["sys/modification_time"] = ("datetime", time.time_ns() // 1_000_000)
    return refused


def _create(project: Project, run_id: str, create: Any) -> list[int]:
    if run_id in project.by_custom_id:
        return [_CODE.RUN_DUPLICATE]
    parent, fork_step = None, 0
    if create.HasField("fork_point"):
        parent = project.by_custom_id.get(create.fork_point.parent_run_id)
        fork_step = _micro(create.fork_point.step)
        if parent is None:
            return [_CODE.RUN_FORK_PARENT_NOT_FOUND]
    created_ms = _milliseconds(create.creation_time) if create.HasField("creation_time") else None
    run = project.create(run_id, created_ms=created_ms, name=create.experiment_id, parent=parent, fork_step=fork_step)
    if parent is not None and create.inherit_configs:
        for path, value in parent.values.items():
            run.values.setdefault(path, value)
    return []


def _update(run: Run, snapshot: Any) -> list[int]:
    refused = [_assign(run, path, value) for path, value in snapshot.assign.items()]
    refused += [_modify(run, path, change) for path, change in snapshot.modify_sets.items()]
    if snapshot.append:
        step = _micro(snapshot.step) if snapshot.HasField("step") else None
        completion = snapshot.preview.completion_ratio if snapshot.preview.is_preview else None
        time_ms = _milliseconds(snapshot.timestamp)
        refused += [_append(run, path, value, step, time_ms, completion) for path, value in snapshot.append.items()]
    return [code for code in refused if code != _CODE.OK]


def _assign(run: Run, path: str, value: Any) -> int:
    if code := _refused_path(path):
        return code
    kind, content = _single(value)
    if run.type_of(path) not in (None, kind):
        return int(_CODE.FIELD_TYPE_CONFLICTING)
    run.values[path] = (kind, content)
    return int(_CODE.OK)


def _modify(run: Run, path: str, change: Any) -> int:
    if code := _refused_path(path):
        return code
    members = set(run.values.get(path, ("stringSet", ()))[1])
    for member, action in change.string.values.items():
        if action == common.SET_OPERATION.Value("ADD"):
            members.add(member)
        elif action == common.SET_OPERATION.Value("REMOVE"):
            members.discard(member)
    run.values[path] = ("stringSet", sorted(members))
    return int(_CODE.OK)


def _append(run: Run, path: str, value: Any, step: int | None, time_ms: int, completion: float | None) -> int:
    if code := _refused_path(path):
        return code
    kind, content = _point(value)
    if run.type_of(path) not in (None, kind):
        return int(_CODE.FIELD_TYPE_CONFLICTING)
    series = run.series.get(path) or Series(kind)
    step = series.last_step + MICRO if step is None else step
    if run.parent is not None and step <= run.fork_step:
        return int(_CODE.SERIES_STEP_NOT_AFTER_FORK_POINT)
    if completion is not None:
        if step <= series.last_step:
            return int(_CODE.SERIES_PREVIEW_STEP_NOT_AFTER_LAST_COMMITTED_STEP)
        kept = [point for point in series.previews if point.step != step]
        series.previews = sorted([*kept, Point(step, time_ms, content, completion)], key=lambda point: point.step)
    else:
        if step == series.last_step:
            return int(_CODE.SERIES_POINT_DUPLICATE)
        if step < series.last_step:
            return int(_CODE.SERIES_STEP_NON_INCREASING)
        series.committed.append(Point(step, time_ms, content))
        series.previews = [point for point in series.previews if point.step > step]
    run.series[path] = series
    return int(_CODE.OK)


def _refused_path(path: str) -> int:
    if not path:
        return int(_CODE.FIELD_PATH_EMPTY)
    if len(path.encode()) > _MAX_PATH_BYTES:
        return int(_CODE.FIELD_PATH_EXCEEDS_SIZE_LIMIT)
    if path.startswith("sys/") and path not in _WRITABLE:
        return int(_CODE.FIELD_PATH_NON_WRITABLE)
    return int(_CODE.OK)


def _single(value: Any) -> tuple[str, Any]:
    match value.WhichOneof("value"):
        case "float64":
            return "float", value.float64
        case "int64":
            return "int", value.int64
        case "bool":
            return "bool", value.bool
        case "string":
            return "string", value.string
        case "timestamp":
            return "datetime", _milliseconds(value.timestamp)
        case "string_set":
            return "stringSet", sorted(value.string_set.values)
        case "file_ref":
            return "fileRef", (value.file_ref.path, value.file_ref.size_bytes, value.file_ref.mime_type)
        case other:
            raise ValueError(f"a single value cannot be {other}")


def _point(value: Any) -> tuple[str, Any]:
    match value.WhichOneof("value"):
        case "float64":
            return "floatSeries", value.float64
        case "int64":
            return "floatSeries", float(value.int64)
        case "string":
            return "stringSeries", value.string
        case "file_ref":
            return "fileRefSeries", (value.file_ref.path, value.file_ref.size_bytes, value.file_ref.mime_type)
        case "histogram":
            histogram = value.histogram
            counting = histogram.WhichOneof("values") == "counts"
            values = histogram.counts.values if counting else histogram.densities.values
            return "histogramSeries", (
                "COUNTING" if counting else "DENSITY",
                tuple(histogram.bin_edges),
                tuple(float(one) for one in values),
            )
        case other:
            raise ValueError(f"a point cannot be {other}")


def _micro(step: Any) -> int:
    return int(step.whole) * MICRO + int(step.micro)


def _milliseconds(timestamp: Any) -> int:
    return int(timestamp.seconds) * 1000 + int(timestamp.nanos) // 1_000_000
