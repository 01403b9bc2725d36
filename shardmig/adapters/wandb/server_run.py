"""One run on a W&B server."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import msgspec

from shardmig.adapters.wandb.connection import Connection, requests
from shardmig.adapters.wandb.facts import Block, HeldFacts
from shardmig.adapters.wandb.folder import block_of
from shardmig.adapters.wandb.history import STEP
from shardmig.adapters.wandb.naming import BLOCK
from shardmig.adapters.wandb.queries import FILES, RUN
from shardmig.adapters.wandb.scan import Row
from shardmig.adapters.wrappers import retrying
from shardmig.errors import AdapterError, NotFound, Unavailable
from shardmig.records import TargetRunId

_FILES_IN_PAGE: Final = 500
_WANTED_VALUES: Final = 200_000
_FIRST_PAGE: Final = 100
_MOST_STEPS: Final = 2**31 - 1
"""One page covers at most so many steps: W&B's page size is a 32-bit integer."""


_LAST_STEP: Final = 2**63 - 2**32
_MD5_LENGTH: Final = 24
_ODD: Final = frozenset({'"NaN"', '"Infinity"', '"-Infinity"'})
_HAS_ODD: Final = re.compile('"(NaN|-?Infinity)"')


class ServerFile(msgspec.Struct, frozen=True):
    """One run file as the server lists it."""

    name: str
    url: str
    size_bytes: int
    md5: str

    def is_copied_to(self, file: Path) -> bool:
        """Has a local file its content, as far as the server tells? (A size of 0 may stand for one that is not known.)"""
        if self.size_bytes and file.stat().st_size != self.size_bytes:
            return False
        return len(self.md5) != _MD5_LENGTH or md5_of(file) == self.md5


class ServerRun:
    """A run of a server as StoredRun. `node`: what the server says of it."""

    def __init__(self, connection: Connection, entity: str, project: str, node: dict[str, Any]) -> None:
        self._connection = connection
        self.entity = entity
        self.project = project
        self.name = str(node["name"])
        self.node = node
        self.superseded: Sequence[TargetRunId] = ()

    @property
    def id(self) -> TargetRunId:
        """As StoredRun: as W&B itself writes it."""
        return TargetRunId(f"{self.entity}/{self.project}/{self.name}")

    @property
    def row_count(self) -> int:
        """How many rows of history the server has."""
        return int(self.node.get("historyLineCount") or 0)

    @property
    def raw_config(self) -> dict[str, Any]:
        """The config as the server has it: `{"value": …}` by key."""
        tree: dict[str, Any] = json.loads(self.node.get("config") or "{}")
        return tree

    @property
    def block(self) -> Block | None:
        """As StoredRun."""
        return block_of(self.config().get(BLOCK), self.name)

    @property
    def is_complete(self) -> bool:
        """Did shardmig write it, to its end?"""
        return self.block is not None and self.block.is_complete

    def config(self) -> dict[str, Any]:
        """As StoredRun."""
        return {
            key: held["value"] for key, held in self.raw_config.items() if isinstance(held, dict) and "value" in held
        }

    def facts(self) -> HeldFacts:
        """As StoredRun."""
        node = self.node
        return HeldFacts(
            name=node.get("displayName") or "",
            project=self.project,
            state=node.get("state") or "",
            group=node.get("group") or "",
            notes=node.get("notes") or "",
            job_type=node.get("jobType") or "",
            tags=sorted(node.get("tags") or []),
        )

    def rows(self) -> Iterator[Row]:
        """As StoredRun: complete, by scan, in pages of about 200,000 values however far apart the steps are. Raises
        Unavailable where the server gives fewer rows than it counts."""
        if not self.row_count:
            return
        scan = _Scan(self._connection, self.entity, self.project, self.name)
        try:
            yield from self._scanned(scan)
        finally:
            scan.close()

    def _scanned(self, scan: _Scan) -> Iterator[Row]:
        seen, start, width, wanted = 0, 0, _FIRST_PAGE, _FIRST_PAGE
        while seen < self.row_count:
            width = _MOST_STEPS if self.row_count - seen <= wanted else width
            rows = scan.page(start, start + width)
            yield from rows
            seen += len(rows)
            if rows or width < _MOST_STEPS:
                start += width
                wanted = _rows_in_page(rows) if rows else wanted
                width = min(_MOST_STEPS, width * 4, max(1, width * wanted // max(1, len(rows))))
            elif (found := scan.next_step(start)) is not None:
                start = found
            else:
                raise Unavailable(f"W&B counts {self.row_count} rows in {self.id} and gives {seen}")

    @cached_property
    def listed(self) -> dict[str, ServerFile]:
        """Its run files by path."""
        asked = {"entity": self.entity, "project": self.project, "name": self.name, "fileLimit": _FILES_IN_PAGE}
        found: dict[str, ServerFile] = {}
        cursor = None
        while True:
            answer = self._connection.ask(FILES, asked | {"fileCursor": cursor})
            run = (answer.get("project") or {}).get("run")
            if run is None:
                raise NotFound(f"run {self.id} does not exist")
            for edge in run["files"]["edges"]:
                node = edge["node"]
                size_bytes = int(node["sizeBytes"] or 0)
                found[node["name"]] = ServerFile(node["name"], node["url"], size_bytes, node.get("md5") or "")
            if not run["files"]["pageInfo"]["hasNextPage"]:
                return found
            cursor = run["files"]["pageInfo"]["endCursor"]

    def get(self, path: str, file: Path) -> None:
        """As StoredRun. Raises Unavailable where the server gives something else than it lists."""
        retrying(lambda: self._get_once(path, file))

    def _get_once(self, path: str, file: Path) -> None:
        known = self.listed.get(path)
        if known is None:
            raise NotFound(f"run {self.id} has no file {path}")
        self._connection.fetch(known.url, known.size_bytes, file)
        if not known.is_copied_to(file):
            del self.listed  # it may have been written to since
            file.unlink()
            raise Unavailable(f"W&B gives {path} of {self.id} otherwise than it lists it")


def md5_of(file: Path) -> str:
    """As W&B tells it: base64."""
    digest = hashlib.md5(usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return base64.b64encode(digest.digest()).decode()


def _rows_in_page(rows: list[Row]) -> int:
    """How many rows like these a page should have."""
    return max(1, _WANTED_VALUES * len(rows) // max(1, sum(len(row.items) for row in rows)))


def run_of(connection: Connection, run_id: TargetRunId) -> ServerRun:
    """A run by its id: entity, project and run. Raises NotFound."""
    entity, _, rest = run_id.partition("/")
    project, _, name = rest.rpartition("/")
    answer = connection.ask(RUN, {"entity": entity, "project": project, "name": name})
    node = (answer.get("project") or {}).get("run")
    if node is None:
        raise NotFound(f"W&B has no run {run_id}")
    return ServerRun(connection, entity, project, node)


class _Scan:
    """The vendor's own scan of a history: rows that the server has exported, and live ones."""

    def __init__(self, connection: Connection, entity: str, project: str, name: str) -> None:
        self._api = requests()
        self._connection = connection
        self._run = {"entity": entity, "project": project, "run_id": name}
        self._number = retrying(self._open)

    def page(self, start: int, stop: int) -> list[Row]:
        """The rows of the steps from start to before stop."""
        answer = retrying(lambda: self._asked(start, stop))
        return [
            _row([(item.key, _plain(item.value_json)) for item in row.history_items])
            for row in answer.read_run_history_response.run_history.history_rows
        ]

    def close(self) -> None:
        """Let wandb-core forget what it holds for the scan, which it would hold as long as it executes."""
        api = self._api
        end = api.ScanRunHistoryCleanup(request_id=self._number)
        with suppress(AdapterError):
            self._connection.send(
                api.ApiRequest(read_run_history_request=api.ReadRunHistoryRequest(scan_run_history_cleanup=end))
            )

    def next_step(self, start: int) -> int | None:
        """A step at or shortly before the next row: by halving, where rows lie billions of steps apart. None: there is no
        further row."""
        first, last = start, _LAST_STEP
        if not self._has_rows(first, last):
            return None
        while last - first > _MOST_STEPS:
            middle = (first + last) // 2
            if self._has_rows(first, middle):
                last = middle
            else:
                first = middle
        return first

    def _has_rows(self, start: int, stop: int) -> bool:
        query = """query ShardmigAny($entity: String!, $project: String!, $run: String!, $minStep: Int64!, $maxStep: Int64!) {
            project(name: $project, entityName: $entity) {
                run(name: $run) { history(minStep: $minStep, maxStep: $maxStep, samples: 1) }
            }
        }"""
        asked = {"entity": self._run["entity"], "project": self._run["project"], "run": self._run["run_id"]}
        answer = self._connection.ask(query, asked | {"minStep": start, "maxStep": stop})
        return bool(((answer.get("project") or {}).get("run") or {}).get("history"))

    def _open(self) -> int:
        api = self._api
        begin = api.ScanRunHistoryInit(**self._run, use_cache=False)
        answer = self._connection.send(
            api.ApiRequest(read_run_history_request=api.ReadRunHistoryRequest(scan_run_history_init=begin))
        )
        return int(answer.read_run_history_response.scan_run_history_init.request_id)

    def _asked(self, start: int, stop: int) -> Any:
        api = self._api
        page = api.ScanRunHistory(min_step=start, max_step=stop, request_id=self._number)
        return self._connection.send(
            api.ApiRequest(read_run_history_request=api.ReadRunHistoryRequest(scan_run_history=page))
        )


def _row(items: list[tuple[str, str]]) -> Row:
    step = next((text for key, text in items if key == STEP), "0")
    return Row(int(step) if step.lstrip("-").isdigit() else int(float(step)), items)


def _plain(text: str) -> str:
    """A JSON text as a log has it: a server gives numbers that JSON does not have as texts (as W&B's API does, documented)."""
    if text.startswith("{") and _HAS_ODD.search(text):
        return json.dumps(with_numbers(json.loads(text)))
    return text[1:-1] if text in _ODD else text


def with_numbers(value: Any) -> Any:
    """A JSON value whose texts that stand for such numbers are numbers."""
    if isinstance(value, dict):
        return {name: with_numbers(below) for name, below in value.items()}
    if isinstance(value, list):
        return [with_numbers(one) for one in value]
    return float(value) if isinstance(value, str) and f'"{value}"' in _ODD else value
