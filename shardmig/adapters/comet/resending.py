"""What a server does not show of what it was sent, and the archive that sends it again."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec

from shardmig.adapters.comet.lines import Plain
from shardmig.adapters.comet.offline import ArchivedExperiment
from shardmig.adapters.comet.writer import ArchiveWriter


class Lacks(NamedTuple):
    """Names of what is missing; `points` says it in words."""

    params: AbstractSet[str] = frozenset()
    others: AbstractSet[str] = frozenset()
    tags: AbstractSet[str] = frozenset()
    assets: AbstractSet[str] = frozenset()
    points: str = ""

    def __str__(self) -> str:
        kinds = {"parameters": self.params, "facts": self.others, "tags": self.tags, "assets": self.assets}
        told = [f"{len(names)} {kind}, one of them {min(names)!r}" for kind, names in kinds.items() if names]
        return "; ".join([*told, self.points] if self.points else told)


def resent(sent: ArchivedExperiment, lacks: Lacks, folder: Path) -> Path:
    """An archive of all that is missing but the points, in `folder`; tags are in every archive. Sending it twice leaves
    what sending it once does. Raises DiskFull."""
    again = folder / "again"
    again.mkdir(exist_ok=True)
    writer = ArchiveWriter(again, msgspec.structs.replace(sent.file), points_per_archive=1)
    with closing(writer):
        writer.add_params({name: _plain(value) for name, value in sent.values().items() if name in lacks.params})
        writer.add_others({name: value for name, value in sent.about().others.items() if name in lacks.others})
        for name in sorted(lacks.assets):
            with sent.opened(name) as (asset, content):
                writer.add_content(content, asset)
        [archive] = writer.finish()
    return archive


def _plain(value: Plain | list[str]) -> Plain:
    return str(value) if isinstance(value, list) else value
