"""The command that brings the model registry of a Neptune 2.x server."""

from __future__ import annotations

from shardmig.cli.flags import (
    ArchiveFlags,
    ExecutionFlags,
    ModelArchiveFlags,
    ModelFlags,
    SelectionFlags,
    SourceFlags,
    WatchFlags,
)
from shardmig.cli.moving import Update, carry_out, take_token
from shardmig.cli.speech import Speech


def export_models(
    models: ModelFlags,
    archive: ModelArchiveFlags,
    execution: ExecutionFlags,
    watch: WatchFlags,
    speech: Speech,
    update: Update = False,
) -> int:
    """Read models and their versions from a Neptune 2.x server into an archive.

    \b
    shardmig export-models -p ws/name
    shardmig load --target mlflow -d exports/model_data -f exports/model_files

    `export --source neptune2` brings them too, beside the runs and into the same archive.
    """
    from shardmig import planner
    from shardmig.cli import asked
    from shardmig.records import AdapterSpec

    take_token(models.api_token, speech)
    paths = asked.archive_of(ArchiveFlags(archive.data_path, archive.files_path))
    chosen = asked.selection_of(_selection_flags(models))
    server = asked.source_of(_source_flags(models), chosen.projects, paths)
    only = {"scopes": "models,model_versions"} | ({"models-query": models.models_query} if models.models_query else {})
    request = planner.Request(
        phases=("export",),
        source=AdapterSpec(server.name, server.options | only),
        archive=paths,
        selection=chosen,
        update=update,
    )
    return carry_out("export-models", request, execution, watch, speech)


def _selection_flags(models: ModelFlags) -> SelectionFlags:
    return SelectionFlags(
        projects=models.projects,
        attributes=models.attributes,
        exclude_attributes=models.exclude_attributes,
        classes=models.classes,
        exclude=models.exclude,
        include_archived_runs=models.include_archived_models,
    )


def _source_flags(models: ModelFlags) -> SourceFlags:
    return SourceFlags(
        source="neptune2",
        workspace=models.workspace,
        project_pattern=models.project_pattern,
        project_exclude_pattern=models.project_exclude_pattern,
        api_token_file=models.api_token_file,
        source_option=models.source_option,
    )
