"""The suite of every source, over 1.x folders and neptune-scale databases at once."""

from __future__ import annotations

import base64
from pathlib import Path

from shardmig.adapters.base import ReadSide
from shardmig.adapters.conformance import SourceSuite
from shardmig.adapters.neptune_local.messages3 import messages
from tests.unit.neptune_local.local_data import (
    UUID,
    created,
    open_local,
    points,
    record,
    snapshot,
    tags,
    write_database,
    write_folder,
)

IMAGE = base64.b64encode(b"\x89PNG image").decode()


class TestNeptuneLocal(SourceSuite):
    """Two processes of one killed 1.x run, a second run, three databases of two scale runs."""

    def open_source(self, folder: Path) -> ReadSide:
        if not (folder / "data").exists():
            _write_folders(folder / "data")
            _write_databases(folder / "data")
        return open_local(folder / "data")


def _write_folders(root: Path) -> None:
    for process in (1, 2):
        lines = [record(1, "AssignInt", f"p/{process}", value=process, at=process * 1.0)]
        for number in range(2, 150):
            path, step = f"m/{number % 5}", [number, None, number / 3][number % 3]
            line = record(number, "LogFloats", path, values=points((number / 7, step, 1.0 * number)), at=1.0 * number)
            lines.append(line)
            image = {"data": IMAGE, "description": f"image {number}"}
            values = points((f"line {number}", None, 1.0)) if number % 2 else points((image, None, 1.0))
            kind, path = ("LogStrings", "log") if number % 2 else ("LogImages", "images/all")
            lines.append(record(number + 1000, kind, path, values=values, at=1.0 * number))
        lines.append(record(1200, "ClearFloatLog", "m/4", at=120.0))
        lines.append(record(1201, "UploadFile", "files/gone", ext="txt", file_path="/gone.txt", at=200.0))
        lines.append(record(1202, "UploadFileContent", "files/kept", ext="txt", file_content="eA==", at=200.0))
        folder = write_folder(root, lines, name=f"async/run__{UUID}__{process}__abcdefgh", last_put=1300)
        (folder / "data-1.log").write_bytes((folder / "data-1.log").read_bytes() + b'{"obj": {"ty')
    lines = [record(1, "AddStrings", "sys/tags", values=["b", "a"]), record(2, "AssignBool", "sys/failed", value=True)]
    write_folder(root, lines, name="offline/run__fedcba98-0000__9__abcdefgh", last_put=2)


def _write_databases(root: Path) -> None:
    histogram = messages().Value(histogram={"bin_edges": [0, 1, 2], "counts": {"values": [1, 2]}})
    file = messages().Value(file_ref={"path": "d/1", "size_bytes": 1, "mime_type": "text/plain"})
    (root / "scale").mkdir(parents=True)
    (root / "scale" / "note.txt").write_text("x")
    uploads = [("/gone/note.txt", "d/1", "text/plain", 1, 1)]
    for part in (0, 1):
        updates = [
            snapshot(
                (step * 2 + part) * 500_000,
                append={
                    "m/a": step / 3,
                    "m/b": 1.0 * step,
                    "text": f"line {step}",
                    "h": histogram,
                    "files/series": file,
                },
            )
            for step in range(60)
        ]
        rows = [(10 + part, created(experiment_id="e", family="f")), *((20 + n, one) for n, one in enumerate(updates))]
        write_database(root / "scale" / f"{part}.sqlite3", rows, uploads=uploads)
    extra = snapshot(assign={"p/x": 1, "files/one": file}, modify_sets={"sys/tags": tags(["t"])})
    preview = snapshot(3_000_000, append={"m/a": 0.5}, preview=True)
    forked = created(fork_point={"parent_run_id": "run-1", "step": {"whole": 1}}, inherit_configs=True)
    write_database(
        root / "scale" / "fork.sqlite3", [(5, forked), (6, extra), (7, preview)], run_id="fork-1", uploads=uploads
    )
