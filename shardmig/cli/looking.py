"""The commands that look: at the archive and at migrations. They change nothing."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from shardmig.cli.exits import ExitCode, meaning_of
from shardmig.cli.flags import ArchiveFlags
from shardmig.cli.speech import Speech
from shardmig.errors import BadInput, UsageError

if TYPE_CHECKING:
    from shardmig.archive.reader import ArchiveReader
    from shardmig.journal import State
    from shardmig.migration import MigrationFolder
    from shardmig.records import Chunk, ProjectId, RunRef
    from shardmig.report.status import MigrationStatus
    from shardmig.report.tree import ProjectLine, RunState, RunTree


def status(
    archive: ArchiveFlags,
    speech: Speech,
    migration: Annotated[str, Option(metavar="ID", help="Only this migration. Default: the one executed last.")] = "",
    every: Annotated[bool, Option("--all", help="All migrations of the archive, the latest last.")] = False,
) -> int:
    """Say how a migration stands, also while it executes.

    Lists every shard with its state, and why it will or will not execute. Of more than 100 shards those are counted that
    stand alike; -v and --json list each.
    """
    from shardmig.cli import asked
    from shardmig.migration import find_migration, migrations
    from shardmig.report import status as answer

    paths = asked.existing_archive_of(archive)
    folders = list(migrations(paths)) if every else [find_migration(paths, migration)]
    now_ms = time.time_ns() // 1_000_000
    found = [_status_of(folder, now_ms) for folder in folders]
    speech.answer(found, answer.all_shown(found, now_ms=now_ms, verbose=speech.is_verbose))
    return ExitCode.COMPLETE


def summary(
    archive: ArchiveFlags,
    speech: Speech,
    model_data_path: Annotated[
        str | None,
        Option(metavar="PATH", help="Also an archive of models that neptune-exporter wrote.", show_default=False),
    ] = None,
) -> int:
    """Say what an archive holds: runs, fields and rows by type.

    Tells the range of steps and which runs are known to be whole. Reads no more columns than needed.
    """
    from shardmig.cli import asked
    from shardmig.report import inventory

    places = [asked.existing_archive_of(archive)]
    if model_data_path is not None:
        places.append(asked.existing_archive_of(ArchiveFlags(model_data_path, archive.files_path)))
    found = [inventory.inventory_of(place) for place in places]
    speech.answer(found if len(found) > 1 else found[0], inventory.all_shown(found))
    return (
        ExitCode.FAILED_RUNS if any(one.unreadable for place in found for one in place.projects) else ExitCode.COMPLETE
    )


def ls(
    archive: ArchiveFlags,
    speech: Speech,
    project: Annotated[str, Argument(metavar="PROJECT", show_default=False)] = "",
    run: Annotated[str, Argument(metavar="RUN", show_default=False)] = "",
    namespace: Annotated[str, Option(metavar="NAME", help="Only the fields below this namespace.")] = "",
) -> int:
    """List projects, runs of a project, or fields of a run.

    Runs stand for what other scopes hold, too: models, traces, datasets.

    \b
    shardmig ls
    shardmig ls ws/name
    shardmig ls ws/name RUN-1 --namespace metrics
    """
    from shardmig.archive.reader import ArchiveReader
    from shardmig.cli import asked
    from shardmig.records import SCOPES
    from shardmig.report import tree

    reader = ArchiveReader(asked.existing_archive_of(archive))
    if not project:
        projects = [_project_line(reader, one) for one in reader.projects()]
        speech.answer(projects, tree.projects_shown(projects))
    elif not run:
        listed = [one for scope in SCOPES for one in reader.runs(_project(reader, project), scope)]
        lines = [tree.run_line(one, _run_state(reader, one)) for one in listed]
        speech.answer(lines, tree.runs_shown(lines))
    else:
        found = _tree(reader, find_run(reader, run, project), namespace, with_values=False)
        speech.answer(found, tree.fields_shown(found, namespace))
    return ExitCode.COMPLETE


def show(
    archive: ArchiveFlags,
    speech: Speech,
    run: Annotated[str, Argument(metavar="RUN")],
    field: Annotated[str, Argument(metavar="FIELD", show_default=False)] = "",
    project: Annotated[
        str, Option("-p", "--project", metavar="WS/NAME", help="The run's project, where several have the id.")
    ] = "",
    head: Annotated[int, Option(metavar="N", min=0, help="First points of a series.")] = 10,
    tail: Annotated[int, Option(metavar="N", min=0, help="Last points of a series.")] = 10,
) -> int:
    """Show a run with its values, or one field of it.

    \b
    shardmig show RUN-1
    shardmig show RUN-1 params/lr
    shardmig show RUN-1 metrics/loss --head 3 --tail 3
    """
    from shardmig.archive.reader import ArchiveReader
    from shardmig.cli import asked
    from shardmig.report import tree, values

    reader = ArchiveReader(asked.existing_archive_of(archive))
    chosen = find_run(reader, run, project)
    if not field:
        found = _tree(reader, chosen, "", with_values=True)
        speech.answer(found, tree.fields_shown(found))
        return ExitCode.COMPLETE
    answers = values.answers(_chunks(reader, chosen, field), run=chosen.label, head=head, tail=tail)
    if not answers:
        known = [path for path, _ in reader.fields(chosen)]
        listing = shlex.join(("shardmig", "ls", chosen.project, chosen.id, "-d", archive.data_path))
        raise UsageError(
            f"there is no field {field!r}{_similar(field, known)}", run=chosen.label, hint=f"`{listing}` lists them"
        )
    speech.answer(answers if len(answers) > 1 else answers[0], (part for one in answers for part in values.shown(one)))
    return ExitCode.COMPLETE


def find_run(reader: ArchiveReader, run: str, project: str = "") -> RunRef:
    """The run with this id, or with this label as messages name it. Raises UsageError when there is none, or several."""
    from shardmig.records import SCOPES

    projects = [_project(reader, project)] if project else list(reader.projects())
    found = [
        one for known in projects for scope in SCOPES for one in reader.runs(known, scope) if run in (one.id, one.label)
    ]
    if not found:
        where = f"project {project}" if project else "the archive"
        known = [one.id for name in projects for scope in SCOPES for one in reader.runs(name, scope)]
        raise UsageError(
            f"there is no run {run!r} in {where}{_similar(run, known)}",
            hint="`shardmig ls WS/NAME` lists the runs of a project",
        )
    if len(found) > 1:
        names = ", ".join(one.label for one in found)
        raise UsageError(f"{len(found)} runs have the id {run!r}", hint=f"give one of: {names}")
    return found[0]


def _similar(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, known, n=3)
    return f"; similar: {', '.join(map(repr, close))}" if close else ""


def _project(reader: ArchiveReader, project: str) -> ProjectId:
    known = list(reader.projects())
    for one in known:
        if one == project:
            return one
    raise UsageError(f"the archive has no project {project!r}", hint=f"it has: {', '.join(known) or 'none'}")


def _project_line(reader: ArchiveReader, project: ProjectId) -> ProjectLine:
    from shardmig.records import SCOPES
    from shardmig.report.tree import ProjectLine

    held = {scope: sum(1 for _ in reader.runs(project, scope)) for scope in SCOPES}
    return ProjectLine(project, held.pop("runs"), {scope: number for scope, number in held.items() if number})


def _run_state(reader: ArchiveReader, run: RunRef) -> RunState:
    try:
        return "unknown" if reader.receipt(run) is None else "whole"
    except BadInput:
        return "damaged"


def _tree(reader: ArchiveReader, run: RunRef, namespace: str, *, with_values: bool) -> RunTree:
    from shardmig.adapters.base import Want
    from shardmig.records import Fields, Files, Selection
    from shardmig.report import contents, tree

    receipt, found = contents.contents_of(reader, run)
    below = f"{namespace.strip('/')}/" if namespace else ""
    if below and not any(one.path.startswith(below) for one in found):
        known = sorted({one.path.rpartition("/")[0] for one in found} - {""})
        raise UsageError(f"there is no namespace {namespace!r}{_similar(namespace, known)}", run=run.label)
    found = [one for one in found if one.path.startswith(below)]
    fields, files = [], []
    if with_values:
        scalars_and_files = Selection(classes=("parameters", "files"))
        for piece in reader.read(run, Want(selection=scalars_and_files), hash_files=False):
            fields += piece.chunk.fields if isinstance(piece.chunk, Fields) else []
            files += piece.chunk.files if isinstance(piece.chunk, Files) else []
    return tree.RunTree(
        tree.run_line(run, "unknown" if receipt is None else "whole"), tree.field_lines(found, fields, files)
    )


def _chunks(reader: ArchiveReader, run: RunRef, field: str) -> Iterator[Chunk]:
    """Chunks of one field. Raises BadInput when the archive lost it."""
    from shardmig.adapters.base import Want
    from shardmig.records import End, Selection
    from shardmig.report.findings import told

    only = Selection(attributes=(rf"\A{re.escape(field)}\Z",))
    for piece in reader.read(run, Want(selection=only), hash_files=False):
        if isinstance(piece.chunk, End):
            for finding in piece.chunk.findings:
                if finding.kind == "loss" and finding.field == field:
                    raise BadInput(told(finding), run=run.label, hint="the archive is damaged: export this run again")
        yield piece.chunk


def _status_of(folder: MigrationFolder, now_ms: int) -> MigrationStatus:
    from shardmig.adapters.budget import standings
    from shardmig.progress import phase_totals
    from shardmig.report import budget
    from shardmig.report.status import MigrationStatus
    from shardmig.results import retry_command, statuses

    state = folder.state()
    holder = _holder(folder) if state.executions and state.finished is None else ""
    shards = list(statuses(state, is_executing=bool(holder), now_ms=now_ms))
    systems = (state.plan.source, state.plan.target)
    has_failed = state.finished is not None and any(shard.state == "failed" for shard in shards)
    return MigrationStatus(
        migration=folder.id,
        folder=str(folder.path),
        source=state.plan.source.name,
        target=state.plan.target.name if state.plan.target is not None else "",
        created_ms=state.plan.created_ms,
        executions=state.executions,
        standing=_standing(state, holder),
        step_multiplier=state.step_multiplier,
        phases=phase_totals(state),
        shards=shards,
        refused=state.refused,
        retry_command=retry_command(folder.id, state.plan.archive) if has_failed else "",
        budgets=budget.of_systems(standings(), [spec.name for spec in systems if spec is not None]) if holder else [],
    )


def _standing(state: State, holder: str) -> str:
    if state.finished is not None:
        return f"ended with exit code {state.finished.exit_code}, {meaning_of(state.finished.exit_code)}"
    if not state.executions:
        return "planned, not executed yet"
    return f"executing ({holder})" if holder else "its process died; the same command again goes on"


def _holder(folder: MigrationFolder) -> str:
    """Who holds the migration's lock. Asked by process id: taking the lock to find out would disturb a start."""
    try:
        holder = folder.lock_file.read_text(encoding="utf-8").strip()
        os.kill(int(holder.removeprefix("process ")), 0)
    except PermissionError:
        return holder
    except (OSError, ValueError):
        return ""
    return holder
