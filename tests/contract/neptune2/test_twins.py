"""One program, executed against a server and offline: what is read of both is the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardmig.adapters.base import Want
from shardmig.adapters.neptune_local import open_source
from shardmig.archive.files import DigestSink
from tests.contract.neptune2.vendor import (
    EVERYTHING,
    PROJECT,
    Read,
    client_run,
    listed,
    open_neptune2,
    read,
    write_files,
    write_scalars,
    write_series,
)
from tests.servers.neptune2.server import NeptuneServer

_LOGGED = ("params/", "metrics/", "log/", "files/", "images/")


@pytest.fixture
def twins(empty_neptune2: NeptuneServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Read, Read]:
    """The run on the server and the run in the folder."""
    monkeypatch.setenv("NEPTUNE_DATA_DIRECTORY", str(tmp_path / ".neptune"))
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    empty_neptune2.store.add_project(PROJECT, "VIS")
    for mode in ("sync", "offline"):
        with client_run(empty_neptune2, mode=mode) as run:
            write_scalars(run)
            write_series(run)
            write_files(run, tmp_path)
    online = open_neptune2()
    offline = open_source({"path": str(tmp_path / ".neptune" / "offline"), "project": PROJECT})
    [remote], [local] = listed(online), list(offline.list_runs(PROJECT, EVERYTHING))
    both = read(online, remote), Read(list(offline.read_runs([local], Want(selection=EVERYTHING), DigestSink())))
    online.close()
    offline.close()
    return both


def test_a_run_is_the_same_from_its_server_and_from_the_folder_of_its_offline_twin(twins: tuple[Read, Read]) -> None:
    remote, local = twins
    scalars = [
        {path: field for path, field in one.fields.items() if path.startswith("params/")} for one in (remote, local)
    ]
    assert scalars[0] == scalars[1]
    assert remote.floats == local.floats
    assert remote.texts == local.texts
    contents = [
        {key: [(ref.sha256, ref.size_bytes) for ref in refs] for key, refs in one.files.items() if key[1] != "artifact"}
        for one in (remote, local)
    ]
    assert contents[0] == contents[1]
    assert {key for key in remote.files if key[0].startswith(_LOGGED)} == set(local.files)
