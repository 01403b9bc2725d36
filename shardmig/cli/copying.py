"""The short commands that copy from one MLflow into another."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from typer import Argument, Option

from shardmig.cli.exits import ExitCode
from shardmig.cli.flags import ExecutionFlags, LoadFlags, ObjectFlags, OnExisting, SourceFlags, TargetFlags, WatchFlags
from shardmig.cli.moving import carry_out
from shardmig.cli.speech import Speech
from shardmig.errors import UsageError

if TYPE_CHECKING:
    from shardmig.adapters.mlflow.rows.copying import Copied
    from shardmig.records import AdapterSpec, Selection

From = Annotated[str, Option("--from", metavar="URI", help="MLflow to read: a server, a database or a folder mlruns.")]
To = Annotated[str, Option("--to", metavar="URI", help="MLflow to write: a server or a database.")]


@dataclass(frozen=True, kw_only=True)
class CopyFlags(ObjectFlags):
    """Between what, and how."""

    from_uri: From
    to_uri: To
    from_credentials: Annotated[
        Path | None, Option(metavar="FILE", help="TOML file: who reads. Default: MLflow's environment variables.")
    ] = None
    to_credentials: Annotated[
        Path | None, Option(metavar="FILE", help="TOML file: who writes. Default: MLflow's environment variables.")
    ] = None
    name_prefix: Annotated[str | None, Option(help="Put before the name of every experiment.")] = None
    experiment_rename_file: Annotated[
        Path | None, Option(metavar="FILE", help="CSV of old,new: what experiments are called in the copy.")
    ] = None
    model_rename_file: Annotated[
        Path | None, Option(metavar="FILE", help="CSV of old,new: what models and prompts are called in the copy.")
    ] = None
    include_deleted: Annotated[bool, Option("--include-deleted", help="Also deleted runs; they are deleted again.")] = (
        False
    )
    on_existing: OnExisting = "fail"
    keep: Annotated[Path | None, Option(metavar="FOLDER", help="Keep the archive in between, in FOLDER.")] = None
    no_verify: Annotated[bool, Option("--no-verify", help="Do not compare the copy with the archive.")] = False


def copy_all(copy: CopyFlags, execution: ExecutionFlags, watch: WatchFlags, speech: Speech) -> int:
    """Copy everything from one MLflow into another, and compare.

    --json gives two documents: the copy's and the comparison's.

    \b
    shardmig copy all --from http://old:5000 --to http://new:5000
    """
    from shardmig.adapters.mlflow.database.uri import driver_uri, is_bulk_dialect
    from shardmig.records import Selection

    if all(is_bulk_dialect(driver_uri(uri)) for uri in (copy.from_uri, copy.to_uri)):
        speech.say(
            "both are databases: of one schema revision `shardmig copy database` is faster, and keeps ids and times"
        )
    return _copy(Selection(include_archived=copy.include_deleted), copy, execution, watch, speech)


def copy_experiment(
    copy: CopyFlags,
    execution: ExecutionFlags,
    watch: WatchFlags,
    speech: Speech,
    names: Annotated[list[str], Argument(metavar="NAME...", help="Names of experiments.")],
) -> int:
    """Copy experiments with all of their runs, and compare.

    \b
    shardmig copy experiment churn --from http://old:5000 --to http://new:5000
    """
    from shardmig.records import Selection

    _check_names(names)
    chosen = Selection(projects=tuple(names), include_archived=copy.include_deleted)
    return _copy(chosen, copy, execution, watch, speech)


def copy_run(
    copy: CopyFlags,
    execution: ExecutionFlags,
    watch: WatchFlags,
    speech: Speech,
    ids: Annotated[list[str], Argument(metavar="RUN_ID...", help="Ids of runs.")],
) -> int:
    """Copy single runs, and compare.

    \b
    shardmig copy run 0a1b… --from http://old:5000 --to http://new:5000
    """
    from shardmig.records import Selection

    _check_names(ids)
    chosen = Selection(run_ids=tuple(ids), include_archived=copy.include_deleted)
    return _copy(chosen, copy, execution, watch, speech)


def copy_model(
    copy: CopyFlags,
    execution: ExecutionFlags,
    watch: WatchFlags,
    speech: Speech,
    names: Annotated[list[str], Argument(metavar="NAME...", help="Names of registered models.")],
) -> int:
    """Copy registered models with all of their versions, and compare.

    \b
    shardmig copy model churn --from http://old:5000 --to http://new:5000

    Runs and logged models that the versions came from are linked where they are in the target already: copy their
    experiments first.
    """
    from shardmig.adapters.mlflow.objects.base import REGISTRY
    from shardmig.records import Selection

    _check_names(names)
    if copy.models:
        raise UsageError("--models and NAME both name models", hint="`copy all --objects models` takes --models alone")
    models = replace(copy, objects="models")
    return _copy(Selection(projects=(REGISTRY,), run_ids=tuple(names)), models, execution, watch, speech)


def copy_model_version(
    copy: CopyFlags,
    execution: ExecutionFlags,
    watch: WatchFlags,
    speech: Speech,
    name: Annotated[str, Argument(help="Name of a registered model.")],
    version: Annotated[int, Argument(min=1, help="Number of the version.")],
) -> int:
    """Copy one version of a registered model, under its number, and compare.

    \b
    shardmig copy model-version churn 3 --from http://old:5000 --to http://new:5000
    """
    from shardmig.adapters.mlflow.objects.base import REGISTRY
    from shardmig.records import Selection

    _check_names([name])
    if copy.models or copy.versions or copy.stages:
        raise UsageError("copy model-version takes one NAME and one NUMBER", hint="`copy model` takes --versions")
    one = replace(copy, objects="models", versions=str(version))
    return _copy(Selection(projects=(REGISTRY,), run_ids=(name,)), one, execution, watch, speech)


def copy_database(
    speech: Speech,
    from_uri: Annotated[str, Option("--from", metavar="URI", help="Tracking database to read.")],
    to_uri: Annotated[str, Option("--to", metavar="URI", help="Tracking database to write; made where it is missing.")],
    artifact_root: Annotated[
        list[str] | None,
        Option(metavar="OLD=NEW", help="Artifacts below OLD lie below NEW afterwards. Repeatable."),
    ] = None,
    copy_artifacts: Annotated[
        bool, Option("--copy-artifacts", help="Copy the files below each OLD to NEW: both on this machine.")
    ] = False,
) -> int:
    """Copy a tracking database row by row: ids, times and version numbers stay.

    \b
    shardmig copy database --from sqlite:///old.db --to postgresql://host/mlflow

    Both must be of the installed MLflow's schema revision, SQLite or PostgreSQL. Afterwards every row is compared. The
    same command after a crash goes on where it stopped. Stop servers that write to either of them before.
    """
    from shardmig.adapters.mlflow.rows import files
    from shardmig.cli import asked

    roots = [_root(text) for text in artifact_root or ()]
    if copy_artifacts and not roots:
        raise UsageError("--copy-artifacts needs --artifact-root", hint="--artifact-root OLD=NEW")
    source, target = asked.database_uri(from_uri), asked.database_uri(to_uri)
    if source == target:
        raise UsageError(f"{from_uri} is the source and the target")
    with ThreadPoolExecutor(1) as beside:
        trees = [(old, new, beside.submit(files.copy_tree, old, new)) for old, new in roots if copy_artifacts]
        from shardmig.adapters.mlflow.rows import copying  # takes seconds, in which files are copied

    for old, new, copied_tree in trees:
        count, size_bytes = copied_tree.result()
        speech.say(f"artifacts: {count} files, {size_bytes} bytes from {old} to {new}")
    progress = _TableProgress(speech)
    copied = copying.copy_database(source, target, roots, progress)
    speech.answer(copied, _shown(copied))
    return ExitCode.COMPLETE if copied.is_equal else ExitCode.DIFFERENCES


COMMANDS: Final[dict[str, Callable[..., int]]] = {
    "all": copy_all,
    "experiment": copy_experiment,
    "run": copy_run,
    "model": copy_model,
    "model-version": copy_model_version,
    "database": copy_database,
}
"""By the names that they have behind `shardmig copy`."""


def _copy(selection: Selection, copy: CopyFlags, execution: ExecutionFlags, watch: WatchFlags, speech: Speech) -> int:
    from shardmig import planner
    from shardmig.archive.layout import archive_paths
    from shardmig.cli import asked
    from shardmig.records import LoadOptions

    source, target = _sides(copy)
    home = (copy.keep or _home(selection, source, target, copy.on_existing)).absolute()
    asked.refuse_file("--keep", home)
    paths = archive_paths(str(home / "data"), str(home / "files"))
    request = planner.Request(
        phases=("export", "load"),
        source=source,
        archive=paths,
        target=target,
        selection=selection,
        # MLflow's steps are whole: a shard is loaded as soon as it is exported, not when the steps of all are known.
        load=asked.load_options_of(LoadFlags(on_existing=copy.on_existing, step_multiplier="1")),
        update=True,
    )
    code = carry_out("migrate", request, execution, watch, speech)
    if code == ExitCode.COMPLETE and not copy.no_verify:
        read = asked.as_source(paths)
        compared = planner.Request(
            phases=("verify",),
            source=read,
            archive=paths,
            target=target,
            selection=selection,
            load=LoadOptions(),
            update=True,
        )
        code = carry_out("verify", compared, execution, watch, speech)
    if copy.keep is None:
        if code == ExitCode.COMPLETE:
            shutil.rmtree(home, ignore_errors=True)
        else:
            speech.say(f"the archive in between is kept in {home}; the same command goes on with it")
    return code


def _sides(copy: CopyFlags) -> tuple[AdapterSpec, AdapterSpec]:
    """What is read and what is written."""
    from shardmig.cli import asked

    reading = SourceFlags(
        source="mlflow",
        paths=[copy.from_uri],
        source_option=_credentials(copy.from_credentials),
        **{field.name: getattr(copy, field.name) for field in fields(ObjectFlags)},
    )
    writing = TargetFlags(
        target="mlflow",
        mlflow_tracking_uri=copy.to_uri,
        name_prefix=copy.name_prefix,
        experiment_rename_file=copy.experiment_rename_file,
        model_rename_file=copy.model_rename_file,
        target_option=_credentials(copy.to_credentials),
    )
    source, target = asked.source_of(reading, ()), asked.target_of(writing)
    asked.check_not_onto_itself(source, target)
    return source, target


def _home(selection: Selection, source: AdapterSpec, target: AdapterSpec, on_existing: str) -> Path:
    """Where the archive in between lies: the same folder for the same copy, so that it goes on after a crash. The same words
    in another folder may be another copy: what counts is what they mean."""
    text = repr((selection, source, target, on_existing))
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"shardmig-copy-{os.getuid()}-{digest}"


def _credentials(file: Path | None) -> list[str] | None:
    return None if file is None else [f"credentials-file={file.absolute()}"]


def _check_names(names: list[str]) -> None:
    if not all(names):
        raise UsageError("a name is empty")


def _root(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not equals or not old or not new:
        raise UsageError(f"--artifact-root: {text!r} is not OLD=NEW")
    return old, new


class _TableProgress:
    """Says which table is copied, once each."""

    def __init__(self, speech: Speech) -> None:
        self._speech = speech
        self._table = ""

    def __call__(self, table: str, rows: int) -> None:
        if rows and table != self._table:
            self._table = table
            self._speech.say(f"copying {table}")


def _shown(copied: Copied) -> Any:
    from rich.text import Text

    from shardmig.report import terminal, words

    table = terminal.table("table", ">rows", "compared")
    for one in copied.tables:
        terminal.row(table, one.name, words.count(one.rows), "equal" if one.is_equal else "differs")
    yield table
    if copied.went_on:
        yield Text("went on where an earlier execution stopped")
    if copied.experiments:
        pairs = ", ".join(f"{old} is {new}" for old, new in copied.experiments)
        yield Text(f"experiment ids that were taken: {pairs}")
    if copied.shares_default:
        yield Text("the default experiment of both is one: the target's own tags and location are kept")
    for name, rows in copied.left_out.items():
        yield Text(f"left out: {words.count(rows)} rows of {name}, which a server makes anew")
    if not copied.is_equal:
        yield Text("differs: was something written to one of them meanwhile? The target's table shardmig_copy is kept")
