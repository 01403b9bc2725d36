"""Images and pages are media in the history, beside the files that they are."""

from __future__ import annotations

import io
import json
import struct
from decimal import Decimal
from pathlib import Path
from typing import Any

from shardmig.adapters.base import migration_key
from shardmig.adapters.conformance import plain_run
from shardmig.adapters.wandb import open_target
from shardmig.adapters.wandb.runlog import RunLog
from shardmig.archive.files import ArchiveFiles
from shardmig.records import ArchivePaths, Files, Header, LoadOptions

PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 30, 20) + bytes(9)


def test_images_stand_at_their_steps_and_pages_at_the_last_one(tmp_path: Path) -> None:
    header, *rest = plain_run()
    assert isinstance(header, Header)
    files = ArchiveFiles(ArchivePaths(str(tmp_path / "data"), str(tmp_path / "files")), header.run.project)

    def stored(path: str, content: bytes, name: str, step: int | None = None) -> Any:
        kind: Any = "file" if step is None else "file_series"
        place = None if step is None else Decimal(step)
        return files.put(header.run, path, kind, io.BytesIO(content), name=name, step=place)

    refs = [stored("images", PNG, "i.png", step) for step in (0, 20)]
    refs += [stored("metrics/loss", PNG, "i.png"), stored("page", b"<p>", "p.html"), stored("text", b"t", "t.txt")]
    chunks = [header, rest[0], Files(refs), *rest[1:]]
    target = open_target({"offline-dir": str(tmp_path / "w")}, LoadOptions(step_multiplier=1))
    run = target.write_run(migration_key(header.run), "d", iter(chunks), files, None)
    folder = tmp_path / "w" / f"offline-run-{run.id}"
    rows = {row.step: dict(row.items) for row in RunLog(next(folder.glob("*.wandb"))).rows()}
    assert sorted(rows) == [*range(10), 20]
    image = json.loads(rows[20]["images"])
    assert (image["_type"], image["format"], image["width"], image["height"]) == ("image-file", "png", 30, 20)
    assert (folder / "files" / image["path"]).read_bytes() == PNG
    assert json.loads(rows[0]["images"])["path"] != image["path"]
    assert json.loads(rows[20]["page"])["_type"] == "html-file"
    beside_a_series = [key for key in rows[20] if key.startswith("metrics/loss~")]
    assert len(beside_a_series) == 1
    assert "text" not in rows[20]
