"""Flags of targets reach the option that the target has for them, or are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shardmig.cli.asked import target_of
from shardmig.cli.flags import SpeechFlags, TargetFlags
from shardmig.cli.speech import Speech
from shardmig.cli.spellings import take_secrets
from shardmig.errors import UsageError


def test_each_target_is_given_its_own_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wandb = TargetFlags(target="wandb", wandb_entity="me", name_prefix="old-", offline_dir=Path("runs"))
    assert target_of(wandb).options == {"entity": "me", "project-prefix": "old-", "offline-dir": str(tmp_path / "runs")}
    comet = TargetFlags(target="comet", comet_workspace="us", offline_dir=Path("runs"))
    assert target_of(comet).options == {"workspace": "us", "offline-dir": str(tmp_path / "runs")}
    comet = TargetFlags(target="comet", name_prefix="{old}-", comet_workspace="us", offline_dir=Path("runs"))
    assert target_of(comet).options["project"] == "{{old}}-{project}"


def test_where_a_server_is_belongs_to_the_target_also_when_the_environment_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example")
    assert target_of(TargetFlags(target="wandb")).options == {"base-url": "https://wandb.example"}
    given = TargetFlags(target="wandb", target_option=["base-url=https://other.example", "key-file=key"])
    key = str(tmp_path / "key")
    assert target_of(given).options == {"base-url": "https://other.example", "key-file": key}
    assert "base-url" not in target_of(TargetFlags(target="wandb", offline_dir=Path("runs"))).options


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (TargetFlags(target="wandb", mlflow_tracking_uri="http://h"), "--mlflow-tracking-uri means nothing"),
        (TargetFlags(target="mlflow", wandb_entity="me"), "--wandb-entity means nothing to target mlflow"),
        (TargetFlags(target="zenml", offline_dir=Path("x")), "--offline-dir means nothing"),
        (TargetFlags(target="litlogger", name_prefix="x"), "--name-prefix means nothing"),
    ],
)
def test_a_flag_of_another_target_is_refused_and_not_ignored(flags: TargetFlags, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        target_of(flags)


def test_a_key_on_the_command_line_works_and_is_complained_about(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("COMET_API_KEY", "stays")
    take_secrets(TargetFlags(target="wandb", wandb_api_key="secret"), Speech(SpeechFlags()))
    assert (os.environ["WANDB_API_KEY"], os.environ["COMET_API_KEY"]) == ("secret", "stays")
    said = capsys.readouterr().err
    assert "--wandb-api-key" in said
    assert "secret" not in said
    monkeypatch.setenv("WANDB_API_KEY", "")
