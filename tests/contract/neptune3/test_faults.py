"""Nothing is lost and nothing doubled while the server fails; what fails for good is named."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from shardmig.adapters.neptune3 import Neptune3Source, open_source, parse_options
from shardmig.adapters.registry import open_source as open_registered
from shardmig.adapters.wrappers import RetryPolicy
from shardmig.errors import AuthFailed, Denied, NotFound, Transient
from shardmig.records import AdapterSpec, RunId, Selection
from tests.contract.neptune3.filling import CREATED_MS, append, assign, create, rich_project, upload
from tests.contract.neptune3.reading import list_all, read_all, same
from tests.servers.neptune3.server import Neptune3

OUTAGE_S = float(os.environ.get("OUTAGE_S", "3"))


def small_runs(server: Neptune3, count: int) -> None:
    """Runs of one series each."""
    for number in range(count):
        create(server, "ws/p", f"run-{number}")
        append(server, "ws/p", f"run-{number}", "m", [(step, CREATED_MS, float(step)) for step in range(5)])


def test_five_percent_faults_lose_nothing(server: Neptune3, tmp_path: Path) -> None:
    rich_project(server)
    small_runs(server, 40)
    server.pages.points, server.pages.entries = 20, 10
    server.faults.rate = 0.05
    source = open_registered(AdapterSpec("neptune3"))
    for project in ("ws/rich", "ws/p"):
        found = read_all(source, list_all(source, project), tmp_path, chunk_points=60)
        for run_id, contents in found.items():
            assert same(contents.fields, server.store.dump(project, run_id)), run_id
            assert not contents.losses()
    source.close()
    assert server.faults.shown > 5


def test_an_outage_costs_nothing_but_time(server: Neptune3, source: Neptune3Source, tmp_path: Path) -> None:
    """Of seconds here; scripts/outage_campaign makes it a minute."""
    small_runs(server, 30)
    server.latency_s = 0.02
    runs = list_all(source, "ws/p")
    threading.Timer(0.1, server.faults.be_down, (OUTAGE_S,)).start()
    found = read_all(source, runs, tmp_path)
    assert server.faults.shown
    assert all(same(found[run.id].fields, server.store.dump("ws/p", run.id)) for run in runs)


def test_the_pause_that_the_server_asks_for_is_kept(server: Neptune3, source: Neptune3Source) -> None:
    small_runs(server, 1)
    server.faults.retry_after_s = 1.0
    server.faults.plan("entries/search", "429")
    begun = time.monotonic()
    assert len(list_all(source, "ws/p")) == 1
    assert time.monotonic() - begun >= 1.0


def test_tokens_that_live_short_are_refreshed(server: Neptune3, source: Neptune3Source, tmp_path: Path) -> None:
    small_runs(server, 10)
    server.tokens.life_s = 20.0  # the client refreshes when less than 30 s are left: before every request
    found = read_all(source, list_all(source, "ws/p"), tmp_path)
    assert len(found) == 10
    assert server.tokens.refreshed >= 10
    assert server.tokens.exchanged == 1


def test_all_threads_share_one_access_token(server: Neptune3, tmp_path: Path) -> None:
    small_runs(server, 30)
    listing = open_source({})
    runs = list_all(listing, "ws/p")
    listing.close()
    server.latency_s = 0.02
    source = open_source({})
    assert len(read_all(source, runs, tmp_path)) == 30
    source.close()
    assert (server.tokens.exchanged, server.tokens.refreshed) == (2, 0)


def test_a_session_that_the_server_revokes_is_begun_anew(server: Neptune3, source: Neptune3Source) -> None:
    small_runs(server, 1)
    assert len(list_all(source, "ws/p")) == 1
    server.tokens.revoke_all()
    assert len(list_all(source, "ws/p")) == 1
    assert server.tokens.exchanged == 2


def test_a_rejected_token_is_fatal_at_once(server: Neptune3, source: Neptune3Source) -> None:
    server.tokens.rejects = True
    with pytest.raises(AuthFailed, match="rejects"):
        list_all(source, "ws/p")


def test_a_project_without_permission_fails_only_when_it_was_named(server: Neptune3, source: Neptune3Source) -> None:
    server.store.project("ws/secret")
    server.store.denied.add("ws/secret")
    assert list_all(source, "ws/secret") == []
    with pytest.raises(Denied):
        list_all(source, "ws/secret", Selection(projects=("ws/secret",)))


def test_a_run_that_was_deleted_is_named_and_the_others_are_read(
    server: Neptune3, source: Neptune3Source, tmp_path: Path
) -> None:
    small_runs(server, 3)
    runs = list_all(source, "ws/p")
    del server.store.projects["ws/p"].runs["P-2"]
    with pytest.raises(NotFound) as raised:
        read_all(source, runs, tmp_path)
    assert raised.value.run == "ws/p/run-1"
    assert len(read_all(source, [runs[0], runs[2]], tmp_path)) == 2


@pytest.mark.parametrize("status", [400, 403, 404, 500])
@pytest.mark.parametrize("value", [1.0, "text"])
def test_a_series_that_the_server_refuses_or_always_fails_at_is_a_loss_of_its_own(
    value: float | str, status: int, server: Neptune3, tmp_path: Path
) -> None:
    create(server, "ws/p", "run")
    for number in range(9):
        append(server, "ws/p", "run", f"m{number}", [(0, CREATED_MS, value)])
    server.reader.broken["m4"] = status
    source = Neptune3Source(parse_options({}), patience=RetryPolicy(attempts=3, longest_pause_s=0.05))
    contents = read_all(source, list_all(source, "ws/p"), tmp_path)[RunId("run")]
    source.close()
    assert [(one.code, one.field) for one in contents.losses()] == [("field-refused", "m4")]
    assert {path for path, kind in contents.fields if kind.endswith("Series")} == {f"m{n}" for n in range(9) if n != 4}


def test_a_server_that_fails_at_everything_costs_no_field(server: Neptune3, tmp_path: Path) -> None:
    small_runs(server, 1)
    source = Neptune3Source(parse_options({}), patience=RetryPolicy(attempts=3, longest_pause_s=0.05))
    runs = list_all(source, "ws/p")
    server.reader.broken["m"] = 500
    server.faults.plan("attributes/query", "500", 100)
    with pytest.raises(Transient) as raised:
        read_all(source, runs, tmp_path)
    source.close()
    assert raised.value.run == runs[0].label


def test_a_project_that_is_forbidden_meanwhile_costs_no_field(
    server: Neptune3, source: Neptune3Source, tmp_path: Path
) -> None:
    small_runs(server, 1)
    runs = list_all(source, "ws/p")
    server.store.denied.add("ws/p")
    with pytest.raises(Denied) as raised:
        read_all(source, runs, tmp_path)
    assert raised.value.run == runs[0].label


def test_a_server_that_wants_types_named_is_known_to_be_well(server: Neptune3, tmp_path: Path) -> None:
    small_runs(server, 1)
    server.reader.wants_types = True
    server.reader.broken["m"] = 500
    source = Neptune3Source(parse_options({}), patience=RetryPolicy(attempts=2, longest_pause_s=0.05))
    contents = read_all(source, list_all(source, "ws/p"), tmp_path)[RunId("run-0")]
    source.close()
    assert [(one.code, one.field) for one in contents.losses()] == [("field-refused", "m")]


@pytest.mark.parametrize(("times", "losses"), [(1, []), (1000, [("field-refused", "m4")])])
@pytest.mark.parametrize("value", [1.0, "text"])
def test_a_page_that_cannot_be_read_is_asked_for_again_and_then_a_loss_of_its_series(
    value: float | str, times: int, losses: list[tuple[str, str]], server: Neptune3, tmp_path: Path
) -> None:
    create(server, "ws/p", "run")
    for number in range(9):
        append(server, "ws/p", "run", f"m{number}", [(0, CREATED_MS, value)])
    server.reader.garbled["m4"] = times
    source = Neptune3Source(parse_options({}), patience=RetryPolicy(attempts=3, longest_pause_s=0.05))
    contents = read_all(source, list_all(source, "ws/p"), tmp_path)[RunId("run")]
    source.close()
    assert [(one.code, one.field) for one in contents.losses()] == losses
    assert len([path for path, kind in contents.fields if kind.endswith("Series")]) == 9 - len(losses)


def five_files(server: Neptune3) -> None:
    """A run of five files."""
    create(server, "ws/p", "run")
    files = {f"f{n}": upload(server, "ws/p", f"at/{n}.txt", b"content of %d" % n) for n in range(5)}
    assign(server, "ws/p", "run", files)


@pytest.mark.parametrize("status", [0, 400, 404, 500])
def test_a_file_without_address_costs_no_other_one(status: int, server: Neptune3, tmp_path: Path) -> None:
    five_files(server)
    server.unsigned["at/2.txt"] = status
    source = Neptune3Source(parse_options({}), patience=RetryPolicy(attempts=2, longest_pause_s=0.05))
    contents = read_all(source, list_all(source, "ws/p"), tmp_path)[RunId("run")]
    source.close()
    assert [(one.kind, one.code, one.field) for one in contents.findings] == [("loss", "file-refused", "f2")]
    assert {path for path, kind in contents.fields if kind == "fileRef"} == {"f0", "f1", "f3", "f4"}


@pytest.mark.parametrize("status", [404, 500])
def test_a_file_at_which_the_store_always_fails_costs_no_other_one(
    status: int, server: Neptune3, tmp_path: Path
) -> None:
    five_files(server)
    server.broken_objects["at/2.txt"] = status
    source = Neptune3Source(parse_options({}), patience=RetryPolicy(attempts=2, longest_pause_s=0.05))
    contents = read_all(source, list_all(source, "ws/p"), tmp_path)[RunId("run")]
    source.close()
    assert [(one.code, one.field) for one in contents.losses()] == [("file-refused", "f2")]
    assert {path for path, kind in contents.fields if kind == "fileRef"} == {"f0", "f1", "f3", "f4"}


@pytest.mark.parametrize(("times", "remarks"), [(1, []), (1000, [("note", "file-changed", "f2")])])
def test_a_file_that_is_shorter_than_it_was_logged_is_fetched_once_more(
    times: int, remarks: list[tuple[str, str, str]], server: Neptune3, source: Neptune3Source, tmp_path: Path
) -> None:
    five_files(server)
    server.cut_short["at/2.txt"] = times
    contents = read_all(source, list_all(source, "ws/p"), tmp_path)[RunId("run")]
    assert [(one.kind, one.code, one.field) for one in contents.findings] == remarks


@pytest.mark.parametrize("last", [4, -1])
@pytest.mark.parametrize("value", [1.0, "text"])
def test_points_that_the_server_withholds_are_a_loss(
    value: float | str, last: int, server: Neptune3, source: Neptune3Source, tmp_path: Path
) -> None:
    create(server, "ws/p", "run")
    append(server, "ws/p", "run", "m", [(step, CREATED_MS, value) for step in range(10)])
    server.reader.withheld_after["m"] = last
    contents = read_all(source, list_all(source, "ws/p"), tmp_path)[RunId("run")]
    assert [(one.code, one.field) for one in contents.losses()] == [("series-cut", "m")]


def test_addresses_that_expired_are_asked_for_again(server: Neptune3, source: Neptune3Source, tmp_path: Path) -> None:
    rich_project(server)
    server.signatures_expire = 1
    runs = [run for run in list_all(source, "ws/rich") if run.id == "run-1"]
    contents = read_all(source, runs, tmp_path)[RunId("run-1")]
    assert same(contents.fields, server.store.dump("ws/rich", "run-1"))


@pytest.mark.parametrize("connections", [4, 16])
def test_small_runs_are_read_together_within_the_budget(connections: int, server: Neptune3, tmp_path: Path) -> None:
    small_runs(server, 40)
    source = open_source({"connections": str(connections)})
    runs = list_all(source, "ws/p")
    server.latency_s = 0.05
    read_all(source, runs, tmp_path)
    source.close()
    assert connections / 2 < server.most_at_once <= connections


def test_the_token_may_come_from_a_file_and_goes_nowhere_else(
    server: Neptune3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_runs(server, 1)
    monkeypatch.delenv("NEPTUNE_API_TOKEN")
    (tmp_path / "token").write_text(server.token + "\n")
    source = open_source({"token-file": str(tmp_path / "token")})
    found = read_all(source, list_all(source, "ws/p"), tmp_path)[RunId("run-0")]
    assert all(server.token not in repr(piece) for piece in found.pieces)
    source.close()
    without = open_source({})
    with pytest.raises(AuthFailed, match="no Neptune API token"):
        list_all(without, "ws/p")
    without.close()
