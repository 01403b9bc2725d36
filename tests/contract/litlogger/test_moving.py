"""Whole commands: an archive goes to Lightning and comes back as it was; damage there is found and named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shardmig.adapters.conformance.runs import MULTIPLIER, plain_run, rich_run
from shardmig.archive.files import ArchiveFiles
from shardmig.archive.reader import ArchiveReader
from shardmig.cli.app import execute
from shardmig.records import ArchivePaths, LoadOptions, ProjectId, RunOutcome, Selection
from shardmig.worker.verify import verify_run
from tests.contract.archives import digests
from tests.contract.litlogger.runs import opened
from tests.servers.lightning.server import Lightning
from tests.servers.lightning.store import Stream, Value
from tests.unit.archive.runs import paths_in, publish

pytestmark = pytest.mark.xdist_group("lightning")

TARGET = ["--target", "litlogger", "--target-option", "requests-per-s=0"]
QUIET = ["--engine", "inline", "--no-progress"]


@pytest.fixture
def archive(tmp_path: Path) -> ArchivePaths:
    """A rich run, a plain one and its fork."""
    paths = paths_in(tmp_path)
    publish(tmp_path, rich_run(ArchiveFiles(paths, ProjectId("ws/rich"))))
    publish(tmp_path, plain_run())
    publish(tmp_path, plain_run(run_id="RUN-2", parent="RUN-1"))
    return paths


def test_an_archive_goes_there_and_back(lightning: Lightning, archive: ArchivePaths, tmp_path: Path) -> None:
    where = ["-d", archive.data, "-f", archive.files]
    assert execute(["load", *TARGET, *where, *QUIET]) == 0
    assert execute(["verify", *TARGET, *where, *QUIET]) == 0
    back = ArchivePaths(str(tmp_path / "back" / "data"), str(tmp_path / "back" / "files"))
    assert execute(["export", "--source", "litlogger", "-d", back.data, "-f", back.files, *QUIET]) == 0
    assert digests(back) == digests(archive)
    before = lightning.store.dump()
    assert execute(["load", *TARGET, *where, *QUIET]) == 0
    assert lightning.store.dump() == before


def test_a_load_with_wrong_options_is_refused_before_anything_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["load", "--target", "litlogger", "--target-option", "teamspaces=x"]) == 2
    assert "teamspace" in capsys.readouterr().err


def test_a_run_that_was_loaded_in_part_is_exported_as_a_failure(
    lightning: Lightning, archive: ArchivePaths, tmp_path: Path
) -> None:
    assert execute(["load", *TARGET, "-d", archive.data, "-f", archive.files, *QUIET]) == 0
    for tag in the(lightning, "RUN-2").tags:
        if tag["name"] == "shardmig.state":
            tag["value"] = "loading"
    line = ["export", "--source", "litlogger", "-d", str(tmp_path / "back"), "-f", str(tmp_path / "files"), *QUIET]
    assert execute(line) == 3


def another_value(stream: Stream) -> None:
    held = stream.series["series/long"]
    held[500] = Value(held[500].value + 1e-12, held[500].step, held[500].created_at)


def another_time(stream: Stream) -> None:
    held = stream.series["series/long"]
    held[500] = Value(held[500].value, held[500].step, "2024-01-01T00:00:00.000Z")


def point_missing(stream: Stream) -> None:
    del stream.series["series/long"][500]


def point_twice(stream: Stream) -> None:
    stream.series["series/long"].append(stream.series["series/long"][500])


def series_missing(stream: Stream) -> None:
    del stream.series["series/long"]


def another_text(stream: Stream) -> None:
    next(tag for tag in stream.tags if tag["name"] == "values/int/2")["value"] = "3"


def text_missing(stream: Stream) -> None:
    stream.tags = [tag for tag in stream.tags if tag["name"] != "values/int/2"]


def text_added(stream: Stream) -> None:
    stream.tags.append({"name": "values/int/new", "value": "3", "fromCode": False})


def phase_changed(stream: Stream) -> None:
    stream.phase = "FAILED"


DAMAGES: list[tuple[Callable[[Stream], None], str]] = [
    (another_value, "series/long"),
    (another_time, "series/long"),
    (point_missing, "series/long"),
    (point_twice, "series/long"),
    (series_missing, "series/long"),
    (another_text, "values/int/2"),
    (text_missing, "values/int/2"),
    (text_added, "values/int/new"),
    (phase_changed, "status"),
]


@pytest.mark.parametrize(("damage", "field"), DAMAGES)
def test_damage_is_found_and_named_and_nothing_else_is(
    lightning: Lightning, archive: ArchivePaths, damage: Callable[[Stream], None], field: str
) -> None:
    assert execute(["load", *TARGET, "-d", archive.data, "-f", archive.files, "--runs", "RICH-1", *QUIET]) == 0
    assert verified(archive).differences == []
    damage(the(lightning, "RICH-1"))
    outcome = verified(archive)
    assert outcome.verdict == "differs"
    assert {difference.field.partition(":")[0] for difference in outcome.differences} == {field}


def test_a_file_that_is_gone_is_found(lightning: Lightning, archive: ArchivePaths) -> None:
    assert execute(["load", *TARGET, "-d", archive.data, "-f", archive.files, "--runs", "RICH-1", *QUIET]) == 0
    stream = the(lightning, "RICH-1")
    drive = lightning.store.teamspaces[stream.project].drive
    del drive[f"experiments/{stream.name}/files/model.pt"]
    assert {difference.field for difference in verified(archive).differences} == {"files/model"}


def verified(archive: ArchivePaths) -> RunOutcome:
    """Verify the rich run."""
    reader = ArchiveReader(archive)
    [run] = reader.runs(ProjectId("ws/rich"))
    target = opened(LoadOptions(step_multiplier=MULTIPLIER))
    try:
        return verify_run(run, archive=reader, target=target, selection=Selection())
    finally:
        target.close()


def the(lightning: Lightning, run_id: str) -> Stream:
    """The experiment of a run."""
    [stream] = (one for one in lightning.store.streams.values() if one.name.startswith(f"{run_id}-"))
    return stream
