"""The records of a transaction log that are not history, through the vendor's own protobuf classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any, Final

import msgspec

PRODUCER: Final = "0.31.0"
MIN_CONSUMER: Final = "0.70.0"
"""As wandb 0.31 writes it (measured)."""
_LONGEST_S: Final = 2**31 - 1
_LATEST_MS: Final = 253_402_300_799_999
"""A log has a run's duration in 32 bits, and no times after the year 9999. The exact ones are in the config."""


class RunHead(msgspec.Struct, frozen=True, kw_only=True):
    """The run itself, as a log begins with it. `config`: JSON text by key."""

    id: str
    entity: str
    project: str
    name: str
    group: str = ""
    job_type: str = ""
    notes: str = ""
    host: str = ""
    tags: list[str] = []
    start_ms: int = 0
    config: dict[str, bytes] = {}


def messages() -> Any:
    """The vendor's generated module, of the protobuf version that is installed."""
    return import_module("wandb.proto.wandb_internal_pb2")


def head_records(head: RunHead) -> Iterator[bytes]:
    """Version and run: what a log begins with."""
    pb = messages()
    record = pb.Record(num=1)
    record.header.version_info.producer = PRODUCER
    record.header.version_info.min_consumer = MIN_CONSUMER
    yield record.SerializeToString()
    run = pb.RunRecord(
        run_id=head.id,
        entity=head.entity,
        project=head.project,
        display_name=head.name,
        run_group=head.group,
        job_type=head.job_type,
        notes=head.notes,
        host=head.host,
        tags=head.tags,
    )
    run.start_time.FromMilliseconds(min(head.start_ms, _LATEST_MS))
    for key, text in head.config.items():
        run.config.update.add(key=key, value_json=text.decode())
    yield pb.Record(num=2, run=run).SerializeToString()


def summary_record(summary: Mapping[str, bytes]) -> bytes:
    """The summary: JSON texts by key."""
    pb = messages()
    items = [pb.SummaryItem(key=key, value_json=text.decode()) for key, text in summary.items()]
    return bytes(pb.Record(summary=pb.SummaryRecord(update=items)).SerializeToString())


def files_record(paths: Iterable[str]) -> bytes:
    """Run files to be sent, by their path below `files/`."""
    pb = messages()
    items = [pb.FilesItem(path=path, policy=pb.FilesItem.PolicyType.END) for path in paths]
    return bytes(pb.Record(files=pb.FilesRecord(files=items)).SerializeToString())


def exit_record(code: int, runtime_s: int) -> bytes:
    """The end of the run: 0 = finished, anything else = failed."""
    pb = messages()
    ended = pb.RunExitRecord(exit_code=code, runtime=min(runtime_s, _LONGEST_S))
    return bytes(pb.Record(exit=ended).SerializeToString())
