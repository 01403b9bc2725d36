"""One migrated run in Lightning, as what is read from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from shardmig.adapters.base import FileSink, Want
from shardmig.adapters.litlogger.answers import Stream, Summary
from shardmig.adapters.litlogger.cloud import Cloud
from shardmig.adapters.litlogger.drive import Drive
from shardmig.adapters.litlogger.facts import OWN_TAGS
from shardmig.adapters.litlogger.fit import LightningRules
from shardmig.adapters.litlogger.histories import Histories
from shardmig.adapters.litlogger.naming import LightningNaming
from shardmig.adapters.sidecar.fitting import Metrics
from shardmig.adapters.sidecar.manifest import Manifest
from shardmig.adapters.sidecar.reading import RunReader
from shardmig.adapters.sidecar.rules import Value
from shardmig.errors import BadInput
from shardmig.records import Field, LoadOptions, Piece

_RULES: Final = LightningRules(LoadOptions(), LightningNaming())
"""For reading: neither names nor steps are fitted."""


def read_run(cloud: Cloud, stream: Stream, drive: Drive, want: Want, files: FileSink) -> Iterator[Piece]:
    """The pieces of one run in canonical order; see `run_reader`."""
    with run_reader(cloud, stream, drive, want) as reader:
        yield from reader.pieces(files)


@contextmanager
def run_reader(cloud: Cloud, stream: Stream, drive: Drive, want: Want) -> Iterator[RunReader]:
    """Of one run. Raises NotFound when its manifest is gone, BadInput when Lightning does not give all points that it
    counts."""
    held = _Held(cloud, stream)
    try:
        with TemporaryDirectory(prefix="shardmig-") as staging:
            yield RunReader(held, drive, want, Path(staging), _RULES)
    finally:
        held.close()


class _Held:
    """`HeldRun` of an experiment."""

    def __init__(self, cloud: Cloud, stream: Stream) -> None:
        self._cloud = cloud
        self._stream = stream
        self.id = stream.name

    @cached_property
    def _summaries(self) -> dict[str, Summary]:
        return self._cloud.summaries(self._stream)

    @cached_property
    def _histories(self) -> Histories:
        return Histories(self._cloud, self._stream, self._summaries)

    def values(self) -> Mapping[str, Value]:
        return {name: value for name, value in self._stream.metadata.items() if name not in OWN_TAGS}

    def series_keys(self) -> Iterable[str]:
        return self._summaries

    def points(self, keys: Sequence[str], rows: int) -> Iterator[Metrics]:
        yield from self._histories.points(keys, rows)
        for key, count in self._histories.short.items():
            raise BadInput(f"{self.id}: Lightning does not give {count} points of {key} that it counts")

    def held_fields(self, manifest: Manifest) -> Iterable[Field]:  # noqa: ARG002 (every scalar is in the metadata)
        return ()

    def close(self) -> None:
        if "_histories" in self.__dict__:
            self._histories.close()
