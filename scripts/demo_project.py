#!/usr/bin/env python3
"""Writes a small Neptune project that was never synced, with the real clients: what the quickstart migrates.

usage: demo_project.py FOLDER

FOLDER gets `.neptune` (two runs of the 2.x client, offline) and `.neptune-scale` (one run and its fork of the 3.x
client, offline). Every field type is there. An existing FOLDER/.neptune is left as it is.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import shutil
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path

PROJECT = "demo/quickstart"


def main(folder: Path) -> None:
    """Write both; a folder is renamed into place when it is whole, so a killed execution leaves nothing half made."""
    for name, write in ((".neptune", write_classic_runs), (".neptune-scale", write_scale_runs)):
        if (folder / name).exists():
            continue
        draft = folder / f"{name}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        with quiet():
            write(draft)
        draft.rename(folder / name)


def write_classic_runs(folder: Path) -> None:
    """Two runs of neptune 1.x."""
    os.environ["NEPTUNE_DATA_DIRECTORY"] = str(folder)
    import neptune
    from neptune.types import File

    files = folder.parent / "files"  # the client notes absolute paths: these must not move with the draft
    files.mkdir(exist_ok=True)
    (files / "model.bin").write_bytes(bytes(range(256)) * 64)
    (files / "notes.txt").write_text("learning rate found by hand\n")
    for number, rate in enumerate((0.1, 0.003)):
        run = neptune.init_run(
            project=PROJECT,
            mode="offline",
            name=f"digits-{number}",
            description="a demonstration",
            tags=["demo", f"try-{number}"],
            capture_stdout=False,
            capture_stderr=False,
            capture_hardware_metrics=False,
            git_ref=False,
            source_files=[],
        )
        run["params/lr"] = rate
        run["params/epochs"] = 20
        run["params/optimizer"] = "adam"
        run["params/augment"] = number == 0
        run["params/started"] = datetime(2025, 11, 3, 9, 30, tzinfo=UTC)
        for step in range(200):
            run["metrics/train/loss"].append(math.exp(-rate * step) + 0.01, step=step)
        for epoch in range(20):
            run["metrics/val/accuracy"].append(1 - math.exp(-rate * (epoch + 1)), step=epoch * 0.5)
            run["logs/epoch"].append(f"epoch {epoch} done", step=epoch)
        run["model/weights"].upload(str(files / "model.bin"))
        run["model/notes"].upload_files([str(files / "notes.txt")])
        for step in (0, 10):
            run["images/sample"].append(File.from_content(_picture(step), extension="png"), step=step)
        run["data/train"].track_files(str(files / "notes.txt"))
        run.stop()


def write_scale_runs(folder: Path) -> None:
    """A run of neptune-scale with histograms and NaN, and a run forked from it."""
    import numpy as np
    from neptune_scale import Run
    from neptune_scale.types import Histogram

    options = {"project": PROJECT, "mode": "offline", "log_directory": str(folder), "enable_console_log_capture": False}
    parent = Run(run_id="baseline", experiment_name="digits", **options)
    parent.log_configs(
        {"params/lr": 0.05, "params/seed": 9007199254740993, "params/started": datetime(2025, 11, 3, tzinfo=UTC)}
    )
    parent.add_tags(["demo"])
    for step in range(100):
        parent.log_metrics(
            {"metrics/loss": math.exp(-step / 30), "metrics/grad": math.nan if step == 50 else 1.0}, step=step
        )
    parent.log_string_series({"logs/phase": "warm-up"}, step=0.5)
    counts, edges = np.histogram(np.linspace(-1, 1, 200) ** 3, bins=16)
    parent.log_histograms({"weights/layer1": Histogram(bin_edges=edges, counts=counts)}, step=1)
    parent.assign_files({"model/card": b"# A small model\n"})
    parent.close()
    fork = Run(run_id="lower-rate", fork_run_id="baseline", fork_step=99, **options)
    fork.log_configs({"params/lr": 0.005})
    fork.log_metrics({"metrics/loss": 0.03}, step=100)
    fork.close()


def _picture(step: int) -> bytes:
    """A valid PNG of one pixel."""
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = zlib.compress(bytes([0, step, 128, 255]))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


@contextlib.contextmanager
def quiet():
    """The vendor's notices (deprecations, "you are offline", sync hints) would bury what matters here."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    heard = io.StringIO()
    try:
        with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
            yield
    except BaseException:
        sys.stderr.write(heard.getvalue())
        raise


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
