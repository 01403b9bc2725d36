"""Which adapters exist. Imports none of them until one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, NamedTuple

from shardmig.adapters.base import Capabilities, ReadSide, WriteSide
from shardmig.adapters.counts import Counting
from shardmig.adapters.wrappers import RetryingSource, RetryingTarget
from shardmig.errors import MissingExtra, UnknownAdapter, UsageError
from shardmig.records import AdapterSpec, LoadOptions


class _Entry(NamedTuple):
    module: str
    extra: str


SOURCES: dict[str, _Entry] = {
    "archive": _Entry("shardmig.adapters.archive", ""),
    "litlogger": _Entry("shardmig.adapters.litlogger", "litlogger"),
    "comet": _Entry("shardmig.adapters.comet.source", "comet"),
    "mlflow": _Entry("shardmig.adapters.mlflow.source", "mlflow"),
    "mlflow-export-import": _Entry("shardmig.adapters.mlflow.exported", ""),
    "neptune-local": _Entry("shardmig.adapters.neptune_local", "neptune"),
    "neptune3": _Entry("shardmig.adapters.neptune3", "neptune"),
    "neptune2": _Entry("shardmig.adapters.neptune2", "neptune"),
    "wandb": _Entry("shardmig.adapters.wandb.source", "wandb"),
    "zenml": _Entry("shardmig.adapters.zenml", "zenml"),
}
TARGETS: dict[str, _Entry] = {
    "comet": _Entry("shardmig.adapters.comet", "comet"),
    "litlogger": _Entry("shardmig.adapters.litlogger", "litlogger"),
    "mlflow": _Entry("shardmig.adapters.mlflow", "mlflow"),
    "wandb": _Entry("shardmig.adapters.wandb", "wandb"),
    "zenml": _Entry("shardmig.adapters.zenml", "zenml"),
}


def open_source(spec: AdapterSpec) -> ReadSide:
    """The read side named by `spec`, patient with transient errors. Raises UnknownAdapter, MissingExtra, and UsageError for its options."""
    make: Callable[..., ReadSide] = _load(SOURCES, "source", spec.name, "open_source")
    return RetryingSource(make(spec.options))


def open_counting(spec: AdapterSpec) -> Counting:
    """The source named by `spec`, whose server counts. Raises as open_source, and UsageError if it does not count."""
    make: Callable[..., ReadSide] = _load(SOURCES, "source", spec.name, "open_source")
    source = make(spec.options)
    if not isinstance(source, Counting):
        source.close()
        raise UsageError(f"source {spec.name!r} has no server that counts", hint="neptune2 and neptune3 have")
    return source


def open_target(spec: AdapterSpec, load: LoadOptions) -> RetryingTarget:
    """The write side named by `spec`, patient with transient errors. Raises UnknownAdapter, MissingExtra, and UsageError for its options."""
    make: Callable[..., WriteSide] = _load(TARGETS, "target", spec.name, "open_target")
    target = make(spec.options, load)
    if load.on_existing == "merge" and not target.caps.merges:
        target.close()
        raise UsageError(f"target {spec.name} cannot merge", hint="--on-existing skip, replace or fail")
    return RetryingTarget(target)


def imports_of(source: AdapterSpec, target: AdapterSpec | None) -> list[str]:
    """Modules that a worker of these will need and that take seconds to import. Raises UsageError for their options."""
    return [*_imports(SOURCES, source), *(_imports(TARGETS, target) if target else ())]


def capabilities_of(spec: AdapterSpec, load: LoadOptions) -> Capabilities:
    """What the target named by `spec` can do. Connects to nothing. Raises as open_target."""
    target = open_target(spec, load)
    try:
        return target.caps
    finally:
        target.close()


def check_target(spec: AdapterSpec) -> None:
    """Refuse wrong options before anything is read or connected to. Raises UnknownAdapter, MissingExtra, UsageError."""
    parse: Callable[..., object] = _load(TARGETS, "target", spec.name, "parse_options")
    parse(spec.options)


def _imports(entries: dict[str, _Entry], spec: AdapterSpec) -> Iterable[str]:
    try:
        module = import_module(entries[spec.name].module)
    except (KeyError, ModuleNotFoundError):  # opening it tells what to do
        return ()
    tell: Callable[..., Iterable[str]] | None = getattr(module, "imports", None)
    return tell(spec.options) if tell else ()


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
