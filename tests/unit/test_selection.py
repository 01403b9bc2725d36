"""A selection means the same for every source and command."""

import pytest

from shardmig.errors import UsageError
from shardmig.records import ProjectId, RunId, RunRef, Selection
from shardmig.selection import Matcher


def run(run_id: str = "RUN-1", **changes: object) -> RunRef:
    return RunRef(project=ProjectId("ws/a"), id=RunId(run_id), **changes)  # type: ignore[arg-type]


def test_an_empty_selection_takes_everything_but_archived_runs() -> None:
    matcher = Matcher(Selection())
    assert matcher.wants_run(run())
    assert not matcher.wants_run(run(archived=True))
    assert matcher.wants_field("anything", "file_set")
    assert Matcher(Selection(include_archived=True)).wants_run(run(archived=True))


def test_runs_is_searched_and_run_ids_are_exact() -> None:
    assert Matcher(Selection(runs="UN-1$")).wants_run(run("RUN-1"))
    assert not Matcher(Selection(runs="UN-1$")).wants_run(run("RUN-12"))
    assert Matcher(Selection(run_ids=("RUN-1",))).wants_run(run("RUN-1"))
    assert not Matcher(Selection(run_ids=("RUN-1",))).wants_run(run("RUN-12"))


def test_the_time_window_includes_its_start_and_excludes_its_end() -> None:
    window = Matcher(Selection(created_after_ms=10, created_before_ms=20))
    assert [window.wants_run(run(created_ms=ms)) for ms in (9, 10, 19, 20)] == [False, True, True, False]
    assert not window.wants_run(run(created_ms=None))


def test_one_attribute_is_a_regular_expression_and_several_are_exact_paths() -> None:
    one = Matcher(Selection(attributes=("metrics/.*",)))
    several = Matcher(Selection(attributes=("metrics/loss", "metrics/.*")))
    assert one.wants_field("metrics/loss", "float_series")
    assert several.wants_field("metrics/loss", "float_series")
    assert not several.wants_field("metrics/accuracy", "float_series")


def test_monitoring_can_be_excluded() -> None:
    matcher = Matcher(Selection(exclude_attributes="^monitoring/"))
    assert not matcher.wants_field("monitoring/cpu", "float_series")
    assert matcher.wants_field("metrics/monitoring/cpu", "float_series")


def test_classes_follow_neptune_exporter() -> None:
    matcher = Matcher(Selection(classes=("series",)))
    wanted = [
        kind
        for kind in ("int", "float_series", "string_series", "histogram_series", "file")
        if matcher.wants_field("x", kind)
    ]
    assert wanted == ["string_series", "histogram_series"]


def test_a_broken_expression_names_its_option() -> None:
    with pytest.raises(UsageError, match=r"--runs: '\(' is not a regular expression"):
        Matcher(Selection(runs="("))
