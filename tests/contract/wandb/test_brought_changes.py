"""A run that shardmig wrote and that was changed or damaged since is not read again as if nothing had been."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from shardmig.cli.app import execute

SAMPLE = Path(__file__).parents[2] / "samples" / "exporter-3x"


def findings(capsys: pytest.CaptureFixture[str], folder: str) -> dict[str, set[str]]:
    """The reason codes that an export of the run folders finds, by run."""
    capsys.readouterr()
    line = ["export", "--source", "wandb", "runs", "-d", f"{folder}/data", "-f", f"{folder}/files"]
    assert execute([*line, "--engine", "inline", "--no-progress", "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return {one["run"]["id"]: {found["code"] for found in one["findings"]} for one in told["outcomes"]["export"]}


def test_a_log_with_one_wrong_bit_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SAMPLE, "sample")
    into = ["--target", "wandb", "--offline-dir", "runs", "-d", "sample/data", "-f", "sample/files"]
    assert execute(["load", *into, "--engine", "inline", "--no-progress"]) == 0
    assert not any("content-changed" in codes for codes in findings(capsys, "whole").values())
    log = max(Path("runs").glob("*/*.wandb"), key=lambda path: path.stat().st_size)
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 1
    log.write_bytes(content)
    assert sum("content-changed" in codes for codes in findings(capsys, "damaged").values()) == 1
