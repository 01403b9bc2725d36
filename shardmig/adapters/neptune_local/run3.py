"""Opens the databases of one neptune-scale run: survey, system fields, configs inherited from a parent."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from shardmig.adapters.neptune_local.copies import copied_databases
from shardmig.adapters.neptune_local.database3 import identify, merged_rows, missing_rows, opened, upload_requests
from shardmig.adapters.neptune_local.discover import Locator
from shardmig.adapters.neptune_local.files3 import Uploads3
from shardmig.adapters.neptune_local.findings import FindingLog
from shardmig.adapters.neptune_local.options import LocalOptions
from shardmig.adapters.neptune_local.replay3 import Replay3, fork_micro
from shardmig.adapters.neptune_local.survey3 import Survey3
from shardmig.errors import BadInput, NotFound
from shardmig.records import Field, FieldType, RunRef
from shardmig.selection import Matcher

FindDatabases = Callable[[str, str], Sequence[Path]]
"""The databases of (project, run id), none if it is not among those given."""


def open_run3(
    run: RunRef, locator: Locator, options: LocalOptions, matcher: Matcher, scratch: Path, find: FindDatabases
) -> tuple[Replay3, ExitStack]:
    """The run after its first pass, and what closes its databases."""
    paths = [Path(path) for path in locator.paths]
    with ExitStack() as stack:
        connections = [stack.enter_context(opened(path, scratch)) for path in paths]
        copies = copied_databases(paths, connections) if len(paths) > 1 else {}
        findings = FindingLog()
        for copy, original in sorted(copies.items()):
            findings.add("note", "repeated-records", detail=f"{paths[copy]} is a copy of {paths[original]}")
        paths = [path for number, path in enumerate(paths) if number not in copies]
        connections = [one for number, one in enumerate(connections) if number not in copies]
        survey = _surveyed(connections, findings)
        _report_missing(connections, survey)
        uploads = Uploads3(paths, [upload_requests(connection) for connection in connections], options.path_map)
        replay = Replay3(run, connections, survey, uploads, matcher)
        versions = sorted({identity.version for one in connections if (identity := identify(one)) is not None})
        replay.source_version = "database " + ", ".join(versions)
        if survey.created is not None and survey.created.inherit_configs:
            replay.fields += _inherited(run, survey, scratch, find, {field.path for field in replay.fields})
        held = {field.path for field in replay.fields}
        made = [("shardmig/database_version", "string", ", ".join(versions)), *_system_fields(run, survey.created)]
        replay.fields += [Field(*one) for one in made if one[0] not in held]
        return replay, stack.pop_all()


def _surveyed(connections: Sequence[sqlite3.Connection], findings: FindingLog) -> Survey3:
    survey = Survey3(findings)
    for row in merged_rows(connections, [0] * len(connections)):
        survey.replay(row)
    return survey


def _report_missing(connections: Sequence[sqlite3.Connection], survey: Survey3) -> None:
    for connection in connections:
        before, within = missing_rows(connection)
        if before:
            detail = "operations that a server acknowledged are not kept by the client"
            survey.findings.add("gap", "partial-start", count=before, detail=detail)
        if within:
            survey.findings.add("gap", "lost-records", count=within)
    if survey.created is None:
        detail = "name, lineage and creation time of the run are not known"
        survey.findings.add("gap", "no-create-record", detail=detail)


def _system_fields(run: RunRef, created: Any | None) -> list[tuple[str, FieldType, Any]]:
    """What the server would make of the create record."""
    fields: list[tuple[str, FieldType, Any]] = [
        ("shardmig/source", "string", "scale"),
        ("sys/custom_run_id", "string", run.id),
    ]
    if run.created_ms is not None:
        fields.append(("sys/creation_time", "datetime", run.created_ms))
    if created is None:
        return fields
    if created.experiment_id:
        fields += [("sys/name", "string", created.experiment_id)]
        fields += [("sys/experiment/name", "string", created.experiment_id)]
    if created.family:
        fields.append(("sys/family", "string", created.family))
    owner = created.owner.user_id or created.owner.service_account_id
    if owner:
        fields.append(("sys/owner", "string", owner))
    if created.tracker:
        fields.append(("sys/diagnostics/tracker_client", "string", created.tracker))
    if created.HasField("fork_point"):
        fields.append(("sys/forking/parent", "string", created.fork_point.parent_run_id))
        if (micro := fork_micro(created)) is not None:
            fields.append(("sys/forking/step", "float", micro / 1e6))
        if created.fork_point.parent_project not in ("", run.project):
            fields.append(("sys/forking/parent_project", "string", created.fork_point.parent_project))
    return fields


def _inherited(run: RunRef, survey: Survey3, scratch: Path, find: FindDatabases, held: set[str]) -> list[Field]:
    """Configs of the parent, and of its parents as far as each inherits: those nearest win. As they stand at the end
    of the parent's log (the server copies what it has when it makes the fork)."""
    fields: list[Field] = []
    project, created, seen = str(run.project), survey.created, {(str(run.project), str(run.id))}
    while created is not None and created.inherit_configs and created.HasField("fork_point"):
        parent = (created.fork_point.parent_project or project, created.fork_point.parent_run_id)
        paths = [] if parent in seen else find(*parent)
        if not paths:
            detail = f"configs inherited from {parent[1]}, which is not among the databases"
            survey.findings.add("note", "parent-not-here", detail=detail)
            break
        seen.add(parent)
        with ExitStack() as stack:
            ancestor = _surveyed([stack.enter_context(opened(path, scratch)) for path in paths], FindingLog())
        fields += [one for one in ancestor.fields() if not one.path.startswith("sys/") and one.path not in held]
        held = held | {field.path for field in fields}
        project, created = parent[0], ancestor.created
    return fields


def require_paths(locator: Locator, run: RunRef) -> None:
    """Raises NotFound if a folder or database of the run is gone, BadInput if it cannot be looked at."""
    for path in locator.paths:
        try:
            Path(path).stat()
        except FileNotFoundError as error:
            raise NotFound(f"{path} is gone", run=run.label) from error
        except OSError as error:
            raise BadInput(f"{path} cannot be read: {error.strerror}", run=run.label) from error
