"""How a run of W&B's own is written as fields.

W&B                            field
config                         config/<key>, nested keys joined with slashes; a list, null or object of W&B's own as JSON text
summary                        summary/<key>, likewise
history: a number              metrics/<key>, float_series; nested keys are joined with dots, as W&B shows them
history: true, false           metrics/<key>, float_series of 1 and 0
history: text, list            metrics/<key>, string_series; a list as JSON text
history: wandb.Histogram       metrics/<key>, histogram_series
history: media, tables         metrics/<key>, file_series; several of one step below metrics/<key>/<n>; what W&B says of them
                               beside the file (captions, boxes, masks) as JSON text, string_series
system metrics                 system/<key>, float_series; the step counts the measurements
console                        console/stdout and stderr, string_series, a line a step
run file                       files/<path>, file; not those that the history names
artifact                       artifacts/<name>, file_set; its type, description, metadata, aliases, tags and references as JSON
                               text, string
run id, display name, group    sys/id, sys/custom_run_id, sys/name
notes, tags, host, user        sys/description, sys/tags, sys/hostname, sys/owner
start, runtime, state          sys/creation_time, sys/running_time, sys/failed, sys/state and sys/wandb/state
entity, project, job type,
sweep, client's own config,
artifacts that it read         sys/wandb/entity, project, job_type, sweep, config, used_artifacts
commit, remote                 source_code/commit/commit_id, source_code/remote/origin
fork                           sys/forking/parent, sys/forking/step
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from shardmig.adapters.names import digest_of
from shardmig.adapters.wandb.source.foreign import Artifact, ForeignRun, RunInfo
from shardmig.records import Field, FieldType, Finding

CONFIG: Final = "config/"
SUMMARY: Final = "summary/"
METRICS: Final = "metrics/"
SYSTEM: Final = "system/"
CONSOLE: Final = "console/"
FILES: Final = "files/"
ARTIFACTS: Final = "artifacts/"
OWN: Final = "sys/wandb/"
_INT64: Final = range(-(2**63), 2**63)
_FAILED: Final = frozenset({"failed", "crashed", "killed"})
OWN_SUMMARY: Final = frozenset({"_wandb", "_step", "_timestamp", "_runtime"})
_OF_FILE: Final = frozenset(
    {"_type", "path", "filenames", "sha256", "size", "format", "width", "height", "count", "ncols", "nrows"}
    | {"artifact_path", "_latest_artifact_path"}
)
"""What W&B says of a file that the file itself says too, or that leads to it."""
_LONE: Final = re.compile("[\ud800-\udfff]")


class Fielder:
    """Turns values into fields, and notes what it had to change."""

    def __init__(self, taken: set[str] | None = None) -> None:
        """`taken`: paths that others have already; grows."""
        self.findings: list[Finding] = []
        self._taken = set() if taken is None else taken

    def fields(self, run: ForeignRun, artifacts: Iterable[Artifact]) -> Iterator[Field]:
        """The scalar fields of a run, in no order."""
        config = run.config()
        yield from info_fields(run.info())
        if (own := config.pop("_wandb", None)) is not None:
            yield Field(OWN + "config", "string", json.dumps(own))
        yield from self.values(CONFIG, config)
        summary = {key: value for key, value in run.summary().items() if key not in OWN_SUMMARY}
        yield from self.values(SUMMARY, summary)
        yield from (Field(ARTIFACTS + one.name, "string", json.dumps(one.facts)) for one in artifacts)

    def values(self, folder: str, tree: Mapping[str, Any]) -> Iterator[Field]:
        """The scalar fields of nested values, below a folder that ends with a slash or is none."""
        for key, value in tree.items():
            path = folder + self._text(folder, key)
            if isinstance(value, dict) and value and "_type" not in value:
                yield from self.values(f"{path}/", value)
                continue
            if path in self._taken:  # `a/b`, and `b` below `a`
                self.findings.append(Finding("note", "name-changed", path))
                path = self.apart(path, folder + chr(0) + key)
            self._taken.add(path)
            yield self._field(path, value)

    def apart(self, path: str, identity: str) -> str:
        """The path of a value where another one has that path."""
        return f"{path}~{digest_of(identity)}"

    def _field(self, path: str, value: Any) -> Field:
        if isinstance(value, int) and not isinstance(value, bool) and value not in _INT64:
            self.findings.append(Finding("approximation", "int-as-text", path))
            return Field(path, "string", str(value))
        kinds: dict[type, FieldType] = {bool: "bool", int: "int", float: "float", str: "string"}
        if (kind := kinds.get(type(value))) is not None:
            return Field(path, kind, self._text(path, value) if kind == "string" else value)
        self.findings.append(Finding("note", "value-as-json", path))
        return Field(path, "string", json.dumps(value))

    def _text(self, path: str, text: str) -> str:
        if (clean := clean_text(text)) != text:
            self.findings.append(Finding("approximation", "lone-surrogate", clean_text(path)))
        return clean


def info_fields(info: RunInfo) -> Iterator[Field]:
    """What W&B says of the run itself."""
    texts = {
        "sys/id": info.id,
        "sys/custom_run_id": info.name,
        "sys/name": info.group,
        "sys/description": info.notes,
        "sys/hostname": info.host,
        "sys/owner": info.user,
        "sys/state": "active" if info.state == "running" else "inactive",
        "sys/forking/parent": info.parent,
        "source_code/commit/commit_id": info.commit,
        "source_code/remote/origin": info.remote,
        OWN + "entity": info.entity,
        OWN + "project": info.project,
        OWN + "job_type": info.job_type,
        OWN + "sweep": info.sweep,
        OWN + "state": info.state,
    }
    yield from (Field(path, "string", text) for path, text in texts.items() if text)
    yield Field("sys/failed", "bool", info.state in _FAILED)
    if info.tags:
        yield Field("sys/tags", "string_set", sorted(set(info.tags)))
    if info.used:
        yield Field(OWN + "used_artifacts", "string_set", sorted(set(info.used)))
    if info.created_ms is not None:
        yield Field("sys/creation_time", "datetime", info.created_ms)
    if info.runtime_s is not None and math.isfinite(info.runtime_s):
        yield Field("sys/running_time", "float", float(info.runtime_s))
    if info.fork_step is not None:
        yield Field("sys/forking/step", "float", info.fork_step)


def clean_text(text: str) -> str:
    """A text that has a UTF-8 form: JSON may hold half of a UTF-16 pair, and Python's names of files do."""
    return _LONE.sub("\ufffd", text)


def media_of(value: Mapping[str, Any]) -> list[str]:
    """The run files that a value of the history names."""
    names = [value["path"]] if isinstance(value.get("path"), str) else []
    if isinstance(several := value.get("filenames"), list):
        names += [name for name in several if isinstance(name, str)]
    return names


def says_more(value: Mapping[str, Any]) -> bool:
    """Does a value of the history say of its files what they do not say themselves?"""
    return any(told not in (None, "", [], {}) for name, told in value.items() if name not in _OF_FILE)
