"""Offline archives for tests: those of the vendor's client, and hand-made ones of its older versions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final
from zipfile import ZipFile

from shardmig.adapters.base import migration_key
from shardmig.adapters.comet import open_target
from shardmig.adapters.conformance.runs import rich_run
from shardmig.archive.files import ArchiveFiles
from shardmig.records import ArchivePaths, Header, LoadOptions, ProjectId

SAMPLES: Final = Path(__file__).parents[2] / "samples" / "comet"
VENDOR_KEY: Final = "a1" * 20
OLD_KEY: Final = "0123456789abcdef0123456789abcdef"
_DETAILS: Final = [
    "command",
    "env",
    "hostname",
    "ip",
    "machine",
    "os",
    "os_release",
    "os_type",
    "pid",
    "processor",
    "python_exe",
    "python_version",
    "python_version_verbose",
    "user",
]


def write_world(folder: Path) -> None:
    """Archives of three clients and of shardmig in one folder and its subfolder. Done once."""
    if folder.exists():
        return
    (folder / "older").mkdir(parents=True)
    for sample in SAMPLES.glob("*.zip"):
        shutil.copy(sample, folder)
    write_archive(folder / "older" / f"{OLD_KEY}.zip", OLD_KEY, old_messages(), mode="create")
    write_archive(folder / "nameless.zip", None, [metric("loss", 1.0, 0)], workspace=None, project_name=None)
    files = ArchiveFiles(ArchivePaths(str(folder / "a" / "data"), str(folder / "a" / "files")), ProjectId("ws/rich"))
    chunks = rich_run(files)
    header = chunks[0]
    assert isinstance(header, Header)
    target = open_target({"offline-dir": str(folder), "points-per-upload": "300"}, LoadOptions(step_multiplier=100))
    target.write_run(migration_key(header.run), "d" * 32, iter(chunks), files, None)
    shutil.rmtree(folder / "a")


def write_archive(path: Path, key: str | None, messages: list[dict[str, Any]], **experiment: Any) -> None:
    """An offline archive of these messages."""
    about = {
        "project_name": "vision",
        "workspace": "old",
        "start_time": 1_600_000_000_000,
        "stop_time": 1_600_000_060_000,
        "tags": ["z", "a"],
    }
    named = {} if key is None else {"offline_id": key}
    with ZipFile(path, "w") as archive:
        archive.writestr("experiment.json", json.dumps(about | named | experiment))
        archive.writestr("messages.json", "".join(json.dumps(message) + "\n" for message in messages))
        archive.writestr("tmpasset", b"content of an asset")


def metric(name: str, value: Any, step: Any, time_ms: int = 1_600_000_000_001, **more: Any) -> dict[str, Any]:
    """One point."""
    point = {"metricName": name, "metricValue": value, "step": step, "epoch": None}
    return {"type": "metric_msg", "payload": {"metric": point, "local_timestamp": time_ms, **more}}


def old_messages() -> list[dict[str, Any]]:
    """What clients before 3.20 wrote: everything is a `ws_msg`."""

    def ws(**fields: Any) -> dict[str, Any]:
        return {"type": "ws_msg", "payload": {"local_timestamp": 1_600_000_000_500, **fields}}

    return [
        ws(fileName="train.py"),
        ws(env_details=dict.fromkeys(_DETAILS, "x") | {"user": "somebody", "hostname": "box", "pid": 7, "env": None}),
        ws(installed_packages=["a==1", "b==2"]),
        ws(os_packages=["c=3"]),
        ws(git_meta={"user": "u", "root": "r", "branch": "main", "parent": "c0ffee", "origin": {"url": "git@x:y.git"}}),
        ws(log_other={"key": "Name", "val": "old run"}),
        ws(param={"paramName": "lr", "paramValue": 0.5, "step": None}),
        ws(params={"paramName": "sizes", "paramValue": [1, 2], "step": 0}),
        *(ws(metric={"metricName": "loss", "metricValue": 1 / (n + 1), "step": n / 4}) for n in range(120)),
        ws(metric={"metricName": "verdict", "metricValue": "good", "step": 1}),
        ws(metric={"metricName": "free", "metricValue": 1.5, "step": None}),
        ws(metric={"metricName": "free", "metricValue": 2.5, "step": None}),
        ws(metric={"metricName": "sys.cpu.percent.avg", "metricValue": 12.5, "step": None}),
        ws(stdout="12\n", stderr=False),
        ws(stdout="a warning\n", stderr=True),
        ws(html="<i>one</i>"),
        ws(html="<i>two</i>"),
        ws(graph="x -> y", context=None, code=None),
        ws(gpu_static_info=[{"name": "gpu"}]),
        ws(log_dependency={"name": "numpy", "version": "1.0"}),
        ws(log_system_info={"key": "k", "value": "v"}),
        {
            "type": "file_upload",
            "payload": {
                "file_path": "tmpasset",
                "upload_type": "asset",
                "additional_params": {"fileName": "a/b.bin", "context": None, "step": None},
                "local_timestamp": 1_600_000_000_600,
            },
        },
    ]
