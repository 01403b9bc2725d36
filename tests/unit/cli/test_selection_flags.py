"""What selection flags select."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardmig.cli.asked import selection_of
from shardmig.cli.flags import SelectionFlags
from shardmig.errors import UsageError
from shardmig.records import Selection

NOON_UTC_MS = 1_717_156_800_000
"""2024-05-31T12:00Z."""


def test_no_flags_select_everything() -> None:
    assert selection_of(SelectionFlags()) == Selection()


def test_one_runs_flag_is_a_regular_expression_and_several_are_exact_ids() -> None:
    assert selection_of(SelectionFlags(runs=["RUN-1"])).runs == "RUN-1"
    several = selection_of(SelectionFlags(runs=["RUN-1", "RUN.2"]))
    assert (several.runs, several.run_ids) == ("", ("RUN-1", "RUN.2"))


def test_load_takes_a_single_plain_id_for_that_run_and_not_for_longer_ids() -> None:
    plain = selection_of(SelectionFlags(runs=["RUN-1"]), plain_id_is_exact=True)
    assert (plain.runs, plain.run_ids) == ("", ("RUN-1",))
    expression = selection_of(SelectionFlags(runs=["RUN-.*"]), plain_id_is_exact=True)
    assert (expression.runs, expression.run_ids) == ("RUN-.*", ())


def test_a_file_of_run_ids_has_one_id_a_line_with_comments_and_blank_lines(tmp_path: Path) -> None:
    listed = tmp_path / "ids.txt"
    listed.write_bytes("\ufeff# weekly\r\nRUN-1\r\n\r\n  żółw/x  \nRUN-1\nRUN-#3\n".encode())
    assert selection_of(SelectionFlags(run_ids=listed)).run_ids == ("RUN-1", "żółw/x", "RUN-#3")


def test_a_missing_file_of_run_ids_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--run-ids: .*absent\.txt cannot be read"):
        selection_of(SelectionFlags(run_ids=tmp_path / "absent.txt"))


def test_an_empty_file_of_run_ids_does_not_select_everything(tmp_path: Path) -> None:
    listed = tmp_path / "ids.txt"
    listed.write_text("# none yet\n")
    with pytest.raises(UsageError, match="lists no run id"):
        selection_of(SelectionFlags(run_ids=listed))


@pytest.mark.parametrize(
    "flags", [SelectionFlags(projects=[""]), SelectionFlags(runs=[""]), SelectionFlags(attributes=[""])]
)
def test_an_empty_shell_variable_does_not_select_everything(flags: SelectionFlags) -> None:
    with pytest.raises(UsageError, match="is empty"):
        selection_of(flags)


def test_classes_are_kept_in_their_order_and_exclude_takes_them_away() -> None:
    assert selection_of(SelectionFlags(classes=["files", "parameters"])).classes == ("parameters", "files")
    assert selection_of(SelectionFlags(exclude=["series"])).classes == ("parameters", "metrics", "files")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (SelectionFlags(classes=["files"], exclude=["series"]), "exclude each other"),
        (SelectionFlags(classes=["metric"]), "no class 'metric'"),
        (SelectionFlags(exclude=["parameters", "metrics", "series", "files"]), "leaves no class"),
        (SelectionFlags(created_after="yesterday"), "--created-after: 'yesterday' is not an ISO date"),
    ],
)
def test_contradictions_and_mistakes_are_usage_errors(flags: SelectionFlags, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        selection_of(flags)


@pytest.mark.parametrize("text", ["2024-05-31T12:00", "2024-05-31T12:00Z", "2024-05-31T14:00+02:00"])
def test_dates_are_utc_unless_they_name_a_zone(text: str) -> None:
    assert selection_of(SelectionFlags(created_after=text)).created_after_ms == NOON_UTC_MS
    assert selection_of(SelectionFlags(created_before="2024-05-31")).created_before_ms == NOON_UTC_MS - 12 * 3_600_000
