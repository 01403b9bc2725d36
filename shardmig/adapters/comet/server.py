"""A Comet server as the place where runs are kept: archives sent by the vendor's uploader, and read back before they count."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

import numpy as np

from shardmig.adapters.comet.experiment import Experiment, Mark
from shardmig.adapters.comet.fit import LEAST_SHOWN, MAX_POINTS
from shardmig.adapters.comet.offline import ArchivedExperiment
from shardmig.adapters.comet.options import CometOptions
from shardmig.adapters.comet.remote import NOT_THERE, Asset, RemoteExperiment
from shardmig.adapters.comet.resending import Lacks, resent
from shardmig.adapters.comet.rest import RestClient
from shardmig.adapters.comet.sampled import WholeExperiment
from shardmig.adapters.comet.upload import is_about_points, upload
from shardmig.adapters.sidecar import provenance
from shardmig.adapters.sidecar.fitting import value_bits
from shardmig.adapters.sidecar.reading import HeldRun
from shardmig.adapters.staging import staging_folder
from shardmig.errors import NotFound, Unavailable
from shardmig.records import Finding, Int64s

_FIRST_LOOK_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 10.0
_MOST_RESENDS: Final = 3
_MOST_COMPLAINTS: Final = 5
_ROWS: Final = 100_000
_LONGEST_ERROR: Final = 200


class CometServer:
    """`Place` on a server."""

    marks_afterwards = True

    def __init__(self, options: CometOptions) -> None:
        self._options = options
        self._api_key = options.api_key()
        self._client = RestClient(options)

    def staging(self, key: str) -> AbstractContextManager[Path]:  # noqa: ARG002 (a folder needs it)
        """As Place."""
        return staging_folder()

    def find(self, key: str) -> Mark | None:
        """As Place."""
        others = self._others(key)
        if provenance.KEY not in others:
            return None
        is_complete = others.get(provenance.STATE) == provenance.COMPLETE
        return Mark(others[provenance.KEY], others.get(provenance.DIGEST, ""), is_complete)

    def open(self, key: str) -> RemoteExperiment:
        """As Place."""
        experiment = RemoteExperiment(self._client, key)
        experiment.look_up()
        return experiment

    def whole(self, experiment: Experiment, staging: Path) -> HeldRun:
        """As Place."""
        return WholeExperiment(experiment, staging)

    def keep(self, key: str, archives: Sequence[Path], *, replaces: bool) -> list[Finding]:
        """As Place: send, then read back until everything is there; what stays away and is not doubled by sending it again
        is sent again. Raises Unavailable when that does not help: the experiment is not marked complete, and the next
        attempt begins anew. A key names one experiment at a time, so one that is replaced goes before the new one comes; where
        that fails, the error says so."""
        self.discard(key)
        with provenance.in_place_of(f"experiment {key}" if replaces else ""):
            return self._bring(key, archives)

    def _bring(self, key: str, archives: Sequence[Path]) -> list[Finding]:
        sent = ArchivedExperiment(key, archives, archives[-1])
        with closing(sent):
            complaints = [complaint for archive in archives for complaint in self._send(archive, sent)]
            resends = 0
            may_be_sampled = not any(map(is_about_points, complaints))
            while lacks := self._settled(sent, may_be_sampled=may_be_sampled):
                if lacks.points or resends == _MOST_RESENDS:  # what arrived of points cannot be taken back
                    break
                complaints += self._send(resent(sent, lacks, archives[-1].parent), sent)
                resends += 1
            else:
                return self._shown_error(sent) if complaints else []
        said = f"; the vendor's uploader said: {' | '.join(complaints[:_MOST_COMPLAINTS])}" if complaints else ""
        raise Unavailable(f"Comet does not show what was sent: {lacks}{said}")

    def add_others(self, key: str, others: Mapping[str, str]) -> None:
        """As Place."""
        for name, value in others.items():
            self._client.post("write/experiment/log-other", {"experimentKey": key, "key": name, "value": value})

    def discard(self, key: str) -> None:
        """As Place."""
        try:
            self.open(key)
            self._client.get("write/experiment/delete", object, experimentKey=key)
        except NotFound:
            return

    def url(self, key: str) -> str:
        """As Place; "" when it is not there."""
        try:
            metadata = self.open(key).metadata
        except NotFound:
            return ""
        where = (metadata.workspace_name or "", metadata.project_name or "", key)
        return "/".join([self._options.root, *(quote(part, safe="") for part in where)])

    def close(self) -> None:
        """As Place."""
        self._client.close()

    def _others(self, key: str) -> Mapping[str, str]:
        try:
            return RemoteExperiment(self._client, key).others
        except NOT_THERE:
            return {}

    def _send(self, archive: Path, sent: ArchivedExperiment) -> list[str]:
        workspace, project = sent.file.workspace, sent.file.project_name or ""
        return upload(archive, api_key=self._api_key, url=self._options.url, workspace=workspace, project=project)

    def _shown_error(self, sent: ArchivedExperiment) -> list[Finding]:
        """Where a request failed, the uploader notes that as the error of the experiment, and nothing takes it back."""
        shown = self.open(sent.id).metadata.error
        if not shown or shown == sent.file.customer_error_message:
            return []
        return [
            Finding(
                "note", "error-shown", detail=f"all arrived, but Comet shows an error: {str(shown)[:_LONGEST_ERROR]}"
            )
        ]

    def _settled(self, sent: ArchivedExperiment, *, may_be_sampled: bool) -> Lacks | None:
        """What the server does not show when it had time to; None = nothing. may_be_sampled: of a long series fewer points than
        were sent are a sample of them."""
        deadline_s = time.monotonic() + self._options.settle_s
        pause_s = _FIRST_LOOK_S
        unseen = set(sent.series_keys())
        while lacks := self._lacks(sent, unseen, may_be_sampled=may_be_sampled):
            if time.monotonic() >= deadline_s:
                return lacks
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return None

    def _lacks(self, sent: ArchivedExperiment, unseen: set[str], *, may_be_sampled: bool) -> Lacks | None:
        """What the server does not show of what was sent; None = nothing. Metrics found equal leave `unseen`."""
        held = RemoteExperiment(self._client, sent.id)
        try:
            about, wanted = held.about(), sent.about()
            values, assets = held.values(), {name: held.find_asset(name) for name in sent.asset_sizes()}
        except NOT_THERE as error:
            return Lacks(points=error.message)
        lacks = Lacks(
            params=sent.values().keys() - values.keys(),
            others={key for key, value in wanted.others.items() if about.others.get(key) != value},
            tags=set(wanted.tags) - set(about.tags),
            assets={name for name, size in sent.asset_sizes().items() if _size_of(assets[name]) != size},
            points=self._missing_points(sent, held, unseen, may_be_sampled=may_be_sampled),
        )
        return lacks if any(lacks) else None

    def _missing_points(
        self, sent: ArchivedExperiment, held: RemoteExperiment, unseen: set[str], *, may_be_sampled: bool
    ) -> str:
        expected = _prints(sent, [key for key in sent.series_keys() if key in unseen])
        for key, (count, digest) in expected.items():
            found = _prints(held, [key]).get(key, (0, 0))
            is_sample = may_be_sampled and count > MAX_POINTS and LEAST_SHOWN <= found[0] < count
            if found != (count, digest) and not is_sample:
                return f"{count} points of {key}, of which it has {found[0]}, or others"
            unseen.discard(key)
        return ""


def _size_of(asset: Asset | None) -> int | None:
    return None if asset is None else asset.file_size


def _prints(experiment: Experiment, keys: Sequence[str]) -> dict[str, tuple[int, int]]:
    """How many points each metric has, and a sum over them that does not depend on their order."""
    found: dict[str, tuple[int, int]] = {}
    for metrics in experiment.points(keys, _ROWS):
        rows = metrics.points()
        marks = _mixed(_mixed(_mixed(rows.steps) ^ rows.times_ms) ^ value_bits(rows.values))
        for key, part in metrics.spans():
            count, total = found.get(key, (0, 0))
            found[key] = (count + part.stop - part.start, (total + int(marks[part].sum())) % 2**64)
    return found


def _mixed(numbers: Int64s) -> Int64s:
    """Each number in another 64-bit number, so that sums of them tell sets apart."""
    bits = numbers.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    bits ^= bits >> np.uint64(29)
    return (bits * np.uint64(0xBF58476D1CE4E5B9)).view(np.int64)
