"""Coordinators and workers that are killed, servers that go away, two coordinators: the same command makes it good."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from shardmig.archive.claim import claimed
from shardmig.archive.reader import ArchiveReader
from shardmig.cli.app import execute
from shardmig.errors import JournalLocked
from shardmig.records import ProjectId, Receipt
from tests.processes import workers_of
from tests.servers.s3.faults import Asked
from tests.servers.s3.server import Bucket, Server

SAMPLE = Path(__file__).parents[2] / "samples" / "exporter-3x"
PROJECT = ProjectId("ws/three")
CLAIM = "/.shardmig/export.lock"


class Export:
    """An export of three runs into a bucket, by the product in processes of its own."""

    def __init__(self, bucket: Bucket, home: Path) -> None:
        self.bucket, self.home = bucket, home
        self.process: subprocess.Popen[str]

    @property
    def line(self) -> str:
        """The command, always the same."""
        return (
            f"export --source archive {SAMPLE}/data {SAMPLE}/files -d {self.bucket.archive.data}"
            f" --workers 1 --no-progress"
        )

    def execute(self) -> tuple[int, str]:
        """To its end: exit code, and what it said."""
        environment = os.environ | {"SHARDMIG_HOME": str(self.home)}
        command = [sys.executable, "-m", "shardmig", *shlex.split(self.line)]
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as self.process:
            said, _ = self.process.communicate(timeout=120)
        return self.process.returncode, said

    def worker(self) -> int:
        """Its worker's process id."""
        return min(workers_of(self.process.pid))


def content(bucket: Bucket) -> tuple[list[str], list[Receipt], dict[str, bytes]]:
    """Names, receipts without the times of execution, and the bytes of files."""
    reader = ArchiveReader(bucket.archive)
    receipts = [reader.receipt(run) for run in reader.runs(PROJECT)]
    assert None not in receipts
    told = [msgspec.structs.replace(one, started_ms=0, ended_ms=0) for one in receipts if one is not None]
    return list(bucket.content()), told, bucket.content("exports/files")


@pytest.fixture(scope="module")
def expected(s3: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """What an export that nothing disturbs leaves."""
    before = dict(os.environ)
    os.environ |= s3.environment
    bucket = s3.bucket()
    code, said = Export(bucket, tmp_path_factory.mktemp("home")).execute()
    assert code == 0, said
    yield content(bucket)
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize(
    ("role", "at", "arrives"),
    [
        ("worker", "part_0", False),
        ("worker", "part_0", True),
        ("coordinator", "part_0", True),
    ],
)
def test_a_killed_process_is_made_good(
    bucket: Bucket, expected: object, tmp_path: Path, role: Literal["worker", "coordinator"], at: str, arrives: bool
) -> None:
    """Killed while it uploads: an object that does not, or does, still arrive."""
    export = Export(bucket, tmp_path / "home")
    killed = False

    def kill(asked: Asked) -> None:
        nonlocal killed
        if not killed and asked.is_a("PUT", at) and len(bucket.proxy.asked) > 20:
            killed = True
            os.kill(export.worker() if role == "worker" else export.process.pid, signal.SIGKILL)
            if not arrives:
                raise ConnectionResetError

    bucket.proxy.before = kill
    code, said = export.execute()
    assert (killed, code) == (True, 0 if role == "worker" else -signal.SIGKILL), said
    if role == "coordinator":
        assert any(name.endswith(CLAIM) for name in bucket.content())
        code, said = export.execute()
        assert code == 0, said
    assert content(bucket) == expected
    assert bucket.unfinished_uploads() == []
    assert [path for path in export.home.glob("**/spool/*") if path.is_file()] == []


def test_a_server_that_goes_away_costs_time_alone(bucket: Bucket, expected: object, tmp_path: Path) -> None:
    export = Export(bucket, tmp_path / "home")

    def go_away(asked: Asked) -> None:
        if asked.is_a("PUT", "part_0"):
            bucket.proxy.before = lambda _: None
            bucket.proxy.down_for(float(os.environ.get("S3_DOWN_S", "2")))
            raise ConnectionResetError

    del os.environ["AWS_MAX_ATTEMPTS"]
    bucket.proxy.before = go_away
    code, said = export.execute()
    assert code == 0, said
    assert content(bucket) == expected


def test_a_second_coordinator_with_another_home_is_refused(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "first").mkdir()
    monkeypatch.setenv("SHARDMIG_HOME", str(tmp_path / "second"))
    with claimed(bucket.archive, tmp_path / "first"):
        assert execute([*shlex.split(Export(bucket, tmp_path).line), "--engine", "inline"]) == 6
        said = capsys.readouterr().err
        assert f"remove {bucket.archive.data}{CLAIM}" in " ".join(said.split())
        assert not any("part_0" in name for name in bucket.content())
    assert bucket.content() == {}


def test_the_claim_of_a_killed_coordinator_goes_to_the_next_one_with_its_home(bucket: Bucket, tmp_path: Path) -> None:
    for home in ("a", "b"):
        (tmp_path / home).mkdir()
    left = claimed(bucket.archive, tmp_path / "a")
    left.__enter__()
    with pytest.raises(JournalLocked, match="in use by a coordinator on"), claimed(bucket.archive, tmp_path / "b"):
        pass
    with claimed(bucket.archive, tmp_path / "a"):
        assert len(bucket.content()) == 1
    with claimed(bucket.archive, tmp_path / "b"), suppress(KeyError):
        raise KeyError
    assert bucket.content() == {}
