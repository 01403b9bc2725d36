"""What the flags ask for, as records: selection, source, target, load options. Raises UsageError that names the flag."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from shardmig.adapters.registry import SOURCES, TARGETS
from shardmig.cli.flags import ArchiveFlags, LoadFlags, SelectionFlags, SourceFlags, TargetFlags
from shardmig.errors import UnknownAdapter, UsageError
from shardmig.records import FIELD_CLASSES, AdapterSpec, ArchivePaths, FieldClass, LoadOptions, Selection

_SPECIAL: Final = re.compile(r"[\\^$.|?*+()\[\]{}]")


def archive_of(flags: ArchiveFlags) -> ArchivePaths:
    """The archive, by absolute paths."""
    return ArchivePaths(str(flags.data_path.absolute()), str(flags.files_path.absolute()))


def as_source(archive: ArchivePaths) -> AdapterSpec:
    """The archive as what a load or a verify reads."""
    return AdapterSpec("archive", {"data": archive.data, "files": archive.files})


def existing_archive_of(flags: ArchiveFlags) -> ArchivePaths:
    """The archive, which must be there already."""
    if not flags.data_path.is_dir():
        raise UsageError(
            f"there is no archive at {flags.data_path}", hint="name its parquet folder with -d/--data-path"
        )
    return archive_of(flags)


def selection_of(flags: SelectionFlags, *, plain_id_is_exact: bool = False) -> Selection:
    """What is selected. `plain_id_is_exact`: a single --runs without special characters is an id (as `load` of
    neptune-exporter takes it), not an expression that would also match longer ids."""
    runs = tuple(flags.runs or ())
    exact = len(runs) > 1 or (plain_id_is_exact and len(runs) == 1 and not _SPECIAL.search(runs[0]))
    if flags.run_ids is not None and exact:
        raise UsageError("--run-ids and several --runs both list run ids", hint="give one of them")
    listed = _listed_ids(flags.run_ids) if flags.run_ids is not None else ()
    return Selection(
        projects=_named("--project", flags.projects),
        runs="" if exact or not runs else _named("--runs", runs)[0],
        run_ids=_named("--runs", runs) if exact else listed,
        attributes=_named("--attributes", flags.attributes),
        exclude_attributes=flags.exclude_attributes,
        classes=_classes(flags),
        created_after_ms=_moment("--created-after", flags.created_after),
        created_before_ms=_moment("--created-before", flags.created_before),
        include_archived=flags.include_archived_runs,
        limit=flags.limit,
    )


def source_of(flags: SourceFlags, projects: Sequence[str], into: ArchivePaths) -> AdapterSpec:
    """The source by name, with its options. 2.x folders do not say which project they belong to: the one of
    `projects` that the selection names. `into`: the archive that is written, which cannot be read at the same time."""
    if flags.source is None:
        raise UsageError("no source", hint=f"give --source: {', '.join(sorted(SOURCES))}")
    _known("source", flags.source, sorted(SOURCES))
    options = _paths(flags.source, [str(path.absolute()) for path in flags.paths or ()])
    if flags.source == "archive" and os.path.realpath(options.get("data", os.curdir)) == os.path.realpath(into.data):
        raise UsageError(f"{into.data} would be read and written", hint="name another folder to write with -d and -f")
    if flags.source == "neptune-local" and len(projects) == 1:
        options["project"] = projects[0]
    if flags.path_map:
        options["path-map"] = os.pathsep.join(flags.path_map)
    if flags.include_acked is not None:
        options["include-acked"] = "yes" if flags.include_acked else "no"
    return AdapterSpec(flags.source, options | _pairs("--source-option", flags.source_option))


def target_of(flags: TargetFlags) -> AdapterSpec:
    """The target. The tracking URI is part of it even when it comes from the environment: a migration into one
    server is not the migration into another. A password in the environment stays there."""
    if flags.target is None:
        raise UsageError("no target", hint=f"give --target: {', '.join(sorted(TARGETS))}")
    _known("target", flags.target, sorted(TARGETS))
    options: dict[str, str] = {}
    if flags.target == "mlflow" and (uri := flags.mlflow_tracking_uri or _without_password("MLFLOW_TRACKING_URI")):
        options["tracking-uri"] = _anchored(uri)
    if flags.name_prefix:
        options["name-prefix"] = flags.name_prefix
    if flags.experiment_name_template:
        options["experiment-name-template"] = flags.experiment_name_template
    if flags.no_bulk:
        options["bulk"] = "no"
    options |= _pairs("--target-option", flags.target_option)
    if any(_password(value) for value in options.values()):
        raise UsageError(
            "an option of the target holds a password, which would be stored in the plan and shown by ps",
            hint="leave it to the environment: $MLFLOW_TRACKING_URI, $PGPASSWORD",
        )
    return AdapterSpec(flags.target, options)


def load_options_of(flags: LoadFlags) -> LoadOptions:
    """How runs are written."""
    text = flags.step_multiplier
    if text != "auto" and not (text.isdecimal() and 0 < int(text) < 2**63):
        raise UsageError(f"--step-multiplier: {text!r} is neither a positive integer nor auto")
    return LoadOptions(
        step_multiplier=0 if text == "auto" else int(text),
        allow_step_merge=flags.allow_step_merge,
        sidecar=not flags.no_sidecar,
        on_existing=flags.on_existing,
    )


def _paths(source: str, paths: list[str]) -> dict[str, str]:
    if source != "archive":
        return {"path": os.pathsep.join(paths)} if paths else {}
    if len(paths) > 2:
        raise UsageError(
            "--source archive takes the archive's data folder and its files folder", hint="PATH [FILES_PATH]"
        )
    return dict(zip(("data", "files"), paths, strict=False))


def _known(role: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise UnknownAdapter(f"there is no {role} {name!r}", hint=f"known: {', '.join(names)}")


def _classes(flags: SelectionFlags) -> tuple[FieldClass, ...]:
    if flags.classes and flags.exclude:
        raise UsageError("--classes and --exclude exclude each other", hint="give one of them")
    for name in (*(flags.classes or ()), *(flags.exclude or ())):
        if name not in FIELD_CLASSES:
            raise UsageError(f"there is no class {name!r} of fields", hint=f"there are: {', '.join(FIELD_CLASSES)}")
    included = flags.classes or FIELD_CLASSES
    classes = tuple(name for name in FIELD_CLASSES if name in included and name not in (flags.exclude or ()))
    if not classes:
        raise UsageError("--exclude leaves no class of fields", hint=f"there are: {', '.join(FIELD_CLASSES)}")
    return classes


def _named(option: str, values: Sequence[str] | None) -> tuple[str, ...]:
    """Values of an option that may not be empty: an empty shell variable must not select everything."""
    if any(not value for value in values or ()):
        raise UsageError(f"{option} is empty", hint="leave it out to select all")
    return tuple(values or ())


def _pairs(option: str, values: Sequence[str] | None) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for value in values or ():
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise UsageError(f"{option}: {value!r} is not KEY=VALUE")
        pairs[key] = text
    return pairs


def _listed_ids(file: Path) -> tuple[str, ...]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--run-ids: {file} cannot be read: {error}", hint="one run id per line") from error
    ids = tuple(dict.fromkeys(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")))
    if not ids:
        raise UsageError(f"--run-ids: {file} lists no run id", hint="one run id per line; # begins a comment")
    return ids


def _moment(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"{option}: {text!r} is not an ISO date", hint="such as 2024-05-31 or 2024-05-31T12:00+02:00"
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def _anchored(uri: str) -> str:
    """A relative SQLite file by its absolute path: `retry` may be typed in another folder."""
    scheme, separator, path = uri.partition(":///")
    if not separator or not scheme.startswith("sqlite") or not path or path.startswith(("/", ":memory:", "file:")):
        return uri
    return f"{scheme}:///{Path(path).absolute()}"


def _without_password(variable: str) -> str:
    uri = os.environ.get(variable, "")
    password = _password(uri)
    return uri.replace(f":{password}@", "@", 1) if password else uri


def _password(uri: str) -> str:
    try:
        return urlsplit(uri).password or ""
    except ValueError:
        return ""
