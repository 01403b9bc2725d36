"""Lint, format, types and layers as tests, so that one summary tells everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_CHECKS = ("ruff check --quiet", "ruff format --check --quiet", "mypy", "lint-imports --no-cache")


@pytest.mark.long
@pytest.mark.parametrize("check", _CHECKS)
def test_the_code_passes(check: str) -> None:
    tool, *arguments = check.split()
    result = subprocess.run(
        [Path(sys.executable).parent / tool, *arguments], cwd=_ROOT, capture_output=True, text=True, timeout=280
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
