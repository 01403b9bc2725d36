"""How an experiment of Comet's own is written as fields.

Comet                              field
parameter                          params/<name>, typed in archives, string from a server; the last value counts
metric                             metrics/<name>, float_series (string_series for texts); with a context
                                   metrics/<context>_<name>, as Comet calls it
epoch of a point                   epochs/<name>, float_series at the same steps
system metric (sys.*)              system_metrics/<name>
other                              others/<name>
name, tags, start, end             sys/name, sys/tags, sys/creation_time, sys/running_time
key, archived, error               sys/id, sys/trashed, sys/failed
user, hostname                     sys/owner, sys/hostname
console output                     logs/stdout, logs/stderr: string_series, a line's place is its step
file name, git                     source_code/entrypoint, source_code/commit/commit_id, source_code/branch,
                                   source_code/remote/origin, source_code/git/<key>
image, asset, model element …      images/<name>, assets/<name>, models/<model>/<name>, <type>/<name>: file, or
                                   file_series where it has a step
asset elsewhere                    remote_assets/<name>: string, its URI
metadata of an asset               asset_metadata/<path of the asset>: string, JSON
system details, packages, graph    system/<key>, system/installed_packages, system/os_packages, graph, html/<n>
anything else                      messages/<type>/<n>: string, the message's JSON
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from shardmig.records import Field, FieldType, Finding

SOURCE: Final = "comet"
PARAMS: Final = "params/"
METRICS: Final = "metrics/"
EPOCHS: Final = "epochs/"
SYSTEM_METRICS: Final = "system_metrics/"
OTHERS: Final = "others/"
OUTPUT: Final = {False: "logs/stdout", True: "logs/stderr"}

_FOLDERS: Final = {
    "asset": "assets",
    "visualization": "images",
    "image": "images",
    "model-element": "models",
    "notebook": "notebooks",
}
_INT64: Final = range(-(2**63), 2**63)
_GIT: Final = {
    "parent": "source_code/commit/commit_id",
    "branch": "source_code/branch",
}
_DETAILS: Final = {"user": "sys/owner", "hostname": "sys/hostname"}


class Scalars:
    """The scalar fields of one experiment while they are found: the last value of a path counts. `named`: what a field is
    called that is to be called so."""

    def __init__(self, named: Callable[[str], str]) -> None:
        self._named = named
        self._fields: dict[str, Field] = {}
        self._changed: dict[str, str] = {}
        self._overwritten: Counter[str] = Counter()
        self._numbers: Counter[str] = Counter()

    @property
    def fields(self) -> list[Field]:
        """Sorted."""
        return sorted(self._fields.values(), key=lambda field: (field.path, field.type))

    def findings(self) -> list[Finding]:
        """What could not be kept as it was."""
        changed = [Finding("approximation", code, path) for path, code in sorted(self._changed.items())]
        return changed + [
            Finding("note", "earlier-values-dropped", path, count=count)
            for path, count in sorted(self._overwritten.items())
        ]

    def add(self, path: str, value: Any) -> None:
        """A value of any JSON type; null is the text None, lists and objects are their JSON."""
        path = self._named(path)
        if isinstance(value, bool):
            self._put(path, "bool", value)
        elif isinstance(value, int) and value in _INT64:
            self._put(path, "int", value)
        elif isinstance(value, float):
            self._put(path, "float", value)
        elif isinstance(value, str):
            self._put(path, "string", value)
        elif isinstance(value, int):
            self._put(path, "string", str(value))
            self._changed[path] = "int-as-text"
        elif value is None:
            self._put(path, "string", "None")
            self._changed[path] = "null-as-text"
        else:
            self._put(path, "string", json_text(value))

    def add_typed(self, path: str, field_type: FieldType, value: int | float | str | bool | list[str]) -> None:
        """A fact."""
        self._put(self._named(path), field_type, value)

    def add_numbered(self, folder: str, value: Any) -> None:
        """The next of several values below one path."""
        self.add(f"{folder}/{self._numbers[folder]}", value)
        self._numbers[folder] += 1

    def add_git(self, facts: Mapping[str, Any]) -> None:
        """What Comet knows of the git repository."""
        for key, value in facts.items():
            if value is None:
                continue
            if key == "origin":
                url = value.get("url") if isinstance(value, dict) else value
                self.add("source_code/remote/origin", url if isinstance(url, str) else json_text(value))
            else:
                self.add(_GIT.get(key, f"source_code/git/{key}"), value)

    def add_details(self, facts: Mapping[str, Any]) -> None:
        """What Comet knows of the machine."""
        for key, value in facts.items():
            if value is not None and value != "":
                self.add(_DETAILS.get(key, f"system/{key}"), value)

    def _put(self, path: str, field_type: FieldType, value: int | float | str | bool | list[str]) -> None:
        field = Field(path, field_type, value)
        if path in self._fields and repr(self._fields[path]) != repr(field):
            self._overwritten[path] += 1
        self._fields[path] = field


def asset_path(asset_type: str, name: str, model: str) -> str:
    """The field of an asset."""
    folder = _FOLDERS.get(asset_type, asset_type or "assets")
    return f"{folder}/{model}/{name}" if model else f"{folder}/{name}"


def json_text(value: Any) -> str:
    """Any JSON value as text."""
    return msgspec.json.encode(value).decode()
