"""The scripts beside the quickstart: short, and each one call."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_SCRIPTS = sorted(path for path in (_ROOT / "scripts").iterdir() if os.access(path, os.X_OK) and path.suffix == "")
_SHELL = [*_SCRIPTS, _ROOT / "scripts" / "environment.sh", _ROOT / ".ci" / "run"]


@pytest.mark.parametrize("script", _SHELL, ids=lambda path: path.name)
def test_a_script_is_clean_shell(script: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    result = subprocess.run(["shellcheck", "-x", script], cwd=_ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("script", _SCRIPTS, ids=lambda path: path.name)
def test_a_script_says_how_it_is_used(script: Path) -> None:
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert lines[1].startswith("# ")
    assert len(lines) <= 40


def test_retry_shard_needs_a_shard() -> None:
    result = subprocess.run([_ROOT / "scripts" / "retry_shard"], capture_output=True, text=True)
    assert result.returncode == 2
    assert "usage: retry_shard SHARD" in result.stderr


@pytest.mark.parametrize("script", ["retry_shard 00001", "retry_failed"])
def test_a_retry_without_a_migration_is_a_usage_error(script: str, tmp_path: Path) -> None:
    command = f"{_ROOT}/scripts/{script} -d {tmp_path}"
    result = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2, result.stderr
    assert "there is no migration" in result.stderr


def test_the_command_of_ci_fails_when_no_test_is_found() -> None:
    """pytest ends with 5 then, also on two workers; `exec` hands it on."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "2",
        "-q",
        "-k",
        "no_test_is_called_like_this",
        "tests/unit/test_architecture.py",
    ]
    result = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
    assert result.returncode == 5
    for script, last in (
        (".ci/run", "exec ./scripts/test"),
        ("scripts/test", 'exec pytest -n auto --dist loadgroup "$@"'),
    ):
        assert (_ROOT / script).read_text().rstrip().splitlines()[-1] == last
