"""What a transaction log says of its run: any log that the vendor's protobuf classes can decode."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from shardmig.adapters.wandb.history import STEP
from shardmig.adapters.wandb.log import LogReader
from shardmig.adapters.wandb.records import messages
from shardmig.adapters.wandb.scan import Row

Tree = dict[str, Any]
"""JSON values by key, nested."""


class RunLog:
    """One log. Each method reads it from the beginning. `damaged`, `is_cut`, `unknown`: of the last complete reading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        self.is_cut = False
        self.unknown = 0

    def records(self) -> Iterator[Any]:
        """Every record that can be decoded, as the vendor's `Record`."""
        from google.protobuf.message import DecodeError

        record_of = messages().Record
        reader = LogReader(self.path)
        unknown = 0
        for payload in reader:
            record = record_of()
            try:
                record.ParseFromString(payload)
            except DecodeError:
                unknown += 1
                continue
            yield record
        self.damaged, self.is_cut, self.unknown = reader.damaged, reader.is_cut, unknown

    @property
    def is_damaged(self) -> bool:
        """Was anything left out at the last complete reading?"""
        return bool(self.damaged or self.is_cut or self.unknown)

    def run(self) -> Any:
        """The first run record; None: there is none."""
        return next((record.run for record in self.records() if record.WhichOneof("record_type") == "run"), None)

    def rows(self) -> Iterator[Row]:
        """The rows of the history."""
        return (row_of(record.history) for record in self.records() if record.WhichOneof("record_type") == "history")

    def exit_code(self) -> int | None:
        """How the run ended; None: its log does not say."""
        codes = [record.exit.exit_code for record in self.records() if record.WhichOneof("record_type") == "exit"]
        return codes[-1] if codes else None


def row_of(history: Any) -> Row:
    """A history record as JSON texts by key; nested keys are put together again."""
    items: list[tuple[str, str]] = []
    nested: Tree = {}
    step = history.step.num
    for item in history.item:
        text = item.value_json or _typed_text(item)
        if len(item.nested_key) > 1:
            put(nested, item.nested_key, parsed(text))
            continue
        key = item.key or "".join(item.nested_key)
        if key == STEP and not history.HasField("step"):
            step = int(float(text))
        items.append((key, text))
    items += [(key, json.dumps(value)) for key, value in nested.items()]
    return Row(step, items)


def put(tree: Tree, keys: Iterable[str], value: Any) -> None:
    """Set a value below nested keys; a value that stands in the way is replaced, as wandb does."""
    *folders, last = keys
    for folder in folders:
        below = tree.get(folder)
        if not isinstance(below, dict):
            below = tree[folder] = {}
        tree = below
    tree[last] = value


def remove(tree: Tree, keys: Iterable[str]) -> None:
    """Remove what is below nested keys, if anything is."""
    *folders, last = keys
    for folder in folders:
        below = tree.get(folder)
        if not isinstance(below, dict):
            return
        tree = below
    tree.pop(last, None)


def update(tree: Tree, record: Any) -> None:
    """Apply a config or summary record."""
    for item in record.update:
        put(tree, item.nested_key or [item.key], parsed(item.value_json))
    for item in record.remove:
        remove(tree, item.nested_key or [item.key])


def parsed(text: str) -> Any:
    """A JSON text as Python writes it: NaN and Infinity are numbers. A text that is none is itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _typed_text(item: Any) -> str:
    """The value of an item that has no JSON text (wandb 0.31 declares typed values)."""
    kind = item.WhichOneof("value")
    if kind == "number":
        value = item.number
        return repr(value) if math.isfinite(value) else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    if kind == "integer":
        return str(item.integer)
    if kind == "boolean":
        return "true" if item.boolean else "false"
    if kind == "text":
        return json.dumps(item.text)
    return str(item.json) if kind == "json" and item.json else "null"
