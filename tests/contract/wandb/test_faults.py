"""What goes wrong on the way to a W&B server, against the vendor's own client: nothing is taken for whole that is not, and
nothing is doubled."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from shardmig.adapters.base import Want, WriteSide, migration_key
from shardmig.adapters.budget import standings
from shardmig.adapters.conformance import field_digests, plain_run
from shardmig.adapters.wandb import open_target, syncing
from shardmig.adapters.wandb.connection import Connection
from shardmig.adapters.wandb.options import parse_options
from shardmig.adapters.wandb.syncing import shared_sync
from shardmig.archive.files import ArchiveFiles, DigestSink
from shardmig.errors import AuthFailed, Permanent, TargetConflict, TimedOut, Transient
from shardmig.records import ArchivePaths, Chunk, Header, LoadOptions, RunRef
from tests.servers.neptune3.faults import Fault, Faults
from tests.servers.wandb.server import WandbServer
from tests.waiting import eventually

LOAD = """
from tests.contract.wandb.test_faults import _target, _write, plain_run
_write(_target(), plain_run())
"""

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("wandb-server")]


def test_a_sync_that_says_it_finished_is_not_believed(wandb: WandbServer) -> None:
    target, chunks = _target(), plain_run()
    wandb.faults.plan("file_stream", "400", 1000)
    with pytest.raises(Transient, match="10 rows of history, and 0 are there"):
        _write(target, chunks)
    found = target.find_run(migration_key(_run(chunks)))
    assert found is not None
    assert found.state == "partial"


def test_attempts_of_which_no_row_arrives_use_up_no_ids(wandb: WandbServer) -> None:
    target, chunks = _target(), plain_run()
    key = migration_key(_run(chunks))
    for _ in range(2):
        wandb.faults.plan("file_stream", "400", 1000)
        with pytest.raises(Transient):
            _write(target, chunks)
        wandb.faults = Faults()
    assert _write(target, chunks).endswith(key)
    assert not wandb.store.deleted
    _assert_whole(target, chunks)


def test_after_a_broken_load_the_next_one_ends_well_and_nothing_is_doubled(wandb: WandbServer) -> None:
    target, chunks = _target(), plain_run()
    wandb.faults.plan("storage", "400", 1000)
    with pytest.raises(Transient, match="not there as it was sent"):
        _write(target, chunks)
    wandb.faults = Faults()
    _write(target, chunks)
    _assert_whole(target, chunks)
    (run,) = wandb.store.runs.values()
    assert len(run.history) == 10


@pytest.mark.parametrize(("place", "fault"), [("file_stream", "cut"), ("storage", "500"), ("UpsertBucket", "429")])
def test_passing_faults_are_sat_out(wandb: WandbServer, place: str, fault: Fault) -> None:
    target, chunks = _target(), plain_run()
    wandb.faults.plan(place, fault)
    _write(target, chunks)
    assert wandb.faults.shown == 1
    _assert_whole(target, chunks)


def test_questions_are_asked_again(wandb: WandbServer) -> None:
    target, chunks = _target(), plain_run()
    _write(target, chunks)
    wandb.faults.plan("ShardmigFind", "500")
    wandb.faults.plan("ShardmigFiles", "429")
    wandb.faults.plan("HistoryPage", "drop")
    _assert_whole(target, chunks)
    assert wandb.faults.shown == 3


def test_a_wrong_key_is_fatal(wandb: WandbServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(AuthFailed, match="no W&B API key"):
        _target().find_run(migration_key(_run(plain_run())))
    (tmp_path / "key").write_text("f" * 40)
    with pytest.raises(AuthFailed):
        _target({"key-file": str(tmp_path / "key")}).find_run(migration_key(_run(plain_run())))


def test_a_run_that_people_deleted_is_written_under_the_next_id(wandb: WandbServer) -> None:
    target, chunks = _target(), plain_run()
    first = _write(target, chunks)
    wandb.store.delete(next(iter(wandb.store.runs.values())).id)
    assert target.find_run(migration_key(_run(chunks))) is None
    assert _write(target, chunks) == f"{first}-1"
    _assert_whole(target, chunks)


def test_a_value_that_was_changed_on_the_server_is_seen(wandb: WandbServer) -> None:
    target, chunks = _target(), plain_run()
    _write(target, chunks)
    (run,) = wandb.store.runs.values()
    lines = run.lines["wandb-history.jsonl"]
    lines[3] = lines[3].replace('"metrics/loss":', '"metrics/loss":1')
    run.config["params/lr"] = {"value": 0.002}
    read, wanted = field_digests(_read(target, chunks)), field_digests(chunks)
    assert {key for key in wanted if read[key] != wanted[key]} == {
        ("metrics/loss", "float_series"),
        ("params/lr", "float"),
    }


def test_other_content_under_one_key_is_a_conflict(wandb: WandbServer) -> None:
    target, chunks = _target(), plain_run()
    _write(target, chunks)
    with pytest.raises(TargetConflict):
        _write(target, chunks, digest="e" * 32)
    replacing = open_target({}, LoadOptions(step_multiplier=1, on_existing="replace"))
    assert _write(replacing, chunks, digest="e" * 32).endswith("-1")


def test_a_run_that_is_replaced_stays_until_the_new_one_is_whole(wandb: WandbServer) -> None:
    target, chunks = _target(), plain_run()
    first = _write(target, chunks)
    replacing = open_target({"arrival-s": "0"}, LoadOptions(step_multiplier=1, on_existing="replace"))
    wandb.faults.plan("file_stream", "400", 1000)
    with pytest.raises(Transient):
        _write(replacing, chunks, digest="e" * 32)
    wandb.faults = Faults()
    found = target.find_run(migration_key(_run(chunks)))
    assert found is not None
    assert (found.id, found.state, found.digest) == (first, "complete", "d" * 32)
    _assert_whole(target, chunks)
    second = _write(replacing, chunks, digest="e" * 32)
    assert [run.key[2] for run in wandb.store.runs.values()] == [second.rpartition("/")[2]]
    _assert_whole(target, chunks)


def test_a_replaced_run_that_a_killed_load_left_is_removed_by_the_next_one(wandb: WandbServer) -> None:
    target, chunks = _target(), plain_run()
    _write(target, chunks)
    (first,) = wandb.store.runs.values()
    replacing = open_target({"arrival-s": "0"}, LoadOptions(step_multiplier=1, on_existing="replace"))
    wandb.faults.plan("DeleteRun", "400")
    with pytest.raises(Permanent):
        _write(replacing, chunks, digest="e" * 32)
    assert len(wandb.store.runs) == 2
    found = target.find_run(migration_key(_run(chunks)))
    assert found is not None
    assert (found.state, found.digest) == ("partial", "e" * 32)
    _write(replacing, chunks, digest="e" * 32)
    assert first.key not in wandb.store.runs
    _assert_whole(target, chunks)


def test_a_run_that_was_deleted_too_often_fails_alone(wandb: WandbServer) -> None:
    target, chunks = _target(), plain_run()
    key = migration_key(_run(chunks))
    wandb.store.deleted |= {("team", "plain", key if not number else f"{key}-{number}") for number in range(8)}
    with pytest.raises(Permanent, match="8 times"):
        _write(target, chunks)


def test_what_is_seen_late_is_waited_for(wandb: WandbServer) -> None:
    target, chunks = _target({"arrival-s": "30"}), plain_run()
    wandb.graph.rows_seen_late = 2
    _write(target, chunks)
    assert wandb.graph.rows_seen_late == 0
    _assert_whole(target, chunks)


def test_a_config_that_is_seen_late_is_not_written_over(wandb: WandbServer) -> None:
    target, chunks = _target({"arrival-s": "30"}), plain_run()
    wandb.graph.config_seen_late = 3  # `wandb sync` asks too
    _write(target, chunks)
    assert wandb.graph.config_seen_late == 0
    _assert_whole(target, chunks)


def test_a_sync_that_dies_costs_one_attempt(wandb: WandbServer) -> None:
    target, chunks = _target(), plain_run()
    sync = shared_sync(Connection(parse_options({})).environment())
    _write(target, plain_run(run_id="RUN-0"))
    assert sync._process is not None
    sync._process.kill()
    sync._process.wait()
    with pytest.raises(Transient, match="wandb sync ended"):
        _write(target, chunks)
    _write(target, chunks)
    _assert_whole(target, chunks)


def test_what_a_shell_asks_of_runs_that_it_begins_is_not_asked_of_a_sync(
    wandb: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared_sync(Connection(parse_options({})).environment()).close()  # of the tests before
    monkeypatch.setenv("WANDB_RESUME", "must")
    target, chunks = _target(), plain_run()
    _write(target, chunks)
    _assert_whole(target, chunks)


def test_a_sync_that_takes_too_long_is_given_up_with_everything_it_started(wandb: WandbServer) -> None:
    shared_sync(Connection(parse_options({})).environment()).close()  # of the tests before
    others = _sending()
    _write(
        _target(), plain_run(run_id="RUN-0")
    )  # the vendor's program takes longer to begin than the deadline, on some days
    sending = _sending() - others
    assert sending
    wandb.faults.plan("file_stream", "503", 1000)
    with pytest.raises(TimedOut):
        _write(_target({"sync-deadline-s": "5"}), plain_run(run_id="RUN-1"))
    assert eventually(lambda: not any(map(_is_alive, sending)), within_s=15)


def test_a_killed_load_sends_nothing_on(wandb: WandbServer) -> None:
    wandb.faults.plan("file_stream", "503", 1000)
    load = subprocess.Popen([sys.executable, "-c", LOAD])
    assert eventually(lambda: wandb.requests["file_stream"] > 0, within_s=120)
    sending = psutil.Process(load.pid).children(recursive=True)
    load.kill()
    load.wait()
    assert sending
    assert eventually(lambda: not any(map(_is_alive, sending)), within_s=15)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _sending() -> set[psutil.Process]:
    """The vendor's processes that send what this process syncs."""
    syncs = [
        one for one in psutil.Process().children() if syncing.__name__ in (one.as_dict(["cmdline"])["cmdline"] or ())
    ]
    return {child for sync in syncs for child in sync.children(recursive=True)}


def test_the_numbers_of_a_run_are_taken_from_the_budget(
    wandb: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    target = _target({"values-per-minute": "200"})
    for run_id in ("RUN-1", "RUN-2"):
        _write(target, plain_run(run_id=run_id))
    (standing,) = (one for one in standings() if one.allowance.points_per_min)
    assert standing.allowance.points_per_min == 200
    assert standing.points_last_min == 20


def _target(options: dict[str, str] | None = None) -> WriteSide:
    return open_target({"arrival-s": "0", **(options or {})}, LoadOptions(step_multiplier=1))


def _run(chunks: list[Chunk]) -> RunRef:
    header = chunks[0]
    assert isinstance(header, Header)
    return header.run


def _write(target: WriteSide, chunks: list[Chunk], digest: str = "d" * 32) -> str:
    nowhere = ArchiveFiles(ArchivePaths("/nonexistent", "/nonexistent"), _run(chunks).project)
    return target.write_run(migration_key(_run(chunks)), digest, iter(chunks), nowhere, None).id


def _read(target: WriteSide, chunks: list[Chunk]) -> list[Chunk]:
    found = target.find_run(migration_key(_run(chunks)))
    assert found is not None
    return [piece.chunk for piece in target.read_run(found, Want(), DigestSink())]


def _assert_whole(target: WriteSide, chunks: list[Chunk]) -> None:
    found = target.find_run(migration_key(_run(chunks)))
    assert found is not None
    assert found.state == "complete"
    assert field_digests(_read(target, chunks)) == field_digests(chunks)
