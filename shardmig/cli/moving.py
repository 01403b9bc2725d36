"""The commands that plan, move and compare runs."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from typer import Option

from shardmig.cli.exits import ExitCode, meaning_of
from shardmig.cli.flags import (
    ArchiveFlags,
    ExecutionFlags,
    LoadFlags,
    SelectionFlags,
    SourceFlags,
    TargetFlags,
    WatchFlags,
)
from shardmig.cli.speech import Speech
from shardmig.cli.spellings import take_secrets
from shardmig.errors import UsageError

if TYPE_CHECKING:
    from shardmig.config import Settings
    from shardmig.planner import Request
    from shardmig.records import Report, Selection
    from shardmig.report.progress import LineProgress, LiveProgress

_MOST_IDS_NAMED: Final = 10

Update = Annotated[bool, Option("--update", help="Bring runs again that changed in the source since.")]


def plan(
    source: SourceFlags,
    target: TargetFlags,
    archive: ArchiveFlags,
    selection: SelectionFlags,
    load: LoadFlags,
    execution: ExecutionFlags,
    watch: WatchFlags,
    speech: Speech,
    out: Annotated[
        Path | None, Option(metavar="FILE", help="Only write the plan into FILE, for execute-shard and collect.")
    ] = None,
) -> int:
    """Say what export, load or migrate would do.

    Takes the options of the command that is planned. With --source it plans an export, with --target a load of the
    archive, with both a migration. It tells what would be moved, what the target would change, and which step multiplier
    keeps every step. -v lists every run.
    """
    from shardmig import coordinator, planner
    from shardmig.adapters.registry import capabilities_of
    from shardmig.cli import asked, shards
    from shardmig.report import estimate

    take_secrets(target, speech)
    if source.source is None and target.target is None:
        raise UsageError("nothing to plan", hint="give --source (export), --target (load) or both (migrate)")
    take_token(source.api_token, speech)
    phases = [name for name, given in (("export", source.source), ("load", target.target)) if given is not None]
    chosen = asked.selection_of(selection, plain_id_is_exact=phases == ["load"])
    paths = asked.archive_of(archive) if source.source else asked.existing_archive_of(archive)
    request = planner.Request(
        phases=("survey",),
        source=asked.source_of(source, chosen.projects, paths) if source.source else asked.as_source(paths),
        archive=paths,
        target=asked.target_of(target) if target.target else None,
        selection=chosen,
        load=asked.load_options_of(load),
        predict=target.target is not None,
    )

    def survey(request: Request) -> Report:
        with tempfile.TemporaryDirectory(prefix="shardmig-plan-") as home, observer(watch, speech) as observe:
            return coordinator.execute(request, settings_of(execution), observe, home=Path(home))

    if out is not None:
        return shards.write_plan(request, phases, out, survey, speech)
    report = survey(request)
    report = _with_selection_checked(report, chosen)
    held = capabilities_of(request.target, request.load) if request.target is not None else None
    found = estimate.estimate_of(report, phases, held)
    speech.answer(found, estimate.shown(found, report, verbose=speech.is_verbose))
    return report.exit_code


def export(
    source: SourceFlags,
    archive: ArchiveFlags,
    selection: SelectionFlags,
    execution: ExecutionFlags,
    watch: WatchFlags,
    speech: Speech,
    update: Update = False,
) -> int:
    """Read runs from a source into the archive.

    \b
    shardmig export --source neptune-local .neptune --project ws/name
    """
    from shardmig import planner
    from shardmig.cli import asked

    take_token(source.api_token, speech)
    paths, chosen = asked.archive_of(archive), asked.selection_of(selection)
    request = planner.Request(
        phases=("export",),
        source=asked.source_of(source, chosen.projects, paths),
        archive=paths,
        selection=chosen,
        update=update,
    )
    return carry_out("export", request, execution, watch, speech)


def load(
    target: TargetFlags,
    archive: ArchiveFlags,
    selection: SelectionFlags,
    load: LoadFlags,
    execution: ExecutionFlags,
    watch: WatchFlags,
    speech: Speech,
    update: Update = False,
) -> int:
    """Write the runs of an archive into a target.

    \b
    shardmig load --target mlflow --mlflow-tracking-uri http://localhost:5000

    A single --runs without special characters is taken as a run id.
    """
    from shardmig import planner
    from shardmig.cli import asked

    take_secrets(target, speech)
    wanted = asked.target_of(target)
    paths = asked.existing_archive_of(archive)
    request = planner.Request(
        phases=("survey", "load"),
        source=asked.as_source(paths),
        archive=paths,
        target=wanted,
        selection=asked.selection_of(selection, plain_id_is_exact=True),
        load=asked.load_options_of(load),
        update=update,
    )
    return carry_out("load", request, execution, watch, speech)


def migrate(
    source: SourceFlags,
    target: TargetFlags,
    archive: ArchiveFlags,
    selection: SelectionFlags,
    load: LoadFlags,
    execution: ExecutionFlags,
    watch: WatchFlags,
    speech: Speech,
    update: Update = False,
) -> int:
    """Export and load: from a source through the archive into a target.

    \b
    shardmig migrate --source neptune-local .neptune --project ws/name \\
        --target mlflow --mlflow-tracking-uri sqlite:///mlflow.db
    """
    from shardmig import planner
    from shardmig.cli import asked

    take_token(source.api_token, speech)
    paths, chosen = asked.archive_of(archive), asked.selection_of(selection)
    take_secrets(target, speech)
    read, written = asked.source_of(source, chosen.projects, paths), asked.target_of(target)
    asked.check_not_onto_itself(read, written)
    request = planner.Request(
        phases=("export", "load"),
        source=read,
        archive=paths,
        target=written,
        selection=chosen,
        load=asked.load_options_of(load),
        update=update,
    )
    return carry_out("migrate", request, execution, watch, speech)


def verify(
    target: TargetFlags,
    archive: ArchiveFlags,
    selection: SelectionFlags,
    load: LoadFlags,
    execution: ExecutionFlags,
    watch: WatchFlags,
    speech: Speech,
    sample: Annotated[
        int, Option(metavar="N", min=0, help="Quick: compare about one in N series and files. 0 = all.")
    ] = 0,
) -> int:
    """Compare the archive with what the target holds.

    \b
    shardmig verify --target mlflow --mlflow-tracking-uri http://localhost:5000

    Compares every value, point, text, histogram and file, and the facts of the run. Per run it finds: equal, approximated (with the reasons), differs or missing.
    """
    from shardmig import planner
    from shardmig.cli import asked

    take_secrets(target, speech)
    wanted = asked.target_of(target)
    paths = asked.existing_archive_of(archive)
    request = planner.Request(
        phases=("verify",),
        source=asked.as_source(paths),
        archive=paths,
        target=wanted,
        selection=asked.selection_of(selection, plain_id_is_exact=True),
        load=asked.load_options_of(load),
        update=True,  # of an archive that grew, what changed is compared again
        sample=sample,
    )
    return carry_out("verify", request, execution, watch, speech)


def retry(
    archive: ArchiveFlags,
    execution: ExecutionFlags,
    watch: WatchFlags,
    speech: Speech,
    shard: Annotated[list[str] | None, Option(metavar="ID", help="Only this shard. Repeatable.")] = None,
    failed: Annotated[bool, Option("--failed", help="All shards with unfinished runs; the default.")] = False,
    migration: Annotated[str, Option(metavar="ID", help="Of this migration. Default: the one executed last.")] = "",
) -> int:
    """Execute again what failed or was not reached in a migration.

    \b
    shardmig retry --failed
    """
    from shardmig import coordinator
    from shardmig.cli import asked
    from shardmig.records import ShardId
    from shardmig.results import retry_command

    if shard and failed:
        raise UsageError("--shard and --failed exclude each other", hint="give one of them")
    paths = asked.existing_archive_of(archive)
    shards = [ShardId(one) for one in shard or ()]
    check_writable(watch)
    with observer(watch, speech) as observe:
        report = coordinator.retry(paths, settings_of(execution), observe, migration=migration, shards=shards)
    return tell("retry", report, watch, speech, retry=retry_command(report.migration, paths))


def take_token(token: str | None, speech: Speech) -> None:
    """Use a token of the command line, for scripts of neptune-exporter, and say what is wrong with it."""
    if token is not None:
        speech.say("shardmig: ps and the shell's history show --api-token; set NEPTUNE_API_TOKEN instead")
        os.environ["NEPTUNE_API_TOKEN"] = token


def carry_out(command: str, request: Request, execution: ExecutionFlags, watch: WatchFlags, speech: Speech) -> int:
    """Carry a request out as `command`, and tell how it ended."""
    from shardmig import coordinator
    from shardmig.adapters.registry import capabilities_of
    from shardmig.results import retry_command

    settings = settings_of(execution)
    check_writable(watch)
    if request.target is not None and request.load.on_existing == "merge":
        capabilities_of(request.target, request.load)  # refuses here and now a target that cannot
    with observer(watch, speech) as observe:
        report = coordinator.execute(request, settings, observe)
    report = _with_selection_checked(report, request.selection)
    return tell(command, report, watch, speech, retry=retry_command(report.migration, request.archive))


def _with_selection_checked(report: Report, selection: Selection) -> Report:
    """A selection that selects nothing, or names runs that do not exist, is a mistake and no success."""
    from shardmig.records import FIELD_CLASSES

    if report.exit_code != ExitCode.COMPLETE:
        return report
    outcomes = [outcome for phase in report.outcomes.values() for outcome in phase]
    if not outcomes:
        return _stopped(
            report, ExitCode.USAGE, "no run is selected: `shardmig plan` with fewer filters shows what there is"
        )
    missing = sorted(set(selection.run_ids) - {outcome.run.id for outcome in outcomes}) if not selection.limit else []
    if missing:
        named = ", ".join(missing[:_MOST_IDS_NAMED]) + (" …" if len(missing) > _MOST_IDS_NAMED else "")
        asked_for = len(selection.run_ids)
        return _stopped(
            report,
            ExitCode.FAILED_RUNS,
            f"{len(missing)} of {asked_for} named runs are not there or are filtered out: {named}",
        )
    is_filtered = selection.attributes or selection.exclude_attributes or len(selection.classes) < len(FIELD_CLASSES)
    if is_filtered and not any(outcome.counters.fields for outcome in outcomes):
        return _stopped(report, ExitCode.USAGE, "no field is selected: none of these runs has one that is asked for")
    return report


def _stopped(report: Report, code: ExitCode, why: str) -> Report:
    import msgspec

    return msgspec.structs.replace(report, exit_code=int(code), stopped=why)


def settings_of(flags: ExecutionFlags) -> Settings:
    """How the flags want it executed."""
    from shardmig.config import Settings
    from shardmig.engines import require_engine

    given = {
        "workers": flags.workers,
        "engine": flags.engine,
        "ray_address": flags.ray_address,
        "ray_resources": flags.ray_resources,
        "max_attempts": flags.max_attempts,
        "deadline_s": flags.deadline,
        "compression": flags.compression,
    }
    settings = Settings.resolve(given, file=flags.config)
    require_engine(settings.engine)
    return settings


def observer(watch: WatchFlags, speech: Speech) -> LiveProgress | LineProgress:
    """What tells the progress."""
    from shardmig.report.progress import LineProgress, LiveProgress

    if watch.no_progress:
        return LineProgress(speech.say, every_s=float("inf"))
    return LiveProgress(sys.stderr) if sys.stderr.isatty() else LineProgress(speech.say)


def tell(command: str, report: Report, watch: WatchFlags, speech: Speech, *, retry: str) -> int:
    """The end of a command: summary, pages, and the command that retries."""
    from shardmig.report import failures, page, results

    meaning = meaning_of(report.exit_code, command)
    speech.show(results.ended(report, verbose=speech.is_verbose))
    speech.say(f"shardmig {command}: {meaning}")
    if report.exit_code and report.failed:
        speech.say(f"retry with: {retry}")
    if watch.report is not None:
        ended_ms = time.time_ns() // 1_000_000
        _write(watch.report, page.page(report, title=f"shardmig {command}", meaning=meaning, ended_ms=ended_ms))
        speech.say(f"report: {watch.report}")
    if watch.error_report_file is not None:
        failures.append(report, watch.error_report_file)
    if speech.as_json:
        speech.answer(report, ())
    return report.exit_code


def check_writable(watch: WatchFlags) -> None:
    """A report that cannot be written must be known before hours of work, not after."""
    for option, file in (("--report", watch.report), ("--error-report-file", watch.error_report_file)):
        if file is None:
            continue
        try:
            file.open("a", encoding="utf-8").close()
        except OSError as error:
            raise UsageError(f"{option}: {file}: {error.strerror}") from error


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", errors="backslashreplace")
