"""The vendor's own reading client gets from the server what it holds: the server is a fair stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.neptune3.filling import rich_project
from tests.servers.neptune3.server import Neptune3


@pytest.fixture
def client(server: Neptune3) -> Iterator[Any]:
    """neptune-query, its connections closed in the end."""
    import neptune_query.runs
    from neptune_query.internal import client as cached

    yield neptune_query.runs
    for opened in cached._cache.values():
        opened.get_httpx_client().close()
        opened.get_token_refreshing_client().get_httpx_client().close()
    cached.clear_cache()


def test_neptune_query_reads_what_the_server_holds(server: Neptune3, client: Any, tmp_path: Path) -> None:
    rich_project(server)
    held = server.store.dump("ws/rich", "run-1", lineage=True)
    assert sorted(client.list_runs(project="ws/rich")) == ["fork", "run-1"]
    assert client.list_runs(project="ws/rich", runs="^run") == ["run-1"]
    assert {*client.list_attributes(project="ws/rich", runs=["run-1"])} == {path for path, _ in held}
    metrics = client.fetch_metrics(
        project="ws/rich", runs=["run-1"], attributes=["metrics/m0"], type_suffix_in_column_names=False
    )
    rows = held["metrics/m0", "floatSeries"]
    assert list(map(repr, metrics["metrics/m0"].tolist())) == [repr(value) for _, _, value in rows]
    texts = client.fetch_series(project="ws/rich", runs=["run-1"], attributes=["logs/out"])
    assert texts["logs/out"].tolist() == [value for _, _, value in held["logs/out", "stringSeries"]]
    table = client.fetch_runs_table(project="ws/rich", runs=["run-1"], attributes=["params/big", "files/x.y"])
    assert table["params/big"].tolist() == [2**53 + 1]
    files = table[["files/x.y"]]
    downloaded = client.download_files(files=files, destination=tmp_path)
    assert Path(downloaded["files/x.y"].iloc[0]).read_bytes() == held["files/x.y", "fileRef"]
