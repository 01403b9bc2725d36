"""Which adapters exist. Imports none of them until one is asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from shardmig.adapters.base import ReadSide, WriteSide
from shardmig.adapters.wrappers import RetryingSource, RetryingTarget
from shardmig.errors import MissingExtra, UnknownAdapter
from shardmig.records import AdapterSpec, LoadOptions


class _Entry(NamedTuple):
    module: str
    extra: str


SOURCES: dict[str, _Entry] = {
    "archive": _Entry("shardmig.adapters.archive", ""),
    "mlflow": _Entry("shardmig.adapters.mlflow.source", "mlflow"),
    "neptune-local": _Entry("shardmig.adapters.neptune_local", "neptune"),
    "neptune3": _Entry("shardmig.adapters.neptune3", "neptune"),
    "neptune2": _Entry("shardmig.adapters.neptune2", "neptune"),
}
TARGETS: dict[str, _Entry] = {
    "mlflow": _Entry("shardmig.adapters.mlflow", "mlflow"),
}


def open_source(spec: AdapterSpec) -> ReadSide:
    """The read side named by `spec`, patient with transient errors. Raises UnknownAdapter, MissingExtra, and UsageError for its options."""
    make: Callable[..., ReadSide] = _load(SOURCES, "source", spec.name, "open_source")
    return RetryingSource(make(spec.options))


def open_target(spec: AdapterSpec, load: LoadOptions) -> WriteSide:
    """The write side named by `spec`, patient with transient errors. Raises UnknownAdapter, MissingExtra, and UsageError for its options."""
    make: Callable[..., WriteSide] = _load(TARGETS, "target", spec.name, "open_target")
    return RetryingTarget(make(spec.options, load))


def check_target(spec: AdapterSpec) -> None:
    """Refuse wrong options before anything is read or connected to. Raises UnknownAdapter, MissingExtra, UsageError."""
    parse: Callable[..., object] = _load(TARGETS, "target", spec.name, "parse_options")
    parse(spec.options)


def _load(entries: dict[str, _Entry], role: str, name: str, function: str) -> Any:
    entry = entries.get(name)
    if entry is None:
        raise UnknownAdapter(f"there is no {role} {name!r}", hint=f"known: {', '.join(sorted(entries))}")
    try:
        return getattr(import_module(entry.module), function)
    except ModuleNotFoundError as error:
        if not entry.extra or (error.name or "").startswith("shardmig"):
            raise
        raise MissingExtra(
            f"{role} {name!r} needs the package {error.name!r}, which is not installed",
            hint=f"pip install 'shardmig[{entry.extra}]'",
        ) from error
