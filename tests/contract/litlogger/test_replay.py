"""No point is lost or doubled: requests that are answered too late, writers that die, servers that count late."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from shardmig.adapters.base import migration_key
from shardmig.errors import BadInput, RateLimited, TargetConflict, Transient, Unavailable
from shardmig.records import Chunk, LoadOptions, TargetRunId
from tests.contract.litlogger.runs import DIGEST, Sample, opened, sample
from tests.servers.lightning.server import Lightning, lightning_server
from tests.servers.neptune3.faults import Fault

pytestmark = pytest.mark.xdist_group("lightning")

APPEND = "/logger-metrics/"
REQUESTS = (
    "POST /v1/projects",
    "/metrics-stream/create",
    "/artifacts/blobs",
    "/storage",
    "/logger-artifacts",
    "POST /v1/projects/prj-1/metrics-streams/stream-2/media",
    "PUT /v1/projects/prj-1/metrics-streams/stream-2/media/",
    "/logger-metrics-summary",
    "PUT /v1/projects/prj-1/metrics-stream/",
)


@pytest.fixture(scope="module")
def undisturbed(lightning_of_session: Lightning, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the run looks like in Lightning when nothing goes wrong."""
    lightning_of_session.forget()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in lightning_of_session.environment.items():
            patch.setenv(name, value)
        target = opened()
        sample(tmp_path_factory.mktemp("run")).written(target)
        target.close()
    return content(lightning_of_session)


@pytest.fixture
def run(tmp_path: Path) -> Sample:
    return sample(tmp_path)


def content(lightning: Lightning) -> dict[str, Any]:
    """Everything in Lightning, each point in its place."""
    return lightning.store.dump()


def test_nothing_is_there_twice_in_the_first_place(undisturbed: dict[str, Any]) -> None:
    [run] = undisturbed.values()
    assert {name: len(rows) for name, rows in run["series"].items()} == {"long": 2500, "other": 700, "rare": 1}
    assert [step for step, _, _ in run["series"]["long"]] == list(range(2500))
    assert len(run["artifacts"]) == len(set(run["artifacts"]))


@pytest.mark.parametrize("number", [0, 2])
def test_an_append_that_was_done_and_never_answered_is_not_done_again(
    lightning: Lightning, run: Sample, undisturbed: dict[str, Any], number: int
) -> None:
    plan_after(lightning, APPEND, number, "cut")
    target = opened()
    run.written(target)
    assert lightning.faults.shown == number + 1
    assert content(lightning) == undisturbed
    assert run.is_equal_in(target)


@pytest.mark.parametrize("fault", ["drop", "500", "429"])
def test_an_append_that_was_not_done_is_done_later(
    lightning: Lightning, run: Sample, undisturbed: dict[str, Any], fault: Fault
) -> None:
    lightning.faults.plan(APPEND, fault, 2)
    run.written(opened())
    assert content(lightning) == undisturbed


@pytest.mark.parametrize("place", REQUESTS)
def test_any_other_request_may_be_done_and_never_answered(
    lightning: Lightning, run: Sample, undisturbed: dict[str, Any], place: str
) -> None:
    lightning.faults.plan(place, "cut")
    run.written(opened())
    assert lightning.faults.shown >= 1
    assert anonymous(content(lightning)) == anonymous(undisturbed)


def test_a_bad_day_of_the_server_changes_nothing(
    lightning: Lightning, run: Sample, undisturbed: dict[str, Any]
) -> None:
    lightning.faults.rate = 0.15
    target = opened()
    attempts = 0
    while True:
        attempts += 1
        try:
            run.written(target)
            break
        except Transient:
            assert attempts < 5
    assert lightning.faults.shown > 3
    lightning.faults.rate = 0.0
    assert anonymous(content(lightning)) == anonymous(undisturbed)
    assert run.is_equal_in(target)


@pytest.mark.parametrize("taken", range(1, 12))
def test_a_writer_that_stopped_anywhere_is_continued_without_a_point_sent_twice(
    lightning: Lightning, run: Sample, undisturbed: dict[str, Any], taken: int
) -> None:
    target = opened()
    with pytest.raises(RuntimeError):
        run.written(target, breaking(run.chunks, taken))
    target.close()
    run.written(opened())
    assert content(lightning) == undisturbed
    assert lightning.requests[f"PUT /v1/projects{APPEND.rstrip('/')}"] <= 5


def test_a_stream_without_end_is_continued_too(lightning: Lightning, run: Sample, undisturbed: dict[str, Any]) -> None:
    target = opened()
    run.written(target, iter(run.chunks[:5]))
    run.written(target)
    assert content(lightning) == undisturbed


@pytest.mark.parametrize("number", [1, 3])
def test_a_killed_process_is_made_good_by_the_next(
    lightning: Lightning, run: Sample, undisturbed: dict[str, Any], tmp_path: Path, number: int
) -> None:
    """The server takes the append, and the writer dies before it hears of it."""
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], env=dict(os.environ))
    killed = threading.Event()

    def kill(_: str, appends: Iterator[int] = iter(range(10))) -> None:  # noqa: B008 (counts the appends of this test)
        if next(appends) + 1 == number:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            killed.set()

    lightning.after[APPEND] = kill
    writer.wait(60)
    assert killed.is_set()
    lightning.after.clear()
    run.written(opened())
    assert content(lightning) == undisturbed


def test_counts_that_come_late_are_waited_for(lightning: Lightning, run: Sample, undisturbed: dict[str, Any]) -> None:
    lightning.store.lag = 1
    run.written(opened())
    assert content(lightning) == undisturbed


def test_a_repetition_that_doubled_points_is_found_out_and_begun_anew(
    lightning: Lightning, run: Sample, undisturbed: dict[str, Any]
) -> None:
    """The worst case: an append is done, not answered, and not counted yet when the server is asked."""
    lightning.faults.plan(APPEND, "cut")
    lightning.store.lag = 1
    target = opened()
    with pytest.raises(Unavailable, match="written anew"):
        run.written(target)
    assert content(lightning) == {}
    run.written(target)
    assert content(lightning) == undisturbed


def test_points_of_somebody_else_in_a_partial_run_are_found_out_and_it_is_begun_anew(
    lightning: Lightning, run: Sample, undisturbed: dict[str, Any]
) -> None:
    target = opened()
    run.written(target, iter(run.chunks[:5]))
    [stream] = lightning.store.streams.values()
    stream.series["long"][-1] = stream.series["long"][0]
    with pytest.raises(Unavailable, match="last point of long"):
        run.written(target)
    run.written(target)
    assert content(lightning) == undisturbed


def test_a_partial_run_of_other_options_is_begun_anew(lightning: Lightning, run: Sample) -> None:
    run.written(opened(), iter(run.chunks[:5]))
    target = opened(LoadOptions(step_multiplier=10))
    run.written(target)
    [stream] = lightning.store.streams.values()
    assert [int(value.step) for value in stream.series["long"]] == [10 * step for step in range(2500)]
    assert run.is_equal_in(target)


def test_a_partial_run_that_is_continued_names_the_parent_that_it_has_now(lightning: Lightning, run: Sample) -> None:
    """It may have come in the meantime, or was written anew under another id."""
    target = opened()
    for early, now in ((None, TargetRunId("prj-1/parent")), (TargetRunId("prj-1/old"), TargetRunId("prj-1/new"))):
        target.write_run(migration_key(run.run), DIGEST, iter(run.chunks[:5]), run.files, early)
        target.write_run(migration_key(run.run), DIGEST, iter(run.chunks), run.files, now)
        held = target.find_run(migration_key(run.run))
        assert held is not None
        assert (held.state, target.read_facts(held)["parent"]) == ("complete", now)
        target.discard_run(held)


def test_a_whole_run_of_other_content_is_left_unless_it_is_to_be_replaced(lightning: Lightning, run: Sample) -> None:
    run.written(opened())
    with pytest.raises(TargetConflict):
        run.written(opened(), digest="e" * 32)
    target = opened(LoadOptions(step_multiplier=1, on_existing="replace"))
    run.written(target, digest="e" * 32)
    assert len(lightning.store.streams) == 1
    assert run.is_equal_in(target)


def test_a_run_whose_replacement_failed_is_told_to_be_gone(lightning: Lightning, run: Sample) -> None:
    run.written(opened())
    target = opened(LoadOptions(step_multiplier=1, on_existing="replace"))
    with pytest.raises(BadInput, match="which was to be replaced, is deleted already"):
        run.written(target, _torn(run.chunks), digest="e" * 32)
    run.written(target, digest="e" * 32)
    assert run.is_equal_in(target)


def _torn(chunks: list[Chunk]) -> Iterator[Chunk]:
    yield from chunks[:-1]
    raise BadInput("torn")


def test_an_experiment_of_that_name_that_shardmig_did_not_make_is_left_alone(lightning: Lightning, run: Sample) -> None:
    target = opened()
    run.written(target)
    [stream] = lightning.store.streams.values()
    stream.tags = []
    before = content(lightning)
    with pytest.raises(TargetConflict, match="did not make it"):
        run.written(opened())
    assert content(lightning) == before


def test_retry_after_is_obeyed_and_a_long_one_passes_on(run: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    with lightning_server() as own:  # whose pace no other test shares
        for name, value in own.environment.items():
            monkeypatch.setenv(name, value)
        own.faults.plan(APPEND, "429")
        own.faults.retry_after_s = 1
        run.written(opened())
        refused_s, again_s = own.append_times_s[:2]
        assert again_s - refused_s > 0.9
        own.faults.plan("/memberships", "429")
        own.faults.retry_after_s = 3600
        with pytest.raises(RateLimited) as refused:
            run.written(opened())
        assert refused.value.retry_after_s == 3600


def plan_after(lightning: Lightning, place: str, number: int, fault: Fault) -> None:
    """`number` requests fail before they do anything, the one after them as told."""
    if number:
        lightning.faults.plan(place, "drop", number)
    lightning.faults.plan(place, fault)


def breaking(chunks: list[Chunk], taken: int) -> Iterator[Chunk]:
    """The first chunks, then a bug."""
    yield from islice(chunks, taken)
    raise RuntimeError


def anonymous(found: dict[str, Any]) -> list[Any]:
    """Without names of teamspaces and experiments."""
    return list(found.values())


_WRITER = """
import sys
from pathlib import Path
from tests.contract.litlogger.runs import opened, sample
sample(Path(sys.argv[1])).written(opened())
"""
