"""`messages.json` of an offline archive, read: what clients of any age wrote.

Recent clients write one type of message for each kind of thing; those before 3.20 wrote `ws_msg`, whose payload has
them all. Fields that nobody needs are not decoded.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any, Final, Literal, NamedTuple

import msgspec

from shardmig.errors import BadInput
from shardmig.records import RunRef

Number = int | float
Loose = int | float | str | bool | None | list[Any] | dict[str, Any]


class Metric(msgspec.Struct, gc=False):
    """One point: `metricValue` is a number, or a text (NaN, Infinity, or what the user logged)."""

    metricName: str  # noqa: N815
    metricValue: Number | str | None  # noqa: N815
    step: Number | None = None
    epoch: Number | None = None


class Param(msgspec.Struct):
    """A parameter; a list in `params`."""

    paramName: str  # noqa: N815
    paramValue: Loose = None  # noqa: N815


class _Pair(msgspec.Struct):
    key: str
    val: Loose = None


class _Dependency(msgspec.Struct):
    name: str
    version: str = ""


class MetricPayload(msgspec.Struct, gc=False):
    """Of `metric_msg`."""

    metric: Metric | None = None
    local_timestamp: int | None = None
    context: str | None = None


class ParamPayload(msgspec.Struct):
    """Of `parameter_msg`."""

    param: Param | None = None
    params: Param | None = None
    context: str | None = None


class OtherPayload(msgspec.Struct):
    """Of `log_other`."""

    key: str
    value: Loose = None


class FilePayload(msgspec.Struct):
    """Of `file_upload`, and of `remote_file`, which has `remote_uri` in the place of `file_path`."""

    upload_type: str = "asset"
    file_path: str = ""
    remote_uri: str = ""
    additional_params: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    local_timestamp: int | None = None


class OutputPayload(msgspec.Struct):
    """Of `standard_output`."""

    output: str
    stderr: bool | None = None
    local_timestamp: int | None = None


class WsPayload(msgspec.Struct, kw_only=True):
    """Of `ws_msg`."""

    metric: Metric | None = None
    param: Param | None = None
    params: Param | None = None
    local_timestamp: int | None = None
    context: str | None = None
    log_other: _Pair | None = None
    log_system_info: dict[str, Any] | None = None
    log_dependency: _Dependency | None = None
    stdout: str | None = None
    stderr: bool | None = None
    fileName: str | None = None  # noqa: N815
    graph: str | None = None
    html: str | None = None
    htmlOverride: str | None = None  # noqa: N815
    installed_packages: list[str] | None = None
    os_packages: list[str] | None = None
    git_meta: dict[str, Any] | None = None
    env_details: dict[str, Any] | None = None
    gpu_static_info: Loose = None


class MetricMessage(msgspec.Struct, tag_field="type", tag="metric_msg", gc=False):
    """A point."""

    payload: MetricPayload


class ParamMessage(msgspec.Struct, tag_field="type", tag="parameter_msg"):
    """A parameter."""

    payload: ParamPayload


class OtherMessage(msgspec.Struct, tag_field="type", tag="log_other"):
    """A fact."""

    payload: OtherPayload


class FileMessage(msgspec.Struct, tag_field="type", tag="file_upload"):
    """A file of the archive."""

    payload: FilePayload


class RemoteFileMessage(msgspec.Struct, tag_field="type", tag="remote_file"):
    """A file somewhere else."""

    payload: FilePayload


class OutputMessage(msgspec.Struct, tag_field="type", tag="standard_output"):
    """Console output."""

    payload: OutputPayload


class WsMessage(msgspec.Struct, tag_field="type", tag="ws_msg"):
    """Anything, of an old client."""

    payload: WsPayload


class FactMessage(msgspec.Struct):
    """Any other message: its type and its payload as they are."""

    type: str
    payload: dict[str, Any]


_Typed = MetricMessage | ParamMessage | OtherMessage | FileMessage | RemoteFileMessage | OutputMessage | WsMessage
Message = _Typed | FactMessage

_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_TYPED: Final = frozenset(
    {"metric_msg", "parameter_msg", "log_other", "file_upload", "remote_file", "standard_output", "ws_msg"}
)
_decode_typed: Final = msgspec.json.Decoder(_Typed).decode
_decode_lines: Final = msgspec.json.Decoder(_Typed).decode_lines


class Brought(msgspec.Struct, frozen=True, kw_only=True):
    """What shardmig notes of a run that it wrote: the run as it was, its content's digest, whether all of it was written,
    and how many numbered archives belong to it."""

    run: RunRef
    digest: str
    is_whole: bool
    numbered: int


class ExperimentFile(msgspec.Struct, kw_only=True):
    """`experiment.json`."""

    offline_id: str = ""
    project_name: str | None = None
    workspace: str | None = None
    start_time: int = 0
    stop_time: int = 0
    tags: list[str] = []
    resume_strategy: Literal["create", "get", "get_or_create"] = "create"
    customer_error_reported: bool = False
    customer_error_message: str | None = None
    user_provided_experiment_key: bool = False
    comet_start_sourced: bool = False
    shardmig: Brought | msgspec.UnsetType = msgspec.UNSET


def decode_experiment(text: bytes, name: str) -> ExperimentFile:
    """Raises BadInput, naming the archive."""
    try:
        return msgspec.json.decode(text, type=ExperimentFile)
    except msgspec.DecodeError as error:
        raise BadInput(f"{name}: experiment.json cannot be read: {error}") from error


class Block(NamedTuple):
    """Some messages: None for a line that is none. `mended`: how many lines had half of a UTF-16 pair, which has no UTF-8,
    and have U+FFFD in its place."""

    messages: list[Message | None]
    mended: int = 0


def decode_block(lines: bytes) -> Block:
    """The messages of some whole lines."""
    try:
        return Block(list(_decode_lines(lines)))
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = [_decode_line(line) for line in lines.split(b"\n") if line.strip()]
        return Block([message for message, _ in found], sum(is_mended for _, is_mended in found))


def _decode_line(line: bytes) -> tuple[Message | None, bool]:
    with suppress(msgspec.DecodeError, UnicodeDecodeError):
        typed: Message = _decode_typed(line)
        return typed, False
    with suppress(ValueError, KeyError, TypeError, msgspec.ValidationError):
        loose = json.loads(line)  # takes NaN and Infinity, which are no JSON
        text = json.dumps(loose, ensure_ascii=False)
        if is_mended := _LONE_SURROGATE.search(text) is not None:
            loose = json.loads(_LONE_SURROGATE.sub("\ufffd", text))
        message: Message = msgspec.convert(loose, _Typed if loose["type"] in _TYPED else FactMessage)
        return message, is_mended
    return None, False
