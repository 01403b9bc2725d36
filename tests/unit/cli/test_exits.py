"""Every error has its exit code."""

from __future__ import annotations

import pytest

from shardmig import errors
from shardmig.cli.exits import MEANINGS, ExitCode, exit_code_of, meaning_of


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.UsageError, 2),
        (errors.UnknownAdapter, 2),
        (errors.MissingExtra, 2),
        (errors.PlanMismatch, 4),
        (errors.JournalCorrupt, 4),
        (errors.JournalLocked, 6),
        (errors.NotFound, 3),
        (errors.Unavailable, 3),
        (errors.AuthFailed, 7),
        (errors.DiskFull, 7),
        (errors.Interrupted, 130),
        (errors.ShardmigError, 1),
    ],
)
def test_an_error_leads_to_the_documented_exit_code(kind: type[errors.ShardmigError], code: int) -> None:
    assert exit_code_of(kind("")) == code


def test_every_exit_code_has_one_meaning_and_an_unknown_one_is_a_failure() -> None:
    assert set(MEANINGS) == set(ExitCode)
    assert meaning_of(3) == MEANINGS[ExitCode.FAILED_RUNS]
    assert meaning_of(99) == "failed with code 99"


@pytest.mark.parametrize(
    ("command", "meant"),
    [("export", "in the archive"), ("load", "in the target"), ("verify", "equal"), ("", "published")],
)
def test_complete_says_what_is_complete(command: str, meant: str) -> None:
    assert meant in meaning_of(0, command)
    assert meaning_of(3, command) == meaning_of(3)
