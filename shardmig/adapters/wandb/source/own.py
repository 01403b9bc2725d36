"""What of a run in W&B shardmig itself wrote: what its manifest names, the forms that are shown of it, and what W&B derives
from that. All else was added by people."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from shardmig.adapters.base import FACT_NAMESPACES
from shardmig.adapters.names import digest_of
from shardmig.adapters.sidecar.manifest import Manifest, forced_key
from shardmig.adapters.sidecar.naming import OWN_FOLDER
from shardmig.adapters.sidecar.rules import Value
from shardmig.adapters.wandb.facts import Block, RunFacts
from shardmig.adapters.wandb.held import RULES, Held
from shardmig.adapters.wandb.naming import BLOCK, WandbNaming
from shardmig.adapters.wandb.runlog import parsed
from shardmig.adapters.wandb.source.spools import Entry, EntrySpool
from shardmig.records import Chunk, HistogramPoints

DERIVED: Final = frozenset({"config.yaml", "wandb-summary.json"})
"""Files that wandb makes of config and summary."""
_TABLE: Final = re.compile(r"media/table/.*~([0-9a-f]{16})(\.[^/]*)?\.table\.json")
"""The digest is that of the series, however the name before it was made."""


class Met:
    """`Beside` of a run that was brought: what its history holds beside numbers. `folder`: an empty one of its own."""

    def __init__(self, folder: Path) -> None:
        self._spool = EntrySpool(folder)
        self.last: dict[str, str] = {}
        """By key, the last text."""
        self.inexact: list[tuple[str, int]] = []

    def take(self, step: int, time_ms: int, key: str, text: str) -> None:
        """As Beside."""
        self._spool.add((key, "string_series"), Entry(step, time_ms, text))
        self.last[key] = text

    def take_inexact(self, key: str, number: int) -> None:
        """As Beside."""
        self.inexact.append((key, number))

    def keys(self) -> list[str]:
        """The keys of the history, sorted."""
        return [key for key, _ in self._spool.keys()]  # noqa: SIM118 (no mapping)

    def entries(self, key: str) -> Iterator[Entry]:
        """What was met of one key, in its order."""
        return self._spool.entries((key, "string_series"))


class Own:
    """Of one run. `met`: takes what its history has beside numbers. Memory: its manifest."""

    def __init__(self, manifest: Manifest, held: Held, block: Block, met: Met) -> None:
        self.met = met
        self.keys = {BLOCK} | {entry.key for entry in manifest.params}
        """Of the config."""
        self.values = held.values()
        self.gone = [entry for entry in manifest.params if entry.key not in self.values]
        """Scalars that the config has no more."""
        self.job_type = block.job_type
        self.facts = _facts(manifest, self.values)
        self._held = held
        self._files = manifest.artifacts
        self._series = manifest.metrics
        self.multiplier = manifest.step_multiplier
        self._tables = {digest_of(one.path) for one in manifest.series if one.type == "string_series"}
        self._histograms = dict(_histogram_keys(manifest))
        self._last_steps: dict[str, Decimal] = {}

    def learn(self, chunk: Chunk) -> None:
        """Some of the run itself: up to which steps it has histograms."""
        if isinstance(chunk, HistogramPoints):
            for path, points in chunk.series():
                self._last_steps[path] = max(points.steps[-1:].to_decimals())

    def series_of(self, key: str) -> str:
        """The field of a float series."""
        return self._series.get(key, key)

    def has_file(self, path: str) -> bool:
        """Is it a run file of shardmig's, or one that W&B makes of that?"""
        return path in self._files or path in DERIVED or path.startswith(f"{OWN_FOLDER}/") or self._is_table(path)

    def shows(self, key: str, step: int, text: str) -> bool:
        """Is it how shardmig shows histograms, texts or files in the history? Of a series of histograms that was not read,
        nobody knows which were added."""
        value = parsed(text)
        if not isinstance(value, dict):
            return False
        if value.get("_type") == "histogram" and key in self._histograms:
            last = self._last_steps.get(self._histograms[key])
            return last is None or step <= math.ceil(last * self.multiplier)
        return self._is_shown_file(value)

    def without_derived(self, summary: Mapping[str, Any], folder: str = "") -> dict[str, Any]:
        """Of a summary, what is neither the last value of a series nor a shown form."""
        left: dict[str, Any] = {}
        for name, value in summary.items():
            key = folder + name
            if isinstance(value, dict) and value and "_type" not in value:
                if below := self.without_derived(value, f"{key}."):
                    left[name] = below
            elif not self._is_derived(key, value):
                left[name] = value
        return left

    def _is_derived(self, key: str, value: Any) -> bool:
        last = self._held.last_values.get(key)
        if last is not None and isinstance(value, int | float) and not isinstance(value, bool):
            return _is_same(value, last)
        if key in self.met.last and parsed(self.met.last[key]) == value:
            return True
        is_histogram = isinstance(value, dict) and value.get("_type") == "histogram"
        return (is_histogram and key in self._histograms) or (isinstance(value, dict) and self._is_shown_file(value))

    def _is_shown_file(self, value: Mapping[str, Any]) -> bool:
        path = value.get("path")
        return isinstance(path, str) and (path in self._files or self._is_table(path))

    def _is_table(self, path: str) -> bool:
        found = _TABLE.fullmatch(path)
        return found is not None and found[1] in self._tables


def _is_same(value: float, last: float) -> bool:
    """Is it that double, however it was written? Go writes 2.0**60 with other digits than Python, and without exponent."""
    try:
        number = float(value)
    except OverflowError:
        return math.isinf(last)
    return number == last or (math.isnan(number) and math.isnan(last))


def _facts(manifest: Manifest, values: Mapping[str, Value]) -> RunFacts:
    """What W&B was told of the run itself."""
    facts = RunFacts(manifest.run)
    held = [entry for entry in manifest.params if entry.path.startswith(FACT_NAMESPACES) and entry.key in values]
    facts.learn(RULES.field_of(entry.path, entry.type, values[entry.key]) for entry in held)
    return facts


def _histogram_keys(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """The keys that series of histograms may have in the history, with their paths."""
    naming = WandbNaming()
    for one in manifest.series:
        if one.type == "histogram_series":
            yield naming.key(one.path), one.path
            yield forced_key(naming, one.path, one.type), one.path
