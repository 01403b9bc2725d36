"""Two ways to the same runs: the client's folder read directly, and what its own synchronisation sent to the server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

from shardmig.adapters.conformance.runs import FieldKey, field_digests
from shardmig.adapters.neptune3 import Neptune3Source
from shardmig.adapters.neptune_local import open_source as open_local_source
from shardmig.records import FieldDigest, Header, RunId
from tests.contract.neptune3.reading import RunContents, list_all, read_all
from tests.servers.neptune3.server import Neptune3

OFFLINE = """
    import math
    from neptune_scale import Run
    from neptune_scale.types import Histogram
    if __name__ == "__main__":
        run = Run(project="ws/p", run_id="run", experiment_name="exp", mode="offline", log_directory="log",
                  enable_console_log_capture=False, source_tracking_config=None)
        run.log_configs({"p/int": 2**53 + 1, "p/float": 0.1, "p/text": "✓", "p/no": False})
        for step in range(300):
            run.log_metrics({"m/loss": math.sin(step), "m/odd": math.nan if step % 7 == 0 else -0.0}, step=step / 4)
            run.log_string_series({"t": f"line {step}"}, step=step)
        run.log_histograms({"h": Histogram(bin_edges=[0, 1, 2], densities=[0.5, 0.25])}, step=0.5)
        run.assign_files({"f": b"content"})
        run.log_files({"fs": b"first"}, step=0.125)
        run.close()
"""
SYNC = """
    import os
    from pathlib import Path
    from neptune_scale.cli.sync import SyncRunner
    if __name__ == "__main__":
        for database in Path("log").resolve().rglob("*.sqlite3"):
            runner = SyncRunner(api_token=os.environ["NEPTUNE_API_TOKEN"], run_log_file=database)
            runner.start()
            runner.wait(progress_bar_enabled=False)
            runner.stop(timeout=60)
"""


ADDED = ("sys/", "shardmig/")
"""What the server, and what the reader of the folder adds to what was logged."""


def execute(script: str, folder: Path) -> None:
    """A script with the vendor's client, in `folder`."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", dedent(script)],
        cwd=folder,
        env={**os.environ, "GIT_PYTHON_REFRESH": "quiet"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_folder_and_server_hold_the_same_run(server: Neptune3, source: Neptune3Source, tmp_path: Path) -> None:
    server.store.project("ws/p")
    execute(OFFLINE, tmp_path)
    local = open_local_source({"path": str(tmp_path / "log")})
    from_folder = read_all(local, list_all(local, "ws/p"), tmp_path / "one")[RunId("run")]
    local.close()
    execute(SYNC, tmp_path)
    from_server = read_all(source, list_all(source, "ws/p"), tmp_path / "two")[RunId("run")]
    assert logged(from_folder) == logged(from_server)
    assert not from_folder.losses() + from_server.losses()


def logged(contents: RunContents) -> dict[FieldKey, FieldDigest]:
    """Digests of what the user logged. File names are the
    client's own in its folder and the object store's on the server; their contents are compared."""
    chunks = [piece.chunk for piece in contents.pieces if not isinstance(piece.chunk, Header)]
    digests = {key: one for key, one in field_digests(chunks).items() if not key[0].startswith(ADDED)}
    files = {path: contents.fields[path, kind] for path, kind in contents.fields if kind.startswith("fileRef")}
    assert files["f"] == b"content"
    assert [(float(step), content) for step, _, content in files["fs"]] == [(0.125, b"first")]
    return {key: one for key, one in digests.items() if not key[1].startswith("file")}
