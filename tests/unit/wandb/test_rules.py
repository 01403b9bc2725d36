"""What W&B holds of points and scalars, its names, and the target's options."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from shardmig.adapters.wandb.fit import MAX_TEXT, WandbRules
from shardmig.adapters.wandb.naming import WandbNaming, entity_of, project_of
from shardmig.adapters.wandb.options import parse_options
from shardmig.adapters.wandb.source.options import parse_options as parse_source_options
from shardmig.errors import AuthFailed, UsageError
from shardmig.records import Field, FloatPoints, LoadOptions, Steps

RULES = WandbRules(LoadOptions(step_multiplier=1), WandbNaming())


def points(steps: list[int], values: list[float]) -> FloatPoints:
    times_ms = np.arange(len(steps), dtype=np.int64)
    return FloatPoints(
        ["m"], np.array([len(steps)]), Steps(np.array(steps, dtype=np.int64)), times_ms, np.array(values)
    )


def test_of_points_with_one_step_the_last_is_held_and_stands_for_all() -> None:
    fitted = RULES.fit_points(points([1, 2, 2, 2, 3], [1.0, 2.0, 3.0, 4.0, 5.0]))
    assert fitted.metrics.values.tolist() == [1.0, 4.0, 5.0]
    assert fitted.exact is not None
    assert fitted.exact.points.values.tolist() == [2.0, 3.0, 4.0]
    assert fitted.exact.native.values.tolist() == [4.0, 4.0, 4.0]
    assert [(finding.code, finding.count) for finding in fitted.findings] == [("step-shared", 2)]


def test_steps_below_zero_share_step_zero() -> None:
    fitted = RULES.fit_points(points([-3, -1, 0, 1], [1.0, 2.0, 3.0, -0.0]))
    assert fitted.metrics.steps.tolist() == [0, 1]
    assert fitted.metrics.values.tolist() == [3.0, 0.0]
    assert {finding.code: finding.count for finding in fitted.findings} == {
        "step-negative": 2,
        "step-shared": 2,
        "negative-zero": 1,
    }


@pytest.mark.parametrize("value", [0.1, -0.0, math.nan, math.inf, -math.inf, 3.0, 5e-324, 2.0**60])
def test_every_float_of_the_config_is_exact(value: float) -> None:
    fitted = RULES.fit_field(Field("x", "float", value))
    assert fitted.is_exact
    back = RULES.field_of("x", "float", fitted.value)
    assert repr(back.value) == repr(value)


def test_a_whole_number_stands_for_the_float_that_some_writer_made_of_it() -> None:
    assert RULES.field_of("x", "float", 3) == Field("x", "float", 3.0)
    assert RULES.field_of("x", "int", 3) == Field("x", "int", 3)


def test_a_value_of_another_type_is_told_as_what_it_is() -> None:
    assert RULES.field_of("x", "int", True) == Field("x", "bool", True)
    assert RULES.field_of("x", "datetime", "yesterday") == Field("x", "string", "yesterday")


def test_texts_beyond_the_limit_are_cut_and_told() -> None:
    fitted = RULES.fit_field(Field("x", "string", "a" * (MAX_TEXT + 1)))
    assert not fitted.is_exact
    assert [finding.code for finding in fitted.findings] == ["config-truncated"]


@pytest.mark.parametrize("key", ["a/b", "a.b", "a:b", "größe", " spaces ", "_hidden", "it's"])
def test_keys_stay_as_they_are(key: str) -> None:
    assert WandbNaming().key(key) == key


@pytest.mark.parametrize("key", ["", "_step", "_wandb", "shardmig", "two\nlines", "nul\0", "x" * 501])
def test_keys_that_are_taken_or_hurt_get_a_name_of_their_own(key: str) -> None:
    made = WandbNaming().key(key)
    assert made != key
    assert WandbNaming().key(made) != made


@pytest.mark.parametrize(
    "path", ["media/x.png", "config.yaml", "wandb-summary.json", "a*b", "../up", "a[1].txt", "shardmig/x"]
)
def test_files_that_are_wandbs_own_or_look_like_patterns_lie_elsewhere(path: str) -> None:
    made = WandbNaming().artifact(path)
    assert "/" not in made
    assert not set(made) & set("*?[]")


def test_entity_and_project_come_from_templates() -> None:
    options = parse_options({"entity": "{workspace}", "project-prefix": "old-"})
    assert (entity_of(options, "ws/proj"), project_of(options, "ws/proj")) == ("ws", "old-proj")
    whole = parse_options({"project": "{project_id}"})
    assert project_of(whole, "ws/proj") != project_of(whole, "ws_proj")


@pytest.mark.parametrize(
    "options",
    [
        {"unknown": "1"},
        {"project": "{nothing}"},
        {"project": ""},
        {"base-url": "ftp://x"},
        {"base-url": "http://u:p@x"},
    ],
)
def test_wrong_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        parse_options(options)


def test_a_path_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        parse_source_options({"path": str(tmp_path / "nothing")})


def test_the_key_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text("abc\n")
    assert parse_options({"key-file": str(file)}).api_key() == "abc"
    monkeypatch.setenv("WANDB_API_KEY", "def")
    assert parse_options({}).api_key() == "def"
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(AuthFailed):
        parse_options({}).api_key()
