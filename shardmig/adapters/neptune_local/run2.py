"""Opens the container folders of one 1.x run: survey, missing records, provenance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shardmig.adapters.neptune_local.copies import copied_folders
from shardmig.adapters.neptune_local.discover import Locator, read_metadata
from shardmig.adapters.neptune_local.findings import FindingLog
from shardmig.adapters.neptune_local.local_files import LocalFiles
from shardmig.adapters.neptune_local.log2 import FolderLog, merged_blocks, read_counter
from shardmig.adapters.neptune_local.options import LocalOptions
from shardmig.adapters.neptune_local.replay2 import Replay2
from shardmig.adapters.neptune_local.survey2 import Survey2
from shardmig.adapters.neptune_local.versions2 import Position
from shardmig.records import Field, FieldType, RunRef
from shardmig.selection import Matcher


def open_run2(
    run: RunRef, locator: Locator, options: LocalOptions, matcher: Matcher, keep: Path, late: FindingLog
) -> Replay2:
    """The run after its first pass. `keep`: a fresh folder of ours that outlives the reading of this run. `late`: takes
    what is noticed while files are stored."""
    findings = FindingLog()
    folders = [Path(path) for path in locator.paths]
    copies = copied_folders(folders) if len(folders) > 1 else {}
    for copy, original in copies.items():
        findings.add("note", "repeated-records", detail=f"{copy} is a copy of {original}")
    metadata = [read_metadata(folder) for folder in folders]
    logs = [
        FolderLog(
            folder,
            skip_to=_skip_to(folder, options, findings),
            acked=read_counter(folder / "last_ack_version") or 0,
            start_s=(known.created_ms or 0) / 1000,
        )
        for folder, known in zip(folders, metadata, strict=True)
        if folder not in copies
    ]
    survey = Survey2(metadata[0].container_id, folders, LocalFiles(options.path_map, findings, late), keep)
    for block in merged_blocks(logs, [Position()] * len(logs), is_first_pass=True):
        survey.replay(block.records)
    for log in logs:
        log.versions.report(read_counter(log.folder / "last_put_version"), findings)
    versions = sorted({known.client_version for known in metadata if known.client_version})
    replay = Replay2(run, logs, survey, matcher, ", ".join(versions))
    provenance: list[tuple[str, FieldType, Any]] = [
        ("shardmig/source", "string", ", ".join(sorted({known.mode for known in metadata}))),
        ("shardmig/container_id", "string", metadata[0].container_id),
        ("shardmig/container_type", "string", metadata[0].container_type),
        ("shardmig/client_version", "string", ", ".join(versions)),
        ("sys/creation_time", "datetime", run.created_ms),
    ]
    held = {field.path for field in replay.fields}
    replay.fields += [Field(*one) for one in provenance if one[2] not in ("", None) and one[0] not in held]
    return replay


def _skip_to(folder: Path, options: LocalOptions, findings: FindingLog) -> int:
    if options.include_acked:
        return 0
    acked = read_counter(folder / "last_ack_version") or 0
    if acked:
        findings.add("note", "acknowledged-left-out", count=acked, detail="include-acked is no")
    return acked
