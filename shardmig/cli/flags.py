"""Every option of the command line, in the groups that commands share. Only what is given; what it means is elsewhere.

Options of neptune-exporter are spelled here beside ours: its users' scripts work unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

DataPath = Annotated[
    str, Option("-d", "--data-path", metavar="PATH", help="Parquet part of the archive: a folder or s3://…")
]
FilesPath = Annotated[
    str, Option("-f", "--files-path", metavar="PATH", help="Files part of the archive: a folder or s3://…")
]
Workspace = Annotated[str | None, Option(help="All its projects, unless -p names some (Neptune servers).")]
ProjectPattern = Annotated[
    list[str] | None,
    Option(metavar="REGEX", help="Only projects whose name it is found in (Neptune servers). Repeatable."),
]
ProjectExcludePattern = Annotated[
    list[str] | None,
    Option(metavar="REGEX", help="No project whose name it is found in (Neptune servers). Repeatable."),
]
ApiTokenFile = Annotated[Path | None, Option(metavar="FILE", help="Holds the API token. Default: $NEPTUNE_API_TOKEN.")]
ApiToken = Annotated[str | None, Option(hidden=True)]
SourceOption = Annotated[
    list[str] | None, Option(metavar="KEY=VALUE", help="Any other option of the source. Repeatable.")
]
Projects = Annotated[
    list[str] | None,
    Option("-p", "--project", "--project-ids", metavar="WS/NAME", help="Only this project. Repeatable."),
]
Attributes = Annotated[
    list[str] | None,
    Option("-a", "--attributes", metavar="REGEX", help="Only fields that match; given several times: exact names."),
]
ExcludeAttributes = Annotated[str, Option(metavar="REGEX", help="Not the fields that match.")]
Classes = Annotated[
    list[str] | None,
    Option("-c", "--classes", metavar="CLASS", help="Only parameters, metrics, series or files. Repeatable."),
]
ExcludeClasses = Annotated[
    list[str] | None, Option("--exclude", metavar="CLASS", help="Not the fields of this class. Repeatable.")
]


OnExisting = Annotated[
    Literal["skip", "merge", "replace", "fail"],
    Option(help="What to do with a run that the target holds with other content. merge: bring what is new (mlflow)."),
]


@dataclass(frozen=True)
class ArchiveFlags:
    """Where the archive lies."""

    data_path: DataPath = "exports/data"
    files_path: FilesPath = "exports/files"


@dataclass(frozen=True, kw_only=True)
class ObjectFlags:
    """Which of an MLflow's objects to read. Names: between commas, `name*` for all that begin so, `@FILE` for a list."""

    objects: Annotated[
        str | None,
        Option(
            metavar="CLASSES",
            help="Only these, between commas: runs, models, logged-models, traces, prompts, datasets, experiments (mlflow).",
        ),
    ] = None
    experiments: Annotated[
        str | None, Option(metavar="NAMES", help="Only what belongs to these: a,b, name*, @FILE (mlflow).")
    ] = None
    models: Annotated[str | None, Option(metavar="NAMES", help="Only these registered models (mlflow).")] = None
    prompts: Annotated[str | None, Option(metavar="NAMES", help="Only these prompts (mlflow).")] = None
    datasets: Annotated[str | None, Option(metavar="NAMES", help="Only these evaluation datasets (mlflow).")] = None
    stages: Annotated[
        str | None, Option(metavar="STAGES", help="Only versions of models in these stages: Production,None (mlflow).")
    ] = None
    versions: Annotated[
        str | None,
        Option(metavar="NUMBERS", help="Only these versions of models; latest: the last of each stage (mlflow)."),
    ] = None
    no_artifacts: Annotated[bool, Option("--no-artifacts", help="Read no files; tell how many there are (mlflow).")] = (
        False
    )
    max_file_size: Annotated[
        str | None, Option(metavar="SIZE", help="Read no larger files, and tell which: 500000, 100M, 2G (mlflow).")
    ] = None
    permissions: Annotated[
        bool, Option("--permissions", help="Also who may do what with experiments and models (Databricks).")
    ] = False
    notebooks: Annotated[
        str | None,
        Option(metavar="FORMATS", help="Also the notebooks of runs: SOURCE,HTML,JUPYTER,DBC (Databricks)."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class SourceFlags(ObjectFlags):
    """What to read."""

    paths: Annotated[
        list[str] | None,
        Argument(
            metavar="PATH",
            help="What to read: folders of Neptune clients, an archive (data, then files), or the URI of an MLflow.",
            show_default=False,
        ),
    ] = None
    source: Annotated[
        str | None,
        Option(
            "--source",
            "--exporter",
            help="System to read: archive, comet, litlogger, mlflow, mlflow-export-import, neptune-local, neptune2, neptune3, wandb or zenml.",
        ),
    ] = None
    path_map: Annotated[
        list[str] | None,
        Option(metavar="OLD=NEW", help="Files logged below OLD now lie below NEW (neptune-local). Repeatable."),
    ] = None
    include_acked: Annotated[
        bool | None,
        Option(
            "--include-acked/--no-include-acked",
            help="Read also what the server had acknowledged (neptune-local).",
            show_default=False,
        ),
    ] = None
    workspace: Workspace = None
    project_pattern: ProjectPattern = None
    project_exclude_pattern: ProjectExcludePattern = None
    runs_query: Annotated[
        str | None, Option("-q", "--runs-query", metavar="NQL", help="Only runs that it finds (Neptune servers).")
    ] = None
    api_token_file: ApiTokenFile = None
    lineage: Annotated[bool, Option("--lineage", help="Also the points that forks inherit (neptune3).")] = False
    include_metric_previews: Annotated[
        bool, Option("--include-metric-previews", help="Also points that were never committed (neptune3).")
    ] = False
    source_option: SourceOption = None
    api_token: ApiToken = None


@dataclass(frozen=True)
class ModelArchiveFlags:
    """Where models and their versions are written: apart from runs, as neptune-exporter does."""

    data_path: DataPath = "exports/model_data"
    files_path: FilesPath = "exports/model_files"


@dataclass(frozen=True)
class ModelFlags:
    """Which models of a Neptune 2.x server, and which of their fields."""

    projects: Projects = None
    workspace: Workspace = None
    project_pattern: ProjectPattern = None
    project_exclude_pattern: ProjectExcludePattern = None
    models_query: Annotated[
        str | None, Option("-q", "--models-query", metavar="NQL", help="Only models that it finds, and their versions.")
    ] = None
    include_archived_models: Annotated[bool, Option("--include-archived-models", help="Also models in the trash.")] = (
        False
    )
    attributes: Attributes = None
    exclude_attributes: ExcludeAttributes = ""
    classes: Classes = None
    exclude: ExcludeClasses = None
    api_token_file: ApiTokenFile = None
    source_option: SourceOption = None
    api_token: ApiToken = None


@dataclass(frozen=True)
class TargetFlags:
    """Where to write."""

    target: Annotated[
        str | None, Option("--target", "--loader", help="System to write: comet, litlogger, mlflow, wandb or zenml.")
    ] = None
    mlflow_tracking_uri: Annotated[
        str | None,
        Option(metavar="URI", help="MLflow server or database. Default: $MLFLOW_TRACKING_URI."),
    ] = None
    name_prefix: Annotated[str | None, Option(help="Put before the name of every experiment or project.")] = None
    experiment_name_template: Annotated[
        str | None, Option(metavar="TEMPLATE", help="Name of the experiment, e.g. '{project_id}/{sys_name}'.")
    ] = None
    experiment_rename_file: Annotated[
        Path | None, Option(metavar="FILE", help="CSV of old,new: how experiments of the source are called (mlflow).")
    ] = None
    model_rename_file: Annotated[
        Path | None, Option(metavar="FILE", help="CSV of old,new: how models and prompts are called (mlflow).")
    ] = None
    offline_dir: Annotated[
        Path | None, Option(metavar="FOLDER", help="Leave runs there for the vendor's own upload (comet, wandb).")
    ] = None
    wandb_entity: Annotated[str | None, Option(metavar="NAME", help="Whose projects (wandb).")] = None
    comet_workspace: Annotated[str | None, Option(metavar="NAME", help="Whose projects (comet).")] = None
    litlogger_owner: Annotated[str | None, Option(metavar="ID", help="Organization of new teamspaces (litlogger).")] = (
        None
    )
    no_bulk: Annotated[bool, Option("--no-bulk", help="Write databases through the ordinary API.")] = False
    target_option: Annotated[
        list[str] | None,
        Option("--target-option", "--option", metavar="KEY=VALUE", help="Any other option of the target. Repeatable."),
    ] = None
    wandb_api_key: Annotated[str | None, Option(hidden=True)] = None
    comet_api_key: Annotated[str | None, Option(hidden=True)] = None
    litlogger_api_key: Annotated[str | None, Option(hidden=True)] = None
    litlogger_user_id: Annotated[str | None, Option(hidden=True)] = None


@dataclass(frozen=True)
class LoadFlags:
    """How a run is written."""

    step_multiplier: Annotated[
        str,
        Option(metavar="N|auto", help="Steps become integers times N; auto: the smallest N that keeps every step."),
    ] = "auto"
    allow_step_merge: Annotated[
        bool, Option("--allow-step-merge", help="Let different steps become one where N is too small.")
    ] = False
    no_sidecar: Annotated[
        bool, Option("--no-sidecar", help="Do not keep exact values beside what the target cannot hold.")
    ] = False
    on_existing: OnExisting = "fail"


@dataclass(frozen=True)
class SelectionFlags:
    """Which runs and which of their fields."""

    projects: Projects = None
    runs: Annotated[
        list[str] | None,
        Option("-r", "--runs", metavar="REGEX", help="Only runs whose id matches; given several times: exact ids."),
    ] = None
    run_ids: Annotated[
        Path | None, Option(metavar="FILE", help="Only the runs listed in FILE: one id per line, # begins a comment.")
    ] = None
    attributes: Attributes = None
    exclude_attributes: ExcludeAttributes = ""
    classes: Classes = None
    exclude: ExcludeClasses = None
    created_after: Annotated[
        str | None, Option(metavar="DATE", help="Only runs created at DATE (ISO, UTC unless it names a zone) or later.")
    ] = None
    created_before: Annotated[str | None, Option(metavar="DATE", help="Only runs created before DATE.")] = None
    include_archived_runs: Annotated[bool, Option("--include-archived-runs", help="Also archived runs.")] = False
    limit: Annotated[int, Option(metavar="N", min=0, help="Only the first N runs; 0 = all.")] = 0


@dataclass(frozen=True)
class ExecutionFlags:
    """How a migration is executed; nothing here changes what arrives. SHARDMIG_* and --config say the same."""

    workers: Annotated[int | None, Option(metavar="N", min=1, help="Worker processes. Default: the usable cores.")] = (
        None
    )
    engine: Annotated[
        Literal["local", "inline", "ray"] | None, Option(help="Where shards execute. Default: local.")
    ] = None
    ray_address: Annotated[
        str | None,
        Option(metavar="HOST:PORT|auto", help="Ray cluster (ray). Default: $RAY_ADDRESS, else one started here."),
    ] = None
    ray_resources: Annotated[
        str | None,
        Option(metavar="NAME=N,…", help="What one worker occupies, e.g. CPU=2,memory=1e9 (ray). Default: CPU=1."),
    ] = None
    max_attempts: Annotated[int | None, Option(metavar="N", min=1, help="Attempts per shard. Default: 3.")] = None
    deadline: Annotated[
        float | None, Option(metavar="SECONDS", min=0, help="Longest attempt. Default: 0, no limit.")
    ] = None
    compression: Annotated[
        Literal["zstd", "snappy", "none"] | None, Option(help="Of the archive's parquet. Default: zstd.")
    ] = None
    config: Annotated[Path | None, Option(metavar="FILE", help="TOML file with the same settings.")] = None


@dataclass(frozen=True)
class SpeechFlags:
    """How a command tells what it finds."""

    as_json: Annotated[bool, Option("--json", help="One JSON document on stdout, nothing else there.")] = False
    verbose: Annotated[
        bool, Option("-v", "--verbose", help="Also every run with what was found in it; tracebacks.")
    ] = False
    log_file: Annotated[Path | None, Option(metavar="FILE", help="Append what is said on stderr to FILE.")] = None


@dataclass(frozen=True)
class WatchFlags:
    """How a command that moves runs reports."""

    no_progress: Annotated[bool, Option("--no-progress", help="No progress while it executes.")] = False
    report: Annotated[Path | None, Option(metavar="FILE.html", help="Write the result as one HTML page.")] = None
    error_report_file: Annotated[
        Path | None, Option(metavar="FILE", help="Append failed runs and lost values to FILE as JSON lines.")
    ] = None
