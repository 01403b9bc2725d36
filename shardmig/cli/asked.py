"""What the flags ask for, as records: selection, source, target, load options. Raises UsageError that names the flag."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from shardmig.adapters.mlflow.options import holds_password, without_passwords
from shardmig.adapters.registry import SOURCES, TARGETS, check_target
from shardmig.archive.layout import archive_paths, files_beside
from shardmig.archive.places import root_of
from shardmig.archive.store import ObjectPath
from shardmig.cli.flags import ArchiveFlags, LoadFlags, ModelArchiveFlags, SelectionFlags, SourceFlags, TargetFlags
from shardmig.cli.spellings import settled, target_options
from shardmig.errors import UnknownAdapter, UsageError
from shardmig.records import FIELD_CLASSES, AdapterSpec, ArchivePaths, FieldClass, LoadOptions, Selection

_SPECIAL: Final = re.compile(r"[\\^$.|?*+()\[\]{}]")


def archive_of(flags: ArchiveFlags) -> ArchivePaths:
    """The archive, by absolute paths. Raises UsageError where no folder can be, and for the folder around an archive."""
    data, files = root_of(flags.data_path), root_of(flags.files_path)
    if isinstance(data, ObjectPath) and flags.files_path in (ArchiveFlags.files_path, ModelArchiveFlags.files_path):
        files = files_beside(data)
    for option, path in (("-d/--data-path", data), ("-f/--files-path", files)):
        if not isinstance(path, ObjectPath):
            refuse_file(option, path)
    if (data / "data").is_dir():
        around = shlex.join(("-d", str(data / "data"), "-f", str(data / "files")))
        raise UsageError(f"{data} is not an archive, but the folder around one", hint=f"give {around}")
    return ArchivePaths(str(data.absolute()), str(files.absolute()))


def refuse_file(option: str, path: Path) -> None:
    """Raises UsageError where no folder can be."""
    existing = next((place for place in (path, *path.absolute().parents) if place.exists()), path)
    if existing.exists() and not existing.is_dir():
        raise UsageError(f"{option}: {existing} is a file, not a folder")


def as_source(archive: ArchivePaths) -> AdapterSpec:
    """The archive as what a load or a verify reads."""
    return AdapterSpec("archive", {"data": archive.data, "files": archive.files})


def existing_archive_of(flags: ArchiveFlags) -> ArchivePaths:
    """The archive, which must be there already."""
    paths = archive_of(flags)
    if not root_of(paths.data).is_dir():
        raise UsageError(
            f"there is no archive at {flags.data_path}", hint="name its parquet folder with -d/--data-path"
        )
    return paths


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


def source_of(flags: SourceFlags, projects: Sequence[str], into: ArchivePaths | None = None) -> AdapterSpec:
    """The source by name, with its options. 2.x folders do not say which project they belong to: the one of
    `projects` that the selection names. `into`: the archive that is written, which cannot be read at the same time."""
    if flags.source is None:
        raise UsageError("no source", hint=f"give --source: {', '.join(sorted(SOURCES))}")
    _known("source", flags.source, sorted(SOURCES))
    options = _paths(flags.source, list(flags.paths or ()))
    if flags.source == "archive" and "data" in options and into is not None:
        _check_apart(archive_paths(options["data"], options.get("files")), into)
    if flags.source == "neptune-local" and len(projects) == 1:
        options["project"] = projects[0]
    if flags.path_map:
        options["path-map"] = os.pathsep.join(flags.path_map)
    if flags.include_acked is not None:
        options["include-acked"] = "yes" if flags.include_acked else "no"
    return AdapterSpec(flags.source, options | _server_options(flags) | _pairs("--source-option", flags.source_option))


def target_of(flags: TargetFlags) -> AdapterSpec:
    """The target. The tracking URI is part of it even when it comes from the environment: a migration into one
    server is not the migration into another. A password in the environment stays there. Its options are checked by
    the adapter here: nobody wants to hear of them after hours of export."""
    if flags.target is None:
        raise UsageError("no target", hint=f"give --target: {', '.join(sorted(TARGETS))}")
    _known("target", flags.target, sorted(TARGETS))
    options = target_options(flags)
    if flags.target == "mlflow" and (uri := options.get("tracking-uri") or _from_environment()):
        options["tracking-uri"] = _anchored(uri)
    if flags.no_bulk:
        options["bulk"] = "no"
    options |= _pairs("--target-option", flags.target_option)
    if any(map(holds_password, options.values())):
        raise UsageError(
            "an option of the target holds a password, which would be stored in the plan and shown by ps",
            hint="leave it to the environment: $MLFLOW_TRACKING_URI, $PGPASSWORD",
        )
    target = AdapterSpec(flags.target, settled(flags.target, options))
    check_target(target)
    return target


def database_uri(uri: str) -> str:
    """A database to be copied row by row, a SQLite file by its absolute path. Raises UsageError for a password in it."""
    if holds_password(uri):
        raise UsageError(
            f"the URI {without_passwords(uri)} holds a password, which ps shows", hint="leave it to ~/.pgpass"
        )
    return _anchored(uri)


def check_not_onto_itself(source: AdapterSpec, target: AdapterSpec) -> None:
    """Raises UsageError for a copy that would put every run beside itself; under other names it is a copy."""
    uri = source.options.get("tracking-uri")
    if source.name == target.name and uri and uri.rstrip("/") == target.options.get("tracking-uri", "").rstrip("/"):
        if target.options.keys() & {
            "name-prefix",
            "experiment-name-template",
            "experiment-rename-file",
            "model-rename-file",
        }:
            return
        raise UsageError(f"{uri} is the source and the target", hint="--name-prefix copies within one MLflow")


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


def _server_options(flags: SourceFlags) -> dict[str, str]:
    """What is asked of a server. The file of the token is named absolutely: workers may be elsewhere."""
    given = {
        "workspace": flags.workspace,
        "project-pattern": "|".join(f"(?:{pattern})" for pattern in flags.project_pattern or ()),
        "project-exclude-pattern": "|".join(f"(?:{pattern})" for pattern in flags.project_exclude_pattern or ()),
        "runs-query": flags.runs_query,
        "objects": flags.objects,
        **{name: _names(name, getattr(flags, name)) for name in ("experiments", "models", "prompts", "datasets")},
        "stages": flags.stages,
        "versions": flags.versions,
        "no-artifacts": "yes" if flags.no_artifacts else None,
        "max-file-size": flags.max_file_size,
        "permissions": "yes" if flags.permissions else None,
        "notebooks": flags.notebooks,
        "token-file": str(flags.api_token_file.absolute()) if flags.api_token_file is not None else None,
        "lineage": "yes" if flags.lineage else None,
        "metric-previews": "yes" if flags.include_metric_previews else None,
    }
    return {option: value for option, value in given.items() if value}


def _names(option: str, text: str | None) -> str | None:
    """Names of objects; files of names by absolute paths. Nothing must not select everything."""
    if text is not None and not text.strip():
        raise UsageError(f"--{option} is empty", hint="leave it out to select all")
    parts = (part.strip() for part in (text or "").split(","))
    return ",".join(f"@{Path(part[1:]).absolute()}" if part.startswith("@") else part for part in parts)


def _paths(source: str, given: list[str]) -> dict[str, str]:
    if source == "mlflow":
        return _mlflow_source(given)
    paths = [str(root_of(path).absolute() if source == "archive" else Path(path).absolute()) for path in given]
    if source != "archive":
        return {"path": os.pathsep.join(paths)} if paths else {}
    if len(paths) > 2:
        raise UsageError(
            "--source archive takes the archive's data folder and its files folder", hint="PATH [FILES_PATH]"
        )
    return dict(zip(("data", "files"), paths, strict=False))


def _mlflow_source(given: list[str]) -> dict[str, str]:
    uri = given[0] if given else _from_environment()
    if len(given) > 1:
        raise UsageError("--source mlflow takes one URI")
    if given and holds_password(uri):
        raise UsageError(
            "the source's URI holds a password, which would be stored in the plan and shown by ps",
            hint="leave it to the environment: $MLFLOW_TRACKING_URI, $MLFLOW_TRACKING_PASSWORD, $PGPASSWORD",
        )
    if not uri:
        return {}
    is_path = "://" not in uri and not uri.startswith("file:")
    return {"tracking-uri": str(Path(uri).absolute()) if is_path else _anchored(uri)}


def _check_apart(read: ArchivePaths, written: ArchivePaths) -> None:
    for one, other in ((read.data, written.data), (read.files, written.files)):
        if os.path.realpath(one) == os.path.realpath(other):
            raise UsageError(f"{other} would be read and written", hint="name other folders to write with -d and -f")


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
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"--run-ids: {file} cannot be read: {why}", hint="one run id per line") from error
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


def _from_environment() -> str:
    """MLflow's URI without its passwords, which stay in the environment."""
    return without_passwords(os.environ.get("MLFLOW_TRACKING_URI", ""))
