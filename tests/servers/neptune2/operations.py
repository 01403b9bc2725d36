"""What clients write: the operations of executeOperations, by the server's rules."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Final

from tests.servers.neptune2.entities import SERIES_TYPES, Attribute, Entity, Series

_ASSIGNED: Final[dict[str, tuple[str, Callable[[dict[str, Any]], Any]]]] = {
    "assignFloat": ("float", lambda value: float(value["value"])),
    "assignInt": ("int", lambda value: int(value["value"])),
    "assignBool": ("bool", lambda value: bool(value["value"])),
    "assignString": ("string", lambda value: str(value["value"])),
    "assignDatetime": ("datetime", lambda value: int(value["valueMilliseconds"])),
    "assignArtifact": ("artifact", lambda value: str(value["hash"])),
}
_LOGGED: Final = {"logFloats": "floatSeries", "logStrings": "stringSeries", "logImages": "imageSeries"}


def execute(entity: Entity, operation: dict[str, Any], now_ms: int) -> dict[str, str] | None:
    """Apply one operation. The error to answer, None if there is none."""
    path = operation["path"]
    (name, argument), *_ = [(key, value) for key, value in operation.items() if key != "path"]
    entity.put("sys/modification_time", "datetime", now_ms)
    if name in _ASSIGNED:
        type_, value_of = _ASSIGNED[name]
        return _assign(entity, path, type_, value_of(argument))
    if name in _LOGGED:
        return _log(entity, path, _LOGGED[name], argument["entries"])
    return _OTHERS[name](entity, path, argument)


def _assign(entity: Entity, path: str, type_: str, value: Any) -> dict[str, str] | None:
    attribute = entity.attributes.setdefault(path, Attribute(type_, value))
    if attribute.type != type_:
        return _inconsistency(f"{path} is of type {attribute.type}, not {type_}")
    attribute.value = value
    return None


def _log(entity: Entity, path: str, type_: str, entries: list[dict[str, Any]]) -> dict[str, str] | None:
    attribute = entity.attributes.setdefault(path, Attribute(type_, Series()))
    if attribute.type != type_:
        return _inconsistency(f"{path} is of type {attribute.type}, not {type_}")
    refused = 0
    for entry in entries:
        value = entry["value"]
        if type_ == "imageSeries":
            value = base64.b64decode(value["data"] or "")
        refused += not attribute.value.append(entry.get("step"), entry["timestampMilliseconds"], value)
    if refused:
        return {"errorType": "logSeriesValueError", "errorDescription": f"{refused} points of {path} do not grow"}
    return None


def _insert(entity: Entity, path: str, argument: dict[str, Any]) -> dict[str, str] | None:
    attribute = entity.attributes.setdefault(path, Attribute("stringSet", set()))
    if path not in ("sys/tags", "sys/group_tags"):
        del entity.attributes[path]
        return _inconsistency(f"{path} cannot be a string set")
    attribute.value |= set(argument["values"])
    return None


def _remove(entity: Entity, path: str, argument: dict[str, Any]) -> None:
    if path in entity.attributes:
        entity.attributes[path].value -= set(argument["values"])


def _clear_set(entity: Entity, path: str, _: dict[str, Any]) -> None:
    if path in entity.attributes:
        entity.attributes[path].value = set()


def _clear_series(entity: Entity, path: str, _: dict[str, Any]) -> None:
    if path in entity.attributes and entity.attributes[path].type in SERIES_TYPES:
        entity.attributes[path].value = Series()


def _delete(entity: Entity, path: str, _: dict[str, Any]) -> None:
    entity.attributes.pop(path, None)


def _delete_files(entity: Entity, path: str, argument: dict[str, Any]) -> None:
    members = entity.attributes[path].value
    for gone in argument["filePaths"]:
        for name in [name for name in members if name == gone or name.startswith(f"{gone.rstrip('/')}/")]:
            del members[name]


def _configure(entity: Entity, path: str, _: dict[str, Any]) -> None:
    entity.attributes.setdefault(path, Attribute("floatSeries", Series()))


def _inconsistency(description: str) -> dict[str, str]:
    return {"errorType": "metadata_inconsistency", "errorDescription": description}


_OTHERS: Final[dict[str, Callable[[Entity, str, dict[str, Any]], dict[str, str] | None]]] = {
    "insertStrings": _insert,
    "removeStrings": _remove,
    "clearStringSet": _clear_set,
    "clearFloatSeries": _clear_series,
    "clearStringSeries": _clear_series,
    "clearImageSeries": _clear_series,
    "configFloatSeries": _configure,
    "deleteAttribute": _delete,
    "deleteFiles": _delete_files,
    "clearArtifact": _delete,
}
