"""Flags of sources that are servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardmig.cli.app import execute
from shardmig.cli.asked import source_of
from shardmig.cli.flags import SourceFlags
from shardmig.records import ArchivePaths

ARCHIVE = ArchivePaths("/archive/data", "/archive/files")


def test_flags_become_options_and_those_not_given_do_not() -> None:
    flags = SourceFlags(
        source="neptune3",
        workspace="ws",
        project_pattern=["^a", "b|c"],
        runs_query="`x` EXISTS",
        api_token_file=Path("/run/secrets/token"),
        lineage=True,
    )
    assert source_of(flags, (), ARCHIVE).options == {
        "workspace": "ws",
        "project-pattern": "(?:^a)|(?:b|c)",
        "runs-query": "`x` EXISTS",
        "token-file": "/run/secrets/token",
        "lineage": "yes",
    }
    assert source_of(SourceFlags(source="neptune3"), (), ARCHIVE).options == {}


def test_a_token_on_the_command_line_is_used_with_a_warning_and_not_repeated(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert execute(["export", "--exporter", "neptune3", "-p", "ws/proj", "--api-token", "Zm9v"]) != 0
    said = capsys.readouterr().err
    assert "ps and the shell's history show --api-token" in said
    assert "the Neptune API token cannot be read" in said
    assert "Zm9v" not in said
