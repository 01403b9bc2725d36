"""A run folder that is being written: values, points and files in, one transaction log out."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np

from shardmig.adapters.sidecar.fitting import Metrics
from shardmig.adapters.sidecar.rules import Value
from shardmig.adapters.wandb.columns import Points
from shardmig.adapters.wandb.folder import file_in
from shardmig.adapters.wandb.history import RUNTIME, STEP, TIME
from shardmig.adapters.wandb.items import Item, ItemSpool
from shardmig.adapters.wandb.log import LogWriter
from shardmig.adapters.wandb.merging import History
from shardmig.adapters.wandb.records import RunHead, exit_record, files_record, head_records, summary_record
from shardmig.adapters.wandb.spools import StepSpool
from shardmig.adapters.wandb.times import TIMES, TimesWriter
from shardmig.archive.layout import disk_errors
from shardmig.errors import NotFound

_FILES_IN_RECORD: Final = 1000


class WrittenLog(NamedTuple):
    """How many rows and numbers of history a log has, and how many items no row had room for, by key."""

    rows: int
    values: int
    left_out: Counter[str]


class StagedRun:
    """`RunSink` and `Artifacts` of a run folder. One use. `folder` and `scratch`: empty folders of its own."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.folder = folder
        self._points = StepSpool(scratch)
        self._items = ItemSpool(scratch)
        self._keys: list[str] = []
        self._numbers: dict[str, int] = {}
        self.config: dict[str, bytes] = {}
        self.last_step = 0
        (folder / "files").mkdir()

    def add_values(self, values: Mapping[str, Value]) -> None:
        """As RunSink: the config."""
        self.config |= {key: msgspec.json.encode(value) for key, value in values.items()}

    def add_points(self, metrics: Metrics) -> None:
        """As RunSink: the history."""
        numbers = [self.number_of(key) for key in metrics.keys]
        keys = np.repeat(np.array(numbers, dtype=np.int64), metrics.lengths)
        self._points.add(Points(metrics.steps, keys, metrics.times_ms, metrics.values))
        self.last_step = max(self.last_step, int(metrics.steps.max(initial=0)))

    def add_item(self, item: Item) -> None:
        """Something that is no number, into the row of its step. `item.key`: of `number_of` or `further_number`."""
        self._items.add(item)
        self.last_step = max(self.last_step, item.step)

    def flush(self) -> None:
        """As RunSink."""

    def number_of(self, key: str) -> int:
        """The number of a float series."""
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = self.further_number()
            self._keys[number] = key
        return number

    def further_number(self) -> int:
        """The number of a key that `name_key` names later."""
        self._keys.append("")
        return len(self._keys) - 1

    def name_key(self, number: int, key: str, forced: str) -> None:
        """Name a further key: `key`, or where a float series is called that, `forced`."""
        self._keys[number] = forced if key in self._numbers else key

    def put(self, file: Path, path: str) -> None:
        """As Artifacts: a run file."""
        place = file_in(self.folder, path)
        with disk_errors(f"run file {path}"):
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)

    def get(self, path: str, file: Path) -> None:
        """As Artifacts."""
        with disk_errors(f"run file {path}"):
            try:
                shutil.copyfile(file_in(self.folder, path), file)
            except FileNotFoundError as error:
                raise NotFound(f"run file {path} does not exist") from error

    def write_log(self, head: RunHead, exit_code: int, end_ms: int | None) -> WrittenLog:
        """Everything that was added, as the log of this run. Raises Unsupported for a row that W&B cannot take, DiskFull."""
        times = TimesWriter(self.folder / "files" / TIMES, self._keys)
        path = self.folder / f"run-{head.id}.wandb"
        with disk_errors("the log of a run"), path.open("wb") as file:
            log = LogWriter(file)
            log.add_all(head_records(head))
            history = History(log, times, self._keys, head.start_ms)
            history.write(self._points.by_step(), self._items.by_step())
            times.close()
            log.add_all(self._files_records())
            log.add_all([summary_record(_summary(history, head.start_ms))])
            log.add_all([exit_record(exit_code, max(0, ((end_ms or head.start_ms) - head.start_ms) // 1000))])
        return WrittenLog(history.rows, history.values, history.left_out)

    def _files_records(self) -> list[bytes]:
        root = self.folder / "files"
        paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
        return [
            files_record(paths[start : start + _FILES_IN_RECORD]) for start in range(0, len(paths), _FILES_IN_RECORD)
        ]


def _summary(history: History, start_ms: int) -> dict[str, bytes]:
    """The last value of each key, as wandb makes it."""
    summary = {key: json.dumps(value).encode() for key, value in history.last_values.items()} | dict(history.last_texts)
    if history.rows:
        runtime_s = max(0, history.time_ms - start_ms) / 1000
        own = {STEP: history.step, TIME: history.time_ms / 1000, RUNTIME: runtime_s}
        summary |= {key: json.dumps(value).encode() for key, value in own.items()}
    return summary
