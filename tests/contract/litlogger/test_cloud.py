"""How the server is asked: windows of steps, files in parts, budgets, keys, and nothing installed in the process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from shardmig.adapters.base import Want
from shardmig.adapters.conformance.runs import CREATED_MS
from shardmig.adapters.litlogger import open_source
from shardmig.adapters.litlogger.answers import Stream
from shardmig.adapters.litlogger.appending import RunInLightning
from shardmig.adapters.litlogger.cloud import Cloud
from shardmig.adapters.litlogger.drive import Drive
from shardmig.adapters.litlogger.histories import Histories
from shardmig.adapters.litlogger.naming import teamspace_name
from shardmig.adapters.litlogger.options import parse_options
from shardmig.adapters.sidecar.fitting import Metrics
from shardmig.archive.files import DigestSink
from shardmig.errors import AuthFailed, BadInput, Denied, HostilePath, NotFound, TargetConflict, Transient
from shardmig.records import End, Files, ProjectId, Selection
from tests.contract.litlogger.runs import opened, sample
from tests.servers.lightning.server import KEY, USER, Lightning

pytestmark = pytest.mark.xdist_group("lightning")

Row = tuple[int, int, float]


@pytest.fixture
def cloud(lightning: Lightning) -> Iterator[Cloud]:
    opened_cloud = Cloud(parse_options({"requests-per-s": "0"}))
    yield opened_cloud
    opened_cloud.close()


@pytest.fixture
def stream(lightning: Lightning, cloud: Cloud) -> Stream:
    """An experiment with 3,000 points of one series, dense and sparse, and few of another."""
    teamspace = lightning.store.create_teamspace("team")
    made = cloud.create_stream(teamspace.id, "experiment", {}, ("", ""))
    steps = np.concatenate([np.arange(-1000, 1000), 50_000 * np.arange(1, 1001), [7, 7, 2**53 + 1]])
    times_ms = CREATED_MS + np.arange(len(steps))
    sink = RunInLightning(cloud, made, is_new=True)
    sink.add_points(Metrics(["dense"], np.array([len(steps)]), steps, times_ms, np.cos(steps)))
    sink.add_points(Metrics(["few"], np.array([2]), np.array([0, 2**40]), times_ms[:2], np.array([0.0, -0.0])))
    sink.flush()
    return made


def rows_of(histories: Histories, keys: list[str], rows: int = 100) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for metrics in histories.points(keys, rows):
        assert len(metrics) <= rows + 2
        for key, part in metrics.spans():
            columns = (metrics.steps[part], metrics.times_ms[part], metrics.values[part])
            found.setdefault(key, []).extend(zip(*(column.tolist() for column in columns), strict=True))
    histories.close()
    return found


@pytest.mark.parametrize("values_at_once", [1_000_000, 700, 50])
def test_points_come_in_order_however_narrow_the_windows_are(
    lightning: Lightning, cloud: Cloud, stream: Stream, values_at_once: int
) -> None:
    histories = Histories(cloud, stream, cloud.summaries(stream), values_at_once=values_at_once)
    found = rows_of(histories, ["dense", "few"])
    held = lightning.store.streams[stream.id].series["dense"]
    assert len(found["dense"]) == len(held) == 3003
    assert found["dense"] == sorted(found["dense"], key=lambda row: row[:2])
    assert sorted(value for _, _, value in found["dense"]) == sorted(value.value for value in held)
    assert [(step, repr(value)) for step, _, value in found["few"]] == [(0, "0.0"), (2**40, "-0.0")]


def test_a_server_that_thins_out_its_answers_is_asked_for_narrower_windows(
    lightning: Lightning, cloud: Cloud, stream: Stream
) -> None:
    lightning.most_answered = 200
    histories = Histories(cloud, stream, cloud.summaries(stream))
    assert len(rows_of(histories, ["dense"])["dense"]) == 3003
    assert histories.short == {}


def test_points_that_are_counted_and_not_given_are_told(lightning: Lightning, cloud: Cloud) -> None:
    made = cloud.create_stream(lightning.store.create_teamspace("team").id, "experiment", {}, ("", ""))
    steps = np.array([0, 1, 2, 2, 2, 9])
    sink = RunInLightning(cloud, made, is_new=True)
    sink.add_points(Metrics(["key"], np.array([6]), steps, CREATED_MS + np.arange(6), np.sin(steps)))
    sink.flush()
    lightning.most_answered = 1
    histories = Histories(cloud, made, cloud.summaries(made))
    assert [step for step, _, _ in rows_of(histories, ["key"])["key"]] == [0, 1, 2, 9]
    assert histories.short == {"key": 2}


def test_a_run_whose_points_are_not_all_given_cannot_be_read_back(lightning: Lightning, tmp_path: Path) -> None:
    run, target = sample(tmp_path), opened()
    run.written(target)
    lightning.most_answered = 1
    [held] = lightning.store.streams.values()
    held.series = {"other": [held.series["other"][0]] * 3}
    with pytest.raises(BadInput, match="2 points of other"):
        run.is_equal_in(target)


@pytest.mark.parametrize(("owner", "name"), [("user-1", "somebody"), ("org-1", "name-of-org-1"), ("user-2", "")])
def test_a_run_has_the_address_where_people_look_at_it(
    lightning: Lightning, tmp_path: Path, owner: str, name: str
) -> None:
    lightning.store.create_teamspace("everything").owner_id = owner
    written = sample(tmp_path).written(opened(teamspace="everything"))
    [held] = lightning.store.streams.values()
    assert written.url == (f"{lightning.url}/{name}/everything/experiments/{held.name}" if name else "")


@pytest.mark.parametrize(
    ("organization", "owner"), [("org-1", "org-1"), ("name-of-org-1", "org-1"), ("somebody", USER), ("", USER)]
)
def test_a_teamspace_is_made_in_the_organization_that_is_named(
    lightning: Lightning, tmp_path: Path, organization: str, owner: str
) -> None:
    sample(tmp_path).written(opened(organization=organization))
    [teamspace] = lightning.store.teamspaces.values()
    assert (teamspace.owner_id, teamspace.display_name) == (owner, "ws/project")


def test_where_an_organization_is_named_no_teamspace_of_somebody_else_is_taken(
    lightning: Lightning, tmp_path: Path
) -> None:
    """One of that name in another account is none of the organization's; this server refuses a second of one name."""
    run = sample(tmp_path)
    others = lightning.store.create_teamspace(teamspace_name(run.run.project))
    with pytest.raises(TargetConflict, match="name-of-org-1 has none of that name"):
        run.written(opened(organization="name-of-org-1"))
    assert lightning.store.dump() == {}
    others.owner_id = "org-1"
    run.written(opened(organization="name-of-org-1"))
    assert [one.project for one in lightning.store.streams.values()] == [others.id]


def test_an_organization_of_others_is_refused(lightning: Lightning, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no organization"):
        sample(tmp_path).written(opened(organization="org-2"))
    assert not lightning.store.teamspaces


@pytest.mark.parametrize("fault", ["503", "429", "drop", "cut"])
def test_reading_survives_a_fault(lightning: Lightning, cloud: Cloud, stream: Stream, fault: str) -> None:
    lightning.faults.plan("GET", fault)  # type: ignore[arg-type]
    answer = cloud.values(stream, None, None)
    assert answer is not None
    assert len(answer["dense"]) == 3003
    assert lightning.faults.shown == 1


def test_a_file_goes_up_in_parts_and_comes_down_whole(
    lightning: Lightning, cloud: Cloud, stream: Stream, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 40
    (tmp_path / "up").write_bytes(content)
    drive = Drive(cloud, stream, "", part_bytes=3000)
    drive.put(tmp_path / "up", "folder/model ü.pt")
    assert lightning.requests["PUT /storage"] == 4
    assert lightning.store.teamspaces[stream.project_id].drive == {"experiments/experiment/folder/model ü.pt": content}
    drive.get("folder/model ü.pt", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == content
    assert cloud.artifacts(stream) == ["folder/model ü.pt"]


@pytest.mark.parametrize(
    ("place", "fault"),
    [("/storage", "401"), *((place, fault) for place in ("/storage", "/blobs") for fault in ("503", "drop", "cut"))],
)
def test_an_upload_survives_faults_and_expired_addresses(
    lightning: Lightning, cloud: Cloud, stream: Stream, tmp_path: Path, place: str, fault: str
) -> None:
    lightning.drive.wants_completion = True
    (tmp_path / "up").write_bytes(b"content")
    lightning.faults.plan(place, fault)  # type: ignore[arg-type]
    Drive(cloud, stream, "").put(tmp_path / "up", "file")
    assert list(lightning.store.teamspaces[stream.project_id].drive.values()) == [b"content"]


def test_an_empty_file_is_a_file(lightning: Lightning, cloud: Cloud, stream: Stream, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(b"")
    Drive(cloud, stream, "").put(tmp_path / "up", "empty")
    assert list(lightning.store.teamspaces[stream.project_id].drive.values()) == [b""]


def test_a_file_that_is_not_there_is_not_found(cloud: Cloud, stream: Stream, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Drive(cloud, stream, "").get("nothing", tmp_path / "down")


@pytest.mark.parametrize("path", ["../../../../v1/memberships", "a/../../../x", "/v1/memberships", "a//b", "."])
def test_a_hostile_path_leads_nowhere(
    lightning: Lightning, cloud: Cloud, stream: Stream, tmp_path: Path, path: str
) -> None:
    lightning.requests.clear()
    with pytest.raises(HostilePath):
        Drive(cloud, stream, "").get(path, tmp_path / "down")
    assert not lightning.requests


def test_an_experiment_with_hostile_files_is_read_without_them(lightning: Lightning, stream: Stream) -> None:
    held = lightning.store.streams[stream.id]
    held.artifacts.append("../../../../v1/memberships")
    held.media.append({"id": "media-1", "name": "../x", "storagePath": "../../v1/memberships", "step": None})
    source = open_source({"requests-per-s": "0"})
    [run] = source.list_runs(ProjectId("team"), Selection())
    pieces = list(source.read_runs([run], Want(), DigestSink()))
    source.close()
    last = pieces[-1].chunk
    assert isinstance(last, End)
    assert [(finding.kind, finding.code) for finding in last.findings] == [("loss", "artifact-unreadable")] * 2
    assert not [piece for piece in pieces if isinstance(piece.chunk, Files)]


def test_litlogger_itself_finds_everything_in_its_place(
    lightning: Lightning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vendor's client opens a migrated experiment again, in a process of its own since it installs handlers."""
    sample(tmp_path).written(opened(teamspace="everything"))
    [held] = lightning.store.streams.values()
    monkeypatch.setenv("LIGHTNING_USERNAME", "somebody")
    command = [sys.executable, "-c", _OPENER, held.name, str(tmp_path / "down")]
    found = json.loads(subprocess.run(command, check=True, timeout=180, capture_output=True).stdout.splitlines()[-1])
    assert found["series"] == {"long": 2500, "other": 700, "rare": 1}
    assert found["metadata"]["params/lr"] == "0.1"
    assert set(found["files"]) == {
        "logs/series.parquet",
        "logs/series.txt",
        "histograms",
        "histograms/histograms.json",
        "histograms/histograms.parquet",
        "model.pt",
        "pictures",
        "pictures/step_0.png",
        "pictures/step_7.png",
        "shardmig/exact.parquet",
        "shardmig/manifest.json",
    }
    assert (tmp_path / "down").read_bytes() == bytes(range(256))


def test_writing_leaves_signals_threads_and_the_end_of_the_process_alone(lightning: Lightning, tmp_path: Path) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    threads = set(threading.enumerate())
    target = opened()
    sample(tmp_path).written(target)
    target.close()
    assert {number: signal.getsignal(number) for number in before} == before
    assert {thread.name for thread in set(threading.enumerate()) - threads if "Thread" not in thread.name} == set()


def test_no_request_holds_more_values_than_litlogger_sends(lightning: Lightning, tmp_path: Path) -> None:
    lightning.most_values = 1000
    run = sample(tmp_path)
    run.written(opened())
    assert lightning.requests["PUT /v1/projects/logger-metrics"] == 4  # 3,201 values


def test_an_experiment_tells_nothing_of_this_computer(lightning: Lightning, tmp_path: Path) -> None:
    sample(tmp_path).written(opened())
    [held] = lightning.store.streams.values()
    assert held.system_info == {}


def test_processes_share_one_budget(lightning: Lightning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command = [sys.executable, "-c", _ASKER]
    askers = [subprocess.Popen(command) for _ in range(2)]
    assert [asker.wait(60) for asker in askers] == [0, 0]
    assert len(lightning.times_s) == 30
    assert lightning.times_s[-1] - lightning.times_s[0] > 29 / 20 - 0.1


def test_a_wrong_key_ends_everything_and_is_shown_nowhere(
    lightning: Lightning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTNING_API_KEY", "wrong-and-secret")
    with pytest.raises(AuthFailed) as refused:
        sample(tmp_path).written(opened())
    assert "wrong-and-secret" not in f"{refused.value!r} {refused.value.message} {refused.value.hint}"


def test_a_key_comes_from_a_file(lightning: Lightning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LIGHTNING_API_KEY", "LIGHTNING_USER_ID"):
        monkeypatch.delenv(name)
    with pytest.raises(AuthFailed, match="no Lightning API key"):
        sample(tmp_path).written(opened())
    (tmp_path / "key.json").write_text(f'{{"user_id": "{USER}", "api_key": "{KEY}"}}')
    sample(tmp_path).written(opened(key_file=str(tmp_path / "key.json")))
    assert len(lightning.store.streams) == 1


def test_a_named_teamspace_without_permission_is_an_error(lightning: Lightning, tmp_path: Path) -> None:
    lightning.store.create_teamspace("closed").is_denied = True
    with pytest.raises((Denied, NotFound)):
        sample(tmp_path).written(opened(teamspace="closed"))


def test_a_server_that_is_away_is_waited_for_and_then_reported(lightning: Lightning, cloud: Cloud) -> None:
    lightning.faults.be_down(1.0)
    started_s = time.monotonic()
    assert cloud.teamspaces() == []
    assert time.monotonic() - started_s > 0.5
    gone = Cloud(parse_options({"requests-per-s": "0", "cloud-url": "http://127.0.0.1:9"}))
    with pytest.raises(Transient):
        gone.append_once(Stream(id="one", project_id="two"), [])


_OPENER = """
import json, sys
import litlogger
experiment = litlogger.init(name=sys.argv[1], teamspace="everything", verbose=False)
experiment.artifacts["model.pt"].save(sys.argv[2])
series = {key: len(values) for key, values in experiment.metrics.items()}
print(json.dumps({"series": series, "metadata": experiment.metadata, "files": list(experiment.artifacts)}))
"""
_ASKER = """
from shardmig.adapters.litlogger.cloud import Cloud
from shardmig.adapters.litlogger.options import parse_options
cloud = Cloud(parse_options({"requests-per-s": "20"}))
for _ in range(15):
    cloud.teamspaces()
"""


def test_an_experiment_that_others_push_out_of_its_page_while_a_source_lists_is_listed_all_the_same(
    lightning: Lightning, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was on a page already is deleted: each behind it moves up by one, and the next page begins behind it."""
    monkeypatch.setattr(lightning, "page", 2)
    teamspace = lightning.store.create_teamspace("team")
    for number in range(5):
        cloud.create_stream(teamspace.id, f"experiment-{number}", {}, ("", ""))

    def delete_the_newest(_: str) -> None:
        lightning.after.clear()
        streams = lightning.store.streams
        del streams[next(id_ for id_, one in streams.items() if one.name == "experiment-4")]

    lightning.after["/metrics-stream/list"] = delete_the_newest
    source = open_source({"requests-per-s": "0"})
    listed = {run.id for run in source.list_runs(ProjectId("team"), Selection())}
    source.close()
    assert listed >= {f"experiment-{number}" for number in range(4)}
