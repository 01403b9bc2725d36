"""A small migration in a folder of its own, executed by the unmodified product, and what it left behind."""

from __future__ import annotations

import hashlib
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from shardmig.archive.reader import ArchiveReader
from shardmig.records import ArchivePaths
from tests.crash.faulty import FaultyCommand, Steps

PROJECT = "demo/quickstart"
_CHOSEN_AT_RANDOM = {"creation_time", "last_update_time", "experiment_id"}
_KEY_OF_RUN = "select run_uuid, value from tags where key = 'shardmig.key'"


class Content(NamedTuple):
    """What a migration left: each file of the archive, each row of the target with how often it is there."""

    archive: dict[str, object]
    target: dict[str, Counter[tuple[str, ...]]]
    artifacts: dict[str, str]
    left_over: list[str]

    def differences_from(self, expected: Content) -> list[str]:
        """What is missing, changed or too much, one line each."""
        lines = [f"left over: {name}" for name in self.left_over if name not in expected.left_over]
        for kind, mine, theirs in (
            ("archive", self.archive, expected.archive),
            ("artifact", self.artifacts, expected.artifacts),
        ):
            lines += [f"{kind} {name}: missing" for name in theirs.keys() - mine.keys()]
            lines += [f"{kind} {name}: too much" for name in mine.keys() - theirs.keys()]
            lines += [f"{kind} {name}: changed" for name in mine.keys() & theirs.keys() if mine[name] != theirs[name]]
        for table in self.target.keys() | expected.target.keys():
            rows, wanted = self.target.get(table, Counter()), expected.target.get(table, Counter())
            lines += [f"{table} {row}: missing" for row in (wanted - rows).elements()]
            lines += [f"{table} {row}: too much" for row in (rows - wanted).elements()]
        return sorted(lines)


class Undisturbed(NamedTuple):
    """A migration that nothing disturbed: what it left, and its I/O steps in one role."""

    content: Content
    steps: Steps


class Names(NamedTuple):
    """What the numbers that MLflow gives stand for: they depend on what is loaded first."""

    runs: dict[str, str]
    experiments: dict[int, str]


class Migration(FaultyCommand):
    """One migration of four runs with every type of field, from never-synced folders into an MLflow database."""

    def __init__(self, root: Path, source: Path, empty_database: Path, faults: Path) -> None:
        root.mkdir()
        super().__init__(root, faults)
        self.archive = ArchivePaths(str(self.root / "exports" / "data"), str(self.root / "exports" / "files"))
        self._source = source
        self.database = self.root / "mlflow.db"
        self.database.write_bytes(empty_database.read_bytes())

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "shardmig", "migrate", "--source", "neptune-local"),
            *(str(self._source / ".neptune"), str(self._source / ".neptune-scale"), "--project", PROJECT),
            *("--data-path", self.archive.data, "--files-path", self.archive.files),
            *("--target", "mlflow", "--mlflow-tracking-uri", f"sqlite:///{self.database}"),
            *("--workers", "1", "--no-progress"),
        ]

    def content(self) -> Content:
        """What is there now."""
        return Content(self._archive(), self._target(), self._artifacts(), self.left_over())

    def _archive(self) -> dict[str, object]:
        """Each file by its bytes; a part by its rows, and its receipt without the times of execution."""
        content: dict[str, object] = {}
        for file in _files(Path(self.archive.files)):
            content[f"files/{file.relative_to(self.archive.files)}"] = _digest(file.read_bytes())
        for file in _files(Path(self.archive.data)):
            name = file.relative_to(self.archive.data)
            if name.parts[0] != ".shardmig":
                content[f"data/{name}"] = _rows(file)
        reader = ArchiveReader(self.archive)
        for project in reader.projects():
            for run in reader.runs(project):
                receipt = reader.receipt(run)
                assert receipt is not None, f"{run.label} has no receipt"
                content[run.label] = msgspec.structs.replace(receipt, started_ms=0, ended_ms=0)
        return content

    def _target(self) -> dict[str, Counter[tuple[str, ...]]]:
        """Every row of every table of the database. What MLflow chooses at random is replaced by what it stands for."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as database:
            names = _names(database)
            tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
            return {table: Counter(self._rows(database, table, names)) for table in sorted(tables)}

    def _rows(self, database: sqlite3.Connection, table: str, names: Names) -> Iterator[tuple[str, ...]]:
        cursor = database.execute(f'select * from "{table}"')
        columns = [column for column, *_ in cursor.description]
        for row in cursor:
            yield tuple(
                f"{column}={names.experiments[value] if column == 'experiment_id' else self._named(value, names)}"
                for column, value in zip(columns, row, strict=True)
                if column not in _CHOSEN_AT_RANDOM or (column == "experiment_id" and table != "experiments")
            )

    def _named(self, value: object, names: Names) -> str:
        text = value.hex() if isinstance(value, float) else str(value)
        artifacts = re.escape(f"{self.root}/mlruns/") + r"(\d+)"
        text = re.sub(artifacts, lambda found: f"MLRUNS/{names.experiments[int(found[1])]}", text)
        for uuid, key in names.runs.items():
            text = text.replace(uuid, f"<{key}>")
        return text

    def _artifacts(self) -> dict[str, str]:
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as database:
            names = _names(database)
        return {self._named(file, names): _digest(file.read_bytes()) for file in _files(self.root / "mlruns")}


def _names(database: sqlite3.Connection) -> Names:
    experiments = database.execute("select experiment_id, name from experiments").fetchall()
    return Names(dict(database.execute(_KEY_OF_RUN).fetchall()), dict(experiments))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _rows(part: Path) -> str:
    """Digest of the schema and of every row, in their order."""
    table = pq.read_table(part)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.remove_metadata()) as stream:
        stream.write_table(table.replace_schema_metadata(None).combine_chunks())
    return _digest(sink.getvalue().to_pybytes())
