"""SIGKILL of an `export --update` while it brings another version of a run: the archive holds the one or the other, whole,
and the same command again brings the new one.

Executes CRASH_POINTS steps, a sample; scripts/crash_campaign executes every one.
"""

from __future__ import annotations

import hashlib
import io
import os
import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import msgspec
import pytest

from shardmig.adapters.base import Want
from shardmig.archive.files import ArchiveFiles
from shardmig.archive.reader import ArchiveReader
from shardmig.cli.app import execute
from shardmig.records import ArchivePaths, Field, Fields, Files
from tests.crash.faulty import Fault, FaultyCommand, Steps
from tests.unit.archive.runs import RUN, floats, paths_in, publish

POINTS = int(os.environ.get("CRASH_POINTS", "4"))
VERSIONS = ("first", "second")


def change_source(folder: Path, version: str) -> None:
    """Make the source hold this version of its run: a field, a series of several parts, files and a tree."""
    run = msgspec.structs.replace(RUN, fingerprint=version)
    store, content = ArchiveFiles(paths_in(folder), RUN.project), version.encode()
    refs = [store.put(run, f"f/{name}", "file", io.BytesIO(content), name=f"{name}.txt") for name in ("one", "two")]
    refs.append(store.put_tree(run, "f/set", "file_set", [("b/member.txt", io.BytesIO(content))]))
    points = [
        floats(f"m/{name}", range(150_000), [len(version) / (step + 1) for step in range(150_000)]) for name in "ab"
    ]
    publish(folder, [Fields([Field("version", "string", version)]), Files(refs), *points], run)


class Update(FaultyCommand):
    """An export of one run that was exported before, and changed since. The source lies outside what is counted.

    `part_bytes`: small enough, and the run has several parts.
    """

    def __init__(self, root: Path, faults: Path, *, part_bytes: int) -> None:
        root.mkdir()
        super().__init__(root, faults)
        self.archive = ArchivePaths(str(self.root / "data"), str(self.root / "files"))
        self._source = root.with_name(root.name + ".source")
        self._part_bytes = part_bytes
        change_source(self._source, "first")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SHARDMIG_PART_BYTES", str(part_bytes))
            assert execute(self.command()[3:]) == 0
        change_source(self._source, "second")

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "shardmig", "export", "--source", "archive"),
            *(f"{self._source}/data", f"{self._source}/files", "-d", self.archive.data, "-f", self.archive.files),
            *("--update", "--engine", "inline", "--no-progress"),
        ]

    def environment(self, fault: Fault | None) -> dict[str, str]:
        """All is done by one process."""
        own = {"FAULTS_ROLE": "-m shardmig export"} if fault is not None else {}
        return super().environment(fault) | own | {"SHARDMIG_PART_BYTES": str(self._part_bytes)}

    def held(self) -> str:
        """The version that the archive holds, every file with the content that its row says."""
        found, store = "", ArchiveFiles(self.archive, RUN.project)
        for piece in ArchiveReader(self.archive).read(RUN, Want()):
            if isinstance(piece.chunk, Fields):
                found = next(str(field.value) for field in piece.chunk.fields if field.path == "version")
            for ref in piece.chunk.files if isinstance(piece.chunk, Files) else []:
                contents = {member.read_bytes() for _, member in store.members(ref)}
                assert contents == {found.encode()}, f"{ref.path} is not of version {found!r}"
                assert ref.is_tree or ref.sha256 == hashlib.sha256(found.encode()).hexdigest()
        return found

    def files(self) -> set[bytes]:
        """The contents of all files that lie in the archive."""
        return {path.read_bytes() for path in Path(self.archive.files).rglob("*") if path.is_file()}


PARTS = pytest.mark.parametrize("part_bytes", [50 << 20, 1 << 16], ids=["one-part", "several-parts"])


@pytest.fixture(scope="module")
def steps_of(tmp_path_factory: pytest.TempPathFactory, faults: Path) -> Callable[[int], Steps]:
    """The I/O steps of an update that nothing disturbs, noted once."""

    @cache
    def noted(part_bytes: int) -> Steps:
        update = Update(tmp_path_factory.mktemp("undisturbed") / "update", faults, part_bytes=part_bytes)
        ended = update.execute(Fault("coordinator", step=0))
        assert ended.returncode == 0, ended.stderr
        assert (update.held(), update.files()) == ("second", {b"second"})
        return update.steps()

    return noted


def in_the_archive(steps: Steps) -> list[int]:
    """Numbers of the steps that change the archive itself, a sample."""
    numbers = [
        number
        for number, step in enumerate(steps, 1)
        if "/.shardmig" not in step and (number == 1 or step != steps[number - 2])
    ]
    return numbers if len(numbers) <= POINTS else [numbers[point * len(numbers) // POINTS] for point in range(POINTS)]


@PARTS
@pytest.mark.parametrize("point", range(POINTS))
def test_an_update_that_is_killed_leaves_a_whole_version_or_says_so_and_is_made_good_by_the_same_command(
    tmp_path: Path, faults: Path, steps_of: Callable[[int], Steps], point: int, part_bytes: int
) -> None:
    steps = in_the_archive(steps_of(part_bytes))
    if point >= len(steps):
        pytest.skip(f"there are {len(steps)} steps")
    update = Update(tmp_path / "update", faults, part_bytes=part_bytes)
    killed = update.execute(Fault("coordinator", steps[point]))
    was_killed = update.mark.exists()  # executions differ by a few steps: the last ones may not come
    assert killed.returncode == (-signal.SIGKILL if was_killed else 0), killed.stderr
    may_be_told = part_bytes < 50 << 20
    if not (may_be_told and execute(["audit", "-d", update.archive.data, "-f", update.archive.files])):
        assert update.held() in VERSIONS
    again = update.execute()
    assert again.returncode == 0, again.stderr
    assert (update.held(), update.left_over(), update.files()) == ("second", [], {b"second"})
