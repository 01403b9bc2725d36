"""Progress, live and in lines."""

from __future__ import annotations

import io

import msgspec

from shardmig.records import Counters, MigrationId, PhaseProgress, Progress
from shardmig.report.progress import LineProgress, LiveProgress, line

SNAPSHOT = Progress(
    migration=MigrationId("m"),
    phases=[
        PhaseProgress(
            phase="export",
            shards=10,
            shards_settled=4,
            shards_in_flight=2,
            runs=100,
            runs_done=30,
            runs_skipped=10,
            runs_failed=1,
            weight=200,
            weight_settled=80,
        )
    ],
    elapsed_s=10.0,
    eta_s=95.0,
    moved=Counters(points=1_000_000, files=3, bytes=20_000_000),
)


def test_a_line_tells_runs_shards_speed_and_what_is_left_over_the_whole_plan() -> None:
    assert line(SNAPSHOT) == (
        "export: 40 of 100 runs (1 failed), shards 4 + 2 in flight of 10; 1,000,000 points (100,000/s), "
        "3 files, 20.0 MB (2.0 MB/s), 10 s, about 1 min 35 s left"
    )


def test_an_empty_plan_and_an_unknown_end_have_a_line() -> None:
    empty = Progress(
        migration=MigrationId("m"), phases=[PhaseProgress(phase="load")], elapsed_s=0.0, eta_s=None, moved=Counters()
    )
    assert "load: 0 of 0 runs" in line(empty)
    assert line(empty).endswith("nothing left")
    begun = msgspec.structs.replace(SNAPSHOT, eta_s=None)
    assert line(begun).endswith("time left not known yet")


def test_before_there_is_a_plan_the_runs_that_were_listed_are_told() -> None:
    listing = Progress(
        migration=MigrationId("m"), phases=[], elapsed_s=72.0, eta_s=None, moved=Counters(), listed=1_240
    )
    assert line(listing) == "listing the source: 1,240 runs so far, 1 min 12 s"
    stream = io.StringIO()
    with LiveProgress(stream) as observe:
        observe(listing)
    assert "1,240 runs so far" in stream.getvalue()


def test_lines_come_seldom_but_messages_at_once() -> None:
    said: list[str] = []
    with LineProgress(said.append, every_s=3600) as observe:
        observe(SNAPSHOT)
        observe(
            Progress(
                migration=MigrationId("m"), phases=[], elapsed_s=1, eta_s=None, moved=Counters(), message="interrupted"
            )
        )
    assert said == ["interrupted"]
    with LineProgress(said.append, every_s=0) as observe:
        observe(SNAPSHOT)
    assert said[1:] == [line(SNAPSHOT)]


def test_the_live_table_shows_share_runs_and_speed() -> None:
    stream = io.StringIO()
    with LiveProgress(stream) as observe:
        observe(SNAPSHOT)
    drawn = stream.getvalue()
    assert "40%" in drawn
    assert "40 of 100 runs (1 failed)" in drawn
    assert "about 1 min 35 s left" in drawn
