"""One experiment of Comet's own, from offline archives, as chunks."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

from shardmig.adapters.base import FileSink, Want
from shardmig.adapters.comet import messages as m
from shardmig.adapters.comet.reader import opened_member, read_messages
from shardmig.adapters.comet.source import native
from shardmig.adapters.comet.source.points import PointChunks, Row, exact_step
from shardmig.errors import BadInput, NotFound
from shardmig.records import Chunk, End, Fields, FieldType, FileRef, Files, Finding, Header, RunRef
from shardmig.selection import Matcher

_FIELDS_IN_CHUNK: Final = 5_000
_FILES_IN_CHUNK: Final = 50
_FACTS: Final = {"Name": "sys/name"}


class _Upload(NamedTuple):
    """A file of an archive."""

    archive: Path
    member: str
    path: str
    name: str
    step: Decimal | None
    time_ms: int | None


class ArchiveReading:
    """One experiment as chunks. Memory: its scalars, the names of its files, one chunk of points."""

    def __init__(
        self,
        run: RunRef,
        paths: list[Path],
        file: m.ExperimentFile,
        want: Want,
        *,
        system_metrics: bool,
        step_multiplier: int = 1,
    ) -> None:
        self._run = run
        self._paths = paths
        self._file = file
        self._matcher = Matcher(want.selection)
        self._points = PointChunks(
            self._matcher,
            want.chunk_points,
            system_metrics=system_metrics,
            named=self.named,
            step_multiplier=step_multiplier,
        )
        self._step_multiplier = step_multiplier
        self._scalars = native.Scalars(self.named)
        self._uploads: dict[tuple[str, Decimal | None], _Upload] = {}
        self._losses: list[Finding] = []
        self._damaged = 0
        self._mended = 0

    def chunks(self, sink: FileSink) -> Iterator[Chunk]:
        """Everything wanted. Raises BadInput when an archive cannot be read."""
        self._find()
        yield Header(self._run, native.SOURCE)
        yield from self._content(sink)
        yield End(self.findings())

    def content(self, sink: FileSink) -> Iterator[Chunk]:
        """Everything wanted but header and end. Raises BadInput when an archive cannot be read."""
        self._find()
        yield from self._content(sink)

    def named(self, path: str) -> str:
        """What a field is called that is to be called so."""
        return path

    def points_of(self, rows: Iterator[Row]) -> Iterator[Chunk]:
        """Those points that are to be read."""
        return self._points.add(rows)

    def _content(self, sink: FileSink) -> Iterator[Chunk]:
        fields = [field for field in self._scalars.fields if self._matcher.wants_field(field.path, field.type)]
        for start in range(0, len(fields), _FIELDS_IN_CHUNK):
            yield Fields(fields[start : start + _FIELDS_IN_CHUNK])
        yield from self._files(sink)
        for path in self._paths:
            for block in read_messages(path):
                yield from self.points_of(rows_of(block.messages))
                for message in block.messages:
                    if message is not None and (text := _output(message)) is not None:
                        yield from self._points.add_text(*text)
        yield from self._points.rest()

    def _find(self) -> None:
        """Read everything but the points."""
        self.add_facts()
        for path in self._paths:
            for block in read_messages(path):
                self._mended += block.mended
                for message in block.messages:
                    if message is None:
                        self._damaged += 1
                    elif not isinstance(message, m.MetricMessage):
                        self._see(path, message)

    def add_facts(self) -> None:
        """What is known of the experiment itself."""
        file = self._file
        self._scalars.add_typed("sys/id", "string", self._run.id)
        self._scalars.add_typed("sys/creation_time", "datetime", file.start_time)
        self._scalars.add_typed("sys/running_time", "float", max(0, file.stop_time - file.start_time) / 1000)
        self._scalars.add_typed("sys/failed", "bool", file.customer_error_reported)
        self._scalars.add_typed("sys/tags", "string_set", sorted(set(file.tags)))
        if file.customer_error_message:
            self._scalars.add("sys/error", file.customer_error_message)

    def _see(self, archive: Path, message: m.Message) -> None:
        match message:
            case m.ParamMessage(payload=payload):
                if (param := payload.param or payload.params) is not None:
                    self.add_param(param, payload.context)
            case m.OtherMessage(payload=payload):
                self.add_other(payload.key, payload.value)
            case m.FileMessage(payload=payload):
                self._add_file(archive, payload)
            case m.RemoteFileMessage(payload=payload):
                name = _name_of(payload)
                self._scalars.add(f"remote_assets/{name}", payload.remote_uri)
                self._add_metadata(f"remote_assets/{name}", payload.metadata)
            case m.WsMessage(payload=payload):
                self._see_old(payload)
            case m.FactMessage(type=kind, payload=fact):
                self._add_fact(kind, fact)

    def add_param(self, param: m.Param, context: str | None) -> None:
        """A parameter."""
        self._scalars.add(native.PARAMS + param_name(param, context), param.paramValue)

    def add_other(self, key: str, value: Any) -> None:
        """A fact that people set."""
        self._scalars.add(native.OTHERS + key, value)
        if key in _FACTS and isinstance(value, str):
            self._scalars.add(_FACTS[key], value)

    def _add_metadata(self, path: str, metadata: dict[str, Any] | None) -> None:
        if metadata:
            self._scalars.add(f"asset_metadata/{path}", native.json_text(metadata))

    def _add_file(self, archive: Path, payload: m.FilePayload) -> None:
        named = payload.additional_params or {}
        step = _step_of(named.get("step"), self._step_multiplier)
        name = _name_of(payload)
        model = named.get("groupingName")
        path = self.named(native.asset_path(payload.upload_type, name, model if isinstance(model, str) else ""))
        if (path, step) in self._uploads and not named.get("overwrite"):
            path = f"{path}~{named.get('assetId') or named.get('imageId') or payload.file_path}"
        extension = named.get("extension")
        shown = name.rpartition("/")[2]
        if isinstance(extension, str) and extension and not shown.lower().endswith(f".{extension.lower()}"):
            shown = f"{shown}.{extension}"
        self._uploads[path, step] = _Upload(archive, payload.file_path, path, shown, step, payload.local_timestamp)
        self._add_metadata(path if step is None else f"{path}/{step}", payload.metadata)

    def _add_fact(self, kind: str, fact: dict[str, Any]) -> None:
        match kind, fact:
            case "system_details", _:
                self._scalars.add_details({key: value for key, value in fact.items() if key != "message_id"})
            case "installed_packages" | "os_packages", {"installed_packages": names} | {"os_packages": names}:
                self._scalars.add(f"system/{kind}", "\n".join(map(str, names or [])))
            case "file_name", {"file_name": str(name)}:
                self._scalars.add("source_code/entrypoint", name)
            case "git_metadata", {"git_metadata": dict(git)}:
                self._scalars.add_git(git)
            case "system_info", {"system_info": {"key": str(key), "value": value}}:
                self._scalars.add(f"system/info/{key}", value)
            case "log_dependency", {"name": str(name), "version": version}:
                self._scalars.add(f"dependencies/{name}", version)
            case "graph", {"graph": graph}:
                self._scalars.add("graph", graph)
            case "html" | "htmlOverride" | "html_override", {"html": html} | {"htmlOverride": html}:
                self._scalars.add_numbered("html", html)
            case _:
                self._scalars.add_numbered(f"messages/{kind}", {k: v for k, v in fact.items() if k != "message_id"})

    def _see_old(self, payload: m.WsPayload) -> None:
        if (param := payload.param or payload.params) is not None:
            self.add_param(param, payload.context)
        if payload.log_other is not None:
            self.add_other(payload.log_other.key, payload.log_other.val)
        if payload.log_dependency is not None:
            self._scalars.add(f"dependencies/{payload.log_dependency.name}", payload.log_dependency.version)
        if payload.log_system_info:
            self._add_fact("system_info", {"system_info": payload.log_system_info})
        if payload.env_details:
            self._scalars.add_details(payload.env_details)
        if payload.git_meta:
            self._scalars.add_git(payload.git_meta)
        for kind in ("installed_packages", "os_packages"):
            if names := getattr(payload, kind):
                self._scalars.add(f"system/{kind}", "\n".join(names))
        if payload.fileName:
            self._scalars.add("source_code/entrypoint", payload.fileName)
        if payload.graph:
            self._scalars.add("graph", payload.graph)
        if payload.gpu_static_info is not None:
            self._scalars.add("system/gpu_static_info", payload.gpu_static_info)
        if (html := payload.htmlOverride or payload.html) is not None:
            self._scalars.add_numbered("html", html)

    def _files(self, sink: FileSink) -> Iterator[Files]:
        refs: list[FileRef] = []
        for upload in self._uploads.values():
            field_type: FieldType = "file" if upload.step is None else "file_series"
            if not self._matcher.wants_field(upload.path, field_type):
                continue
            try:
                with opened_member(upload.archive, upload.member) as content:
                    refs.append(
                        sink.put(
                            self._run,
                            upload.path,
                            field_type,
                            content,
                            name=upload.name,
                            step=upload.step,
                            time_ms=upload.time_ms,
                        )
                    )
            except (NotFound, BadInput) as error:
                self._losses.append(Finding("loss", "asset-unreadable", upload.path, detail=error.message))
            if len(refs) == _FILES_IN_CHUNK:
                yield Files(refs)
                refs = []
        if refs:
            yield Files(refs)

    def findings(self) -> list[Finding]:
        """What could not be kept as it was."""
        lines = []
        if self._damaged:
            damaged = f"lines of {self._paths[-1].name} that are no messages"
            lines.append(Finding("gap", "message-damaged", count=self._damaged, detail=damaged))
        if self._mended:
            lines.append(
                Finding("approximation", "lone-surrogate", count=self._mended, detail="lines with half a character")
            )
        wanted = self._matcher.wants_field
        scalars = [one for one in self._scalars.findings() if wanted(one.field, "string")]
        return [*lines, *scalars, *self._points.findings(), *self._losses]


def param_name(param: m.Param, context: str | None) -> str:
    """What Comet calls a parameter."""
    return f"{context}_{param.paramName}" if context else param.paramName


def rows_of(block: list[m.Message | None]) -> Iterator[Row]:
    """The points among some messages."""
    for message in block:
        if isinstance(message, m.MetricMessage | m.WsMessage) and (metric := message.payload.metric) is not None:
            context = message.payload.context
            name = f"{context}_{metric.metricName}" if context else metric.metricName
            yield Row(name, metric.metricValue, metric.step, metric.epoch, message.payload.local_timestamp)


def _output(message: m.Message) -> tuple[str, str, int | None] | None:
    match message:
        case m.OutputMessage(payload=payload):
            return native.OUTPUT[bool(payload.stderr)], payload.output, payload.local_timestamp
        case m.WsMessage(payload=payload) if payload.stdout is not None:
            return native.OUTPUT[bool(payload.stderr)], payload.stdout, payload.local_timestamp
        case _:
            return None


def _name_of(payload: m.FilePayload) -> str:
    named = payload.additional_params or {}
    return str(named.get("fileName") or named.get("figName") or payload.file_path or payload.remote_uri)


def _step_of(step: Any, multiplier: int) -> Decimal | None:
    if isinstance(step, bool) or not isinstance(step, int | float):
        return None
    return exact_step(step, multiplier)
